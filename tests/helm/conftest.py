"""Finds helm, and renders the chart with it."""

import functools
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from flyweight.server.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "flyweight"
VALUES_FOLDER = Path(__file__).parent / "values"
VALUES = ("defaults", *sorted(path.stem for path in VALUES_FOLDER.glob("*.yaml")))

# A rendered object, as YAML reads it.
Manifest = dict[str, Any]


def _get_helm() -> ModuleType:
    spec = importlib.util.spec_from_file_location("get_helm", Path(__file__).with_name("get_helm.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _major(binary: str) -> str:
    command = [binary, "version", "--template", "{{.Version}}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()[1:2]


@functools.cache
def _find(major: str) -> str:
    """Return the helm that FLYWEIGHT_HELM names, or the one on PATH, or fetch one; skip without any."""
    named = os.environ.get("FLYWEIGHT_HELM")
    if named:
        if _major(named) == major:
            return named
        pytest.skip(f"FLYWEIGHT_HELM={named} is not helm {major}")
    installed = shutil.which("helm")
    if installed and _major(installed) == major:
        return installed
    get_helm = _get_helm()
    try:
        return str(get_helm.fetch(f"helm-{major}"))
    except get_helm.FetchError as error:
        pytest.skip(f"helm {major} is not installed and could not be fetched: {error}")


@pytest.fixture(params=["3", "4"], ids=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run helm with these arguments, with nothing of the user's configuration."""
    binary = _find(request.param)
    home = {name: str(tmp_path / name) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **home}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [binary, *arguments]
        return subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=60, env=environment, cwd=CHART
        )

    return run


@pytest.fixture(params=VALUES)
def values(request: pytest.FixtureRequest) -> list[str]:
    """Give helm's options for each values file in turn, and for none."""
    return [] if request.param == "defaults" else ["--values", str(VALUES_FOLDER / f"{request.param}.yaml")]


@pytest.fixture
def render(helm: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., list[Manifest]]:
    """Render the chart with these of helm's options; returns the objects."""

    def run(*options: str) -> list[Manifest]:
        done = helm("template", "release", ".", "--namespace", "models", "--kube-version", "1.32.0", *options)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return run


@pytest.fixture
def claim() -> list[str]:
    """Give helm's options for the values that switch everything on."""
    return ["--values", str(VALUES_FOLDER / "claim.yaml")]


@pytest.fixture(scope="session")
def chart() -> Path:
    return CHART


@pytest.fixture(scope="session")
def exposed() -> set[str]:
    """Give the names of all series that a server has."""
    series = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
    families = Metrics(triton_names=False).registry.collect()
    return {family.name + suffix for family in families for suffix in series[family.type]}
