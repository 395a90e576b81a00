"""What a config.pbtxt of Triton's asks of one model, done with real sessions."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.protos.variant import MANIFEST_FILE
from flyweight.server.errors import LoadFailed
from flyweight.server.lifecycle.desired import VariantSource, desire
from flyweight.server.lifecycle.loading import load_variant
from flyweight.server.lifecycle.table import LoadedVariant
from flyweight.server.repository.scan import scan_repository
from flyweight.server.repository.serving import Merging
from flyweight.server.runtime.fake import FakeFactory, FakeRuntime
from flyweight.server.runtime.inline import InlineFactory
from flyweight.server.runtime.seam import SessionSettings

X = np.arange(8, dtype=np.float32).reshape(2, 4)


def source_of(root: Path, model: str = "m") -> VariantSource:
    (source,) = desire(scan_repository(root)).models[model].wanted.values()
    return source


def load(root: Path, config: str, model: str = "m") -> LoadedVariant:
    (root / model / "config.pbtxt").write_text(config)
    return load_variant(source_of(root, model), InlineFactory(cores=1))


@pytest.fixture
def root(repository_root: Path, tiny_model: Any) -> Path:
    """Return a repository with the model "m", which doubles x of [n, 4]."""
    tiny_model(repository_root / "m" / "1" / "model.onnx", 2.0)
    return repository_root


@pytest.fixture
def accumulator(repository_root: Path, save_graph: Any) -> Path:
    """Return a repository with the model "m" of Triton's own tests of state: y = x + (start ? 0 : state)."""
    save_graph(
        repository_root / "m" / "1" / "model.onnx",
        [
            helper.make_node("Not", ["start"], ["goes_on"]),
            helper.make_node("Cast", ["goes_on"], ["factor"], to=TensorProto.INT32),
            helper.make_node("Mul", ["state", "factor"], ["kept"]),
            helper.make_node("Add", ["x", "kept"], ["new_state"]),
            helper.make_node("Identity", ["new_state"], ["y"]),
        ],
        [(name, TensorProto.INT32, ("n", 1)) for name in ("x", "state")]
        + [("start", TensorProto.BOOL, ("n", 1))],
        [(name, TensorProto.INT32, ("n", 1)) for name in ("y", "new_state")],
    )
    return repository_root


STATEFUL = """
    max_batch_size: 8
    sequence_batching {
      control_input [{name: "start" control [{kind: CONTROL_SEQUENCE_START bool_false_true: [false, true]}]}]
      state [{input_name: "state" output_name: "new_state" data_type: TYPE_INT32 dims: [1]}]
    }
    input [{name: "x" data_type: TYPE_INT32 dims: [1]}]
    output [{name: "y" data_type: TYPE_INT32 dims: [1]}]
"""


def test_a_reshaped_model_is_served_in_the_callers_shape(root: Path) -> None:
    loaded = load(
        root,
        """
        max_batch_size: 8
        input [{name: "x" data_type: TYPE_FP32 dims: [2, 2] reshape {shape: [4]}}]
        output [{name: "y" data_type: TYPE_FP32 dims: [1, 4, 1] reshape {shape: [4]}}]
        """,
    )
    assert loaded.signature.inputs[0].shape == (-1, 2, 2)
    inputs = {"x": X.reshape(2, 2, 2)}
    assert loaded.signature.check(inputs) == 2
    outputs = loaded.runtime.run(inputs).outputs
    np.testing.assert_array_equal(outputs["y"], 2 * X.reshape(2, 1, 4, 1))


def test_labels_are_read_with_the_model(root: Path) -> None:
    (root / "m" / "labels.txt").write_text("zero\none\n")
    text = (
        'max_batch_size: 1 output [{name: "y" data_type: TYPE_FP32 dims: [4] label_filename: "labels.txt"}]'
    )
    assert load(root, text).labels == {"y": ("zero", "one")}


def test_a_change_of_a_named_file_is_a_change_of_the_model_and_of_another_is_none(root: Path) -> None:
    (root / "m" / "config.pbtxt").write_text('output [{name: "y" label_filename: "labels.txt"}]')
    (root / "m" / "labels.txt").write_text("zero\n")
    before = source_of(root)
    (root / "m" / "README.md").write_text("read me")
    assert source_of(root) == before
    (root / "m" / "labels.txt").write_text("zero\none\n")
    assert source_of(root) != before


def test_warm_up_samples_are_run_before_the_model_is_served(root: Path) -> None:
    fake = FakeRuntime()
    (root / "m" / "config.pbtxt").write_text(
        'max_batch_size: 8 dynamic_batching {} model_warmup [{name: "w" batch_size: 2 count: 3 '
        'inputs {key: "x" value {data_type: TYPE_FP32 dims: [4] random_data: true}}}]'
    )
    load_variant(source_of(root), FakeFactory(lambda _: fake))
    assert fake.runs == 3


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ('inputs {key: "x" value {data_type: TYPE_FP32 dims: [5] zero_data: true}}', "has shape [1, 5]"),
        ('inputs {key: "x" value {data_type: TYPE_INT8 dims: [4] zero_data: true}}', "is INT8 where FP32"),
        ('inputs {key: "z" value {data_type: TYPE_FP32 dims: [4] zero_data: true}}', "no input 'z'"),
        ("", "'x' is missing"),
    ],
)
def test_a_warm_up_sample_that_fails_fails_the_load(root: Path, sample: str, reason: str) -> None:
    with pytest.raises(LoadFailed, match=r"^The warm-up sample 'w' of m is not answered: ") as caught:
        load(root, f'max_batch_size: 8 model_warmup [{{name: "w" batch_size: 1 {sample}}}]')
    assert reason in str(caught.value)


def test_session_parameters_reach_the_session(root: Path) -> None:
    factory = FakeFactory()
    (root / "m" / "config.pbtxt").write_text(
        'parameters {key: "enable_mem_arena" value {string_value: "0"}} '
        'parameters {key: "intra_op_thread_count" value {string_value: "2"}}'
    )
    load_variant(source_of(root), factory)
    load_variant(source_of(root), factory, intra_op_threads=1)
    assert factory.settings == [
        SessionSettings(2, {"enable_mem_arena": "0"}),
        SessionSettings(1, {"enable_mem_arena": "0"}),
    ]


def test_a_session_takes_them(root: Path) -> None:
    words = {"enable_mem_arena": "0", "enable_mem_pattern": "0", "execution_mode": "1"}
    text = "".join(f'parameters {{key: "{key}" value {{string_value: "{words[key]}"}}}} ' for key in words)
    loaded = load(root, text + "optimization {graph {level: 2}}")
    np.testing.assert_array_equal(loaded.runtime.run({"x": X}).outputs["y"], 2 * X)
    with pytest.raises(LoadFailed, match="sets 'execution_mode' to '3'"):
        load(root, 'parameters {key: "execution_mode" value {string_value: "3"}}')


def test_rows_are_measured_where_nobody_says_how_to_batch(root: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    assert load(root, "").serving.merging is Merging.MEASURED
    assert "Requests to m/1 share runs: two rows gave the same answers" in caplog.text


def test_a_model_whose_rows_mind_each_other_runs_one_request_at_a_time(
    repository_root: Path, save_graph: Any, caplog: Any
) -> None:
    caplog.set_level(logging.INFO)
    save_graph(
        repository_root / "m" / "1" / "model.onnx",
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ("n", 4))],
        [("y", TensorProto.FLOAT, ("n", 4))],
    )
    loaded = load_variant(source_of(repository_root), InlineFactory(cores=1))
    assert loaded.serving.merging is Merging.NEVER
    assert "Requests to m/1 are run one by one, because the output 'y' of a row changes" in caplog.text


def test_a_dynamic_int8_model_is_merged_if_its_configuration_asks_for_it(root: Path) -> None:
    """As in Triton: who writes dynamic_batching answers for it."""
    assert load(root, "max_batch_size: 8 dynamic_batching {}").serving.merging is Merging.ASKED


def test_golden_rows_decide_with_the_rest(repository_root: Path, publish: Any) -> None:
    publish("baseline", 2.0, model="m")
    assert (repository_root / "m" / "baseline" / MANIFEST_FILE).exists()
    loaded = load_variant(source_of(repository_root), InlineFactory(cores=1))
    assert loaded.serving.merging is Merging.MEASURED


def test_a_model_with_state_hides_what_the_server_fills(accumulator: Path) -> None:
    loaded = load(accumulator, STATEFUL)
    assert [spec.name for spec in loaded.signature.inputs] == ["x"]
    assert [spec.name for spec in loaded.signature.outputs] == ["y"]
    assert [tensor.name for tensor in loaded.config.input] == ["x"]
    assert loaded.serving.merging is Merging.ASKED
    assert loaded.sequences is not None


def test_a_sequence_adds_up(accumulator: Path) -> None:
    loaded = load(accumulator, STATEFUL)
    assert loaded.sequences is not None
    answers: list[int] = []

    def send(value: int, key: int, *, start: bool = False, end: bool = False) -> None:
        assert loaded.sequences is not None
        steps: list[Any] = []
        ticket = loaded.sequences.admit(key, start=start, end=end, rows=1, when_turn=steps.append)
        inputs = {"x": np.array([[value]], np.int32), **steps[0].inputs}
        outputs = loaded.runtime.run(inputs, ["y", *steps[0].outputs]).outputs
        ticket.complete(outputs)
        answers.append(int(outputs["y"][0, 0]))

    send(1, 7, start=True)
    send(10, 8, start=True)
    send(2, 7)
    send(20, 8)
    send(3, 7, end=True)
    send(5, 7, start=True)
    assert answers == [1, 10, 3, 30, 6, 5]


def test_a_model_with_state_is_warmed_up_as_a_first_request(accumulator: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    load(accumulator, STATEFUL)
    assert "not warmed up" not in caplog.text
    sample = """model_warmup [{name: "w" batch_size: 1
        inputs {key: "x" value {data_type: TYPE_INT32 dims: [1] zero_data: true}}
        inputs {key: "start" value {data_type: TYPE_BOOL dims: [1] zero_data: true}}}]"""
    load(accumulator, STATEFUL + sample)


def test_a_reload_starts_sequences_anew_and_has_a_number_of_its_own(accumulator: Path) -> None:
    first, second = load(accumulator, STATEFUL), load(accumulator, STATEFUL)
    assert first.sequences is not None
    assert second.sequences is not None
    first.sequences.admit(7, start=True, end=False, rows=1, when_turn=lambda _: None)
    assert not second.sequences.knows(7)
    assert first.instance != second.instance


def test_whether_answers_are_cached_is_the_configurations_word(root: Path) -> None:
    assert not load(root, "").is_cached
    assert load(root, "response_cache {enable: true}").is_cached


def test_an_input_may_be_left_out_if_the_model_has_a_default(
    repository_root: Path, save_graph: Any, root: Path
) -> None:
    save_graph(
        repository_root / "d" / "1" / "model.onnx",
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, ("n", 4)), ("w", TensorProto.FLOAT, (1,))],
        [("y", TensorProto.FLOAT, ("n", 4))],
        [numpy_helper.from_array(np.array([3], np.float32), "w")],
    )
    text = (
        'input [{name: "x" data_type: TYPE_FP32 dims: [-1, 4]}, '
        '{name: "w" data_type: TYPE_FP32 dims: [1] optional: true}]'
    )
    loaded = load(repository_root, text, "d")
    np.testing.assert_array_equal(loaded.runtime.run({"x": X}).outputs["y"], 3 * X)
    w = np.array([5], np.float32)
    np.testing.assert_array_equal(loaded.runtime.run({"x": X, "w": w}).outputs["y"], 5 * X)
    with pytest.raises(LoadFailed, match="the input 'x' is optional, but the model cannot run without it"):
        load(root, 'input [{name: "x" data_type: TYPE_FP32 dims: [-1, 4] optional: true}]')


def test_an_ensemble_needs_somebody_to_look_its_steps_up(root: Path) -> None:
    text = 'platform: "ensemble" ensemble_scheduling {step [{model_name: "x"}]}'
    with pytest.raises(LoadFailed, match="m is an ensemble"):
        load(root, text)
