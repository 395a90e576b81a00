"""The cache of what recipes made: whole, bounded, shared, and never trusted blindly."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.caching import NOTES, Cache, RecipeCache, default_folder, digest_of_model, key_of
from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import ModelError
from flyweight.compressor.model import Model
from flyweight.compressor.passes.base import PassSequence
from flyweight.compressor.passes.memo import Memo
from flyweight.compressor.passes.quantize import Fp16Storage, StaticInt8


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def write(path: Path, seed: int = 0, *, beside: bool = False) -> Path:
    """A product with 4 KB of weights, in the file or beside it."""
    weight = np.random.default_rng(seed).standard_normal((32, 32)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 32])],
        [numpy_helper.from_array(weight, "w")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save_model(model, path, save_as_external_data=beside, location="model.onnx.data", size_threshold=1)
    return path


@pytest.mark.parametrize("beside", [False, True])
def test_what_was_put_is_got_with_all_of_its_files(cache: Cache, tmp_path: Path, beside: bool) -> None:
    path = write(tmp_path / "made" / "model.onnx", beside=beside)
    assert cache.put("key", path, ("One layer.",))
    entry = cache.get("key", tmp_path / "copy")
    assert entry is not None
    assert entry.notes == ("One layer.",)
    assert entry.path.parent == tmp_path / "copy"
    assert digest_of_model(entry.path) == digest_of_model(path)


def test_a_key_that_was_never_put_is_not_got(cache: Cache, tmp_path: Path) -> None:
    assert cache.get("key", tmp_path / "copy") is None
    assert "key" not in cache


def test_the_first_to_put_a_key_is_kept(cache: Cache, tmp_path: Path) -> None:
    first, second = write(tmp_path / "a" / "model.onnx", 1), write(tmp_path / "b" / "model.onnx", 2)
    assert cache.put("key", first)
    assert not cache.put("key", second)
    entry = cache.get("key", tmp_path / "copy")
    assert entry is not None
    assert digest_of_model(entry.path) == digest_of_model(first)


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "no notes", "bad notes", "escape"])
def test_a_damaged_entry_is_dropped_and_can_be_put_again(cache: Cache, tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "made" / "model.onnx")
    cache.put("key", path)
    stored, notes = cache.folder / "key" / "model.onnx", cache.folder / "key" / NOTES
    if damage == "flip":
        content = bytearray(stored.read_bytes())
        content[-1] ^= 1
        stored.write_bytes(content)
    elif damage == "cut":
        stored.write_bytes(stored.read_bytes()[:-7])
    elif damage == "missing":
        stored.unlink()
    elif damage == "no notes":
        notes.write_text("")
    elif damage == "bad notes":
        notes.write_text('{"model": 3, "files": [], "notes": null}')
    else:
        told = json.loads(notes.read_text())
        notes.write_text(json.dumps({**told, "files": {**told["files"], "../../secret": "0"}}))
    assert cache.get("key", tmp_path / "copy") is None
    assert not list((tmp_path / "copy").glob("*")) if (tmp_path / "copy").exists() else True
    assert cache.put("key", path)
    assert cache.get("key", tmp_path / "again") is not None


def test_the_longest_unused_go_first(cache: Cache, tmp_path: Path) -> None:
    path = write(tmp_path / "made" / "model.onnx")
    cache.put("a", path)
    one = cache.bytes()
    small = Cache(cache.folder, limit_bytes=2 * one)
    small.put("b", path)
    os.utime(cache.folder / "a", (1, 1))
    os.utime(cache.folder / "b", (2, 2))
    assert small.get("a", tmp_path / "copy") is not None  # used just now
    small.put("c", path)
    assert [key in small for key in "abc"] == [True, False, True]
    assert small.bytes() <= 2 * one


def test_what_is_larger_than_the_cache_is_not_kept(cache: Cache, tmp_path: Path) -> None:
    assert not Cache(cache.folder, limit_bytes=100).put("key", write(tmp_path / "made" / "model.onnx"))
    assert "key" not in cache


def test_a_folder_that_cannot_be_written_costs_the_cache_only(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    cache = Cache(tmp_path / "cache")
    assert not cache.put("key", write(tmp_path / "made" / "model.onnx"))
    assert cache.get("key", tmp_path / "copy") is None


def test_many_writers_and_readers_see_whole_entries(cache: Cache, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"made{place}" / "model.onnx", place) for place in range(4)]
    small = Cache(cache.folder, limit_bytes=3 * 5000)

    def use(place: int) -> bool:
        small.put(f"k{place % 4}", paths[place % 4])
        entry = small.get(f"k{(place + 1) % 4}", tmp_path / f"copy{place}")
        return entry is None or digest_of_model(entry.path) == digest_of_model(paths[(place + 1) % 4])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(64)))
    assert not [folder for folder in small.folder.iterdir() if folder.name.startswith(".")]


def test_a_model_without_its_data_is_refused(cache: Cache, tmp_path: Path) -> None:
    path = write(tmp_path / "made" / "model.onnx", beside=True)
    (path.parent / "model.onnx.data").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx\.data"):
        cache.put("key", path)


def test_a_key_depends_on_every_part() -> None:
    parts = {"model": "a", "seed": 0}
    keys = {
        key_of(parts),
        key_of({**parts, "model": "b"}),
        key_of({**parts, "seed": 1}),
        key_of({**parts, "x": None}),
    }
    assert len(keys) == 4
    assert key_of({"seed": 0, "model": "a"}) == key_of(parts)


@pytest.mark.parametrize(
    ("given", "expected"), [("/somewhere", "/somewhere/flyweight"), ("relative", None), ("", None)]
)
def test_the_default_folder_follows_the_xdg_specification(
    monkeypatch: pytest.MonkeyPatch, given: str, expected: str | None
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert default_folder() == (Path(expected) if expected else Path.home() / ".cache" / "flyweight")


def test_the_next_run_takes_the_longest_beginning_from_the_cache(
    cache: Cache, tmp_path: Path, rows: Callable[..., DataSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, data = Model(path=write(tmp_path / "made" / "model.onnx")), rows(16, x=(32,))
    assert source.path is not None
    digest = digest_of_model(source.path)

    def memo(run: str, samples: DataSet) -> tuple[Memo, Context]:
        (tmp_path / run).mkdir()
        context = Context(workspace=tmp_path / run, calibration=samples)
        return Memo(RecipeCache(cache, source, digest, context)), context

    first, context = memo("first", data)
    made = first.apply(StaticInt8(), source, context)
    monkeypatch.setattr(StaticInt8, "apply", None)  # not to be called again
    second, context = memo("second", data)
    again = second.apply(PassSequence([StaticInt8(), Fp16Storage()]).passes[0], source, context)
    assert again.notes == made.notes
    assert again.model.onnx_path().read_bytes() == made.model.onnx_path().read_bytes()
    assert again.model.onnx_path().is_relative_to(tmp_path / "second")
    third, context = memo("third", rows(8, x=(32,)))
    with pytest.raises(TypeError):  # other calibration data: another key, so the pass is asked
        third.apply(StaticInt8(), source, context)
