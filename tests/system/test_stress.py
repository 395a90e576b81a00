"""Many clients ask while variants come, go, break and swap: no status but those allowed, no request lost.

Each row of the table says who asks, what happens meanwhile, which statuses must be seen and which may be. A
request that hangs is seen as DEADLINE_EXCEEDED, which next to no row allows. FLYWEIGHT_STRESS_SECONDS says
how long each row goes on, FLYWEIGHT_STRESS_SEED which random numbers it draws.
"""

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system.stress.callers import Group, ask_and_cancel, ask_gently, ask_many, stream_of
from tests.system.stress.models import HEAVY_STEPS, model_bytes, publish, publish_raw, set_traffic
from tests.system.stress.scenarios import Scenario, Stage, play

pytestmark = pytest.mark.system

SCALES = {"baseline": 2.0, "int8": 3.0, "extra": 5.0}
OK = frozenset({"OK"})


def two_variants(repository: Path) -> None:
    publish(repository, "tiny", "baseline", SCALES["baseline"])
    publish(repository, "tiny", "int8", SCALES["int8"])
    set_traffic(repository, "tiny", "split: {baseline: 50, int8: 50}\n")


def two_models(repository: Path) -> None:
    two_variants(repository)
    publish(repository, "other", "baseline", 7.0)


ANYBODY = Group("anybody", 2, scales=SCALES)
STREAM = Group("stream", 1, scales=SCALES, behave=stream_of(50))
OTHER = Group("other", 1, "other", scales={"baseline": 7.0})


# --- what changes on disk ---


def extra_comes_and_goes(stage: Stage) -> None:
    repository = stage.repository
    publish(repository, "tiny", "extra", SCALES["extra"])
    set_traffic(repository, "tiny", "split: {baseline: 40, int8: 30, extra: 30}\n")
    stage.await_variant("anybody", "extra")
    publish(repository, "tiny", "extra", SCALES["extra"])
    stage.pause()
    set_traffic(repository, "tiny", "split: {baseline: 100}\n")
    if stage.random.random() < 0.5:
        stage.pause()
    shutil.rmtree(repository / "tiny" / "extra")
    stage.await_code("pinned", "NOT_FOUND")


def model_goes_and_comes(stage: Stage) -> None:
    folder = stage.repository / "tiny"
    hidden = stage.repository / ".tiny"
    folder.rename(hidden)
    stage.await_code("anybody", "NOT_FOUND")
    hidden.rename(folder)
    stage.await_code("anybody", "OK")


def _write(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.onnx").write_bytes(content)


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "model.onnx")


BROKEN: dict[str, Callable[[Path], object]] = {
    "garbage": _write(b"not a model"),
    "empty": _write(b""),
    "half a model": _write(model_bytes(9.0)[:-40]),
    "a folder": lambda folder: (folder / "model.onnx").mkdir(),
    "a pipe": _fifo,
    "a dangling link": lambda folder: (folder / "model.onnx").symlink_to("nowhere"),
    "a link to itself": lambda folder: (folder / "model.onnx").symlink_to("model.onnx"),
    "nothing": lambda folder: None,
    "a manifest of nothing": lambda folder: (folder / "manifest.json").write_text("{"),
}


def broken_comes(stage: Stage) -> None:
    kinds = list(BROKEN)
    name = f"broken-{stage.round}"
    publish_raw(stage.repository, "tiny", name, BROKEN[kinds[stage.round % len(kinds)]])
    set_traffic(stage.repository, "tiny", f"split: {{baseline: 50, int8: 49, {name}: 1}}\n")
    stage.await_more("anybody")
    if stage.random.random() < 0.7:
        shutil.rmtree(stage.repository / "tiny" / name)


def broken_is_told(stage: Stage) -> None:
    assert stage.served.total("flyweight_loads_total", 'outcome="failed"') > 0
    publish(stage.repository, "tiny", "extra", SCALES["extra"])
    stage.served.await_ready("tiny", "extra")


def config_breaks(stage: Stage) -> None:
    config = stage.repository / "tiny" / "config.pbtxt"
    config.write_text(
        stage.random.choice(("max_batch_size: {", "backend: 'other'", "\0\0", "max_batch_size: -3"))
    )
    stage.await_more("anybody")
    stage.pause()
    config.write_text(f"max_batch_size: {stage.random.choice((2, 4, 8))}\n")
    stage.await_more("anybody")
    stage.pause()


# --- workers that die ---


def kill_a_worker(stage: Stage) -> None:
    """Kill the worker of tiny/baseline, and wait until another is there."""
    stage.pause()
    for pid in stage.served.workers():
        if _is_of(pid, "/tiny/baseline/"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if "fallback:" in (stage.repository / "tiny" / "traffic.yaml").read_text():
        stage.await_variant("anybody", "int8")
    else:
        stage.await_code("anybody", "UNAVAILABLE")
    stage.await_variant("anybody", "baseline")


def _is_of(pid: int, part: str) -> bool:
    try:
        return part.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def with_fallback(repository: Path) -> None:
    two_models(repository)
    set_traffic(repository, "tiny", "baseline: baseline\nfallback: int8\n")


def without_fallback(repository: Path) -> None:
    two_models(repository)
    set_traffic(repository, "tiny", "baseline: baseline\n")


def int8_stood_in(stage: Stage) -> None:
    assert stage.crowd.ledgers["anybody"].variants["int8", "fallback"] > 0


# --- cancellation ---


def mill(repository: Path) -> None:
    publish(repository, "mill", "baseline", 2.0, HEAVY_STEPS // 4)


MILL = {"baseline": 2.0}

SCENARIOS = (
    Scenario(
        "variants come and go",
        two_variants,
        (
            ANYBODY,
            STREAM,
            Group("loyal", 1, variant="baseline", scales=SCALES),
            # Who asks for a variant by name hears that it is not there, or not there yet.
            Group(
                "pinned",
                1,
                variant="extra",
                scales=SCALES,
                required=frozenset({"OK", "NOT_FOUND"}),
                allowed=frozenset({"UNAVAILABLE"}),
            ),
        ),
        extra_comes_and_goes,
        least_rounds=2,
    ),
    Scenario(
        "a model goes and comes back",
        two_models,
        (
            Group(
                "anybody",
                2,
                scales=SCALES,
                required=frozenset({"OK", "NOT_FOUND"}),
                allowed=frozenset({"UNAVAILABLE"}),
            ),
            OTHER,
        ),
        model_goes_and_comes,
        least_rounds=2,
    ),
    Scenario(
        "broken variants again and again",
        two_variants,
        (ANYBODY, STREAM),
        broken_comes,
        broken_is_told,
        least_rounds=len(BROKEN),
    ),
    Scenario(
        "a configuration breaks and is mended",
        two_variants,
        (ANYBODY, STREAM),
        config_breaks,
        least_rounds=3,
    ),
    Scenario(
        "workers are killed",
        without_fallback,
        (
            Group("anybody", 2, scales=SCALES, required=frozenset({"OK", "UNAVAILABLE"}), behave=ask_gently),
            OTHER,
        ),
        kill_a_worker,
        options=("--runtime", "process"),
    ),
    Scenario(
        "workers are killed and another variant stands in",
        with_fallback,
        (ANYBODY, STREAM, OTHER),
        kill_a_worker,
        int8_stood_in,
        options=("--runtime", "process"),
    ),
    Scenario(
        "callers cancel at random",
        mill,
        (
            Group(
                "cancelling",
                2,
                "mill",
                scales=MILL,
                allowed=frozenset({"CANCELLED"}),
                behave=ask_and_cancel(8),
            ),
            Group("mates", 2, "mill", scales=MILL, behave=ask_many(4)),
            Group("stream", 1, "mill", scales=MILL, behave=stream_of(20)),
        ),
        options=("--max-running", "1"),
    ),
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_no_request_is_lost_while(scenario: Scenario, tmp_path: Path) -> None:
    play(scenario, tmp_path)
