"""Names that are a folder, a metric label and a word on the wire at once."""

import pytest

from flyweight.protos.errors import RepositoryError
from flyweight.protos.variant import is_valid_name, require_valid_name
from flyweight.protos.variant.names import is_inside_folder


@pytest.mark.parametrize("name", ["1", "int8", "pruned-int8", "v1.2_final", "A" * 128])
def test_names_that_are_allowed(name: str) -> None:
    assert is_valid_name(name)
    assert require_valid_name(name, "variant") == name


@pytest.mark.parametrize(
    "name", ["", ".hidden", "-x", "..", "a/b", "a\\b", "a b", "a\n", "ä", "A" * 129, "a\0"]
)
def test_names_that_are_refused(name: str) -> None:
    assert not is_valid_name(name)
    with pytest.raises(RepositoryError, match="cannot name a variant"):
        require_valid_name(name, "variant")


@pytest.mark.parametrize("path", ["model.onnx", "data/weights", "a/./b", "..data"])
def test_paths_inside_a_folder(path: str) -> None:
    assert is_inside_folder(path)


@pytest.mark.parametrize("path", ["", ".", "/etc/passwd", "..", "../x", "a/../../x", "a\\..\\x", "a\0"])
def test_paths_outside_a_folder(path: str) -> None:
    assert not is_inside_folder(path)
