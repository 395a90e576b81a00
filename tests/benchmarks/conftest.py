"""The benchmark scripts as modules: they import their neighbours by name, as scripts do."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a script by name; it is forgotten after the test."""
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        module = importlib.import_module(name)
        for loaded in [key for key, one in sys.modules.items() if _is_ours(one)]:
            monkeypatch.delitem(sys.modules, loaded)
        return module

    return load


def _is_ours(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(FOLDER)
