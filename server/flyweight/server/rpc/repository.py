"""RepositoryIndex, RepositoryModelLoad and RepositoryModelUnload: the repository from afar."""

from flyweight.protos.inference.grpc_service_pb2 import (
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
)
from flyweight.protos.variant import is_valid_name
from flyweight.server.errors import InvalidRequest, NotAllowed
from flyweight.server.lifecycle.index import State
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.messages import parse, sendable
from flyweight.server.rpc.models import Models
from flyweight.server.rpc.slow import SlowCalls, patience_seconds
from flyweight.server.rpc.uploads import read_upload, require_known


class Repository:
    """Answers questions about the repository and, where allowed, changes what of it is served."""

    def __init__(self, models: Models, slow_calls: SlowCalls, *, allow_control: bool) -> None:
        self._models = models
        self._slow_calls = slow_calls
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
        """Serve a model, reading its folder again or as it is sent along, and answer when it is served.

        Raises:
            NotAllowed, InvalidRequest, QueueFull: the request is refused.
            UnknownModel, LoadFailed, DeadlineExceeded: it was not loaded.
        """
        request = parse(RepositoryModelLoadRequest, body)
        self._require_allowed(request.repository_name)
        upload = read_upload(request.parameters)
        if upload is not None and not is_valid_name(request.model_name):
            raise InvalidRequest(f"{request.model_name!r} cannot name a model, so none is uploaded under it.")
        with self._slow_calls.take():
            self._models.load_model(request.model_name, patience_seconds(call), upload)
        return RepositoryModelLoadResponse().SerializeToString()

    def unload(self, body: bytes, call: Call) -> bytes:
        """Stop serving a model, and answer when its last request is done.

        Raises:
            NotAllowed, InvalidRequest, QueueFull: the request is refused.
            UnknownModel, DeadlineExceeded: it was not unloaded.
        """
        request = parse(RepositoryModelUnloadRequest, body)
        self._require_allowed(request.repository_name)
        require_known(request.parameters)
        with self._slow_calls.take():
            self._models.unload_model(request.model_name, patience_seconds(call))
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
