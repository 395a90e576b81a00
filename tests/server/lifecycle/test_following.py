"""The whole lifecycle on real folders with fake runtimes, step by step: what is served follows the disk."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from flyweight.server.runtime.fake import FakeRuntime

if TYPE_CHECKING:
    from conftest import Bench

X = np.ones((1, 4), np.float32)


def scale_of(path: Path) -> FakeRuntime:
    """Make a fake that passes the golden check of any tiny model: 3 for int8, else 2."""
    return FakeRuntime(scale=3.0 if path.parent.name == "int8" else 2.0)


@pytest.fixture(autouse=True)
def answering_fakes(bench: "Bench") -> None:
    bench.factory._make = scale_of


def traffic(bench: "Bench", text: str) -> None:
    (bench.root / "tiny" / "traffic.yaml").write_text(text)


def test_what_is_there_at_the_start_is_loaded_baseline_first(bench: "Bench", repository: Path) -> None:
    bench.settle()
    assert bench.ready() == ["baseline", "int8"]
    assert bench.diary.without_scans() == [
        "load tiny/baseline",
        "plan tiny baseline=1",
        "load tiny/int8",
        "plan tiny baseline=1",
    ]
    assert bench.states() == {"tiny/baseline": "READY", "tiny/int8": "READY"}
    assert bench.board.is_settled()


def test_a_variant_that_comes_later_is_loaded_beside_and_gets_no_traffic(
    bench: "Bench", publish: Any
) -> None:
    publish("baseline", 2.0)
    bench.settle()
    publish("int8", 3.0, parent="baseline")
    bench.scan()
    bench.work()
    assert bench.ready() == ["baseline", "int8"]
    assert bench.weights() == {"baseline": 1.0}


def test_traffic_follows_its_file_without_a_load(bench: "Bench", repository: Path) -> None:
    bench.settle()
    traffic(bench, "split: {baseline: 50, int8: 50}")
    bench.scan(2)
    assert bench.weights() == {"baseline": 0.5, "int8": 0.5}
    assert bench.work() == 0
    (bench.root / "tiny" / "traffic.yaml").unlink()
    bench.scan(2)
    assert bench.weights() == {"baseline": 1.0}


def test_a_bad_traffic_file_keeps_the_last_good_plan_and_is_told_once(
    bench: "Bench", repository: Path
) -> None:
    traffic(bench, "split: {baseline: 50, int8: 50}")
    bench.settle()
    traffic(bench, "split: {baseline: 50, int8: 60}")
    bench.scan(5)
    assert bench.weights() == {"baseline": 0.5, "int8": 0.5}
    assert bench.diary.lines.count("plan error tiny") == 1
    assert "add up to 110" in bench.reason("tiny")
    traffic(bench, "split: {baseline: 90, int8: 10}")
    bench.scan(2)
    assert bench.weights() == {"baseline": 0.9, "int8": 0.1}
    assert "tiny/" not in bench.states()


def test_a_removed_variant_of_the_split_breaks_no_request(bench: "Bench", repository: Path) -> None:
    traffic(bench, "split: {baseline: 50, int8: 50}")
    bench.settle()
    shutil.rmtree(repository / "tiny" / "int8")
    bench.scan(2)
    bench.work()
    assert bench.ready() == ["baseline"]
    assert bench.weights() == {"baseline": 1.0}
    assert "'int8'" in bench.reason("tiny")


def test_a_replaced_variant_is_loaded_before_the_old_one_goes(
    bench: "Bench", repository: Path, publish: Any
) -> None:
    bench.settle()
    old = bench.table.models["tiny"].variants["int8"]
    old.leases.acquire()
    publish("int8", 3.0, parent="baseline", edit=lambda manifest: manifest.quality.figures.update(recall=1.0))
    bench.scan()
    bench.work()
    new = bench.table.models["tiny"].variants["int8"]
    assert new is not old
    assert isinstance(old.runtime, FakeRuntime)
    assert not old.runtime.closed.is_set(), "a request still holds it"
    wakes = bench.wakes
    old.leases.release()
    assert bench.wakes == wakes + 1, "its last lease wakes the worker"
    bench.work()
    assert old.runtime.closed.is_set()
    assert bench.diary.lines[-1] == "unload tiny/int8"
    assert bench.states()["tiny/int8"] == "READY"


def test_a_variant_in_use_is_unloading_until_its_last_lease_ends(bench: "Bench", repository: Path) -> None:
    bench.settle()
    old = bench.table.models["tiny"].variants["int8"]
    with old.lease() as runtime:
        shutil.rmtree(repository / "tiny" / "int8")
        bench.scan(2)
        bench.work()
        assert bench.ready() == ["baseline"]
        assert bench.states()["tiny/int8"] == "UNLOADING"
        assert not bench.board.is_drained()
        np.testing.assert_array_equal(runtime.run({"x": X}).outputs["y"], 3 * X)
    bench.work()
    assert bench.board.is_drained()
    assert bench.states() == {"tiny/baseline": "READY"}


def test_a_failed_load_changes_nothing_and_is_told(bench: "Bench", publish: Any) -> None:
    publish("baseline", 2.0)
    bench.settle()
    before = bench.table.models["tiny"].variants
    folder = publish("int8", 3.0, parent="baseline")
    (folder / "model.onnx").write_bytes(b"half")
    bench.scan()
    bench.work()
    assert dict(bench.table.models["tiny"].variants) == dict(before)
    assert bench.states() == {"tiny/baseline": "READY", "tiny/int8": "UNAVAILABLE"}
    assert "has 4 bytes where the manifest says" in bench.reason("tiny", "int8")
    assert bench.diary.lines.count("failed tiny/int8") == 1
    assert bench.board.is_settled(), "a failure that waits is no unfinished work"


def test_a_failed_reload_leaves_the_old_one_serving(bench: "Bench", repository: Path) -> None:
    bench.settle()
    old = bench.table.models["tiny"].variants["int8"]
    (repository / "tiny" / "int8" / "model.onnx").write_bytes(b"half")
    bench.scan()
    bench.work()
    assert bench.table.models["tiny"].variants["int8"] is old
    assert bench.states()["tiny/int8"] == "READY"
    assert "has 4 bytes" in bench.reason("tiny", "int8")
    assert [fault.variant for fault in bench.table.models["tiny"].faults] == ["int8"]


def test_a_failed_load_is_tried_again_later_and_sooner_when_the_files_change(
    bench: "Bench", repository: Path, publish: Any
) -> None:
    bench.settle()
    model = repository / "tiny" / "int8" / "model.onnx"
    whole = model.read_bytes()
    model.write_bytes(b"half")
    bench.scan()
    assert bench.work() == 1
    assert bench.work() == 0
    assert bench.board.seconds_to_retry() == 1.0
    bench.clock.seconds += 1.0
    assert bench.work() == 1, "it is tried again when its time has come"
    assert bench.board.seconds_to_retry() == 2.0
    model.write_bytes(whole)
    bench.scan()
    assert bench.work() == 1, "and at once when the files change"
    assert bench.reason("tiny", "int8") == ""


def test_a_bug_in_a_load_is_a_failure_of_that_variant(
    bench: "Bench", repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def burst(path: Path) -> FakeRuntime:
        if path.parent.name == "int8":
            raise ZeroDivisionError("a bug")
        return scale_of(path)

    bench.factory._make = burst
    bench.settle()
    assert bench.ready() == ["baseline"]
    assert bench.reason("tiny", "int8") == (
        "tiny/int8 could not be loaded (ZeroDivisionError); the server's log says more."
    )
    assert "a bug" in caplog.text


def test_a_plain_version_is_not_loaded_while_it_is_copied(bench: "Bench", tiny_model: Any) -> None:
    whole = tiny_model(bench.root / ".elsewhere").read_bytes()
    path = bench.root / "plain" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    for length in range(10, len(whole), 20):
        path.write_bytes(whole[:length])
        bench.scan()
        assert bench.work() == 0
    path.write_bytes(whole)
    bench.scan(2)
    assert bench.work() == 1
    assert bench.ready("plain") == ["1"]


def test_a_newer_plain_version_takes_over_without_a_gap(
    bench: "Bench", plain_repository: Path, tiny_model: Any
) -> None:
    bench.settle()
    assert bench.ready("plain") == ["2"]
    tiny_model(plain_repository / "plain" / "3" / "model.onnx")
    bench.scan(2)
    bench.work()
    assert bench.ready("plain") == ["3"]
    assert all("plain" in table.models for table in bench.diary.tables[2:])
    assert bench.reason("plain", "1") == "left out by the version policy"


def test_a_broken_newer_plain_version_leaves_the_older_one_serving(
    bench: "Bench", plain_repository: Path
) -> None:
    bench.settle()
    path = plain_repository / "plain" / "3" / "model.onnx"
    path.parent.mkdir()
    path.write_text("broken")
    bench.scan(3)
    bench.work()
    assert bench.ready("plain") == ["2"]
    assert bench.states()["plain/3"] == "UNAVAILABLE"


def test_a_removed_model_is_unloaded(bench: "Bench", repository: Path) -> None:
    bench.settle()
    shutil.rmtree(repository / "tiny")
    bench.scan()
    assert bench.work() == 0
    assert not bench.board.is_settled()
    bench.scan()
    bench.work()
    assert not bench.table.models
    assert bench.states() == {}
    assert all(runtime.closed.is_set() for runtime in bench.factory.made)


def test_a_repository_that_cannot_be_read_unloads_nothing(bench: "Bench", repository: Path) -> None:
    bench.settle()
    repository.rename(repository.with_name("unmounted"))
    bench.scan(5)
    assert bench.work() == 0
    assert bench.ready() == ["baseline", "int8"]
    assert bench.diary.lines[-1] == "scan failed"


def test_a_changed_configuration_reloads_and_a_bad_one_changes_nothing(
    bench: "Bench", repository: Path
) -> None:
    bench.settle()
    config = repository / "tiny" / "config.pbtxt"
    config.write_text("max_batch_size: 8")
    bench.scan(2)
    assert bench.work() == 2
    assert bench.table.models["tiny"].variants["int8"].signature.max_batch_rows == 8
    config.write_text("max_batch_size: eight")
    bench.scan(2)
    bench.work()
    assert bench.table.models["tiny"].variants["int8"].signature.max_batch_rows == 8
    assert "is not a model configuration" in bench.reason("tiny", "int8")


def test_a_model_whose_variants_all_failed_is_waiting(bench: "Bench", publish: Any) -> None:
    (publish("baseline") / "model.onnx").write_bytes(b"half")
    bench.settle()
    assert bench.table.waiting == {"tiny"}
    assert bench.states() == {"tiny/baseline": "UNAVAILABLE"}


def test_names_that_are_not_allowed_are_in_the_index(bench: "Bench", repository: Path) -> None:
    (repository / "my model").mkdir()
    bench.settle()
    assert bench.states()["my model/"] == "UNAVAILABLE"
    assert "cannot name a model" in bench.reason("my model")


def test_in_explicit_mode_only_named_models_are_served(
    make_bench: Callable[[bool], "Bench"], repository: Path
) -> None:
    bench = make_bench(True)
    bench.factory._make = scale_of
    bench.settle()
    assert not bench.table.models
    assert bench.states() == {"tiny/": "UNKNOWN"}
    bench.board.admit("tiny", wanted=True)
    bench.work()
    assert bench.ready() == ["baseline", "int8"]
    bench.board.admit("tiny", wanted=False)
    bench.work()
    assert not bench.table.models
    assert bench.states() == {"tiny/": "UNAVAILABLE"}
    assert bench.reason("tiny") == "unloaded"


def test_a_model_that_was_asked_away_stays_away_until_it_is_asked_back(
    bench: "Bench", repository: Path
) -> None:
    bench.settle()
    bench.board.admit("tiny", wanted=False)
    bench.work()
    bench.settle()
    assert not bench.table.models
    bench.board.admit("tiny", wanted=True)
    bench.work()
    assert bench.ready() == ["baseline", "int8"]


def test_a_table_that_was_read_never_changes(bench: "Bench", repository: Path) -> None:
    bench.settle()
    table, variants = bench.table, dict(bench.table.models["tiny"].variants)
    shutil.rmtree(repository / "tiny" / "int8")
    bench.scan(2)
    bench.work()
    assert dict(table.models["tiny"].variants) == variants
    assert bench.table.generation > table.generation
    with pytest.raises(TypeError):
        table.models["tiny"].variants["x"] = variants["int8"]  # type: ignore[index]


def test_an_unchanged_repository_publishes_nothing(bench: "Bench", repository: Path) -> None:
    bench.settle()
    generation = bench.table.generation
    bench.scan(5)
    bench.work()
    assert bench.table.generation == generation


def test_a_scan_is_failed_when_something_could_not_be_read_and_not_for_a_bad_name(
    bench: "Bench", repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "my model").mkdir()
    bench.scan()
    assert bench.diary.lines[-1] == "scan ok"
    real = os.scandir

    def scandir(path: Path) -> Any:
        if Path(path).name == "int8":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    bench.scan()
    assert bench.diary.lines[-1] == "scan failed"
    assert "Permission denied" in bench.reason("tiny", "int8")


def test_files_that_come_back_end_a_failure(bench: "Bench", repository: Path) -> None:
    """What is served is then what is on disk, so nothing is wrong and nothing is waited for."""
    bench.settle()
    folder = repository / "tiny" / "int8"
    folder.rename(folder.with_name(".aside"))
    folder.mkdir()
    (folder / "manifest.json").write_text("{")
    bench.scan()
    bench.work()
    assert bench.board.seconds_to_retry() is not None
    (folder / "manifest.json").unlink()
    folder.rmdir()
    folder.with_name(".aside").rename(folder)
    bench.scan()
    assert bench.work() == 0
    assert bench.board.seconds_to_retry() is None
    assert bench.reason("tiny", "int8") == ""


def test_what_goes_wrong_is_logged_once(
    bench: "Bench", repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (repository / "my model").mkdir()
    traffic(bench, "split: {baseline: 50, int4: 50}")
    with caplog.at_level("INFO"):
        bench.settle()
        bench.settle()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert "cannot name a model" in warnings[0]
    assert "'int4'" in warnings[1]
    assert "tiny: the traffic goes to baseline 1." in caplog.text
