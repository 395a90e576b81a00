"""The blocking client."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from numpy.typing import ArrayLike

from flyweight.client import calls, control
from flyweight.client.calls import Call, CallOptions, PredictOptions
from flyweight.client.errors import InvalidRequest
from flyweight.client.results import (
    ModelInfo,
    Prediction,
    ServerInfo,
    TrafficPlan,
    TrafficState,
    VariantState,
    VariantStatistics,
    VariantTraffic,
)
from flyweight.client.settings import Settings
from flyweight.client.target import Target
from flyweight.protos.inference.model_config_pb2 import ModelConfig

T = TypeVar("T")


class Client:
    """Calls a server of the Open Inference Protocol, and waits for each answer.

    Use it as a context manager, or call `close`. Many threads may use it at once; it does not survive
    os.fork(): make one in each process. It owns one gRPC channel, which connects at the first call and
    reconnects by itself.

    Every method raises `flyweight.client.errors.ClientError`, whose module draws the tree.
    """

    def __init__(self, address: str, settings: Settings | None = None) -> None:
        """Prepare the channel to `address`, HOST:PORT; nothing is sent yet.

        Raises:
            InvalidRequest: the address or a setting cannot be used.
        """
        self._target = Target(address, settings)
        self._channel = _open(self._target)
        self._stubs: dict[str, Callable[..., Any]] = {}

    def predict(
        self, model: str, inputs: Mapping[str, ArrayLike] | ArrayLike, **options: Unpack[PredictOptions]
    ) -> Prediction:
        """Run a model.

        Args:
            model: the model's name.
            inputs: one array per input, by name, batch axis included; or the array alone, for a model with
                one input (its name is asked for once).
            **options: see `flyweight.client.PredictOptions`.
        """
        try:
            return self._run(calls.predict(model, self._by_name(model, inputs, options), options), options)
        except InvalidRequest:
            self._target.forget_only_input(model)
            raise

    def is_live(self, **options: Unpack[CallOptions]) -> bool:
        """Tell whether the server answers; False when nobody does."""
        return self._run(calls.live(), options)

    def is_ready(self, **options: Unpack[CallOptions]) -> bool:
        """Tell whether the server takes requests; False when nobody answers."""
        return self._run(calls.ready(), options)

    def is_model_ready(self, model: str, variant: str = "", **options: Unpack[CallOptions]) -> bool:
        """Tell whether a model, or this variant of it, takes requests; False when it is not there."""
        return self._run(calls.model_ready(model, variant), options)

    def server(self, **options: Unpack[CallOptions]) -> ServerInfo:
        """Return the server's name, version and extensions."""
        return self._run(calls.server(), options)

    def model(self, model: str, variant: str = "", **options: Unpack[CallOptions]) -> ModelInfo:
        """Return a model's variants, inputs and outputs."""
        return self._run(calls.model(model, variant), options)

    def config(self, model: str, variant: str = "", **options: Unpack[CallOptions]) -> ModelConfig:
        """Return a model's configuration, as Triton's message."""
        return self._run(calls.config(model, variant), options)

    def models(self, *, ready_only: bool = False, **options: Unpack[CallOptions]) -> tuple[VariantState, ...]:
        """Return the state of every variant of every model in the server's repository."""
        return self._run(calls.models(ready_only=ready_only), options)

    def load(
        self,
        model: str,
        *,
        config: str | None = None,
        files: Mapping[str, bytes] | None = None,
        **options: Unpack[CallOptions],
    ) -> None:
        """Have the server load a model, or load it again; returns when it is done.

        Args:
            model: the model's name.
            config: a configuration to load it with, as JSON of Triton's ModelConfig, in the place of the
                repository's; it holds until the next load or unload.
            files: contents by path, "1/model.onnx", in the place of the model's folder; they need `config`.
            **options: see `flyweight.client.CallOptions`.
        """
        self._run(calls.load(model, config, files), options)

    def unload(self, model: str, **options: Unpack[CallOptions]) -> None:
        """Have the server unload a model."""
        self._run(calls.unload(model), options)

    def traffic(self, model: str = "", **options: Unpack[CallOptions]) -> tuple[VariantTraffic, ...]:
        """Return how variants share the traffic of a model, or of each; flyweight's server alone knows."""
        return self._run(calls.traffic(model), options)

    def get_traffic(self, model: str, **options: Unpack[CallOptions]) -> TrafficState:
        """Return the traffic plan that a model is served by; flyweight's server alone knows."""
        return self._run(control.get_traffic(model), options)

    def set_traffic(
        self, model: str, plan: TrafficPlan, revision: str = "", **options: Unpack[CallOptions]
    ) -> TrafficState:
        """Replace the whole traffic plan of a model; returns when the new one is in force.

        With a `revision`, only if the plan is still the one that has it: `Refused` otherwise.
        """
        return self._run(control.set_traffic(model, plan, revision), options)

    def promote(self, model: str, variant: str, **options: Unpack[CallOptions]) -> TrafficState:
        """Make a variant, or the one with this label, the baseline, and give it all the traffic."""
        return self._run(control.promote(model, variant), options)

    def rollback(self, model: str, **options: Unpack[CallOptions]) -> TrafficState:
        """Undo the last promotion: the baseline from before it gets all the traffic again."""
        return self._run(control.rollback(model), options)

    def statistics(
        self, model: str = "", variant: str = "", **options: Unpack[CallOptions]
    ) -> tuple[VariantStatistics, ...]:
        """Return what the server counted for the variants asked about; for all when none is named."""
        return self._run(calls.statistics(model, variant), options)

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _by_name(
        self, model: str, inputs: Mapping[str, ArrayLike] | ArrayLike, options: CallOptions
    ) -> Mapping[str, ArrayLike]:
        if isinstance(inputs, Mapping):
            return inputs
        name = self._target.only_input(model)
        if name is None:
            name = self._target.learn_only_input(model, self._run(calls.model_for_predict(model), options))
        return {name: inputs}

    def _run(self, call: Call[T], options: CallOptions) -> T:
        stub = self._stubs.get(call.method) or self._stubs.setdefault(call.method, _stub(self._channel, call))
        arguments = self._target.arguments(call, options)
        try:
            response = stub(call.request, **arguments)
        except grpc.RpcError as error:
            return self._target.recover(call, error, arguments)
        return self._target.finish(call, response)


def _open(target: Target) -> grpc.Channel:
    if target.credentials is None:
        return grpc.insecure_channel(target.address, target.options, target.compression)
    return grpc.secure_channel(target.address, target.credentials, target.options, target.compression)


def _stub(channel: grpc.Channel, call: Call[T]) -> Callable[..., Any]:
    return channel.unary_unary(
        call.path, request_serializer=calls.serialize, response_deserializer=call.decode
    )
