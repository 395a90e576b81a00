"""Serve MODEL on PORT by BentoML over HTTP: python bentoml_runner.py MODEL NAME PORT.

Its gRPC server is for the services of its older form only; the tensor is the request's body.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    os.environ["BENCH_MODEL"] = sys.argv[1]
    arguments = ["serve", f"{Path(__file__).stem}:Served", "--host", "127.0.0.1", "--port", sys.argv[3]]
    os.environ["BENTOML_DO_NOT_TRACK"] = "true"
    os.chdir(Path(__file__).parent)
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *arguments, "--api-workers", "1"])  # noqa: S606

import bentoml
import numpy as np
import onnxruntime
from fastapi import FastAPI, Request, Response

app = FastAPI()


@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
@bentoml.asgi_app(app, path="/raw")
class Served:
    """One session in BentoML's worker process."""

    def __init__(self) -> None:
        """Build the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = os.environ["BENCH_MODEL"]
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._shape = (1, *self._session.get_inputs()[0].shape[1:])

    @app.post("/predict")
    async def predict(self, request: Request) -> Response:
        """Run one request."""
        x = np.frombuffer(await request.body(), np.float32).reshape(self._shape)
        (y,) = self._session.run(None, {"x": x})
        return Response(y.tobytes(), media_type="application/octet-stream")
