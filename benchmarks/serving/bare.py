"""The least servers that can answer a ModelInfer in Python: what the libraries cost by themselves.

    python -m benchmarks.serving.bare (threads|aio) MODEL PORT

They parse, run and answer, and do nothing else: no checks, admission, routing, batching, metrics.
"""

import argparse
import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
import numpy as np

from benchmarks.serving.asking import METHOD, SERVICE
from benchmarks.serving.networks import session_of
from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse

# More are slower: they take the interpreter from each other.
_THREADS: Final = 4
_OPTIONS: Final = (("grpc.so_reuseport", 0),)


def answerer(path: Path) -> Callable[[bytes], bytes]:
    """Return a function from a request's bytes to its response's."""
    session = session_of(path)

    def answer(body: bytes) -> bytes:
        request = ModelInferRequest.FromString(body)
        x = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(request.inputs[0].shape))
        y = np.asarray(session.run(None, {"x": x})[0])
        response = ModelInferResponse(model_name=request.model_name)
        response.outputs.add(name="y", datatype="FP32", shape=y.shape)
        response.raw_output_contents.append(y.tobytes())
        return response.SerializeToString()

    return answer


def serve_with_threads(path: Path, port: int) -> None:
    """Serve with grpcio's thread pool."""
    answer = answerer(path)
    handler = grpc.unary_unary_rpc_method_handler(lambda body, _: answer(body))
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=_OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


async def serve_with_loop(path: Path, port: int) -> None:
    """Serve with grpcio's asyncio server."""
    answer = answerer(path)

    async def behaviour(body: bytes, _context: object) -> bytes:
        return answer(body)

    handler = grpc.unary_unary_rpc_method_handler(behaviour)
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Serve until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=("threads", "aio"))
    parser.add_argument("model", type=Path)
    parser.add_argument("port", type=int)
    given = parser.parse_args()
    if given.kind == "threads":
        serve_with_threads(given.model, given.port)
    else:
        asyncio.run(serve_with_loop(given.model, given.port))


if __name__ == "__main__":
    main()
