"""Serve MODEL on PORT by LitServe over HTTP: python litserve_runner.py MODEL NAME PORT.

It reads JSON or forms only: the tensor comes as base64 in JSON, which is quicker for it than numbers.
"""

import base64
import sys

import litserve
import numpy as np
import onnxruntime
from fastapi import Response

MODEL, NAME, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])


class Onnx(litserve.LitAPI):
    """One session in LitServe's worker process."""

    def setup(self, device: str) -> None:
        """Build the session."""
        del device
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
        self._shape = (1, *self._session.get_inputs()[0].shape[1:])

    def decode_request(self, request):  # an annotation would change what it is given
        """Return the tensor."""
        return np.frombuffer(base64.b64decode(request["x"]), np.float32).reshape(self._shape)

    def predict(self, x):
        """Run one request."""
        return self._session.run(None, {"x": x})[0]

    def encode_response(self, output):
        """Return the answer's bytes."""
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    server = litserve.LitServer(Onnx(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=PORT, num_api_servers=1, generate_client_file=False, log_level="error")
