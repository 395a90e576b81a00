"""Nobody imports what belongs to somebody else: each process pays memory and time for what it needs alone."""

import json
import subprocess
import sys

import pytest

THEIRS = ("torch", "onnx", "scipy", "sympy", "matplotlib", "rich", "optuna", "flyweight.compressor")


def _loaded_by(module: str) -> set[str]:
    """Return the names of all modules that a fresh interpreter has after importing one."""
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    # -P: the folder the tests are started in holds no module of ours.
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("module", ["flyweight.server.cli", "flyweight.server.runtime.process.worker"])
def test_the_server_imports_nothing_of_the_compressors(module: str) -> None:
    assert _loaded_by(module).isdisjoint(THEIRS)


@pytest.mark.parametrize(
    "module", ["flyweight.server.app", "flyweight.server.cli", "flyweight.server.runtime.process.factory"]
)
def test_a_server_whose_sessions_are_elsewhere_imports_no_onnxruntime(module: str) -> None:
    """It takes a tenth of a second and 20 MB, and starts a thread (runtime process)."""
    assert "onnxruntime" not in _loaded_by(module)


def test_a_worker_imports_numpy_and_onnxruntime_and_no_more() -> None:
    """Each variant has one, so whatever it imports is paid many times."""
    packages = {name.partition(".")[0] for name in _loaded_by("flyweight.server.runtime.process.worker")}

    assert {name for name in packages - sys.stdlib_module_names if not name.startswith("_")} == {
        "flyweight",
        "numpy",
        "onnxruntime",
    }


@pytest.mark.parametrize("command", ["predict", "models", "control"])
def test_commands_of_the_client_import_no_server(command: str) -> None:
    loaded = _loaded_by(f"flyweight.client.cli.{command}")

    assert loaded.isdisjoint({*THEIRS, "onnxruntime", "pydantic", "prometheus_client", "flyweight.server"})
