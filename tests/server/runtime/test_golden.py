from pathlib import Path

import numpy as np
import pytest

from flyweight.protos.errors import ManifestError
from flyweight.protos.manifest.v1.manifest_pb2 import Golden
from flyweight.protos.variant import GoldenSamples, write_golden
from flyweight.server.errors import InvalidRequest, LoadFailed
from flyweight.server.runtime.fake import FakeRuntime
from flyweight.server.runtime.golden import check_golden, warm_up
from flyweight.server.runtime.seam import Signature, TensorSpec

X = np.array([[1, 2, 3, 4]], np.float32)
GOLDEN = Golden(file="golden.npz", relative_tolerance=0.01)


def samples(folder: Path, y: np.ndarray, x: np.ndarray = X, output: str = "y") -> None:
    write_golden(folder, GoldenSamples({"x": x}, {output: y}))


def test_an_answer_within_the_tolerance_passes(tmp_path: Path) -> None:
    samples(tmp_path, X * np.float32(1.005))
    check_golden(FakeRuntime(), tmp_path, GOLDEN)


def test_an_answer_outside_the_tolerance_is_refused_with_the_difference(tmp_path: Path) -> None:
    """|4.0 - 4.4| / 4.4 = 0.0909."""
    samples(tmp_path, X * np.float32(1.1))
    with pytest.raises(LoadFailed, match=r"output 'y' differs .* by 0\.0909 of its magnitude where 0\.01"):
        check_golden(FakeRuntime(), tmp_path, GOLDEN)


def test_an_answer_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    samples(tmp_path, X)
    nothing = FakeRuntime(function=lambda inputs: {"y": inputs["x"] * np.nan})
    with pytest.raises(LoadFailed, match="differs"):
        check_golden(nothing, tmp_path, GOLDEN)


def test_samples_for_another_model_are_refused(tmp_path: Path) -> None:
    samples(tmp_path, X, output="z")
    with pytest.raises(LoadFailed, match="There is no output 'z'"):
        check_golden(FakeRuntime(), tmp_path, GOLDEN)
    samples(tmp_path, X, x=X.astype(np.float64))
    with pytest.raises(LoadFailed, match="'x' is FP64"):
        check_golden(FakeRuntime(), tmp_path, GOLDEN)


def test_samples_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="must lie in the variant's folder"):
        check_golden(FakeRuntime(), tmp_path, Golden(file="../golden.npz"))


def test_missing_samples_are_a_fault_of_the_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="golden"):
        check_golden(FakeRuntime(), tmp_path, GOLDEN)


def test_a_warm_up_runs_zeros_of_the_smallest_shape() -> None:
    signature = Signature(
        (
            TensorSpec("x", "FP32", (-1, 4)),
            TensorSpec("word", "BYTES", (-1,)),
            TensorSpec("k", "INT64", ()),
            TensorSpec("extra", "FP32", (1,), optional=True),
        ),
        (),
    )
    seen: dict[str, np.ndarray] = {}

    def remember(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.update(inputs)
        return {}

    assert warm_up(FakeRuntime(function=remember), signature) == ""  # type: ignore[arg-type]
    assert {name: (array.dtype, array.shape) for name, array in seen.items()} == {
        "x": (np.dtype(np.float32), (1, 4)),
        "word": (np.dtype(object), (1,)),
        "k": (np.dtype(np.int64), ()),
    }
    assert seen["word"].tolist() == [b""]


def test_a_model_that_refuses_zeros_is_not_refused() -> None:
    def refuse(_: object) -> dict[str, np.ndarray]:
        raise InvalidRequest("An index must be above zero.")

    runtime = FakeRuntime(function=refuse)
    assert warm_up(runtime, runtime.signature) == "An index must be above zero."
