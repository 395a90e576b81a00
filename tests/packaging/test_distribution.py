"""What is installed is what was promised: one command, and its subcommands from the installed parts."""

import subprocess
import sys
from importlib.metadata import entry_points, requires, version

import flyweight.client
import flyweight.compressor
import flyweight.protos
import flyweight.server

import flyweight


def test_four_parts_share_one_namespace_package() -> None:
    assert getattr(flyweight, "__file__", None) is None
    assert {"flyweight.client", "flyweight.compressor", "flyweight.protos", "flyweight.server"} <= set(sys.modules)


def test_subcommands_are_entry_points() -> None:
    names = {entry.name for entry in entry_points(group="flyweight.commands")}
    assert names == {"serve", "check", "compress", "report", "predict", "models"}


def test_the_version_is_the_distributions() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "flyweight.client.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert version("flyweight") in finished.stdout


def test_torch_is_pinned_exactly() -> None:
    """Any range of torch would let pip take another build of several gigabytes."""
    pins = [line for line in requires("flyweight") or [] if line.startswith("torch==")]
    assert pins
    assert all(line.startswith("torch==2.13.0") for line in pins)
