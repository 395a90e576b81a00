"""ServerLive, ServerReady and ModelReady: the protocol's own probes."""

from collections.abc import Callable

from flyweight.protos.inference.grpc_service_pb2 import (
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveResponse,
    ServerReadyResponse,
)
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.messages import parse
from flyweight.server.rpc.models import Models


class Liveness:
    """Answers the probes. `is_ready` says whether the server as a whole takes requests."""

    def __init__(self, models: Models, is_ready: Callable[[], bool]) -> None:
        self._models = models
        self._is_ready = is_ready

    def server_live(self, _body: bytes, _call: Call) -> bytes:
        """Say that the server is alive; answering is the proof."""
        return ServerLiveResponse(live=True).SerializeToString()

    def server_ready(self, _body: bytes, _call: Call) -> bytes:
        """Say whether the server takes requests: the first scan is done and it is not shutting down."""
        return ServerReadyResponse(ready=self._is_ready()).SerializeToString()

    def model_ready(self, body: bytes, _call: Call) -> bytes:
        """Say whether a variant, or without a version any variant, can answer; no for what is not there."""
        request = parse(ModelReadyRequest, body)
        model = self._models.table.models.get(request.name)
        ready = model is not None and (not request.version or model.has(request.version))
        return ModelReadyResponse(ready=ready).SerializeToString()
