# ruff: noqa: T201 -- a benchmark's output is its product
"""Measure what serving costs: raw onnxruntime, two bare gRPC servers in Python, and flyweight.

    python tests/bench/serving.py                     a table, in about two minutes
    python tests/bench/serving.py --json serving.json

Servers are pinned to one processor and the load to another. All servers are up for the whole run and take
turns, round after round, so a busy neighbour slows all of them; read the ratios, not the absolute figures.
CPU is the server process's own, so it stands even where the load generator is the bottleneck.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.protos.tensors import encode_inputs
from models import MODELS, Spec

INFER = "/inference.GRPCInferenceService/ModelInfer"
SERVICE, METHOD = INFER.strip("/").split("/")
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
READY = "ready "
SERVERS = ("bare grpcio", "bare grpc.aio", "flyweight")


# --- the bare servers: what the libraries cost, with the least code that can answer ---


def session_of(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def answerer(path: Path) -> Callable[[bytes], bytes]:
    """Return a function from request bytes to response bytes that checks nothing and measures nothing."""
    session = session_of(path)

    def answer(body: bytes) -> bytes:
        request = ModelInferRequest.FromString(body)
        x = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(request.inputs[0].shape))
        (y,) = session.run(None, {"x": x})
        response = ModelInferResponse(model_name=request.model_name)
        response.outputs.add(name="y", datatype="FP32", shape=y.shape)
        response.raw_output_contents.append(y.tobytes())
        return response.SerializeToString()

    return answer


def serve_sync(path: Path, threads: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    answer = answerer(path)
    handler = grpc.unary_unary_rpc_method_handler(lambda body, _: answer(body))
    server = grpc.server(ThreadPoolExecutor(threads), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"{READY}127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


async def serve_aio(path: Path) -> None:
    answer = answerer(path)

    async def behaviour(body: bytes, _context: object) -> bytes:
        return answer(body)

    handler = grpc.unary_unary_rpc_method_handler(behaviour)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"{READY}127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


# --- the load: callers that ask again as soon as they are answered ---


async def load(address: str, body: bytes, callers: int, seconds: float) -> int:
    """Return how many answers came in `seconds`; any failure ends the benchmark."""
    done = 0
    async with grpc.aio.insecure_channel(address) as channel:
        infer = channel.unary_unary(INFER)
        await infer(body)
        until = time.perf_counter() + seconds

        async def call() -> None:
            nonlocal done
            while time.perf_counter() < until:
                await infer(body)
                done += 1

        await asyncio.gather(*(call() for _ in range(callers)))
    return done


def run_raw(session: onnxruntime.InferenceSession, spec: Spec, seconds: float) -> int:
    """Return how many runs the session makes in `seconds` when nothing is in its way."""
    x, done = spec.sample(), 0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        session.run(None, {"x": x})
        done += 1
    return done


# --- processes ---


def cpu_seconds(pid: int) -> float:
    """Return the processor time a process has used, in steps of a clock tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_SECONDS


@contextmanager
def server_process(name: str, repository: Path, spec: Spec, core: int) -> Iterator[tuple[str, int]]:
    """Run a server on one processor; yield its address and process id."""
    path = repository / spec.name / "1" / "model.onnx"
    command = {
        "bare grpcio": [sys.executable, __file__, "--serve", "sync", str(path)],
        "bare grpc.aio": [sys.executable, __file__, "--serve", "aio", str(path)],
        "flyweight": [
            *(str(Path(sys.executable).with_name("flyweight")), "serve", str(repository)),
            *("--port", "0", "--metrics-port", "0", "--threads", "1", "--poll-seconds", "5"),
        ],
    }[name]
    # A child starts with its parent's processors, and threads keep those they were started with.
    os.sched_setaffinity(0, {core})
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        words = line.split()
        address = next((word.removeprefix("grpc=") for word in words if ":" in word), "")
        if not address:
            sys.exit(f"{name} did not start: {line!r}")
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(30)


def measure(spec: Spec, repository: Path, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Measure every contender in turns; return medians by contender."""
    request = ModelInferRequest(model_name=spec.name)
    encode_inputs(request, {"x": spec.sample()})
    body = request.SerializeToString()
    server_core, load_core = sorted(os.sched_getaffinity(0))[:2]
    rates: dict[str, list[float]] = {"raw onnxruntime": [], **{name: [] for name in SERVERS}}
    costs: dict[str, list[float]] = {name: [] for name in rates}
    os.sched_setaffinity(0, {server_core})
    session = session_of(repository / spec.name / "1" / "model.onnx")
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(server_process(name, repository, spec, server_core)) for name in SERVERS
        }
        for _ in range(arguments.rounds):
            os.sched_setaffinity(0, {server_core})
            began, cpu = time.perf_counter(), time.process_time()
            done = run_raw(session, spec, arguments.seconds)
            rates["raw onnxruntime"].append(done / (time.perf_counter() - began))
            costs["raw onnxruntime"].append((time.process_time() - cpu) / done)
            os.sched_setaffinity(0, {load_core})
            for name, (address, pid) in servers.items():
                began, cpu = time.perf_counter(), cpu_seconds(pid)
                done = asyncio.run(load(address, body, arguments.callers, arguments.seconds))
                rates[name].append(done / (time.perf_counter() - began))
                costs[name].append((cpu_seconds(pid) - cpu) / done)
    os.sched_setaffinity(0, {server_core, load_core})
    return {
        name: {
            "requests_per_second": statistics.median(rates[name]),
            "cpu_microseconds_per_request": statistics.median(costs[name]) * 1e6,
            # Of the ratios of each round, not of the medians: a slow round is slow for both.
            "rate_to_bare_grpcio": _ratio(rates[name], rates["bare grpcio"]),
            "cpu_to_bare_grpcio": _ratio(costs[name], costs["bare grpcio"]),
        }
        for name in rates
    }


def _ratio(mine: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(mine, theirs, strict=True))


def show(spec: Spec, figures: dict[str, dict[str, Any]]) -> None:
    print(f"\n{spec.title}, batch 1")
    print(f"{'':18}{'requests/s':>12}{'CPU us':>9}{'rate ratio':>12}{'CPU ratio':>11}")
    for name, row in figures.items():
        print(
            f"{name:18}{row['requests_per_second']:12,.0f}{row['cpu_microseconds_per_request']:9.0f}"
            f"{row['rate_to_bare_grpcio']:12.2f}{row['cpu_to_bare_grpcio']:11.2f}"
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one turn")
    parser.add_argument("--callers", type=int, default=32, help="requests under way at one time")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "MODEL"), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=4, help="of the bare grpcio server")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.serve:
        kind, path = arguments.serve[0], Path(arguments.serve[1])
        if kind == "sync":
            serve_sync(path, arguments.threads)
        asyncio.run(serve_aio(path))
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("Two processors are needed: one for the server, one for the load.")
    document: dict[str, Any] = {
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "callers": arguments.callers,
        "versions": {"grpcio": grpc.__version__, "onnxruntime": onnxruntime.__version__},
        "models": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for spec in MODELS:
            spec.write(Path(folder) / spec.name / "1" / "model.onnx")
        for spec in MODELS:
            figures = document["models"][spec.name] = measure(spec, Path(folder), arguments)
            show(spec, figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
