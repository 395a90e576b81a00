"""From torch to ONNX."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError
from flyweight.compressor.passes import export
from flyweight.compressor.passes.export import Export
from flyweight.compressor.torch_model import model_of


def operators(path: object) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_the_graph_answers_as_the_module_does_at_every_batch_length(
    residual: nn.Module, images: DataSet, context: Context
) -> None:
    path = Export()(model_of(residual, images), context).model.onnx_path()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows in (1, 2, 7):
        batch = images.inputs["image"][:rows]
        with torch.no_grad():
            expected = residual(torch.from_numpy(batch)).numpy()
        np.testing.assert_allclose(
            session.run(["output"], {"image": batch})[0], expected, rtol=1e-4, atol=1e-5
        )


def test_normalisation_is_folded_and_the_mean_is_a_pool(
    residual: nn.Module, images: DataSet, context: Context
) -> None:
    result = Export()(model_of(residual, images), context)
    found = operators(result.model.onnx_path())
    assert found["Conv"] == 3
    assert found["GlobalAveragePool"] == 1
    assert not {"BatchNormalization", "ReduceMean"} & set(found)
    assert "GlobalAveragePool" in result.notes[1]


def test_the_file_stands_alone_with_the_stated_opset(
    residual: nn.Module, images: DataSet, context: Context
) -> None:
    path = Export()(model_of(residual, images), context).model.onnx_path()
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]
    assert onnx.load(path).opset_import[0].version == export.OPSET


def test_the_exporter_is_silent(
    residual: nn.Module, images: DataSet, context: Context, capfd: pytest.CaptureFixture[str]
) -> None:
    Export()(model_of(residual, images), context)
    assert capfd.readouterr() == ("", "")


def test_inputs_and_outputs_keep_their_names(context: Context) -> None:
    class Two(nn.Module):
        def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"sum": left + right, "difference": left - right}

    ones = np.ones((4, 3), np.float32)
    data = DataSet({"right": ones, "left": 3 * ones})
    path = Export()(model_of(Two(), data), context).model.onnx_path()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["left", "right"]
    found = session.run(["sum", "difference"], {"left": 3 * ones, "right": ones})
    assert (float(found[0][0, 0]), float(found[1][0, 0])) == (4.0, 2.0)


def test_a_module_that_cannot_be_traced_is_one_sentence(images: DataSet, context: Context) -> None:
    class Branching(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.mean((1, 2, 3)) if float(image.sum()) > 0 else image.sum((1, 2, 3))

    with pytest.raises(PassError, match="could not export") as caught:
        Export()(model_of(Branching(), images), context)
    assert "\n" not in str(caught.value)


def test_a_frozen_batch_axis_is_noticed(context: Context) -> None:
    class Frozen(nn.Module):
        def forward(self, row: torch.Tensor) -> torch.Tensor:
            return row.reshape(2, -1) if row.shape[0] == 2 else row

    with pytest.raises(PassError, match="only takes batches of 2"):
        Export()(model_of(Frozen(), DataSet({"row": np.ones((5, 3), np.float32)})), context)


def test_a_graph_that_answers_differently_is_refused(
    residual: nn.Module, images: DataSet, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(PassError, match="cannot be trusted"):
        Export()(model_of(residual, images), context)


class Branching(nn.Module):
    """Takes another way for other data."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 8), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(x) if x.sum() > 0 else self.down(x)


def test_a_branch_on_data_is_named_and_nothing_else_is_printed(
    context: Context, capfd: pytest.CaptureFixture[str]
) -> None:
    data = DataSet({"x": np.ones((4, 16), dtype=np.float32)})
    with pytest.raises(PassError, match="data-dependent"):
        Export()(model_of(Branching(), data), context)
    assert capfd.readouterr() == ("", "")
