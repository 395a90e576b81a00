"""Run KServe's Python model server over the suite's models.

    python -m venv venv && venv/bin/pip install kserve==0.21.0
    venv/bin/python hosts/kserve_models.py [--port 8001]

KServe's own start listens on all interfaces; here its servicer, data plane and interceptors, put together as
it does, listen on 127.0.0.1.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

import kserve
from grpc import aio
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor, LoggingInterceptor
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

sys.path.insert(0, str(Path(__file__).parents[1]))

from oip.functions import function_of
from oip.models import MODELS, Model

# What KServe's command line gives its gRPC server by default.
_LARGEST_MESSAGE_BYTES = 8 << 20


class SuiteModel(kserve.Model):
    """One model of the suite."""

    def __init__(self, model: Model) -> None:
        super().__init__(model.name)
        self._model, self._run = model, function_of(model.name)
        self.load()

    def load(self) -> bool:
        """Be ready at once."""
        self.ready = True
        return True

    async def get_input_types(self) -> list[dict[str, Any]]:
        """Describe the inputs."""
        return self._described(self._model.inputs)

    async def get_output_types(self) -> list[dict[str, Any]]:
        """Describe the outputs."""
        return self._described(self._model.outputs)

    def _described(self, tensors: Any) -> list[dict[str, Any]]:
        return [
            {"name": t.name, "datatype": t.datatype, "shape": list(self._model.shape(t))} for t in tensors
        ]

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """Run the function; the slow one in a thread, so that the server goes on."""
        inputs = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        found = await asyncio.to_thread(self._run, inputs)
        outputs = []
        for tensor in self._model.outputs:
            array = found[tensor.name]
            output = kserve.InferOutput(tensor.name, list(array.shape), tensor.datatype)
            output.set_data_from_numpy(array, binary_data=True)
            outputs.append(output)
        return kserve.InferResponse(payload.id, self.name, outputs)


async def serve(port: int) -> None:
    """Serve until the process ends."""
    repository = kserve.ModelRepository()
    for model in MODELS:
        # Its numpy types have no BF16, and its models no sequences.
        if model.name not in {"identity_bf16", "counter", "classes"}:
            repository.update(SuiteModel(model))
    plane = DataPlane(repository)
    options = [
        ("grpc.max_send_message_length", _LARGEST_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", _LARGEST_MESSAGE_BYTES),
    ]
    server = aio.server(interceptors=(LoggingInterceptor(), ExceptionToStatusInterceptor()), options=options)
    servicer = InferenceServicer(plane, ModelRepositoryExtension(repository))
    grpc_predict_v2_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8001)
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
