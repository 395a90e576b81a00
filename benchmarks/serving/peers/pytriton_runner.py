"""Serve MODEL as NAME on PORT by Triton's Python backend over gRPC: pytriton_runner.py MODEL NAME PORT.

nvidia-pytriton brings Triton's C++ server, without its onnxruntime backend; the model runs in this process,
and its dynamic batcher merges what waits.
"""

import sys

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

MODEL, NAME, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
MOST_ROWS = 32

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])


@batch
def infer(x):  # PyTriton's decorator gives arrays by name
    """Run what was merged."""
    return session.run(None, {"x": x})


here = "127.0.0.1"
settings = TritonConfig(
    grpc_address=here,
    grpc_port=PORT,
    http_address=here,
    http_port=PORT + 1,
    allow_metrics=False,
    log_verbose=0,
)
with Triton(config=settings) as triton:
    triton.bind(
        model_name=NAME,
        infer_func=infer,
        inputs=[Tensor(name="x", dtype=np.float32, shape=tuple(session.get_inputs()[0].shape[1:]))],
        outputs=[Tensor(name="y", dtype=np.float32, shape=tuple(session.get_outputs()[0].shape[1:]))],
        config=ModelConfig(max_batch_size=MOST_ROWS, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        strict=False,
    )
    triton.serve()
