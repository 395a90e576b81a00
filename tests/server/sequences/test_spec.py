"""sequence_batching of a config.pbtxt against a model's tensors."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flyweight.server.errors import InvalidRequest, LoadFailed
from flyweight.server.repository.model_config import parse_model_config
from flyweight.server.runtime.signature import Signature, TensorSpec
from flyweight.server.sequences import SequenceSpec, hide, sequences_of

SESSION = Signature(
    inputs=(
        TensorSpec("INPUT", "INT32", (-1, 1)),
        TensorSpec("STATE_IN", "INT32", (-1, -1)),
        TensorSpec("START", "FP32", (-1, 1)),
        TensorSpec("END", "BOOL", (-1,)),
        TensorSpec("READY", "INT32", (-1, 1)),
        TensorSpec("ID", "UINT64", (-1, 1)),
        TensorSpec("NAME", "BYTES", (-1, 1)),
    ),
    outputs=(TensorSpec("OUTPUT", "INT32", (-1, 1)), TensorSpec("STATE_OUT", "INT32", (-1, -1))),
)
CONTROLS = """
    control_input [
      {name: "START" control [{kind: CONTROL_SEQUENCE_START fp32_false_true: [0, 1]}]},
      {name: "END" control [{kind: CONTROL_SEQUENCE_END bool_false_true: [false, true]}]},
      {name: "READY" control [{kind: CONTROL_SEQUENCE_READY int32_false_true: [5, 6]}]},
      {name: "ID" control [{kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64}]}
    ]
"""
STATE = 'input_name: "STATE_IN" output_name: "STATE_OUT" data_type: TYPE_INT32 dims: [-1]'


def spec(text: str, folder: Path = Path("/nowhere"), more: str = "max_batch_size: 8") -> SequenceSpec:
    config = parse_model_config(f"{more} sequence_batching {{{text}}}", Path("config.pbtxt"))
    found = sequences_of(config, "m", folder, SESSION)
    assert found is not None
    return found


def test_a_model_without_sequences_has_none() -> None:
    assert sequences_of(None, "m", Path("/nowhere"), SESSION) is None
    config = parse_model_config("max_batch_size: 8", Path("config.pbtxt"))
    assert sequences_of(config, "m", Path("/nowhere"), SESSION) is None
    assert hide(SESSION, None, config) == SESSION


def test_controls_tell_what_the_configuration_says() -> None:
    controls = {control.name: control for control in spec(CONTROLS).controls}
    told = {name: control.tell(77, start=True, end=False) for name, control in controls.items()}
    assert {name: (array.dtype, array.tolist()) for name, array in told.items()} == {
        "START": (np.float32, [[1.0]]),
        "END": (np.bool_, [False]),
        "READY": (np.int32, [[6]]),
        "ID": (np.uint64, [[77]]),
    }
    assert controls["START"].tell(77, start=False, end=True).tolist() == [[0.0]]
    assert controls["END"].tell(77, start=False, end=True).tolist() == [True]


def test_an_id_that_the_model_cannot_hold_is_the_callers_mistake() -> None:
    (control,) = [each for each in spec(CONTROLS).controls if each.name == "ID"]
    for wrong in ("user-7", 2**64, -1):
        with pytest.raises(InvalidRequest, match="which are UINT64"):
            control.tell(wrong, start=True, end=False)


def test_names_are_told_to_a_model_of_strings() -> None:
    text = 'control_input [{name: "NAME" control [{kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING}]}]'
    (control,) = spec(text).controls
    assert control.tell("user-7", start=True, end=False).tolist() == [[b"user-7"]]
    assert control.tell(7, start=True, end=False).tolist() == [[b"7"]]


def test_callers_see_neither_controls_nor_states() -> None:
    found = spec(f"{CONTROLS} state [{{{STATE}}}]")
    config = parse_model_config("max_batch_size: 8", Path("config.pbtxt"))
    hidden = hide(SESSION, found, config)
    assert [each.name for each in hidden.inputs] == ["INPUT", "NAME"]
    assert [each.name for each in hidden.outputs] == ["OUTPUT"]
    listed = parse_model_config('output [{name: "OUTPUT"}, {name: "STATE_OUT"}]', Path("config.pbtxt"))
    assert hide(SESSION, found, listed).outputs == SESSION.outputs


def test_a_state_starts_with_zeros_of_the_shortest_length() -> None:
    (state,) = spec(f"state [{{{STATE}}}]").states
    assert (state.initial.dtype, state.initial.tolist()) == (np.int32, [[0]])


def test_a_state_starts_with_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "initial_state").mkdir()
    (tmp_path / "initial_state" / "seven").write_bytes(np.array([7, 8], np.int32).tobytes())
    zero = "initial_state {data_type: TYPE_INT32 dims: [3] zero_data: true}"
    file = 'initial_state {data_type: TYPE_INT32 dims: [2] data_file: "seven"}'
    assert spec(f"state [{{{STATE} {zero}}}]").states[0].initial.tolist() == [[0, 0, 0]]
    assert spec(f"state [{{{STATE} {file}}}]", tmp_path).states[0].initial.tolist() == [[7, 8]]


def test_silence_and_numbers_are_bounded_as_in_triton() -> None:
    assert (spec("").idle_seconds, spec("").most) == (1.0, 1024)
    text = "max_sequence_idle_microseconds: 250000 oldest {max_candidate_sequences: 4}"
    two = spec(text, more="max_batch_size: 8 instance_group [{count: 2}]")
    assert (two.idle_seconds, two.most) == (0.25, 8)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("iterative_sequence: true", "iterative sequences"),
        ("direct {minimum_slot_utilization: 0.5}", "minimum_slot_utilization"),
        ("direct {minimum_slot_utilization: 2}", "a share from 0 to 1"),
        ("oldest {max_candidate_sequences: -1}", "max_candidate_sequences to -1"),
        ('control_input [{name: "START"}]', "'START', which must tell one thing"),
        ('control_input [{name: "Q" control [{int32_false_true: [0, 1]}]}]', "'Q', which the model does not"),
        ('control_input [{name: "START" control [{int32_false_true: [0, 1]}]}]', "'START' with INT32"),
        ('control_input [{name: "START" control [{fp32_false_true: [0]}]}]', "'START' two values"),
        ('control_input [{name: "STATE_IN" control [{}]}]', "'STATE_IN' two values"),
        (
            'control_input [{name: "ID" control [{kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_FP32}]}]',
            "'ID' a data_type of BYTES, INT32",
        ),
        (
            (
                'control_input [{name: "START" control [{fp32_false_true: [0, 1]}]}, '
                '{name: "READY" control [{int32_false_true: [0, 1]}]}]'
            ),
            "two control inputs of CONTROL_SEQUENCE_START",
        ),
        (f"state [{{{STATE}}}, {{{STATE}}}]", "twice"),
        (f"state [{{{STATE.replace('STATE_IN', 'Q')}}}]", "the input 'Q', which the model does not have"),
        (f"state [{{{STATE.replace('STATE_OUT', 'Q')}}}]", "the output 'Q', which the model does not have"),
        (f"state [{{{STATE.replace('INT32', 'FP32')}}}]", "as FP32 of [-1, -1], and the model has INT32"),
        (f"state [{{{STATE.replace('[-1]', '[1, 1]')}}}]", "'STATE_IN' as INT32 of [-1, 1, 1]"),
        (f"state [{{{STATE} use_growable_memory: true}}]", "growable memory"),
        (f"state [{{{STATE} initial_state [{{}}, {{}}]}}]", "lists 2 initial states"),
        (f"state [{{{STATE} initial_state {{dims: [1]}}}}]", "another data_type"),
        (
            f"state [{{{STATE} initial_state {{data_type: TYPE_INT32 dims: [-1] zero_data: true}}}}]",
            "a free length",
        ),
        (
            f"state [{{{STATE} initial_state {{data_type: TYPE_INT32 dims: [1, 1] zero_data: true}}}}]",
            "which is not of [-1]",
        ),
        (f"state [{{{STATE} initial_state {{data_type: TYPE_INT32 dims: [1]}}}}]", "write zero_data"),
        (
            f'state [{{{STATE} initial_state {{data_type: TYPE_INT32 dims: [1] data_file: "none"}}}}]',
            "is not there",
        ),
    ],
)
def test_what_does_not_fit_is_named(text: str, named: str) -> None:
    with pytest.raises(LoadFailed, match=r"^The config\.pbtxt of m") as caught:
        spec(text)
    assert named in str(caught.value)


def test_a_control_of_more_than_one_element_is_refused() -> None:
    wide = replace(SESSION, inputs=(TensorSpec("START", "FP32", (-1, 4)),))
    config = parse_model_config(
        'sequence_batching {control_input [{name: "START" control [{fp32_false_true: [0, 1]}]}]}',
        Path("config.pbtxt"),
    )
    with pytest.raises(LoadFailed, match="one element a row"):
        sequences_of(config, "m", Path("/nowhere"), wide)


def test_answers_with_state_are_not_cached() -> None:
    with pytest.raises(LoadFailed, match="response_cache"):
        spec("", more="response_cache {enable: true}")
