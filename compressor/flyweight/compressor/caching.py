"""A cache on disk of what recipes made, by content, so that the next run does not train again.

    <folder>/<key>/model.onnx [model.onnx.data] | model.fw     notes.json

A key says everything a result depends on. An entry is written to a hidden sibling folder and renamed, so that
two processes may use one cache: a reader sees all of an entry or nothing, and who comes second with the same
key leaves the first one's. An entry whose bytes are not those of its digests is dropped and made again.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flyweight.compressor.errors import ModelError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import external_files, load_graph
from flyweight.compressor.passes.base import Form, Pass, PassResult, PassSequence
from flyweight.compressor.recipe import dump_recipe
from flyweight.compressor.versions import installed_versions
from flyweight.protos.variant.digests import sha256_of

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

NOTES: Final = "notes.json"
# A hundred variants of a 100 MB network, or a few of a language model: more than one search comes back to,
# and less than what is left on the disk of a machine that trains.
DEFAULT_LIMIT_BYTES: Final = 10_000_000_000
# How passes say that they ended early.
_CUT_SHORT: Final = "the time limit came"
# What may change the bytes of a result without any option having changed.
_TOOLS: Final = ("flyweight", "onnxruntime", "onnx", "torch", "torch-pruning")


@dataclass(frozen=True, slots=True)
class Entry:
    """What was made once.

    Attributes:
        path: the model's file, the caller's own copy.
        notes: sentences of the passes that made it.
    """

    path: Path
    notes: tuple[str, ...]


class Cache:
    """Entries in one folder, at most `limit_bytes` in all; the longest unused go first.

    Safe to use from several processes and threads. A full or read-only disk costs the cache, not the run.
    """

    def __init__(self, folder: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes

    def get(self, key: str, into: Path) -> Entry | None:
        """Return a copy of the entry in the folder `into`, made if need be; None if there is no sound one.

        The copy is a hard link where the file system has them: nobody edits a model in place, and another
        process may drop the entry while the copy is in use.
        """
        home = self.folder / key
        with contextlib.suppress(OSError):
            os.utime(home)  # used just now: the last to be dropped
        try:
            told = json.loads((home / NOTES).read_text(encoding="utf-8"))
            digests, notes, model = dict(told["files"]), tuple(map(str, told["notes"])), str(told["model"])
            sound = {Path(name).name for name in digests} == {*digests} and model in digests
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return self._dropped(home)
        if not sound:
            return self._dropped(home)
        try:
            into.mkdir(parents=True, exist_ok=True)
            for name in digests:
                _link(home / name, into / name)
            if all(sha256_of(into / name) == digest for name, digest in digests.items()):
                return Entry(into / model, notes)
        except OSError:
            pass
        for name in digests:
            (into / name).unlink(missing_ok=True)
        return self._dropped(home)

    def put(self, key: str, path: Path, notes: tuple[str, ...] = ()) -> bool:
        """Keep a copy of the model at `path` and of its external data; return whether it was kept.

        Raises:
            ModelError: the model's external data are missing or lie elsewhere.
        """
        home = self.folder / key
        files = _files(path)
        if home.exists() or sum(file.stat().st_size for file in files) > self.limit_bytes:
            return False
        hidden = self.folder / f".{key}.{uuid.uuid4().hex}"
        try:
            hidden.mkdir(parents=True)
            for file in files:
                shutil.copyfile(file, hidden / file.name)
            told = {
                "model": path.name,
                "notes": list(notes),
                "files": {file.name: sha256_of(hidden / file.name) for file in files},
            }
            (hidden / NOTES).write_text(json.dumps(told, indent=1), encoding="utf-8")
            hidden.rename(home)
        except OSError as error:
            shutil.rmtree(hidden, ignore_errors=True)
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                return False
        self._make_room()
        return True

    def __contains__(self, key: str) -> bool:
        return (self.folder / key).is_dir()

    def bytes(self) -> int:
        """Return how much is kept."""
        return sum(size for _, _, size in self._entries())

    def _entries(self) -> Iterator[tuple[float, Path, int]]:
        """Yield time of last use, folder and bytes of every entry, unfinished ones of dead writers too."""
        with contextlib.suppress(FileNotFoundError):
            for home in self.folder.iterdir():
                with contextlib.suppress(OSError):
                    sizes = [file.stat().st_size for file in home.iterdir()]
                    yield home.stat().st_mtime, home, sum(sizes)

    def _make_room(self) -> None:
        entries = sorted(self._entries())
        held = sum(size for _, _, size in entries)
        for _, home, size in entries:
            if held <= self.limit_bytes:
                break
            _remove(home)
            held -= size

    @staticmethod
    def _dropped(home: Path) -> None:
        _remove(home)


def default_folder() -> Path:
    """Return where caches lie by the XDG Base Directory Specification: $XDG_CACHE_HOME, or ~/.cache."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    # "All paths set in these environment variables must be absolute"; relative ones are to be ignored.
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    return base / "flyweight"


def key_of(parts: Mapping[str, object]) -> str:
    """Return one digest of everything that a result depends on, and of the tools that make it.

    Args:
        parts: by name, in the types that JSON has.
    """
    text = json.dumps({"parts": dict(parts), "tools": installed_versions(_TOOLS)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def was_cut_short(result: PassResult) -> bool:
    """Return whether the time limit ended a pass early, so that the next run need not get the same."""
    return any(_CUT_SHORT in note for note in result.notes)


def digest_of_model(path: Path) -> str:
    """Return one digest of a model's file and its external data.

    Raises:
        ModelError: it is no ONNX file, or its external data are missing or lie elsewhere.
    """
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(f"{file.name if file != path else 'model'}|{sha256_of(file)}|".encode())
    return digest.hexdigest()


def _files(path: Path) -> tuple[Path, ...]:
    if path.suffix != ".onnx":
        if not path.is_file():
            raise ModelError(f"The model file {path} does not exist; check the path.")
        return (path,)
    return (path, *external_files(path, load_graph(path, weights=False)))


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _remove(home: Path) -> None:
    """Take an entry out of sight at once, then delete it: a reader never sees half of it."""
    hidden = home.with_name(f".{home.name.lstrip('.')}.{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        home.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


class RecipeCache:
    """What recipes made of one model with one set of data, kept between runs; the long memory of a Memo.

    Only steps that end in a file are kept: a torch module is not, since it could not be read back without
    running code from the disk.
    """

    def __init__(self, cache: Cache, source: Model, digest: str, context: "Context") -> None:
        """Say what all keys have in common.

        Args:
            cache: where results are kept.
            source: the model that recipes start from; results of any other are neither looked for nor kept.
            digest: of the content of `source`; `digest_of_model` or `torch_digest.digest_of_module`.
            context: whose data, seed and threads the recipes run with.
        """
        self._cache = cache
        self._source = source
        self._context = context
        self._parts = {
            "model": digest,
            "calibration": context.calibration.digest,
            "training": context.training.digest if context.training is not None else None,
            "seed": context.seed,
            "threads": context.threads,
        }

    def find(self, model: Model, steps: Sequence[Pass]) -> PassResult | None:
        """Return what `steps` made of `model` in an earlier run."""
        if model is not self._source or steps[-1].gives is Form.TORCH:
            return None
        key = self._key(steps)
        if key not in self._cache:
            return None
        entry = self._cache.get(key, self._context.new_path("cached").parent)
        return None if entry is None else PassResult(Model(path=entry.path), changed=True, notes=entry.notes)

    def keep(self, model: Model, steps: Sequence[Pass], result: PassResult) -> None:
        """Remember what `steps` made of `model`, if it is a file and another one.

        What a time limit cut short is not what the next run would get, and is not kept.
        """
        path = result.model.path
        if was_cut_short(result):
            return
        if model is self._source and result.changed and path is not None and path != model.path:
            self._cache.put(self._key(steps), path, result.notes)

    def _key(self, steps: Sequence[Pass]) -> str:
        return key_of({**self._parts, "recipe": dump_recipe("cached", PassSequence(steps))})
