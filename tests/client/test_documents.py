"""The snippets of docs/client.md run as they stand, but for the address."""

import re
from pathlib import Path

import numpy as np
import pytest

from flyweight.client import TensorInfo
from flyweight.client.testing import FakeModel, serve_fake

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "client.md"


def test_the_snippets_run_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    snippets = re.findall(r"<!-- run -->\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(snippets) == 6
    model = FakeModel(
        variants={
            name: lambda inputs: {"logits": inputs["pixels"] + np.float32(1)} for name in ("baseline", "int8")
        },
        inputs=(TensorInfo("pixels", "FP32", (-1, 3)),),
    )
    names: dict[str, object] = {}
    with serve_fake({"digits": model}) as server:
        for snippet in snippets:
            exec(snippet.replace("127.0.0.1:8001", server.address), names)
    printed = capsys.readouterr().out
    assert "baseline baseline default" in printed
    assert "model 'digitz'" in printed
