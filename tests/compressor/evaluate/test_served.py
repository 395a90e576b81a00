"""The file that runs, of a variant in either form."""

from pathlib import Path

import pytest

from flyweight.compressor.errors import ModelError
from flyweight.compressor.evaluate.served import servable
from flyweight.protos.coded import encode


def test_a_graph_is_served_as_it_is(tmp_path: Path) -> None:
    assert servable(tmp_path / "model.onnx") == (tmp_path / "model.onnx", None)


def test_a_coded_file_is_decoded_beside_it_once(tmp_path: Path) -> None:
    coded = tmp_path / "model.onnx.fw"
    coded.write_bytes(encode(b"a graph"))
    running, stored = servable(coded)
    assert stored == coded
    assert running.suffix == ".onnx"
    assert running.read_bytes() == b"a graph"
    running.write_bytes(b"kept")
    assert servable(coded)[0].read_bytes() == b"kept"


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.onnx.fw").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be decoded"):
        servable(tmp_path / "model.onnx.fw")
