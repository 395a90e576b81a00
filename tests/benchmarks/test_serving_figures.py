"""What the tables are made of: ratios inside a round, h2load's log, and servers that are not there."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving import environments
from benchmarks.serving.contenders import BARE, RAW, contenders
from benchmarks.serving.environments import PEERS, NotInstalledError
from benchmarks.serving.generators import Sample, _read
from benchmarks.serving.measuring import Result, Series
from benchmarks.serving.networks import NETWORKS
from benchmarks.serving.processes import Process, free_port
from benchmarks.serving.tables import document, show

pytestmark = pytest.mark.source

SUMMARY = (
    "requests: 4 total, 4 started, 4 done, 4 succeeded, 0 failed\n"
    "traffic: 9B (9) total, 1B (1) headers, {data}B ({data}) data"
)


def series(*rates: int) -> Series:
    found = Series()
    for rate in rates:
        found.add(Sample(rate, 0, 1.0, 10.0, 20.0, 0.1), 0.5)
    return found


def test_a_ratio_is_taken_inside_a_round() -> None:
    assert series(100, 10, 50).ratio_to(series(200, 20, 200)) == 0.5


def test_the_log_of_h2load_gives_rate_and_percentiles() -> None:
    lines = ["0\t200\t1000", "500000\t200\t3000", "600000\t200\t2000", "999000\t200\t1000"]
    found = _read(SUMMARY.format(data=400), lines, 100, 1, 0.5)
    assert (found.answers, found.errors, found.seconds, found.load_cpu_share) == (4, 0, 1.0, 0.5)
    assert (found.p50_us, found.p99_us) == (1000.0, 3000.0)


def test_answers_without_a_message_are_errors() -> None:
    found = _read(SUMMARY.format(data=100), ["0\t200\t10"] * 4, 100, 1, 0.0)
    assert (found.answers, found.errors) == (1, 3)


def test_other_statuses_of_http_are_errors() -> None:
    found = _read(SUMMARY.format(data=100), ["0\t200\t10", "0\t500\t10"], 100, 1, 0.0)
    assert (found.answers, found.errors) == (1, 1)


def test_a_peer_that_is_not_installed_is_a_line_of_the_table(tmp_path: Path, capsys) -> None:
    network = NETWORKS["mlp"]
    model = tmp_path / "mlp" / "1" / "model.onnx"
    entrants = contenders(network, model, np.zeros(10, np.float32), list(PEERS), tmp_path)
    missing = {one.title: one.missing for one in entrants if one.missing}
    assert set(missing.values()) == {"not installed"}
    assert len(missing) == len(PEERS)
    result = Result(network, missing=missing)
    result.series[8] = {RAW: series(100), BARE: series(50)}
    show(result)
    assert "not installed" in capsys.readouterr().out
    assert document(result)["callers"]["8"][BARE]["rate_to_raw"] == 0.5


def test_an_environment_that_was_interrupted_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "mlserver" / "bin").mkdir(parents=True)
    with pytest.raises(NotInstalledError):
        environments.find(PEERS["mlserver"], tmp_path)


def test_every_peer_has_a_runner() -> None:
    assert all(peer.runner.is_file() for peer in PEERS.values())


@pytest.mark.system
def test_whatever_a_server_started_is_counted_and_ended(tmp_path: Path) -> None:
    command = ["sh", "-c", "setsid sleep 600 & exec sleep 600"]
    process = Process(command, tmp_path / "log")
    try:
        while len(process.members()) < 2:
            assert not process.has_ended
        assert process.memory().rss_megabytes > 0
    finally:
        process.end()
    assert process.members() == []
    assert free_port() > 0
