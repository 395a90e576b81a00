"""YAML as people mean it in our files: scalars are text, and no key stands in a mapping twice."""

from collections.abc import Hashable

import yaml


class TextLoader(yaml.BaseLoader):
    """Leaves scalars strings, so that 1e3, no and a digest of digits stay what they are."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 -- pyyaml's signature
    ) -> dict[Hashable, object]:
        """Return a mapping; a key that is no word or stands twice is an error."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                problem = f"the key '{key.value}' stands there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


class PlainYamlError(ValueError):
    """A text is not YAML; the message says where and why, in words for the middle of a sentence."""


def load_text(text: str) -> object:
    """Return the strings, lists and mappings that a YAML text stands for.

    Raises:
        PlainYamlError: it is not YAML, nests too deeply, or repeats a key.
    """
    try:
        # A BaseLoader makes strings, lists and mappings and nothing else.
        content: object = yaml.load(text, Loader=TextLoader)  # noqa: S506
    # ValueError and OverflowError: an escape sequence that is no character, "\U00110000".
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise PlainYamlError(_reason(error)) from error
    return content


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        problem = str(error.problem)
        # YAML's own words say neither that it is a tab that nobody sees, nor what to have instead.
        if "'\\t'" in problem:
            problem = "a tab stands where only spaces may"
        return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
    if isinstance(error, (ValueError, OverflowError)):
        return "an escape sequence in it is no character"
    return str(error).splitlines()[0]
