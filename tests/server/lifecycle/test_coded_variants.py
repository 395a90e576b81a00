"""Variants whose model is a coded file: loaded as others are, and refused in a sentence when damaged."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from flyweight.protos.coded import encode
from flyweight.protos.manifest.v1.manifest_pb2 import Golden, VariantManifest
from flyweight.protos.variant import GOLDEN_FILE, GoldenSamples, publish_variant, write_golden
from flyweight.server.checking import check_repository
from flyweight.server.errors import LoadFailed
from flyweight.server.lifecycle.desired import VariantSource, desire
from flyweight.server.lifecycle.loading import load_variant
from flyweight.server.repository.scan import scan_repository
from flyweight.server.runtime.inline import InlineFactory
from tests.open_files import no_file_left

X = np.ones((3, 4), np.float32)
CODED = "model.onnx.fw"


@pytest.fixture
def publish_coded(repository_root: Path, tiny_model: Any, tmp_path: Path) -> Callable[..., Path]:
    """Publish a variant of "tiny", y = scale * x, coded; `spoil` changes it before it has a digest."""

    def publish(variant: str, scale: float, spoil: Callable[[bytes], bytes] = lambda coded: coded) -> Path:
        coded = spoil(encode(tiny_model(tmp_path / "plain.onnx", scale).read_bytes()))
        manifest = VariantManifest(
            model="tiny", variant=variant, golden=Golden(file=GOLDEN_FILE, relative_tolerance=1e-6)
        )

        def fill(folder: Path) -> None:
            (folder / CODED).write_bytes(coded)
            write_golden(folder, GoldenSamples({"x": X}, {"y": X * np.float32(scale)}))

        return publish_variant(repository_root, manifest, fill)

    return publish


def find(root: Path, variant: str, model: str = "tiny") -> VariantSource:
    return desire(scan_repository(root)).models[model].wanted[variant]


def ask(root: Path, variant: str, model: str = "tiny") -> Any:
    loaded = load_variant(find(root, variant, model), InlineFactory(cores=1))
    return loaded.runtime.run({"x": X}).outputs["y"]


def test_a_coded_variant_is_loaded_and_answers(repository_root: Path, publish_coded: Any) -> None:
    folder = publish_coded("coded", 3.0)
    assert find(repository_root, "coded").model_file == CODED
    np.testing.assert_array_equal(ask(repository_root, "coded"), 3 * X)
    loaded = load_variant(find(repository_root, "coded"), InlineFactory(cores=1))
    assert loaded.memory.file_bytes == sum(path.stat().st_size for path in folder.iterdir())


def test_a_plain_model_beside_a_coded_one_is_the_one_that_is_served(
    repository_root: Path, tiny_model: Any
) -> None:
    folder = repository_root / "plain" / "1"
    tiny_model(folder / "model.onnx", 5.0)
    (folder / CODED).write_bytes(encode(tiny_model(repository_root.parent / "other.onnx", 7.0).read_bytes()))
    np.testing.assert_array_equal(ask(repository_root, "1", "plain"), 5 * X)
    (folder / "model.onnx").unlink()
    np.testing.assert_array_equal(ask(repository_root, "1", "plain"), 7 * X)


def test_a_name_in_config_pbtxt_may_be_a_coded_file(repository_root: Path, tiny_model: Any) -> None:
    folder = repository_root / "plain" / "1"
    tiny_model(folder / "model.onnx", 5.0)
    (folder / "small.fw").write_bytes(encode(tiny_model(repository_root.parent / "s.onnx", 7.0).read_bytes()))
    (folder.parent / "config.pbtxt").write_text('default_model_filename: "small.fw"')
    np.testing.assert_array_equal(ask(repository_root, "1", "plain"), 7 * X)


def garble(coded: bytes) -> bytes:
    return coded[:30] + bytes([coded[30] ^ 1]) + coded[31:]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (garble, r"tiny/bad/model\.onnx\.fw cannot be decoded: .*; encode or publish it again\.$"),
        (lambda coded: coded[:-9], "cannot be decoded"),
        (lambda _: b"PK", "it is not a coded file"),
        (lambda _: encode(b"no model at all"), r"model\.onnx\.fw cannot be loaded: "),
    ],
)
def test_a_file_that_was_published_damaged_is_refused_in_a_sentence(
    repository_root: Path, publish_coded: Any, spoil: Callable[[bytes], bytes], sentence: str
) -> None:
    publish_coded("bad", 3.0, spoil)
    with pytest.raises(LoadFailed, match=sentence) as caught:
        ask(repository_root, "bad")
    assert "/proc/" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_decodes_to_too_much_is_refused_before_it_is_decoded(
    repository_root: Path, publish_coded: Any
) -> None:
    publish_coded("bad", 3.0, lambda coded: coded[:10] + (1 << 40).to_bytes(8, "little") + coded[18:])
    with pytest.raises(LoadFailed, match="it decodes to 1099511627776 bytes where 2147483647 are allowed"):
        ask(repository_root, "bad")


def test_a_damaged_coded_variant_leaves_the_others_alone(
    bench: Any, repository: Path, publish_coded: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With real sessions: the index, the log and the metrics' observer say so once, int8 goes on."""
    bench.factory = InlineFactory(cores=1)
    publish_coded("coded", 3.0, garble)
    with caplog.at_level(logging.WARNING):
        bench.settle()
    assert bench.ready() == ["baseline", "int8"]
    assert bench.states()["tiny/coded"] == "UNAVAILABLE"
    assert "model.onnx.fw cannot be decoded: " in bench.reason("tiny", "coded")
    assert bench.diary.lines.count("failed tiny/coded") == 1
    assert any("cannot be decoded" in record.getMessage() for record in caplog.records)
    publish_coded("coded", 3.0)
    bench.settle()
    assert bench.ready() == ["baseline", "coded", "int8"]


def test_check_names_a_damaged_file(repository: Path, publish_coded: Any) -> None:
    publish_coded("good", 3.0)
    assert check_repository(repository, 30).faults == ()
    publish_coded("bad", 3.0, garble)
    (fault,) = check_repository(repository, 30).faults
    assert fault.startswith("tiny/bad: ")
    assert "cannot be decoded" in fault


def test_nothing_of_a_load_is_left_behind(repository_root: Path, publish_coded: Any) -> None:
    publish_coded("coded", 3.0)
    publish_coded("bad", 3.0, lambda _: encode(b"no model"))
    ask(repository_root, "coded")
    with no_file_left():
        for _ in range(3):
            ask(repository_root, "coded")
            with pytest.raises(LoadFailed):
                ask(repository_root, "bad")


def test_without_files_in_memory_a_temporary_one_does(
    repository_root: Path, publish_coded: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    publish_coded("coded", 3.0)
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    np.testing.assert_array_equal(ask(repository_root, "coded"), 3 * X)
    assert list(tmp_path.glob("tmp*")) == []


def test_a_full_disk_or_memory_is_a_sentence(
    repository_root: Path, publish_coded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_coded("coded", 3.0)

    def full(handle: int, content: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flyweight.server.runtime.coded.os.write", full)
    with pytest.raises(LoadFailed, match=r"cannot be decoded \(No space left on device\); make room for it"):
        ask(repository_root, "coded")

    def exhausted(path: Path) -> bytearray:
        raise MemoryError

    monkeypatch.setattr("flyweight.server.runtime.coded.decode_file", exhausted)
    with pytest.raises(LoadFailed, match="decodes to more than there is memory for"):
        ask(repository_root, "coded")


def test_the_answer_is_that_of_the_decoded_model(
    repository_root: Path, publish_coded: Any, tmp_path: Path
) -> None:
    publish_coded("coded", 0.3)
    session = onnxruntime.InferenceSession(str(tmp_path / "plain.onnx"))
    (expected,) = session.run(None, {"x": X})
    np.testing.assert_array_equal(ask(repository_root, "coded"), expected)
