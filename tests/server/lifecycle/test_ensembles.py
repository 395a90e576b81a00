"""Ensembles of real sessions, from the repository to the answer, one deliberate step at a time."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flyweight.server.errors import InvalidRequest, NotReady
from flyweight.server.repository.serving import Merging
from flyweight.server.runtime.inline import InlineFactory
from flyweight.server.runtime.seam import RuntimeState

if TYPE_CHECKING:
    from conftest import Bench

Array = NDArray[Any]
X = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
STEP = 'step {{model_name: "{0}" model_version: {1} input_map {{key: "x" value: "{2}"}} \
output_map {{key: "y" value: "{3}"}}}}'


def step(model: str, given: str, made: str, version: int = -1) -> str:
    return STEP.format(model, version, given, made)


def write_ensemble(root: Path, name: str, *steps: str, rows: int = 8, dims: str = "[4]") -> Path:
    """Write an ensemble from "in" to "out", with one empty version folder."""
    (root / name / "1").mkdir(parents=True)
    text = f"""
        platform: "ensemble" max_batch_size: {rows}
        input [{{name: "in" data_type: TYPE_FP32 dims: {dims}}}]
        output [{{name: "out" data_type: TYPE_FP32 dims: {dims}}}]
        ensemble_scheduling {{{" ".join(steps)}}}
    """
    (root / name / "config.pbtxt").write_text(text)
    return root / name


@pytest.fixture
def model(repository_root: Path, tiny_model: Any) -> Callable[..., None]:
    """Return a function that writes a model that multiplies by a number."""

    def write(name: str, scale: float, version: int = 1, config: str | None = None) -> None:
        tiny_model(repository_root / name / str(version) / "model.onnx", scale)
        if config is not None:
            (repository_root / name / "config.pbtxt").write_text(config)

    return write


@pytest.fixture(autouse=True)
def real_sessions(bench: "Bench") -> None:
    bench.factory = InlineFactory(cores=1)  # type: ignore[assignment] -- the same seam


def run(bench: "Bench", name: str, inputs: Mapping[str, Array] | None = None) -> Array:
    loaded = bench.table.model(name).variant("")
    with loaded.lease() as runtime:
        return runtime.run(inputs or {"in": X}, ["out"]).outputs["out"]


def test_the_steps_of_an_ensemble_run_one_after_the_other(bench: "Bench", model: Any) -> None:
    """Its folder sorts before those of its steps, which are loaded first all the same."""
    model("double", 2.0)
    model("triple", 3.0)
    write_ensemble(bench.root, "all", step("triple", "between", "out"), step("double", "in", "between"))
    bench.settle()
    assert bench.states() == {"all/1": "READY", "double/1": "READY", "triple/1": "READY"}
    assert [line for line in bench.diary.lines if line.startswith(("load", "failed"))] == [
        "load double/1",
        "load triple/1",
        "load all/1",
    ]
    np.testing.assert_array_equal(run(bench, "all"), 6 * X)
    loaded = bench.table.model("all").variant("")
    assert loaded.signature.max_batch_rows == 8
    assert loaded.config.platform == "ensemble"
    assert (loaded.config.backend, loaded.config.default_model_filename) == ("", "")
    assert loaded.memory.file_bytes == loaded.runtime.usage().file_bytes == 0
    assert loaded.runtime.state is RuntimeState.READY


def test_every_step_that_ran_or_failed_is_told(bench: "Bench", model: Any) -> None:
    """The second step takes rows of three, which the first does not give."""
    model("double", 2.0)
    model("triple", 3.0)
    write_ensemble(bench.root, "good", step("double", "in", "between"), step("triple", "between", "out"))
    write_ensemble(bench.root, "bad", step("double", "in", "out"), dims="[-1]")
    bench.settle()
    bench.steps.clear()
    run(bench, "good")
    double, triple = bench.steps
    assert [(each.model, each.variant, each.rows, each.error) for each in bench.steps] == [
        ("double", "1", 2, None),
        ("triple", "1", 2, None),
    ]
    assert 0 < double.run_seconds <= double.seconds
    assert 0 < triple.run_seconds <= triple.seconds
    bench.steps.clear()
    with pytest.raises(InvalidRequest):
        run(bench, "bad", {"in": X[:, :3]})
    (refused,) = bench.steps
    assert (refused.model, refused.rows, refused.run_seconds) == ("double", 0, 0.0)
    assert isinstance(refused.error, InvalidRequest)


def test_one_tensor_may_feed_several_steps_and_be_an_output_too(bench: "Bench", model: Any) -> None:
    model("double", 2.0)
    folder = write_ensemble(bench.root, "all", step("double", "in", "out"), step("double", "out", "more"))
    text = (folder / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text(text + 'output [{name: "more" data_type: TYPE_FP32 dims: [4]}]')
    bench.settle()
    with bench.table.model("all").variant("").lease() as runtime:
        outputs = runtime.run({"in": X}).outputs
    np.testing.assert_array_equal(outputs["out"], 2 * X)
    np.testing.assert_array_equal(outputs["more"], 4 * X)


def test_a_step_may_name_a_version(bench: "Bench", model: Any) -> None:
    for version in (1, 2):
        model("scale", float(version), version, "version_policy {all {}}")
    write_ensemble(bench.root, "first", step("scale", "in", "out", version=1))
    write_ensemble(bench.root, "latest", step("scale", "in", "out"))
    bench.settle()
    np.testing.assert_array_equal(run(bench, "first"), X)
    np.testing.assert_array_equal(run(bench, "latest"), 2 * X)


def test_an_ensemble_waits_for_its_step_and_is_loaded_when_that_comes(bench: "Bench", model: Any) -> None:
    write_ensemble(bench.root, "all", step("double", "in", "out"))
    bench.settle()
    assert bench.states() == {"all/1": "UNAVAILABLE"}
    assert bench.reason("all", "1").startswith(
        "The ensemble 'all' waits for its step 'double': There is no model 'double'"
    )
    model("double", 2.0)
    bench.scan(2)
    before = bench.clock.seconds
    bench.work()
    assert bench.clock.seconds == before
    assert bench.states() == {"all/1": "READY", "double/1": "READY"}
    np.testing.assert_array_equal(run(bench, "all"), 2 * X)


def test_an_ensemble_without_its_step_says_so_to_each_request(bench: "Bench", model: Any) -> None:
    model("double", 2.0)
    write_ensemble(bench.root, "all", step("double", "in", "out"))
    bench.settle()
    bench.board.admit("double", wanted=False)
    bench.work()
    with pytest.raises(NotReady, match="The ensemble 'all' needs 'double', which is not served now: "):
        run(bench, "all")
    bench.board.admit("double", wanted=True)
    bench.work()
    np.testing.assert_array_equal(run(bench, "all"), 2 * X)


def test_a_step_that_is_replaced_answers_for_the_ensemble_at_once(
    bench: "Bench", model: Any, tiny_model: Any
) -> None:
    model("double", 2.0)
    write_ensemble(bench.root, "all", step("double", "in", "out"))
    bench.settle()
    tiny_model(bench.root / "double" / "2" / "model.onnx", 7.0)
    bench.settle()
    np.testing.assert_array_equal(run(bench, "all"), 7 * X)


def test_ensembles_may_be_steps(bench: "Bench", model: Any) -> None:
    model("double", 2.0)
    write_ensemble(bench.root, "a", step("b", "in", "out"))
    folder = write_ensemble(bench.root, "b", step("double", "in", "out"))
    (folder / "config.pbtxt").write_text(
        (folder / "config.pbtxt").read_text().replace('"in"', '"x"').replace('"out"', '"y"')
    )
    bench.settle()
    np.testing.assert_array_equal(run(bench, "a"), 2 * X)


def test_ensembles_that_run_each_other_are_refused_and_keep_nobody_waiting(bench: "Bench") -> None:
    for one, other in (("a", "b"), ("b", "a")):
        write_ensemble(bench.root, one, step(other, "in", "out"))
    bench.settle()
    assert bench.board.is_settled()
    assert bench.states() == {"a/1": "UNAVAILABLE", "b/1": "UNAVAILABLE"}
    assert "waits for its step" in bench.reason("a", "1")


def test_a_circle_that_closes_later_is_refused(bench: "Bench", model: Any) -> None:
    """An ensemble of an ensemble, whose step is then replaced by one that runs the first."""
    model("double", 2.0)
    inner = write_ensemble(bench.root, "inner", step("double", "in", "out"))
    outer = write_ensemble(bench.root, "outer", step("inner", "in", "out"))
    text = (
        (outer / "config.pbtxt")
        .read_text()
        .replace('key: "x"', 'key: "in"')
        .replace('key: "y"', 'key: "out"')
    )
    (outer / "config.pbtxt").write_text(text)
    bench.settle()
    np.testing.assert_array_equal(run(bench, "outer"), 2 * X)
    (inner / "config.pbtxt").write_text(text.replace("inner", "outer"))
    bench.settle()
    assert "runs itself by its step 'outer'" in bench.reason("inner", "1")
    np.testing.assert_array_equal(run(bench, "outer"), 2 * X)


@pytest.mark.parametrize(
    ("steps", "rows", "dims", "reason"),
    [
        ([step("double", "in", "out")], 2048, "[4]", "its step 'double' takes 1024"),
        ([step("double", "in", "out")], 8, "[5]", "FP32 of [-1, 5], to 'x', FP32 of [-1, 4]"),
        ([step("double", "in", "out").replace('"x"', '"z"')], 8, "[4]", "no 'x'"),
        ([step("double", "in", "out", version=9)], 8, "[4]", "has no variant '9' ready"),
    ],
)
def test_a_step_that_does_not_fit_is_named(
    bench: "Bench", model: Any, steps: list[str], rows: int, dims: str, reason: str
) -> None:
    model("double", 2.0)
    write_ensemble(bench.root, "all", *steps, rows=rows, dims=dims)
    bench.settle()
    assert bench.states()["all/1"] == "UNAVAILABLE"
    assert reason in bench.reason("all", "1")


def test_a_request_that_a_step_does_not_take_is_told_where(bench: "Bench", model: Any) -> None:
    model("double", 2.0)
    write_ensemble(bench.root, "all", step("double", "in", "out"), dims="[-1]")
    bench.settle()
    with pytest.raises(
        InvalidRequest, match=r"^In the step 'double' of the ensemble 'all': The input 'x' has"
    ):
        run(bench, "all", {"in": X[:, :3]})


def test_an_ensemble_shares_runs_only_if_all_its_steps_do(bench: "Bench", model: Any) -> None:
    written_out = (
        'max_batch_size: 8 input [{name: "x" data_type: TYPE_FP32 dims: [4]}] '
        'output [{name: "y" data_type: TYPE_FP32 dims: [4]}]'
    )
    model("measured", 2.0)
    model("asked", 3.0, config=written_out + " dynamic_batching {}")
    model("alone", 5.0, config=written_out)
    write_ensemble(bench.root, "shares", step("measured", "in", "b"), step("asked", "b", "out"))
    write_ensemble(bench.root, "lonely", step("measured", "in", "b"), step("alone", "b", "out"))
    bench.settle()
    assert bench.table.model("shares").variant("").serving.merging is Merging.MEASURED
    assert bench.table.model("shares").variant("").serving.max_rows == 8
    assert bench.table.model("lonely").variant("").serving.merging is Merging.NEVER


def test_a_version_folder_of_an_ensemble_may_be_empty_but_must_be_there(bench: "Bench", model: Any) -> None:
    model("double", 2.0)
    folder = write_ensemble(bench.root, "all", step("double", "in", "out"))
    shutil.rmtree(folder / "1")
    bench.settle()
    assert (
        bench.reason("all")
        == f"{folder} holds no version; make an empty folder 1, which is all an ensemble needs."
    )


def test_asking_for_an_ensemble_asks_for_its_steps(
    make_bench: Callable[..., "Bench"], model: Any, repository_root: Path
) -> None:
    bench = make_bench(True)
    bench.factory = InlineFactory(cores=1)  # type: ignore[assignment] -- the same seam
    model("double", 2.0)
    model("other", 3.0)
    write_ensemble(repository_root, "all", step("double", "in", "out"))
    bench.settle()
    assert not bench.table.models
    bench.board.admit("all", wanted=True)
    bench.work()
    assert sorted(bench.table.models) == ["all", "double"]
    bench.board.admit("double", wanted=False)
    bench.work()
    assert sorted(bench.table.models) == ["all"]
    bench.board.admit("all", wanted=False)
    bench.work()
    assert not bench.table.models


def test_a_step_with_state_is_refused(bench: "Bench", model: Any) -> None:
    model("double", 2.0, config="sequence_batching {}")
    write_ensemble(bench.root, "all", step("double", "in", "out"))
    bench.settle()
    assert "which keeps state; call it by itself" in bench.reason("all", "1")


def test_ensembles_of_ensembles_have_a_bound(bench: "Bench", model: Any) -> None:
    model("e0", 2.0)
    for depth in range(1, 10):
        folder = write_ensemble(bench.root, f"e{depth}", step(f"e{depth - 1}", "in", "out"))
        text = (folder / "config.pbtxt").read_text()
        (folder / "config.pbtxt").write_text(text.replace('"in"', '"x"').replace('"out"', '"y"'))
    bench.settle()
    ready = [name for name, state in bench.states().items() if state == "READY"]
    assert sorted(ready) == [f"e{depth}/1" for depth in range(9)]
    assert "more than 8 ensembles deep" in bench.reason("e9", "1")
    with bench.table.model("e8").variant("").lease() as runtime:
        np.testing.assert_array_equal(runtime.run({"x": X}).outputs["y"], 2 * X)
