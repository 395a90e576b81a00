"""Sharing work between recipes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from flyweight.compressor.context import Context
from flyweight.compressor.errors import PassError
from flyweight.compressor.model import Model
from flyweight.compressor.passes.base import Form, Pass, PassResult, PassSequence
from flyweight.compressor.passes.memo import Memo


@dataclass(frozen=True)
class Step(Pass):
    """Counts its calls; returns a new model that remembers its path."""

    name: ClassVar[str] = "step"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    label: str
    calls: list[str] = field(default_factory=list, compare=False)

    def apply(self, model: Model, context: Context) -> PassResult:
        self.calls.append(self.label)
        if self.label == "broken":
            raise PassError("It is broken.")
        return PassResult(Model(path=model.onnx_path() / self.label), changed=True, notes=(self.label,))


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def original() -> Model:
    return Model(path=Path("original"))


def test_a_common_beginning_is_done_once(context: Context, original: Model, calls: list[str]) -> None:
    memo = Memo()
    for ending in ("b", "c"):
        recipe = PassSequence([Step("a", calls), Step(ending, calls)])
        result = memo.apply(recipe, original, context)
        assert result.model.path == Path("original/a") / ending
        assert result.notes == ("a", ending)
        assert result.changed
    assert calls == ["a", "b", "c"]


def test_it_gives_what_the_recipe_gives(context: Context, original: Model, calls: list[str]) -> None:
    recipe = PassSequence([Step("a", calls), PassSequence([Step("b", calls), Step("c", calls)])])
    assert Memo().apply(recipe, original, context) == recipe(original, context)


def test_the_same_pass_on_another_model_is_done_again(
    context: Context, original: Model, calls: list[str]
) -> None:
    memo = Memo()
    memo.apply(Step("a", calls), original, context)
    memo.apply(Step("a", calls), Model(path=Path("original")), context)
    assert calls == ["a", "a"]


def test_a_failure_is_remembered(context: Context, original: Model, calls: list[str]) -> None:
    memo = Memo()
    for _ in range(2):
        with pytest.raises(PassError, match="broken"):
            memo.apply(Step("broken", calls), original, context)
    assert calls == ["broken"]
