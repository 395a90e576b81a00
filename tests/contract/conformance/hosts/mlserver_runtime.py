"""Run MLServer over the suite's models.

    python -m venv venv && venv/bin/pip install mlserver==1.7.1
    venv/bin/python hosts/mlserver_runtime.py FOLDER [--port 8001]

FOLDER is made, unless it is there; it gets MLServer's settings.
"""

import argparse
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from oip.encoding import objects
from oip.functions import function_of
from oip.models import MODELS


class SuiteModel(MLModel):
    """One model of the suite, found by its name."""

    async def load(self) -> bool:
        """Find the function."""
        self._run = function_of(self.name)
        self._datatypes = {t.name: t.datatype for m in MODELS if m.name == self.name for t in m.outputs}
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run the function."""
        inputs = {tensor.name: _array(tensor) for tensor in payload.inputs}
        outputs = [self._output(name, array) for name, array in self._run(inputs).items()]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)

    async def predict_stream(
        self, payloads: AsyncIterator[InferenceRequest]
    ) -> AsyncIterator[InferenceResponse]:
        """Answer the requests of a stream one by one."""
        async for payload in payloads:
            yield await self.predict(payload)

    def _output(self, name: str, array: Any) -> Any:
        # Not by its NumpyCodec, which gives vectors a second axis and has no NaN.
        return ResponseOutput(
            name=name, shape=list(array.shape), datatype=self._datatypes[name], data=array.ravel().tolist()
        )


def _array(tensor: Any) -> Any:
    if tensor.datatype != "BYTES":
        return NumpyCodec.decode_input(tensor)
    data = tensor.data.root
    elements = data if isinstance(data, list) else [data]
    encoded = objects([each.encode() if isinstance(each, str) else bytes(each) for each in elements])
    return encoded.reshape(tensor.shape)


def write_settings(folder: Path, port: int) -> None:
    """Write settings.json, and model-settings.json of each model."""
    server = {"host": "127.0.0.1", "grpc_port": port, "http_port": port + 100, "metrics_port": port + 200}
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps(server | {"parallel_workers": 0, "debug": False}))
    for model in MODELS:
        # It has no BF16, and its models no sequences and no labels.
        if model.name in {"identity_bf16", "counter", "classes"}:
            continue
        described = {
            kind: [
                {"name": tensor.name, "datatype": tensor.datatype, "shape": list(model.shape(tensor))}
                for tensor in tensors
            ]
            for kind, tensors in (("inputs", model.inputs), ("outputs", model.outputs))
        }
        settings = {
            "name": model.name,
            "platform": "python",
            "implementation": "mlserver_runtime.SuiteModel",
            "parameters": {"version": "1"},
        }
        (folder / model.name).mkdir()
        (folder / model.name / "model-settings.json").write_text(json.dumps(settings | described))


def main() -> None:
    """Write the settings and become MLServer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8001)
    arguments = parser.parse_args()
    if not arguments.folder.exists():
        write_settings(arguments.folder, arguments.port)
    command = Path(sys.executable).with_name("mlserver")
    packages = ":".join(str(path) for path in (Path(__file__).parent, Path(__file__).parents[1]))
    environment = os.environ | {"PYTHONPATH": packages}
    os.execve(command, [str(command), "start", str(arguments.folder)], environment)


if __name__ == "__main__":
    main()
