"""`tritonclient`, our client and our server share one process, whichever is imported first.

Each order runs in an interpreter of its own, because an import cannot be undone.
"""

import itertools
import subprocess
import sys

import pytest

PACKAGES = ("tritonclient.grpc", "flyweight.client.sync", "flyweight.server.rpc.carrier")

CALLS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)

import numpy as np
import tritonclient.grpc as triton
from flyweight.client import Client
from flyweight.client.testing import serve_fake
from flyweight.server.rpc.inference import Inference
from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest
from tritonclient.grpc.service_pb2 import ModelInferRequest as TheirModelInferRequest

x = np.arange(6, dtype=np.float32).reshape(2, 3)
with serve_fake({"echo": dict}) as server:
    with Client(server.address) as client:
        ours = client.predict("echo", {"x": x}).output
    their_client = triton.InferenceServerClient(server.address)
    tensor = triton.InferInput("x", [2, 3], "FP32")
    tensor.set_data_from_numpy(x)
    theirs = their_client.infer("echo", [tensor]).as_numpy("x")
    their_client.close()
assert np.array_equal(ours, x) and np.array_equal(theirs, x)
assert ModelInferRequest.DESCRIPTOR.full_name == TheirModelInferRequest.DESCRIPTOR.full_name
assert ModelInferRequest is not TheirModelInferRequest
print("done")
"""


@pytest.mark.parametrize("order", list(itertools.permutations(PACKAGES)), ids=" ".join)
def test_every_order_of_imports_can_call(order: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALLS, *order], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-2000:]
