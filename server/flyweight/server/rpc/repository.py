"""RepositoryIndex, RepositoryModelLoad and RepositoryModelUnload: the repository from afar."""

import time
from collections.abc import Collection
from typing import Final

from flyweight.protos.inference.grpc_service_pb2 import (
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
)
from flyweight.server.errors import InvalidRequest, NotAllowed, Unsupported
from flyweight.server.lifecycle.index import State
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.messages import parse, sendable
from flyweight.server.rpc.models import Models

# How long a load or unload may take for a caller who set no deadline: the largest models we know load in a
# few seconds, and unloading waits for the slowest request.
_PATIENCE_SECONDS: Final = 60.0


class Repository:
    """Answers questions about the repository and, where allowed, changes what of it is served."""

    def __init__(self, models: Models, *, allow_control: bool) -> None:
        self._models = models
        self._allow_control = allow_control

    def index(self, body: bytes, _call: Call) -> bytes:
        """Tell every known variant, its state, and what is wrong with it.

        Raises:
            InvalidRequest: another repository than ours is asked for.
        """
        request = parse(RepositoryIndexRequest, body)
        _require_ours(request.repository_name)
        entries = [
            RepositoryIndexResponse.ModelIndex(
                name=sendable(entry.name),
                version=sendable(entry.version),
                state=entry.state.value,
                reason=sendable(entry.reason),
            )
            for entry in self._models.index()
            if entry.state is State.READY or not request.ready
        ]
        return RepositoryIndexResponse(models=entries).SerializeToString()

    def load(self, body: bytes, call: Call) -> bytes:
        """Serve a model, reading its folder again, and answer when it is served.

        Raises:
            NotAllowed, InvalidRequest, Unsupported: the request is refused.
            UnknownModel, LoadFailed, DeadlineExceeded: it was not loaded.
        """
        request = parse(RepositoryModelLoadRequest, body)
        self._require_allowed(request.repository_name)
        _refuse_parameters(request.parameters)
        self._models.load_model(request.model_name, _patience_seconds(call))
        return RepositoryModelLoadResponse().SerializeToString()

    def unload(self, body: bytes, call: Call) -> bytes:
        """Stop serving a model, and answer when its last request is done.

        Raises:
            NotAllowed, InvalidRequest: the request is refused.
            UnknownModel, DeadlineExceeded: it was not unloaded.
        """
        request = parse(RepositoryModelUnloadRequest, body)
        self._require_allowed(request.repository_name)
        self._models.unload_model(request.model_name, _patience_seconds(call))
        return RepositoryModelUnloadResponse().SerializeToString()

    def _require_allowed(self, repository_name: str) -> None:
        if not self._allow_control:
            raise NotAllowed(
                "This server was started with --no-allow-control; change its repository instead, "
                "or start it with --allow-control."
            )
        _require_ours(repository_name)


def _require_ours(repository_name: str) -> None:
    if repository_name:
        raise InvalidRequest(
            f"There is no repository {repository_name!r}; this server has one, and its name is left empty."
        )


def _refuse_parameters(names: Collection[str]) -> None:
    for name in names:
        if name == "config" or name.startswith("file:"):
            raise Unsupported(
                f"The parameter {name!r} would serve what is not in the repository; publish it there instead."
            )


def _patience_seconds(call: Call) -> float:
    if call.deadline_monotonic is None:
        return _PATIENCE_SECONDS
    return max(0.0, call.deadline_monotonic - time.monotonic())
