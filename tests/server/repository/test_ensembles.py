"""The graph of an ensemble, from Triton's own example of one."""

from pathlib import Path

import pytest

from flyweight.server.errors import LoadFailed
from flyweight.server.repository.ensembles import EnsembleGraph, check_steps, ensemble_graph
from flyweight.server.repository.model_config import parse_model_config
from flyweight.server.runtime.signature import Signature, TensorSpec

TENSORS = """
    platform: "ensemble" max_batch_size: 1
    input [{name: "IMAGE" data_type: TYPE_STRING dims: [1]}]
    output [{name: "CLASSIFICATION" data_type: TYPE_FP32 dims: [1000]},
            {name: "SEGMENTATION" data_type: TYPE_FP32 dims: [3, 224, 224]}]
"""
PREPROCESS = """step {model_name: "pre" model_version: -1 input_map {key: "RAW" value: "IMAGE"}
                 output_map {key: "OUT" value: "image"}}"""
CLASSIFY = """step {model_name: "cls" model_version: 3 input_map {key: "F" value: "image"}
               output_map {key: "L" value: "CLASSIFICATION"}}"""
SEGMENT = """step {model_name: "seg" input_map {key: "F" value: "image"}
              output_map {key: "L" value: "SEGMENTATION"}}"""


def graph(*steps: str, tensors: str = TENSORS) -> EnsembleGraph:
    text = f"{tensors} ensemble_scheduling {{{' '.join(steps)}}}"
    return ensemble_graph(parse_model_config(text, Path("config.pbtxt")), "e")


def test_steps_come_in_the_order_of_their_needs() -> None:
    found = graph(CLASSIFY, SEGMENT, PREPROCESS)
    assert [(step.model, step.version) for step in found.steps] == [("pre", ""), ("cls", "3"), ("seg", "")]
    assert found.steps[0].inputs == (("RAW", "IMAGE"),)
    assert found.signature.inputs == (TensorSpec("IMAGE", "BYTES", (-1, 1)),)
    assert found.signature.outputs[1].shape == (-1, 3, 224, 224)


@pytest.mark.parametrize(
    ("steps", "named"),
    [
        ([PREPROCESS, CLASSIFY], "the output 'SEGMENTATION', which no step fills"),
        ([CLASSIFY, SEGMENT], "the tensor 'image', which nothing fills"),
        ([PREPROCESS, PREPROCESS, CLASSIFY, SEGMENT], "fills the tensor 'image' twice"),
        ([PREPROCESS.replace('"IMAGE"', '"image"'), CLASSIFY, SEGMENT], "'image', which hangs on itself"),
        ([PREPROCESS.replace('"pre"', '"e"'), CLASSIFY, SEGMENT], "in step 0, runs itself"),
        ([PREPROCESS.replace('"pre"', '""'), CLASSIFY, SEGMENT], "must have a model_name"),
        (["step {model_name: 'pre'}"], "an input_map and an output_map"),
        ([PREPROCESS.replace("-1", "-2"), CLASSIFY, SEGMENT], "the version -2"),
        ([PREPROCESS.replace("model_version", 'model_namespace: "n" model_version')], "namespace 'n'"),
        ([PREPROCESS, CLASSIFY, SEGMENT.replace("}}", '} output_map {key: "M" value: "m"}}')], "'m', which"),
    ],
)
def test_what_is_not_connected_is_named(steps: list[str], named: str) -> None:
    with pytest.raises(LoadFailed, match=r"^The ensemble 'e'") as caught:
        graph(*steps)
    assert named in str(caught.value)


def test_tensors_have_to_be_listed_and_used() -> None:
    with pytest.raises(LoadFailed, match="must list its inputs and outputs"):
        graph(PREPROCESS, tensors='platform: "ensemble"')
    more = TENSORS + 'input [{name: "UNUSED" data_type: TYPE_FP32 dims: [1]}]'
    with pytest.raises(LoadFailed, match="the input 'UNUSED', which no step takes"):
        graph(PREPROCESS, CLASSIFY, SEGMENT, tensors=more)


def spec(name: str, *shape: int, datatype: str = "FP32") -> TensorSpec:
    return TensorSpec(name, datatype, shape)


PRE = Signature((spec("RAW", -1, 1, datatype="BYTES"),), (spec("OUT", -1, 3, 224, 224),), 4)
CLS = Signature((spec("F", -1, 3, -1, -1),), (spec("L", -1, 1000),), 4)
SEG = Signature((spec("F", -1, 3, 224, 224),), (spec("L", -1, 3, 224, 224),), 0)


def check(*models: Signature, rows: int = 1) -> None:
    check_steps(graph(PREPROCESS, CLASSIFY, SEGMENT), models, rows, "The ensemble 'e'")


def test_models_that_fit_are_taken() -> None:
    check(PRE, CLS, SEG)


@pytest.mark.parametrize(
    ("models", "rows", "named"),
    [
        ((PRE, CLS, SEG), 8, "takes 8 rows, and its step 'pre' takes 4"),
        ((Signature((), PRE.outputs, 4), CLS, SEG), 1, "maps 'RAW' of its step 'pre'"),
        ((Signature(PRE.inputs, (), 4), CLS, SEG), 1, "maps 'OUT' of its step 'pre'"),
        ((Signature((*PRE.inputs, spec("K", -1)), PRE.outputs), CLS, SEG), 1, "its step 'pre' no 'K'"),
        ((Signature((spec("RAW", -1, 1),), PRE.outputs), CLS, SEG), 1, "'IMAGE', BYTES"),
        ((PRE, Signature((spec("F", -1, 1, 224, 224),), CLS.outputs), SEG), 1, "'image', FP32 of [-1, 3,"),
        ((PRE, Signature(CLS.inputs, (spec("L", -1, 10),)), SEG), 1, "'CLASSIFICATION', FP32 of [-1, 1000]"),
        ((PRE, CLS, Signature((spec("F", 3, 224, 224),), SEG.outputs)), 1, "batch axes count"),
    ],
)
def test_models_that_do_not_fit_are_named(models: tuple[Signature, ...], rows: int, named: str) -> None:
    with pytest.raises(LoadFailed, match=r"^The ensemble 'e'") as caught:
        check(*models, rows=rows)
    assert named in str(caught.value)
