"""Coding a model into one file, and publishing it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import ModelError, PassError
from flyweight.compressor.evaluate.bench import Bench, BenchSettings
from flyweight.compressor.evaluate.served import decoded
from flyweight.compressor.model import Model
from flyweight.compressor.passes.base import Form
from flyweight.compressor.passes.share.encode import Encode
from flyweight.compressor.passes.share.grouping import Sharing
from flyweight.compressor.passes.share.share import Share
from flyweight.compressor.passes.share.tidy import tidy
from flyweight.compressor.publish import Origin, Publisher
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.protos.coded import CodedError, decode_file
from flyweight.protos.variant import read_golden, read_manifest, verify_digests


@pytest.fixture
def context(context_of: Callable[[DataSet], Context], rows: Any) -> Context:
    return context_of(rows(8, x=(16,)))


def test_what_is_coded_runs_as_before(digits: tuple[Path, DataSet], context: Context) -> None:
    path, data = digits
    shared = Share(Sharing(bits=4))(Model(path=path), context).model
    result = Encode()(shared, context)
    assert result.model.form is Form.CODED
    assert result.model.path is not None
    plain = decoded(result.model.path, context.new_path("decoded"))
    feed = {"x": data.inputs["x"]}
    for name, expected in Session(shared.onnx_path(), SessionSettings()).run(feed).items():
        np.testing.assert_array_equal(Session(plain, SessionSettings()).run(feed)[name], expected)
    # 17,024 weights of 4 bits and 202 biases of 4 bytes; the graph and the tables are the rest.
    size = result.model.path.stat().st_size
    assert size < 17_024 * 4 / 8 + 202 * 4 + 700
    assert f"coded into {size}" in result.notes[0]


def test_large_weights_beside_the_file_are_taken_in(models: Any, context: Context) -> None:
    path = models.mlp()
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="beside.data", size_threshold=0)
    result = Encode()(Model(path=path), context)
    assert result.model.path is not None
    plain = onnx.load_from_string(bytes(decode_file(result.model.path)))
    assert [tensor.raw_data for tensor in plain.graph.initializer] == [
        tensor.raw_data for tensor in onnx.load(path).graph.initializer
    ]


def test_what_nobody_runs_is_taken_out_unless_it_is_to_stay(models: Any, context: Context) -> None:
    path = models.mlp()
    model = onnx.load(path)
    model.doc_string = model.graph.node[0].doc_string = "where it came from"
    model.graph.node[0].metadata_props.add(key="pkg.torch", value="line 3")
    model.graph.value_info.add(name="h")
    onnx.save(model, path)
    sizes = {}
    for strip in (True, False):
        result = Encode(strip=strip)(Model(path=path), context)
        assert result.model.path is not None
        content = bytes(decode_file(result.model.path))
        sizes[strip] = len(content)
        assert (b"where it came from" in content) is not strip
    assert sizes[False] > sizes[True]


def test_both_zeros_become_one() -> None:
    values = np.array([[-0.0, 0.0], [1.0, -1.0]], np.float32)
    model = onnx.ModelProto()
    model.graph.initializer.append(numpy_helper.from_array(values, "w"))
    tidy(model)
    after = numpy_helper.to_array(model.graph.initializer[0])
    assert after.tolist() == values.tolist()
    assert not np.signbit(after[0]).any()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx.fw"
    path.write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"model\.onnx\.fw cannot be decoded: it is not a coded file"):
        decoded(path, tmp_path / "model.onnx")


def test_a_place_that_cannot_be_written_is_named(models: Any, context: Context, tmp_path: Path) -> None:
    coded = Encode()(Model(path=models.mlp()), context).model.path
    assert coded is not None
    with pytest.raises(ModelError, match="cannot be written"):
        decoded(coded, tmp_path / "nowhere" / "model.onnx")


@pytest.mark.parametrize(("name", "fault"), [("encode", CodedError("too large")), ("decode", b"another")])
def test_a_coder_that_fails_makes_no_file(
    models: Any, context: Context, monkeypatch: pytest.MonkeyPatch, name: str, fault: object
) -> None:
    def fail(content: bytes) -> object:
        if isinstance(fault, CodedError):
            raise fault
        return fault

    monkeypatch.setattr(f"flyweight.compressor.passes.share.encode.{name}", fail)
    with pytest.raises(PassError, match=r"cannot be coded: too large|does not decode to the model"):
        Encode()(Model(path=models.mlp()), context)


def test_a_coded_variant_is_published_in_the_plain_ones_place(
    digits: tuple[Path, DataSet], context: Context, tmp_path: Path, no_memory_processes: None
) -> None:
    path, data = digits
    coded = Encode()(Model(path=path), context).model.path
    assert coded is not None
    plain = decoded(coded, context.new_path("decoded"))
    settings = BenchSettings(seconds_per_point=0.01)
    bench = Bench(path, data.first(64), context.new_path("bench").parent, settings)
    bench.measure_baseline()
    evaluation = bench.measure(plain, stored=coded)
    assert evaluation.file_bytes == coded.stat().st_size
    folder = Publisher(tmp_path / "repository", "digits", bench, "").publish(
        "coded", plain, evaluation, Origin("coded"), stored=coded
    )
    assert sorted(file.name for file in folder.iterdir()) == ["golden.npz", "manifest.json", "model.onnx.fw"]
    manifest = read_manifest(folder)
    assert manifest is not None
    verify_digests(folder, manifest)
    assert manifest.footprint.file_bytes == coded.stat().st_size
    golden = read_golden(folder / "golden.npz")
    expected = Session(path, SessionSettings()).run(golden.inputs)
    np.testing.assert_allclose(golden.outputs["scores"], expected["scores"], rtol=1e-5)
