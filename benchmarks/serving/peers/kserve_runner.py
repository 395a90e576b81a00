"""Serve MODEL as NAME on PORT by KServe's server over gRPC: python kserve_runner.py MODEL NAME PORT."""

import asyncio
import sys
from typing import Any

import onnxruntime
from grpc.aio import _server
from kserve import InferOutput, InferRequest, InferResponse, Model
from kserve.model_repository import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc.server import GRPCServer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

MODEL, NAME, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
# What ModelServer takes by itself.
THREADS = 4
LONGEST_BYTES = 64 << 20


class Onnx(Model):
    """One session in the server's own process."""

    def __init__(self) -> None:
        """Build the session."""
        super().__init__(NAME)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
        self.ready = True

    def predict(
        self, payload: InferRequest, headers: Any = None, response_headers: Any = None
    ) -> InferResponse:
        """Run one request."""
        del headers, response_headers
        (y,) = self._session.run(None, {"x": payload.inputs[0].as_numpy()})
        output = InferOutput(name="y", shape=list(y.shape), datatype="FP32")
        output.set_data_from_numpy(y, binary_data=True)
        return InferResponse(payload.id, self.name, [output])


def listen_here_only() -> None:
    """Keep its gRPC server off the network: the address is written into its source."""
    listen = _server.Server.add_insecure_port

    def add_insecure_port(server: Any, address: str) -> int:
        return listen(server, address.replace("[::]", "127.0.0.1"))

    _server.Server.add_insecure_port = add_insecure_port


async def main() -> None:
    """Serve until the process is ended; its HTTP server, which listens everywhere, is left out."""
    models = ModelRepository()
    models.update(Onnx())
    limits = {f"grpc_max_{way}_message_length": LONGEST_BYTES for way in ("send", "receive")}
    server = GRPCServer(PORT, DataPlane(models), ModelRepositoryExtension(models), limits)
    await server.start(THREADS)


listen_here_only()
asyncio.run(main())
