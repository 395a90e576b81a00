"""What is installed is what was promised: one command, and its subcommands from the installed parts."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points, requires, version
from pathlib import Path

import pytest

import flyweight

PARTS = ("flyweight.client", "flyweight.compressor", "flyweight.protos", "flyweight.server")


def test_the_namespace_is_nobodys_package() -> None:
    assert getattr(flyweight, "__file__", None) is None


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_importable(part: str) -> None:
    assert import_module(part).__doc__


def test_subcommands_are_entry_points() -> None:
    names = {entry.name for entry in entry_points(group="flyweight.commands")}
    assert names == {
        *("serve", "check", "token", "compress", "report", "passes", "predict", "models"),
        *("traffic", "promote", "rollback", "load", "unload"),
    }


def test_the_version_is_the_distributions() -> None:
    command = Path(sys.executable).with_name("flyweight")
    finished = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert version("flyweight") in finished.stdout


def test_torch_is_pinned_exactly() -> None:
    """Any range of torch would let pip take another build of several gigabytes."""
    pins = [line for line in requires("flyweight") or [] if line.startswith("torch==")]
    assert pins
    assert all(line.startswith("torch==2.13.0") for line in pins)
