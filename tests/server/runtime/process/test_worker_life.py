"""Workers that die, hang, lie or never come up; each is made to."""

import logging
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.server.errors import Code, DeadlineExceeded, LoadFailed, NotReady, WorkerDied, code_of
from flyweight.server.runtime.process import child, post
from flyweight.server.runtime.process.factory import ProcessFactory
from flyweight.server.runtime.process.runtime import ProcessRuntime
from flyweight.server.runtime.seam import RuntimeState, SessionSettings
from tests.open_files import no_file_left

SETTINGS = SessionSettings()
PATIENCE_SECONDS = 30
# What the log says when a worker is no more, and when another has taken its place.
DIED, RESTARTED = "It is started again in", "was started again"
X = np.ones((1, 4), np.float32)
# Imports the worker, and then does what the test writes below it.
IMPORT = "import os, sys, signal; import flyweight.server.runtime.process.worker as worker\n"
MAIN = "\nworker.main(sys.argv[1])"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench(logging.Handler):
    """A factory with a clock of its own, what it logged of its workers, and every runtime it made."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.events: list[str] = []
        self.told = threading.Condition()
        self.factory = ProcessFactory(2, self.clock)
        self.made: list[ProcessRuntime] = []

    def emit(self, record: logging.LogRecord) -> None:
        with self.told:
            self.events.append(record.getMessage())
            self.told.notify_all()

    def load(self, path: Path) -> ProcessRuntime:
        self.made.append(self.factory.load(path, SETTINGS))
        return self.made[-1]

    def await_event(self, event: str, count: int = 1) -> str:
        """Wait until something was logged for the given number of times, and return the line."""

        def found() -> list[str]:
            return [line for line in self.events if event in line]

        with self.told:
            assert self.told.wait_for(lambda: len(found()) >= count, PATIENCE_SECONDS), self.events
            return found()[count - 1]

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds
        self.factory.supervisor.wake()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made, log = Bench(), logging.getLogger(post.__name__)
    level = log.level
    log.addHandler(made)
    log.setLevel(logging.INFO)
    yield made
    log.removeHandler(made)
    log.setLevel(level)
    for runtime in made.made:
        runtime.close()


@pytest.fixture
def endless(save_graph: Any, tmp_path: Path) -> Path:
    """Return a model that counts to n, where n can be without end."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["go_on_too"]), helper.make_node("Neg", ["a"], ["b"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, [4]),
        ],
        [
            helper.make_tensor_value_info("go_on_too", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, [4]),
        ],
    )
    path: Path = save_graph(
        tmp_path / "endless" / "1" / "model.onnx",
        [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)],
        [("n", TensorProto.INT64, []), ("x", TensorProto.FLOAT, [4])],
        [("y", TensorProto.FLOAT, [4])],
        [numpy_helper.from_array(np.zeros(1, np.float32), "unused")],
    )
    return path


@pytest.fixture
def tiny(tiny_model: Any, tmp_path: Path) -> Path:
    path: Path = tiny_model(tmp_path / "tiny" / "1" / "model.onnx")
    return path


def without_end(runtime: ProcessRuntime, pool: ThreadPoolExecutor) -> Future[Any]:
    """Start a run that never ends, and return when the worker is in it."""
    inputs = {"n": np.array(2**62), "x": np.ones(4, np.float32)}
    future = pool.submit(runtime.run, inputs)
    current = runtime._post.child
    assert current is not None
    spin_until(lambda: current.progress[0] == 1)
    return future


def spin_until(is_so: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(PATIENCE_SECONDS * 100):
        if is_so():
            return
        pause.wait(0.01)
    pytest.fail("it never came to that")


def kill(runtime: ProcessRuntime, number: int = signal.SIGKILL) -> None:
    assert runtime.pid is not None
    os.kill(runtime.pid, number)


def test_a_worker_that_is_killed_in_a_run_fails_that_run_and_comes_back(
    bench: Bench, endless: Path, tiny: Path
) -> None:
    runtime, other = bench.load(endless), bench.load(tiny)
    with ThreadPoolExecutor(1) as pool:
        lost = without_end(runtime, pool)
        kill(runtime)
        with pytest.raises(WorkerDied, match=r"worker process of endless/1 died during the run") as caught:
            lost.result(PATIENCE_SECONDS)
    assert code_of(caught.value) is Code.UNAVAILABLE
    assert "killed by SIGKILL" in bench.await_event(DIED)
    assert runtime.state is RuntimeState.DOWN
    assert runtime.usage().pss_bytes is None
    with pytest.raises(NotReady, match="endless/1 died and is started again"):
        runtime.run({"n": np.array(1), "x": np.ones(4, np.float32)})
    np.testing.assert_array_equal(other.run({"x": X}).outputs["y"], 2 * X)
    bench.advance(1.0)
    assert "(1)" in bench.await_event(RESTARTED)
    assert runtime.state is RuntimeState.READY
    assert runtime.restarts == 1
    assert runtime.run({"n": np.array(1), "x": np.ones(4, np.float32)}).outputs["y"].tolist() == [-1] * 4


def test_a_worker_is_not_started_again_before_its_pause_is_over(bench: Bench, tiny: Path) -> None:
    runtime = bench.load(tiny)
    for death, pause in enumerate((1.0, 2.0, 4.0), 1):
        kill(runtime)
        bench.await_event(DIED, death)
        bench.advance(pause * 0.99)
        assert runtime.state is RuntimeState.DOWN
        bench.advance(pause * 0.01)
        bench.await_event(RESTARTED, death)
        assert bench.clock.now == pytest.approx(1000.0 + sum((1.0, 2.0, 4.0)[:death]))


def test_a_worker_whose_file_is_another_model_by_now_stays_down(
    bench: Bench, tiny: Path, tiny_model: Any
) -> None:
    runtime = bench.load(tiny)
    tiny_model(tiny, shape=("n", 5))
    kill(runtime)
    bench.await_event(DIED)
    bench.advance(1.0)
    bench.await_event(DIED, 2)
    assert runtime.state is RuntimeState.DOWN
    tiny_model(tiny)
    bench.advance(2.0)
    bench.await_event(RESTARTED)
    np.testing.assert_array_equal(runtime.run({"x": X}).outputs["y"], 2 * X)


def test_a_stopped_worker_is_ended_and_reaped_when_its_variant_is_unloaded(bench: Bench, tiny: Path) -> None:
    runtime = bench.load(tiny)
    pid = runtime.pid
    assert pid is not None
    pidfd = os.pidfd_open(pid)
    kill(runtime, signal.SIGSTOP)
    # The grace is over before it begins.
    closing = threading.Thread(target=runtime.close)
    closing.start()
    spin_until(lambda: runtime.state is RuntimeState.CLOSED)
    while closing.is_alive():
        bench.advance(2.0)
        closing.join(0.01)
    assert select.select([pidfd], [], [], 0)[0]
    os.close(pidfd)
    assert str(pid) not in children().split()


def test_a_worker_that_is_stopped_in_a_run_is_killed_after_a_minute(bench: Bench, endless: Path) -> None:
    runtime = bench.load(endless)
    with ThreadPoolExecutor(1) as pool:
        lost = without_end(runtime, pool)
        kill(runtime, signal.SIGSTOP)
        assert runtime.pid is not None
        stat = Path(f"/proc/{runtime.pid}/stat")
        spin_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
        while not lost.done():
            bench.advance(61.0)
            threading.Event().wait(0.01)
        with pytest.raises(WorkerDied):
            lost.result()


def test_signals_of_a_terminal_or_a_service_manager_do_not_end_a_worker(bench: Bench, tiny: Path) -> None:
    runtime = bench.load(tiny)
    pid = runtime.pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        kill(runtime, number)
    np.testing.assert_array_equal(runtime.run({"x": X}).outputs["y"], 2 * X)
    assert runtime.pid == pid
    assert os.getsid(pid or 0) != os.getsid(0)


def test_a_worker_outlives_the_thread_that_loaded_it(bench: Bench, tiny: Path) -> None:
    """The kernel's signal at a parent's death is a signal at the death of the parent's thread."""
    loader = threading.Thread(target=bench.load, args=(tiny,))
    loader.start()
    loader.join(PATIENCE_SECONDS)
    [runtime] = bench.made
    for _ in range(3):
        np.testing.assert_array_equal(runtime.run({"x": X}).outputs["y"], 2 * X)
    assert runtime.restarts == 0


def test_a_worker_that_dies_at_load_is_a_failed_load(
    bench: Bench, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_COMMAND", ("-c", "import os; os.abort()"))
    with pytest.raises(
        LoadFailed, match=r"model\.onnx cannot be loaded: its worker process was killed by SIGABRT"
    ):
        bench.load(tiny)


@pytest.mark.parametrize(
    "report", [r"'garbage\n'", r"'{}\n'", r"""'{"signature": 3}\n'""", "'x' * (5 << 20)"]
)
def test_a_worker_whose_report_is_garbage_is_a_failed_load(
    bench: Bench, tiny: Path, monkeypatch: pytest.MonkeyPatch, report: str
) -> None:
    script = (
        f"{IMPORT}control = worker.Order.decode(sys.argv[1]).control\n"
        f"open(control, 'w', closefd=False).write({report})\nsignal.pause()"
    )
    monkeypatch.setattr(child, "_COMMAND", ("-P", "-c", script))
    with pytest.raises(LoadFailed, match=r"model\.onnx cannot be loaded: a worker's report"):
        bench.load(tiny)


def test_a_worker_that_does_not_come_up_is_given_up(
    bench: Bench, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_COMMAND", ("-P", "-c", "import signal; signal.pause()"))
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(bench.load, tiny)
        while not loading.done():
            bench.advance(601.0)
            threading.Event().wait(0.01)
        with pytest.raises(LoadFailed, match=r"was not loaded within 600 s"):
            loading.result()


@pytest.mark.parametrize(
    "answer",
    [
        "lane._socket.send(b'garbage')",
        "lane.send(99, message.number, 0.0, {})",
        "lane.send(worker.ANSWER, message.number + 1, 0.0, {})",
        "lane.send(worker.FAILURE, message.number, 0.0, {})",
        "lane.send(worker.FAILURE, message.number, 0.0, {'KeyError': worker.np.zeros(3, 'u1')})",
        "raise KeyError('a bug')",
        "os._exit(3)",
    ],
)
def test_a_worker_that_answers_garbage_or_breaks_is_replaced(
    bench: Bench, tiny: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    original = child._COMMAND
    script = f"{IMPORT}def answer(lane, session, message): {answer}\nworker._answer = answer{MAIN}"
    monkeypatch.setattr(child, "_COMMAND", ("-P", "-c", script))
    runtime = bench.load(tiny)
    with pytest.raises(WorkerDied):
        runtime.run({"x": X})
    bench.await_event(DIED)
    monkeypatch.setattr(child, "_COMMAND", original)
    bench.advance(1.0)
    bench.await_event(RESTARTED)
    np.testing.assert_array_equal(runtime.run({"x": X}).outputs["y"], 2 * X)


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(
    bench: Bench, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = "first = worker._answer\ndef answer(*a): first(*a); first(*a)\nworker._answer = answer"
    monkeypatch.setattr(child, "_COMMAND", ("-P", "-c", IMPORT + twice + MAIN))
    runtime = bench.load(tiny)
    for number in range(5):
        y = runtime.run({"x": np.full((1, 4), number, np.float32)}).outputs["y"]
        assert y.tolist() == [[2 * number] * 4]


def test_work_that_expired_on_the_way_is_not_run(
    bench: Bench, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = "worker.monotonic = lambda: 1e12"
    monkeypatch.setattr(child, "_COMMAND", ("-P", "-c", IMPORT + late + MAIN))
    runtime = bench.load(tiny)
    with pytest.raises(DeadlineExceeded, match="before the request's turn came"):
        runtime.run({"x": X}, deadline_monotonic=1e11)
    np.testing.assert_array_equal(runtime.run({"x": X}).outputs["y"], 2 * X)


def test_without_file_descriptors_nothing_is_started_and_nothing_left(bench: Bench, tiny: Path) -> None:
    runtime = bench.load(tiny)
    with no_file_left():
        sentences = _load_with_few_files(bench, tiny)
    assert 5 < len(sentences) < 37
    assert all("(Too many open files)" in sentence for sentence in sentences)
    assert any("no worker process could be started for it" in sentence for sentence in sentences)
    np.testing.assert_array_equal(runtime.run({"x": X}).outputs["y"], 2 * X)


def _load_with_few_files(bench: Bench, tiny: Path) -> list[str]:
    """Load with ever more files that may be opened until it can be done; return what was complained of."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The gaps below the highest one are filled, so that the limit is what is left.
    highest = max(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208 -- a Path opens one itself
    fillers = [os.dup(0)]
    while fillers[-1] <= highest:
        fillers.append(os.dup(0))
    sentences: list[str] = []
    try:
        # From one more than there are to more than a start takes: it fails at a different place each time.
        for spare in range(1, 40):
            resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + spare, limits[1]))
            try:
                bench.load(tiny)
                break
            except LoadFailed as failure:
                sentences.append(str(failure))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for filler in fillers:
            os.close(filler)
    bench.made.pop().close()
    return sentences


def children() -> str:
    return "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))


def test_loads_unloads_and_failures_leave_no_file_open_and_no_process(bench: Bench, tiny: Path) -> None:
    processes = children()
    broken = tiny.with_name("broken.onnx")
    broken.write_bytes(b"not a model")
    with no_file_left():
        for _ in range(3):
            runtime = bench.load(tiny)
            runtime.run({"x": np.ones((100_000, 4), np.float32)})
            runtime.close()
            with pytest.raises(LoadFailed):
                bench.load(broken)
    assert children() == processes
    spin_until(lambda: not [each for each in threading.enumerate() if each.name == "flyweight-workers"])


def test_a_worker_imports_no_more_than_it_needs() -> None:
    """Each module is paid for in every worker; protobuf alone is 3 MB."""
    script = "import sys, flyweight.server.runtime.process.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    loaded = {module.split(".")[0] for module in done.stdout.split()}
    unwanted = {
        "google",
        "grpc",
        "pydantic",
        "prometheus_client",
        "click",
        "asyncio",
        "logging",
        "subprocess",
    }
    assert not loaded & unwanted
    assert "onnxruntime" in loaded


def test_a_worker_reports_what_it_uses_and_what_it_used_before_it_had_a_model(
    bench: Bench, tiny: Path
) -> None:
    usage = bench.load(tiny).usage()
    assert usage.pss_bytes is not None
    assert usage.uss_bytes is not None
    assert usage.base_pss_bytes is not None
    assert usage.peak_rss_bytes is not None
    assert 0 < usage.uss_bytes <= usage.pss_bytes <= usage.peak_rss_bytes
    assert usage.cpu_seconds is not None
    assert usage.load_peak_bytes is not None


def test_a_worker_that_is_killed_by_a_signal_without_a_name_comes_back(bench: Bench, tiny: Path) -> None:
    runtime = bench.load(tiny)
    kill(runtime, signal.SIGRTMIN + 1)
    died = bench.await_event(DIED)
    assert f"signal {signal.SIGRTMIN + 1}" in died
    bench.advance(2.0)
    bench.await_event(RESTARTED)


def test_a_worker_has_a_lane_for_each_turn_whatever_cores_there_are(tiny: Path) -> None:
    runtime = ProcessFactory(1, turns=3).load(tiny, SETTINGS)
    try:
        assert runtime._post.child is not None
        assert len(runtime._post.child._idle) == 3
    finally:
        runtime.close()


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("4", "4")])
def test_a_worker_has_one_heap_unless_the_operator_says_otherwise(
    bench: Bench, tiny: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    """From its beginning: the thread that builds a session aside would have a heap of its own."""
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    if given is not None:
        monkeypatch.setenv("MALLOC_ARENA_MAX", given)
    environment = Path(f"/proc/{bench.load(tiny).pid}/environ").read_text().split("\0")
    assert f"MALLOC_ARENA_MAX={expected}" in environment
