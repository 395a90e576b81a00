"""What the machine does to a server: no memory, no files, no disk, a clock that jumps. It goes on."""

import ctypes
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import flyweight.server
from flyweight.protos.inference import grpc_service_pb2 as pb
from tests.system.stress.callers import Crowd, Group, ask_gently, ask_many, hurried
from tests.system.stress.frames import Wire
from tests.system.stress.models import WIDTH, model_bytes, publish, publish_raw, set_traffic
from tests.system.stress.scenarios import SEED
from tests.system.stress.serving import PATIENCE_SECONDS, Served, eventually, serving

pytestmark = pytest.mark.system

MEGABYTE = 1 << 20
SCALES = {"baseline": 2.0}
GOOD = Group("good", 1, scales=SCALES)
SERVICE = "/inference.GRPCInferenceService/"


def index_of(served: Served) -> dict[str, tuple[str, str]]:
    with grpc.insecure_channel(served.address) as channel:
        body = channel.unary_unary(SERVICE + "RepositoryIndex")(b"", timeout=PATIENCE_SECONDS)
    found = pb.RepositoryIndexResponse.FromString(body).models
    return {f"{each.name}/{each.version}": (each.state, each.reason) for each in found}


def await_refusal(served: Served, variant: str) -> str:
    """Wait until a variant is told to be unavailable, and return why."""
    index = eventually(lambda: index_of(served), lambda seen: seen.get(variant, ("", ""))[1] != "", variant)
    state, reason = index[variant]
    assert state == "UNAVAILABLE"
    return reason


def large_model(megabytes: int) -> bytes:
    """Return y = x * 2 + 0 * w with a weight of so many megabytes, which a session copies."""
    rows = megabytes * MEGABYTE // 4 // WIDTH
    weight = numpy_helper.from_array(np.ones((WIDTH, rows), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", rows])],
        [weight],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    ).SerializeToString()


# --- memory ---


def test_a_model_that_does_not_fit_into_the_address_space_is_told_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    repository = tmp_path / "repository"
    publish(repository, "tiny", "baseline", SCALES["baseline"])
    with (
        serving(repository, "--no-memory-guard", "--no-measure-memory", folder=tmp_path) as served,
        Crowd(served.address, (GOOD,), SEED) as crowd,
    ):
        ledger = crowd.ledgers["good"]
        assert ledger.await_more(20)
        # Enough for what goes on, and not for 64 MB of weights, held two or three times while they load.
        served.limit(resource.RLIMIT_AS, served.address_space_bytes() + 100 * MEGABYTE)
        content = large_model(64)
        publish_raw(repository, "large", "1", lambda folder: (folder / "model.onnx").write_bytes(content))
        reason = await_refusal(served, "large/1")
        assert "large/1/model.onnx" in reason
        assert ledger.await_more(20)
        served.limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)
        shutil.rmtree(repository / "large")
        publish(repository, "other", "baseline", 3.0)
        served.await_ready("other", "baseline")
        crowd.stop()
        crowd.check()
        assert served.tracebacks() == []


# --- files ---


def test_without_file_descriptors_those_who_are_connected_go_on(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    publish(repository, "tiny", "baseline", SCALES["baseline"])
    with (
        serving(repository, "--no-measure-memory", folder=tmp_path) as served,
        Crowd(served.address, (GOOD,), SEED) as crowd,
    ):
        ledger = crowd.ledgers["good"]
        assert ledger.await_more(20)
        served.limit(resource.RLIMIT_NOFILE, served.open_files() + 4)
        publish(repository, "tiny", "extra", 5.0)
        with ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(Wire(served.host_and_port))
            assert ledger.await_more(200)
        served.limit(resource.RLIMIT_NOFILE, 4096)
        served.await_ready("tiny", "extra")
        with Crowd(served.address, (GOOD,), SEED) as newcomers:
            assert newcomers.ledgers["good"].await_more(20)
            newcomers.stop()
            newcomers.check()
        crowd.stop()
        crowd.check()
        assert served.tracebacks() == []


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a disk of 64 KB."""
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, b"size=64k") != 0:
        pytest.skip(f"no disk can be mounted here ({os.strerror(ctypes.get_errno())})")
    try:
        yield folder
    finally:
        libc.umount2(os.fsencode(folder), 2)


def test_a_full_disk_costs_traces_and_uploads_and_no_request(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    publish(repository, "tiny", "baseline", SCALES["baseline"])
    with (
        small_disk(tmp_path / "disk") as disk,
        serving(
            repository,
            *("--trace-folder", str(disk), "--upload-folder", str(disk), "--no-measure-memory"),
            folder=tmp_path,
        ) as served,
        Crowd(served.address, (GOOD,), SEED) as crowd,
        grpc.insecure_channel(served.address) as channel,
    ):
        ledger = crowd.ledgers["good"]
        trace = pb.TraceSettingRequest()
        for key, value in {"trace_level": "TIMESTAMPS", "trace_rate": "1", "trace_count": "-1"}.items():
            trace.settings[key].value.append(value)
        trace.settings["trace_file"].value.append("trace.json")
        channel.unary_unary(SERVICE + "TraceSetting")(trace.SerializeToString(), timeout=PATIENCE_SECONDS)
        eventually(lambda: free_bytes(disk), lambda left: left == 0, "traces fill the disk")
        assert ledger.await_more(100)
        upload = pb.RepositoryModelLoadRequest(model_name="sent")
        upload.parameters["config"].string_param = "{}"
        upload.parameters["file:1/model.onnx"].bytes_param = large_model(1)
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(SERVICE + "RepositoryModelLoad")(
                upload.SerializeToString(), timeout=PATIENCE_SECONDS
            )
        assert "No space left" in str(refused.value)
        assert refused.value.code() is not grpc.StatusCode.INTERNAL
        assert ledger.await_more(20)
        crowd.stop()
        crowd.check()
        assert served.tracebacks() == []
        served.signal()
        assert served.wait() == 0


def free_bytes(disk: Path) -> int:
    told = os.statvfs(disk)
    return told.f_bavail * told.f_frsize


def test_a_model_that_is_cut_short_and_written_again_is_served_once_it_is_whole(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    publish(repository, "tiny", "baseline", SCALES["baseline"])
    set_traffic(repository, "tiny", "baseline: baseline\n")
    content = model_bytes(5.0) + onnx.ModelProto(doc_string="x" * 200_000).SerializeToString()
    with (
        serving(repository, "--no-measure-memory", folder=tmp_path) as served,
        Crowd(served.address, (GOOD,), SEED) as crowd,
    ):
        path = repository / "tiny" / "2" / "model.onnx"
        path.parent.mkdir()
        for size in (0, 10, 1000, 100_000, 0, 150_000):
            path.write_bytes(content[:size])
            assert crowd.ledgers["good"].await_more(3)
        path.write_bytes(content)
        served.await_ready("tiny", "2")
        crowd.stop()
        crowd.check()
        assert served.tracebacks() == []


# --- time ---

# Adds to the clock of the wall what stands in a file, to no other clock.
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <fcntl.h>
#include <unistd.h>

static long offset(void) {
  char text[32] = {0};
  int file = open(getenv("JUMPING_CLOCK"), O_RDONLY);
  if (file < 0) return 0;
  ssize_t count = read(file, text, sizeof text - 1);
  close(file);
  return count > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(clock, now);
  if (!failed && clock == CLOCK_REALTIME) now->tv_sec += offset();
  return failed;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(struct timeval *out, void *zone) {
  (void)zone;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  out->tv_sec = now.tv_sec;
  out->tv_usec = now.tv_nsec / 1000;
  return 0;
}
"""


@pytest.fixture
def jumping_clock(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Return a file that sets the clock of a process with the environment given too, by seconds."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to make a clock that jumps")
    source, library, file = tmp_path / "clock.c", tmp_path / "clock.so", tmp_path / "offset"
    source.write_text(CLOCK)
    file.write_text("0")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    environment = {"LD_PRELOAD": str(library), "JUMPING_CLOCK": str(file)}
    told = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time() - time.monotonic())"],
        env=os.environ | environment | {"JUMPING_CLOCK": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        pytest.skip("the clock cannot be replaced here")
    return file, environment


def test_nobody_notices_a_clock_that_jumps(
    tmp_path: Path, jumping_clock: tuple[Path, dict[str, str]]
) -> None:
    offset, environment = jumping_clock
    repository = tmp_path / "repository"
    publish(repository, "tiny", "baseline", SCALES["baseline"])
    publish(repository, "mill", "baseline", SCALES["baseline"], 200)
    (repository / "mill" / "config.pbtxt").write_text(
        "max_batch_size: 64\ndynamic_batching { max_queue_delay_microseconds: 20000 }\n"
    )
    # gRPC tells a deadline by the wall's clock. The one call that is read in the moment of a jump may get a
    # wrong one.
    late = frozenset({"DEADLINE_EXCEEDED"})
    jumps = (3600, -3600, 86_400 * 365, -86_400, 0)
    groups = (
        Group("one by one", 1, scales=SCALES, allowed=late),
        Group("many", 1, scales=SCALES, allowed=late, behave=ask_many(8)),
        # Its runs wait for others for a while, by a clock of the server's.
        Group("waits", 1, "mill", scales=SCALES, allowed=late),
        Group("hurried", 1, scales=SCALES, allowed=late, behave=hurried(5.0, 10.0, 4)),
    )
    with (
        serving(repository, "--no-measure-memory", folder=tmp_path, environment=environment) as served,
        Crowd(served.address, groups, SEED) as crowd,
    ):
        for seconds in jumps:
            staged = offset.with_suffix(".new")
            staged.write_text(str(seconds))
            staged.rename(offset)
            for ledger in crowd.ledgers.values():
                assert ledger.await_more(5)
        publish(repository, "tiny", "extra", 5.0)
        served.await_ready("tiny", "extra")
        crowd.stop()
        crowd.check()
        assert sum(ledger.codes["DEADLINE_EXCEEDED"] for ledger in crowd.ledgers.values()) <= len(jumps)
        assert served.tracebacks() == []
        served.signal()
        assert served.wait() == 0


@pytest.mark.source
def test_only_what_gRPC_counts_by_the_wall_is_read_off_it() -> None:  # noqa: N802 -- its name
    """Waiting goes by a clock that does not jump; deadlines come from gRPC by the one that may."""
    allowed = {"rpc/core.py"}
    wall = re.compile(r"\btime\.time\(|\btime_ns\(|\bdatetime\.now\(|\butcnow\(")
    root = Path(flyweight.server.__path__[0])
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for line in path.read_text().splitlines()
        # A date that is written into a file is for people to read.
        if wall.search(line) and "isoformat" not in line
    }
    assert found <= allowed


def test_a_worker_pushed_over_its_memory_costs_its_own_variant_alone(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    publish(repository, "tiny", "baseline", SCALES["baseline"])
    publish(repository, "other", "baseline", SCALES["baseline"])
    refused = Group(
        "large",
        1,
        scales=SCALES,
        required=frozenset({"OK"}),
        allowed=frozenset({"UNAVAILABLE", "INTERNAL"}),
        behave=ask_gently,
    )
    with (
        serving(repository, "--runtime", "process", folder=tmp_path) as served,
        Crowd(served.address, (refused, Group("other", 1, "other", scales=SCALES)), SEED) as crowd,
    ):
        for ledger in crowd.ledgers.values():
            assert ledger.await_more(20)
        for pid in served.workers():
            if b"/tiny/" in Path(f"/proc/{pid}/cmdline").read_bytes():
                # No page more than it has.
                _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
                resource.prlimit(pid, resource.RLIMIT_AS, (1, hard))
        for ledger in crowd.ledgers.values():
            assert ledger.await_more(50)
        crowd.stop()
        crowd.check()
        assert served.is_alive()
        assert served.tracebacks() == []
