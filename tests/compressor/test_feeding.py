"""How the user's arrays fit a model's inputs, with and without a batch axis."""

import numpy as np
import pytest

from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import DataError
from flyweight.compressor.feeding import fit
from flyweight.compressor.signature import Signature, tensor_spec


def takes(**inputs: tuple[str, list[int | str | None]]) -> Signature:
    specs = tuple(tensor_spec(name, f"tensor({kind})", shape) for name, (kind, shape) in inputs.items())
    return Signature(specs, ())


def floats(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_a_free_batch_axis_takes_any_number_of_rows() -> None:
    layout = fit(DataSet({"x": floats(5, 3)}), takes(x=("float", ["n", 3])))
    assert layout.rows is None
    assert [feed["x"].shape for feed in layout.feeds(DataSet({"x": floats(5, 3)}), 2)] == [
        (2, 3),
        (2, 3),
        (1, 3),
    ]


def test_a_fixed_batch_axis_takes_whole_groups_and_says_what_is_left_out() -> None:
    data = DataSet({"x": floats(7, 3)})
    layout = fit(data, takes(x=("float", [2, 3])))
    assert [feed["x"].shape for feed in layout.feeds(data, 32)] == [(2, 3)] * 3
    assert layout.usable(7) == 6
    assert layout.notes(7) == (
        "The model runs exactly 2 rows at a time: the last 1 of 7 samples were left out.",
    )


def test_an_array_with_an_axis_more_holds_each_input_whole() -> None:
    data = DataSet({"x": floats(4, 2, 3)})
    layout = fit(data, takes(x=("float", [2, 3])))
    assert layout.rows == 1
    assert [feed["x"].tolist() for feed in layout.feeds(data, 32)] == data.inputs["x"].tolist()


def test_a_scalar_input_is_fed_one_sample_at_a_time() -> None:
    data = DataSet({"x": floats(3, 4), "factor": floats(3)})
    layout = fit(data, takes(x=("float", ["n", 4]), factor=("float", [])))
    feeds = list(layout.feeds(data, 32))
    assert [feed["x"].shape for feed in feeds] == [(1, 4)] * 3
    assert [feed["factor"].shape for feed in feeds] == [()] * 3
    assert [float(feed["factor"]) for feed in feeds] == [0, 1, 2]


def test_strings_are_fed_as_objects() -> None:
    data = DataSet({"words": np.array([["a"], ["bc"]])})
    layout = fit(data, takes(words=("string", ["n", 1])))
    (feed,) = layout.feeds(data, 32)
    assert feed["words"].dtype == object
    assert feed["words"].tolist() == [["a"], ["bc"]]


def test_a_sample_feed_repeats_samples_when_there_are_too_few() -> None:
    data = DataSet({"x": floats(2, 1)})
    layout = fit(data, takes(x=("float", ["n", 1])))
    assert layout.sample_feed(data, 5)["x"].ravel().tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("arrays", "signature", "sentence"),
    [
        (
            {"y": floats(4, 3)},
            takes(x=("float", ["n", 3])),
            "no array for the model's input 'x'; they have y",
        ),
        (
            {"x": floats(4, 3), "z": floats(4)},
            takes(x=("float", ["n", 3])),
            "an array 'z', which is no input",
        ),
        (
            {"x": floats(4, 3).astype(np.float64)},
            takes(x=("float", ["n", 3])),
            r"'x' is float64 in the data and float32 in the model; .*astype\(np\.float32\)",
        ),
        (
            {"x": floats(4, 2)},
            takes(x=("float", ["n", 3])),
            r"'x' is \[samples, 2\] in the data and \[\?, 3\] in the model; save it as \[samples, 3\]",
        ),
        (
            {"x": floats(4, 2)},
            takes(x=("float", [])),
            r"save it as \[samples\] \(one number for each sample\)",
        ),
        ({"x": floats(4, 3)}, takes(x=("float", [8, 3])), "exactly 8 rows at a time and the data have 4"),
        (
            {"x": floats(4, 3), "z": floats(4, 3)},
            takes(x=("float", [2, 3]), z=("float", [4, 3])),
            r"different numbers of rows in one run \(x: 2, z: 4\)",
        ),
        (
            {"x": floats(4, 3), "z": floats(4)},
            takes(x=("float", [2, 3]), z=("float", [])),
            r"\(x: 2; z: one sample\); give each sample whole",
        ),
    ],
)
def test_a_misfit_is_refused_by_name(
    arrays: dict[str, np.ndarray], signature: Signature, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        fit(DataSet(arrays), signature)


def test_an_input_called_label_cannot_be_given_and_is_explained() -> None:
    data = DataSet({"x": floats(2, 1)}, np.zeros(2, dtype=np.int64))
    with pytest.raises(DataError, match="The array named 'label' holds labels"):
        fit(data, takes(x=("float", ["n", 1]), label=("int64", ["n"])))
