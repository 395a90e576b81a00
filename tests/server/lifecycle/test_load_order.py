"""The order of loads where ensembles are among them."""

from pathlib import Path
from types import MappingProxyType

from flyweight.server.lifecycle.desired import Desired, DesiredModel, VariantSource
from flyweight.server.lifecycle.policy import Actual, first_to_begin, next_actions
from flyweight.server.repository.fingerprint import Fingerprint


def ensemble(name: str, *steps: str) -> DesiredModel:
    source = VariantSource(name, "1", Path("/r") / name / "1", "", Fingerprint(), None, steps=steps)
    return DesiredModel(name, MappingProxyType({"1": source}))


def begun(models: list[DesiredModel], actual: Actual, slots: int = 4) -> str:
    everything = Desired(MappingProxyType({model.name: model for model in models}))
    action = first_to_begin(next_actions(everything, actual), actual, slots)
    return "" if action is None else action.model


def test_an_ensemble_is_loaded_after_the_models_that_it_runs() -> None:
    models = [ensemble("a", "b", "z"), ensemble("b", "z"), ensemble("z")]
    assert begun(models, Actual()) == "z"
    assert begun(models, Actual(busy=frozenset({("z", "1")}))) == ""
    z = {("z", "1"): models[2].wanted["1"]}
    assert begun(models, Actual(MappingProxyType(z))) == "b"
    assert begun(models[:1], Actual()) == "a", "what is not on its way is not waited for"


def test_ensembles_that_wait_for_each_other_are_tried_when_nothing_else_is_done() -> None:
    models = [ensemble("a", "b"), ensemble("b", "a")]
    assert begun(models, Actual()) == "a"
    assert begun(models, Actual(busy=frozenset({("c", "1")}))) == ""
