"""What a server says of itself before it is asked anything difficult."""

from dataclasses import dataclass, field
from typing import Final

import pytest

from flyweight.protos.inference.grpc_service_pb2 import ServerMetadataRequest, ServerReadyRequest
from oip import plain
from oip.cases import Case, Code
from oip.models import MODELS
from oip.target import START_SECONDS, Target, eventually

# Triton announces these under two names, depending on its age.
_OTHER_NAMES: Final = {"trace": "trace_settings", "logging": "log_settings"}


@dataclass
class Survey:
    """A server's name, version, extensions and ready models of the suite."""

    target: Target
    name: str
    version: str
    extensions: tuple[str, ...]
    models: frozenset[str]
    required: frozenset[str]
    # The case after which the server answered no more, where nobody starts it again.
    killer: str = ""
    _unnamed: dict[str, bool] = field(default_factory=dict)

    def why_not(self, case: Case) -> str:
        """Return why a case does not apply here; empty when it does."""
        if self.killer:
            return f"the server answers no more since {self.killer}; --start would start it again"
        name = case.extension
        if name and not self.has(name):
            return f"{name}: answers UNIMPLEMENTED" if name in plain.PROBES else f"{name}: not announced"
        missing = sorted(set(case.models) - self.models)
        return f"not hosted here: {', '.join(missing)}" if missing else ""

    def has(self, name: str) -> bool:
        """Tell whether an extension is announced; or there, for those that have no name to announce."""
        if name in plain.PROBES:
            if name not in self._unnamed:
                self._unnamed[name] = plain.PROBES[name](self.target) is not Code.UNIMPLEMENTED
            return self._unnamed[name]
        return name in self.extensions or _OTHER_NAMES.get(name, name) in self.extensions


def survey(target: Target, required: frozenset[str]) -> Survey:
    """Ask a server for its metadata and for the suite's models; end the run where a needed one is missing."""
    try:
        await_models(target)
    except AssertionError as error:
        pytest.exit(f"{target.address} does not serve what every run needs. {error}", returncode=3)
    metadata = target.call("ServerMetadata", ServerMetadataRequest()).must_be_ok()
    ready = frozenset(model.name for model in MODELS if target.is_ready(model.name))
    return Survey(target, metadata.name, metadata.version, tuple(metadata.extensions), ready, required)


def await_models(target: Target) -> None:
    """Wait until the server says that it is ready, and the models that every run needs are.

    Both: a server may be ready without a model, and answer for one model while it loads the others.
    """
    needed = [model.name for model in MODELS if model.is_needed]

    def is_there() -> bool:
        answer = target.call("ServerReady", ServerReadyRequest())
        is_ready = answer.code is Code.OK and answer.response.ready
        return bool(is_ready) and all(target.is_ready(name) for name in needed)

    eventually(is_there, "ready: the server, " + ", ".join(needed), START_SECONDS)
