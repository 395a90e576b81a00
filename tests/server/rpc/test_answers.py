"""Answers written in parts, held against what the protobuf library writes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from flyweight.protos.inference.grpc_service_pb2 import ModelInferResponse
from flyweight.protos.tensors import encode_outputs
from flyweight.server.rpc.answers import Answers, head_of_answer, id_field
from flyweight.server.runtime.fake import FakeRuntime
from flyweight.server.traffic import Choice
from flyweight.server.traffic.plan import Reason, Role
from tests.server.rpc.conftest import loaded

VARIANTS = [loaded(FakeRuntime(), name) for name in ("baseline", "int8")]
CHOICES = [Choice("baseline", Role.BASELINE, Reason.ONLY), Choice("int8", Role.CANDIDATE, Reason.SPLIT)]
ARRAYS = st.one_of(
    numpy_st.arrays(
        st.sampled_from([np.dtype(name) for name in ("<f4", "<f2", "<i8", "u1", "?")]),
        numpy_st.array_shapes(min_dims=0, max_dims=3, max_side=4),
    ),
    st.lists(st.binary(max_size=9), min_size=1, max_size=3).map(lambda texts: np.array(texts, np.object_)),
)
ANSWER = st.tuples(
    st.integers(0, 1),
    st.dictionaries(st.sampled_from(["y", "z", "ä"]), ARRAYS, max_size=3),
    st.text(max_size=200),
    st.booleans(),
)


@given(st.lists(ANSWER, min_size=1, max_size=8))
def test_the_parts_are_the_message(
    wanted: list[tuple[int, dict[str, np.ndarray], str, bool]],
) -> None:
    answers = Answers()
    for number, outputs, request_id, is_final in wanted:
        variant, choice = VARIANTS[number], CHOICES[number]
        expected = head_of_answer(variant, choice, is_final=is_final)
        expected.id = request_id
        encode_outputs(expected, outputs)
        parts = answers.write(variant, choice, outputs, is_final=is_final)
        assert ModelInferResponse.FromString(b"".join((*parts, id_field(request_id)))) == expected


def test_shapes_without_end_are_not_kept_without_end() -> None:
    answers = Answers()
    for rows in range(1, 2000):
        outputs = {"y": np.zeros((rows, 1), np.uint8)}
        answers.write(VARIANTS[0], CHOICES[0], outputs, is_final=False)
    assert len(answers._heads) <= 1024
