"""Serve MODEL on PORT by Ray Serve over HTTP: python ray_runner.py MODEL NAME PORT.

Its gRPC server wants a service of the user's own; the tensor is the body of the request. Told that its
address is 127.0.0.1, Ray listens there only.
"""

import sys
import tempfile
import threading

import numpy as np
import onnxruntime
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

MODEL, NAME, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])


@serve.deployment(num_replicas=1, max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
class Onnx:
    """One session in Ray's replica process."""

    def __init__(self, path: str) -> None:
        """Build the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._shape = (1, *self._session.get_inputs()[0].shape[1:])

    async def __call__(self, request: Request) -> Response:
        """Run one request."""
        x = np.frombuffer(await request.body(), np.float32).reshape(self._shape)
        (y,) = self._session.run(None, {"x": x})
        return Response(y.tobytes(), media_type="application/octet-stream")


with tempfile.TemporaryDirectory(prefix="ray-") as folder:
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
        object_store_memory=100 << 20,
        logging_level="ERROR",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": PORT, "access_log": False})
    serve.run(Onnx.bind(MODEL), name=NAME, route_prefix="/")
    threading.Event().wait()
