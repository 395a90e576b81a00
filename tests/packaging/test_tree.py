"""The tree keeps the shape that lets four parts share one namespace."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("protos", "server", "client", "compressor")

pytestmark = pytest.mark.source


@pytest.mark.parametrize("part", PARTS)
def test_no_part_claims_the_namespace_for_itself(part: str) -> None:
    """PEP 420: one __init__.py in a folder named flyweight would hide the other three parts."""
    assert (ROOT / part / "flyweight" / part).is_dir()
    assert not (ROOT / part / "flyweight" / "__init__.py").exists()
    names = {path.name for path in (ROOT / part / "flyweight").iterdir()} - {"__pycache__"}
    assert names == {part}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_ships_its_types(part: str) -> None:
    assert (ROOT / part / "flyweight" / part / "py.typed").is_file()


def test_every_part_that_runs_has_an_extra_of_its_name_and_one_has_them_all() -> None:
    """Also the client, which needs nothing more: pip warns of a name that it does not know."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert {"client", "server", "compressor", "torch", "all"} <= extras.keys()
    (everything,) = extras["all"]
    named = everything.partition("[")[2].rstrip("]").split(",")
    assert {*named, "all"} == extras.keys()
