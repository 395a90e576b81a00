"""`flyweight models`, against a server on loopback, and its table from hand-made answers."""

import json
from typing import Any

from flyweight.client import ModelInfo, TensorInfo, VariantState, VariantTraffic
from flyweight.client.cli.models import Listing, document, text
from flyweight.client.testing import FakeServer, serve_fake

INFO = ModelInfo(
    "digits",
    ("baseline", "int8"),
    "onnx",
    (TensorInfo("x", "FP32", (-1, 2)),),
    (TensorInfo("y", "FP32", (-1,)),),
)
STATES = (
    VariantState("digits", "baseline", "READY", ""),
    VariantState("digits", "int8", "UNAVAILABLE", "its digest does not match"),
    VariantState("empty", "", "UNAVAILABLE", "no variant"),
)
TRAFFIC = {("digits", "baseline"): VariantTraffic("digits", "baseline", "baseline", 100.0, 12_345_678)}


def test_the_table_has_variants_states_tensors(run: Any, digits: FakeServer) -> None:
    done = run("models", "--url", digits.address)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "model   variant   state",
        "digits  baseline  READY",
        "digits  int8      READY",
        "",
        "digits: pixels FP32 [-1, 3] -> logits FP32 [-1, 3]",
    ]


def test_json_is_one_document(run: Any, digits: FakeServer) -> None:
    found = json.loads(run("models", "--json", "--url", digits.address).out)
    (model,) = found["models"]
    assert model["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 3]}]
    assert [variant["name"] for variant in model["variants"]] == ["baseline", "int8"]
    assert model["variants"][0]["share_percent"] is None


def test_traffic_memory_and_reasons_have_columns_where_the_server_tells_them() -> None:
    assert text(Listing("u", STATES, {"digits": INFO}, TRAFFIC)).splitlines() == [
        "model   variant   state        role      traffic   memory  reason",
        "digits  baseline  READY        baseline    100 %  12.3 MB",
        "digits  int8      UNAVAILABLE  -               -        -  its digest does not match",
        "empty   -         UNAVAILABLE  -               -        -  no variant",
        "",
        "digits: x FP32 [-1, 2] -> y FP32 [-1]",
        "",
        "memory: what the variant adds to a process that holds only it; - while nobody has measured that",
    ]


def test_models_that_do_not_answer_are_in_the_document_too() -> None:
    models = document(Listing("u", STATES, {"digits": INFO}, TRAFFIC))["models"]
    assert isinstance(models, list)
    assert [model["name"] for model in models] == ["digits", "empty"]
    assert models[0]["variants"][0]["share_percent"] == 100
    assert models[1]["inputs"] is None


def test_a_model_that_is_unloaded_is_listed_with_its_reason(run: Any, digits: FakeServer) -> None:
    run("models", "--url", digits.address)
    from flyweight.client import Client

    with Client(digits.address) as client:
        client.unload("digits")
    done = run("models", "--url", digits.address)
    assert done.code == 0
    assert "UNAVAILABLE  unloaded" in done.out


def test_a_server_without_models_says_so(run: Any) -> None:
    with serve_fake({}) as server:
        assert (
            run("models", "--url", server.address).out == f"The server at {server.address} holds no models.\n"
        )


def test_a_server_that_is_not_there_is_one_sentence(run: Any) -> None:
    done = run("models", "--url", "127.0.0.1:1")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("flyweight: error: nobody answers at 127.0.0.1:1")


def test_one_model_can_be_asked_for(run: Any, digits: FakeServer) -> None:
    done = run("models", "digits", "--url", digits.address)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1].split() == ["digits", "baseline", "READY"]


def test_a_model_that_is_not_there_is_told_with_those_that_are(run: Any, digits: FakeServer) -> None:
    done = run("models", "digit", "--url", digits.address)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"flyweight: error: the server at {digits.address} has no model 'digit'; its models are digits.\n"
    )


def test_an_address_in_the_place_of_a_model_is_told_where_it_goes(run: Any, digits: FakeServer) -> None:
    done = run("models", "10.0.0.7:8001", "--url", digits.address)
    assert done.err.endswith("its models are digits; a server's address goes after --url.\n")


def test_where_nothing_is_loaded_there_is_no_legend_of_memory() -> None:
    assert text(Listing("u", STATES[2:], {}, {})).splitlines() == [
        "model  variant  state        role  traffic  memory  reason",
        "empty  -        UNAVAILABLE  -           -       -  no variant",
    ]
