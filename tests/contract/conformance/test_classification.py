"""Classification: the largest entries of an output, with their labels, in place of the output.

Source of all: Triton, protocol extensions, "Classification Extension".
"""

from typing import Any

import numpy as np
import pytest
from oip.cases import SILENCE, case, extension
from oip.encoding import objects
from oip.models import LABELS
from oip.requests import add_raw, add_sub_request, put_parameters, request
from oip.target import Target

CLASSIFICATION = extension("classification")
SCORES = np.array([[0.5, 4.0, -1.0, 2.0], [9.0, 7.0, 8.0, 6.0]], "<f4")


def classified(target: Target, count: int, scores: Any = SCORES) -> tuple[str, Any]:
    asked = request("classes", outputs=["OUTPUT"])
    add_raw(asked, "INPUT", "FP32", scores)
    put_parameters(asked.outputs[0].parameters, {"classification": count})
    return target.infer(asked).tensors()["OUTPUT"]


def read(element: bytes) -> tuple[float, int, str]:
    """Return an element's value, index and label."""
    value, index, *label = element.decode().split(":")
    return float(value), int(index), label[0] if label else ""


@case("classification/top", CLASSIFICATION, "classes")
def test_the_largest_entries_come_in_order(target: Target) -> None:
    """With classification = 2 each row gives its two largest entries as "value:index:label", largest first.

    Source: Triton, "Classification Extension": BYTES, "<value>:<index>:<label>".
    """
    datatype, found = classified(target, 2)
    assert (datatype, found.shape) == ("BYTES", (2, 2))
    assert [[read(element) for element in row] for row in found] == [
        [(4.0, 1, LABELS[1]), (2.0, 3, LABELS[3])],
        [(9.0, 0, LABELS[0]), (8.0, 2, LABELS[2])],
    ]


@case("classification/more-than-there-are", CLASSIFICATION, "classes")
def test_more_classes_than_entries_are_all_of_them(target: Target) -> None:
    """With classification = 10 of four entries all four come.

    Source: Triton, "Classification Extension".
    """
    _, found = classified(target, 10)
    assert found.shape == (2, 4)


@case("classification/without-labels", CLASSIFICATION)
def test_without_labels_value_and_index_come(target: Target) -> None:
    """An output without labels gives "value:index".

    Source: Triton, "Classification Extension": the label is there "if available".
    """
    asked = add_sub_request(outputs=["OUTPUT0"])
    put_parameters(asked.outputs[0].parameters, {"classification": 1})
    datatype, found = target.infer(asked).tensors()["OUTPUT0"]
    assert (datatype, read(found.ravel()[0])) == ("BYTES", (44.0, 3, ""))


@case("classification/beside-a-plain-output", CLASSIFICATION)
def test_other_outputs_stay_as_they_are(target: Target) -> None:
    """Only the output that carries the parameter is classified.

    Source: Triton, "Classification Extension".
    """
    asked = add_sub_request(outputs=["OUTPUT0", "OUTPUT1"])
    put_parameters(asked.outputs[0].parameters, {"classification": 1})
    tensors = target.infer(asked).tensors()
    assert (tensors["OUTPUT0"][0], tensors["OUTPUT1"][0]) == ("BYTES", "FP32")


@case("classification/of-strings", CLASSIFICATION)
def test_strings_have_no_largest_entry(target: Target) -> None:
    """Classification of a BYTES output is an error.

    Source: Triton, "Classification Extension": values are numbers.
    """
    asked = request("identity_bytes", outputs=["OUTPUT"])
    add_raw(asked, "INPUT", "BYTES", objects([b"a", b"b"]))
    put_parameters(asked.outputs[0].parameters, {"classification": 1})
    target.infer(asked).must_be_refused(never=SILENCE)


@pytest.mark.parametrize("count", [pytest.param(-1, id="negative"), pytest.param(2**62, id="huge")])
@case("classification/odd-count", CLASSIFICATION, "classes")
def test_an_odd_number_of_classes_is_no_disaster(target: Target, count: int) -> None:
    """A negative or absurd number of classes is refused, or (ALLOWED) answered; the server lives on.

    Source: none in the protocol.
    """
    asked = request("classes", outputs=["OUTPUT"])
    add_raw(asked, "INPUT", "FP32", SCORES)
    put_parameters(asked.outputs[0].parameters, {"classification": count})
    answer = target.infer(asked)
    assert answer.code not in SILENCE, f"REQUIRED an answer; answered {answer}"
    target.must_still_answer()


@case("classification/nan", CLASSIFICATION, "classes")
def test_not_a_number_is_no_disaster(target: Target) -> None:
    """Scores that are NaN are answered by as many entries as were asked for.

    Source: none in the protocol.
    """
    _, found = classified(target, 2, np.full((1, 4), np.nan, "<f4"))
    assert found.shape == (1, 2)
