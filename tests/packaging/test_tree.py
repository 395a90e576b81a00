"""The tree keeps the shape that lets four parts share one namespace."""

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
