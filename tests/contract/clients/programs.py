"""Programs that were found: run, and read."""

import os
import shutil
import subprocess

import pytest

from tests.contract.clients.conversation import PATIENCE_SECONDS


def find(name: str, variable: str, package: str) -> str:
    """Return the program that the environment names, or that is on the PATH; else skip the test."""
    path = shutil.which(os.environ.get(variable) or name)
    if path is None:
        pytest.skip(f"{name} is not there: install {package}, or name the program in {variable}")
    return path


def run(*command: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """Run a program to its end, with something to read."""
    return subprocess.run(
        command,
        input=given,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
