"""The user's data: one array per model input, first axis = samples, and optional labels, in .npz files.

A file is read without pickle, so that nothing in it can run. Arrays are hashed, so that every variant can say
which data it was made and measured with. Large arrays stay on disk: see storage.py.
"""

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.errors import DataError
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.storage import chunks, concatenate, read_archive, release, take_rows

# Fewer say nothing: one changed answer of seven is 14 percent, and ranges of so few are not the model's.
FEWEST_SAMPLES: Final = 8
LABEL: Final = "label"

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class DataSet:
    """Samples of a model's inputs, and maybe what the model should answer.

    Attributes:
        inputs: by name; the first axis counts samples and is equally long in all, at least 1.
        labels: integers (classes) or floats (values to regress), first axis = samples; None when unknown.
            Truth values become the classes 0 and 1.
        digest: SHA-256 over names, types, shapes and bytes of all arrays.
    """

    inputs: Mapping[str, Array]
    labels: Array | None = None
    digest: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Check that the arrays fit each other, and compute the digest.

        Raises:
            DataError: there is no input or no sample, lengths differ, or a label is not a finite number.
        """
        if self.labels is not None and self.labels.dtype.kind == "b":
            object.__setattr__(self, "labels", self.labels.astype(np.int64))
        _check_lengths(self.inputs, self.labels)
        _check_values(self.inputs, self.labels)
        if not self.digest:
            object.__setattr__(self, "digest", _digest(self.inputs, self.labels))

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(next(iter(self.inputs.values())))

    def rows(self, start: int, stop: int) -> dict[str, Array]:
        """Return the inputs of samples `start` to `stop` (exclusive), as views."""
        return {name: array[start:stop] for name, array in self.inputs.items()}

    def batches(self, rows: int) -> Iterator[dict[str, Array]]:
        """Yield all inputs in order, `rows` samples at a time, as views; the last batch may be shorter.

        However many there are, those that are on disk take the memory of one batch.
        """
        for start in range(0, self.samples, rows):
            yield self.rows(start, start + rows)
            for array in self.inputs.values():
                release(array)

    def take(self, indices: Array) -> "DataSet":
        """Return the samples at `indices`, in that order."""
        inputs = {name: take_rows(array, indices) for name, array in self.inputs.items()}
        return DataSet(inputs, None if self.labels is None else self.labels[indices])

    def first(self, samples: int) -> "DataSet":
        """Return the first `samples` samples, or all when there are fewer."""
        return self if samples >= self.samples else self.take(np.arange(samples))

    def split(self, fraction: float, seed: int = 0) -> tuple["DataSet", "DataSet"]:
        """Return two disjoint sets, the first with `fraction` of the samples, drawn at random by `seed`.

        Both keep the order of the original. Each has at least one sample.

        Raises:
            DataError: there is one sample only.
        """
        if self.samples < 2:
            raise DataError("One sample cannot be split in two sets; give more data.")
        count = min(max(round(self.samples * fraction), 1), self.samples - 1)
        order = np.random.default_rng(seed).permutation(self.samples)
        return self.take(np.sort(order[:count])), self.take(np.sort(order[count:]))


def check_usable(data: DataSet) -> None:
    """Check that a data set can judge a model: enough samples, and labels that can be right or wrong.

    Raises:
        DataError: there are fewer than 8 samples, or all labels are one class or value.
    """
    if data.samples < FEWEST_SAMPLES:
        raise DataError(
            f"The data have {data.samples} samples and {FEWEST_SAMPLES} are the fewest that say anything "
            "of a model's quality; give more, some hundred if you can."
        )
    if data.labels is not None and data.labels.ndim == 1 and (data.labels == data.labels[0]).all():
        raise DataError(
            f"All {data.samples} labels are {data.labels[0]}: a model that always answers this would look "
            "perfect; give samples of at least two classes, or leave the labels out."
        )


def load_data(path: Path | str) -> DataSet:
    """Read a data set from an .npz file, or from a folder of such files in the order of their names.

    Raises:
        DataError: there is no such file, it is no .npz of plain arrays, or the shards do not fit together.
    """
    path = Path(path)
    if path.is_dir():
        shards = sorted(path.glob("*.npz"))
        if not shards:
            raise DataError(f"{path} holds no .npz file; put the data there or name the file.")
        return _joined([(shard, _read(shard)) for shard in shards])
    return _joined([(path, _read(path))])


def save_data(path: Path, data: DataSet) -> None:
    """Write `data` in the format that `load_data` reads."""
    write_arrays(path, dict(data.inputs) if data.labels is None else {**data.inputs, LABEL: data.labels})


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays as numpy.savez does, which has parameters of its own called `file` and `allow_pickle`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def _read(path: Path) -> dict[str, Array]:
    if not path.exists():
        raise DataError(f"The data file {path} does not exist; check the path given with --data.")

    def refused(reason: str) -> DataError:
        # numpy's own advice is to allow pickle, which we never do.
        told = "it holds pickled objects, or is no archive at all" if "pickle" in reason else reason
        return DataError(f"{path} is not an .npz file of plain arrays ({told}); write it with np.savez.")

    # A damaged archive makes zipfile, zlib and numpy raise anything, MemoryError and RuntimeError among it.
    return run_foreign(lambda: _arrays(path), refused)


def _arrays(path: Path) -> dict[str, Array]:
    with path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise DataError(f"{path} holds one bare array; save it with np.savez(path, INPUT_NAME=array).")
        arrays = read_archive(path, loaded, loaded.zip)
    for name, array in arrays.items():
        # numpy gives the bytes of an entry that is no array.
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path} holds {name!r}, which is no array; write it with np.savez.")
    return arrays


def _joined(shards: list[tuple[Path, dict[str, Array]]]) -> DataSet:
    """Put shards one after the other, checking that each fits the first."""
    first_path, first = shards[0]
    for path, arrays in shards:
        if set(arrays) != set(first):
            raise DataError(
                f"{path} holds {_listed(arrays)} and {first_path} holds {_listed(first)}; "
                "every shard needs the same arrays."
            )
        for name, array in arrays.items():
            if array.ndim == 0:
                raise DataError(
                    f"Array {name!r} of {path} is a single number; its first axis must count samples."
                )
            if array.dtype != first[name].dtype or array.shape[1:] != first[name].shape[1:]:
                raise DataError(
                    f"Array {name!r} is {array.dtype}{list(array.shape[1:])} in {path} and "
                    f"{first[name].dtype}{list(first[name].shape[1:])} in {first_path}; shards must agree."
                )
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"The arrays of {path} have different numbers of samples ({_counts(lengths)}).")
    if len(shards) == 1:
        joined = first
    else:
        joined = {name: concatenate([arrays[name] for _, arrays in shards]) for name in first}
    try:
        return DataSet({name: joined[name] for name in joined if name != LABEL}, joined.get(LABEL))
    except DataError as error:
        raise DataError(f"{first_path if len(shards) == 1 else first_path.parent}: {error}") from error


def _check_lengths(inputs: Mapping[str, Array], labels: Array | None) -> None:
    if not inputs:
        why = f", since {LABEL!r} holds labels: an input of this name needs another"
        taken = "" if labels is None else why
        raise DataError(f"The data hold no input{taken}; save one array per model input, named as the input.")
    arrays = dict(inputs) if labels is None else {**inputs, LABEL: labels}
    for name, array in arrays.items():
        if array.ndim == 0:
            raise DataError(f"Array {name!r} is a single number; its first axis must count samples.")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"The arrays have different numbers of samples ({_counts(lengths)}).")
    if not next(iter(lengths.values())):
        raise DataError("The data set is empty: its arrays have no samples; give at least one.")


def _check_values(inputs: Mapping[str, Array], labels: Array | None) -> None:
    for name, array in inputs.items():
        # An infinity may be meant, in an attention mask for example; not-a-number never is.
        first = 0
        for rows in chunks(array) if np.issubdtype(array.dtype, np.floating) else ():
            if np.isnan(rows).any():
                sample = first + int(np.argmax(np.isnan(rows).reshape(len(rows), -1).any(axis=1)))
                raise DataError(f"Input {name!r} holds not-a-number in sample {sample}; remove or repair it.")
            first += len(rows)
    if labels is None:
        return
    if labels.dtype.kind not in "iuf":
        raise DataError(
            f"The labels are {labels.dtype}; give integers for classes or floats for values to regress."
        )
    if not np.isfinite(labels).all():
        raise DataError("Some labels are not finite numbers; remove or repair those samples.")


def _digest(inputs: Mapping[str, Array], labels: Array | None) -> str:
    digest = hashlib.sha256()
    arrays = dict(inputs) if labels is None else {**inputs, LABEL: labels}
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        if array.dtype.kind in "OUS":
            digest.update(repr(array.tolist()).encode())
        else:
            for rows in chunks(array):
                digest.update(np.ascontiguousarray(rows).view(np.uint8).data)
    return digest.hexdigest()


def _listed(arrays: Mapping[str, Array]) -> str:
    return ", ".join(sorted(arrays)) or "nothing"


def _counts(lengths: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in lengths.items())
