"""Serve MODEL as NAME on PORT by MLServer over gRPC: python mlserver_runner.py MODEL NAME PORT."""

import asyncio
import sys

import mlserver
import onnxruntime
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

MODEL, NAME, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
# The largest request is 0.6 MB.
LONGEST_BYTES = 64 << 20


class Onnx(MLModel):
    """One session in the server's own process, run on its loop: its quickest way for runs this short."""

    async def load(self) -> bool:
        """Build the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run one request."""
        (y,) = self._session.run(None, {"x": NumpyCodec.decode_input(payload.inputs[0])})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])


async def main() -> None:
    """Serve until the process is ended."""
    settings = Settings(
        host="127.0.0.1",
        http_port=0,
        grpc_port=PORT,
        metrics_endpoint=None,
        parallel_workers=0,
        debug=False,
        grpc_max_message_length=LONGEST_BYTES,
    )
    await MLServer(settings).start([ModelSettings(name=NAME, implementation=Onnx)])


print("MLServer", mlserver.__version__)
asyncio.run(main())
