"""The server at full rate for minutes, with a swap every second: what of its memory stays with each.

Callers ask without a pause, by single calls and on streams, while one variant after the other is published in
the place of the last. Printed are RSS, PSS and open files over time, and the slopes by least squares after a
time to settle: of PSS in KB for 1,000 requests and for each swap, both taken from the same curve, and of RSS
in MB an hour, with the ends of its 95 % confidence interval. Answers are checked, and every one that is wrong
or missing is a failure (exit code 1).

Without --swaps nothing but traffic is left, which is what a transport's memory is read from. Rates mean
something only on a machine that does nothing else; memory does on any.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import t as student

from flyweight.protos.inference import grpc_service_pb2 as pb
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant import publish_variant

READY = re.compile(r"flyweight ready grpc=(\S+) metrics=(\S+)")
SERVICE = "/inference.GRPCInferenceService/"
WIDTH = 64
# Between the first and this part of the time, pools and the heap fill.
SETTLING = 0.25
KILOBYTE, MEGABYTE = 1024, 1 << 20
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Look:
    """The server at one moment; bytes, and counts since the start."""

    seconds: float
    rss_bytes: int
    pss_bytes: int
    files: int
    requests: int
    swaps: int


class Load:
    """Callers in threads of this process. Owns them, from construction to `stop`."""

    def __init__(self, address: str, callers: int, streams: int) -> None:
        self._address = address
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.requests = 0
        self.failures: list[str] = []
        kinds = [self._call] * callers + [self._stream] * streams
        self._threads = [threading.Thread(target=self._live, args=(kind,), daemon=True) for kind in kinds]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End every caller after its request."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * TIMEOUT_SECONDS)

    def _live(self, kind: Callable[[grpc.Channel], None]) -> None:
        with grpc.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            while not self._stopping.is_set():
                try:
                    kind(channel)
                except grpc.RpcError as error:
                    self._note(0, f"{error.code().name}: {error.details()}")

    def _call(self, channel: grpc.Channel) -> None:
        ask: Any = channel.unary_unary(SERVICE + "ModelInfer", None, None)
        futures = [(value, ask.future(body_of(value), timeout=TIMEOUT_SECONDS)) for value in range(1, 9)]
        for value, future in futures:
            self._check(value, pb.ModelInferResponse.FromString(future.result()))

    def _stream(self, channel: grpc.Channel) -> None:
        ask: Any = channel.stream_stream(SERVICE + "ModelStreamInfer", None, None)
        heard = 0
        for value, message in enumerate(ask(map(body_of, range(1, 101)), timeout=TIMEOUT_SECONDS), start=1):
            answer = pb.ModelStreamInferResponse.FromString(message)
            if answer.error_message:
                self._note(1, answer.error_message)
            else:
                self._check(value, answer.infer_response)
            heard = value
        if heard != 100:
            self._note(0, f"a stream of 100 requests had {heard} answers")

    def _check(self, value: float, response: pb.ModelInferResponse) -> None:
        got = np.frombuffer(response.raw_output_contents[0], np.float32)
        is_right = (got == np.float32(2 * value)).all()
        self._note(1, "" if is_right else f"{got[0]} is not twice {value}")

    def _note(self, requests: int, failure: str) -> None:
        with self._lock:
            self.requests += requests
            if failure:
                self.failures.append(failure)


def body_of(value: float) -> bytes:
    """Return a request whose every element is `value`."""
    request = pb.ModelInferRequest(model_name="soak")
    request.inputs.add(name="x", datatype="FP32", shape=[1, WIDTH])
    request.raw_input_contents.append(np.full((1, WIDTH), value, np.float32).tobytes())
    return request.SerializeToString()


def publish(repository: Path) -> None:
    """Publish the one variant, y = 2 x, with a megabyte of weights that are loaded and not used."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in "xy"]
    weights = {
        "w": 2 * np.eye(WIDTH, dtype=np.float32),
        "zeros": np.zeros((WIDTH, 4096), np.float32),
        "back": np.zeros((4096, WIDTH), np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["twice"]),
        helper.make_node("MatMul", ["x", "zeros"], ["wide"]),
        helper.make_node("MatMul", ["wide", "back"], ["nothing"]),
        helper.make_node("Add", ["twice", "nothing"], ["y"]),
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "soak", ends[:1], ends[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

    def fill(folder: Path) -> None:
        onnx.save(model, folder / "model.onnx")

    publish_variant(repository, VariantManifest(model="soak", variant="baseline"), fill)


@contextmanager
def serving(repository: Path, *options: str) -> Iterator[tuple[int, str]]:
    """Run a server; yield its process's number and its address."""
    command = [str(Path(sys.executable).with_name("flyweight")), "serve", str(repository)]
    ports = ["--port", "0", "--metrics-port", "0", "--max-in-flight", "256"]
    with subprocess.Popen(
        [*command, *ports, *options], text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout is not None
            found = READY.match(process.stdout.readline())
            if found is None:
                raise SystemExit("The server did not start.")
            yield process.pid, found[1]
        finally:
            process.terminate()


def look(pid: int, began: float, requests: int, swaps: int) -> Look:
    """Look at the server's process."""
    fields: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) * KILOBYTE
    files = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 -- a Path opens one itself
    return Look(time.monotonic() - began, fields["Rss"], fields["Pss"], files, requests, swaps)


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the slope of the line through points, by least squares; 0 where there is none."""
    if len(xs) < 2 or max(xs) == min(xs):
        return 0.0
    return float(np.polyfit(xs, ys, 1)[0])


def slope_interval(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the 95 % confidence interval of the slope.

    By Student's t with the residuals' degrees of freedom (Draper and Smith, Applied Regression Analysis,
    section 1.4), which are fewer than the points where residuals follow one another: n (1 - r) / (1 + r), r
    being their correlation from one point to the next (Bartlett 1946).
    """
    if len(xs) < 3 or max(xs) == min(xs):
        return 0.0, 0.0
    places, values = np.asarray(xs), np.asarray(ys)
    steepness, level = np.polyfit(places, values, 1)
    residuals = values - steepness * places - level
    power = float(residuals @ residuals)
    follows = max(0.0, float(residuals[1:] @ residuals[:-1]) / power) if power else 0.0
    freedom = max(1.0, len(xs) * (1 - follows) / (1 + follows) - 2)
    half = float(student.ppf(0.975, freedom) * (power / len(xs) / freedom / places.var()) ** 0.5)
    return float(steepness) - half, float(steepness) + half


def soak(arguments: argparse.Namespace, repository: Path) -> tuple[list[Look], list[str]]:
    """Serve for as long as was asked; return the curve, and what went wrong."""
    publish(repository)
    looks: list[Look] = []
    options = ("--runtime", arguments.runtime, "--transport", arguments.transport)
    with serving(repository, *options) as (pid, address):
        load = Load(address, arguments.callers, arguments.streams)
        began, swaps = time.monotonic(), 0
        pause = threading.Event()
        try:
            while (now := time.monotonic() - began) < arguments.seconds:
                looks.append(look(pid, began, load.requests, swaps))
                show(looks[-1], is_quiet=arguments.json, every=max(1, round(arguments.seconds / 20)))
                if arguments.swaps and now < arguments.seconds - 1:
                    publish(repository)
                    swaps += 1
                pause.wait(max(0.0, looks[-1].seconds + 1.0 - (time.monotonic() - began)))
        finally:
            load.stop()
        looks.append(look(pid, began, load.requests, swaps))
    return looks, load.failures


def show(seen: Look, *, is_quiet: bool, every: int) -> None:
    """Print a line of the curve now and then."""
    if is_quiet or round(seen.seconds) % every:
        return
    if round(seen.seconds) == 0:
        print(f"{'s':>5s} {'RSS, MB':>8s} {'PSS, MB':>8s} {'files':>6s} {'requests':>9s} {'swaps':>6s}")
    sizes = f"{seen.rss_bytes / MEGABYTE:8.1f} {seen.pss_bytes / MEGABYTE:8.1f}"
    print(f"{seen.seconds:5.0f} {sizes} {seen.files:6d} {seen.requests:9d} {seen.swaps:6d}", flush=True)


def figures(looks: Sequence[Look]) -> dict[str, float]:
    """Return what the curve says once it settled."""
    settled = [seen for seen in looks if seen.seconds >= SETTLING * looks[-1].seconds]
    kilobytes = [seen.pss_bytes / KILOBYTE for seen in settled]
    hours = [seen.seconds / 3600 for seen in settled]
    megabytes = [seen.rss_bytes / MEGABYTE for seen in settled]
    least, most = slope_interval(hours, megabytes)
    last = looks[-1]
    return {
        "requests": last.requests,
        "requests_per_second": last.requests / last.seconds,
        "swaps": last.swaps,
        "pss_kb_per_1000_requests": slope([seen.requests / 1000 for seen in settled], kilobytes),
        "pss_kb_per_swap": slope([seen.swaps for seen in settled], kilobytes),
        "rss_mb_per_hour": slope(hours, megabytes),
        "rss_mb_per_hour_at_least": least,
        "rss_mb_per_hour_at_most": most,
        "pss_grown_kb": kilobytes[-1] - kilobytes[0],
        "files_at_first": settled[0].files,
        "files_at_last": last.files,
    }


def main() -> None:
    """Soak, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--runtime", choices=("inline", "process"), default="inline")
    parser.add_argument("--transport", choices=("wire", "grpcio"), default="wire")
    parser.add_argument("--callers", type=int, default=3, help="threads with 8 calls at a time")
    parser.add_argument("--streams", type=int, default=1, help="threads with a stream of 100 requests")
    parser.add_argument("--swaps", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    arguments = parser.parse_args()
    arguments.seconds = 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as folder:
        looks, failures = soak(arguments, Path(folder))
    found = figures(looks)
    if arguments.json:
        print(json.dumps({**found, "failures": failures[:10], "curve": [asdict(seen) for seen in looks]}))
    else:
        print("\n".join(f"{name:26s} {value:12.2f}" for name, value in found.items()))
        print(f"{len(failures)} failures{': ' if failures else ''}{'; '.join(failures[:3])}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
