"""The asyncio client: the calls of the blocking one, awaited."""

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio
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


class AsyncClient:
    """Calls a server of the Open Inference Protocol from asyncio.

    Use it as an asynchronous context manager, or await `close`. It belongs to the event loop of its first
    call. It owns one gRPC channel, which connects at the first call and reconnects by itself. Cancelling a
    task cancels its call on the server too.

    Every method raises `flyweight.client.errors.ClientError`, and does what `Client`'s does.
    """

    def __init__(self, address: str, settings: Settings | None = None) -> None:
        """Check the address, HOST:PORT, and the settings; needs no event loop yet.

        Raises:
            InvalidRequest: the address or a setting cannot be used.
        """
        self._target = Target(address, settings)
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[str, Callable[..., Awaitable[Any]]] = {}

    async def predict(
        self, model: str, inputs: Mapping[str, ArrayLike] | ArrayLike, **options: Unpack[PredictOptions]
    ) -> Prediction:
        """Run a model; see `Client.predict`."""
        try:
            named = await self._by_name(model, inputs, options)
            return await self._run(calls.predict(model, named, options), options)
        except InvalidRequest:
            self._target.forget_only_input(model)
            raise

    async def is_live(self, **options: Unpack[CallOptions]) -> bool:
        """Tell whether the server answers; False when nobody does."""
        return await self._run(calls.live(), options)

    async def is_ready(self, **options: Unpack[CallOptions]) -> bool:
        """Tell whether the server takes requests; False when nobody answers."""
        return await self._run(calls.ready(), options)

    async def is_model_ready(self, model: str, variant: str = "", **options: Unpack[CallOptions]) -> bool:
        """Tell whether a model, or this variant of it, takes requests; False when it is not there."""
        return await self._run(calls.model_ready(model, variant), options)

    async def server(self, **options: Unpack[CallOptions]) -> ServerInfo:
        """Return the server's name, version and extensions."""
        return await self._run(calls.server(), options)

    async def model(self, model: str, variant: str = "", **options: Unpack[CallOptions]) -> ModelInfo:
        """Return a model's variants, inputs and outputs."""
        return await self._run(calls.model(model, variant), options)

    async def config(self, model: str, variant: str = "", **options: Unpack[CallOptions]) -> ModelConfig:
        """Return a model's configuration, as Triton's message."""
        return await self._run(calls.config(model, variant), options)

    async def models(
        self, *, ready_only: bool = False, **options: Unpack[CallOptions]
    ) -> tuple[VariantState, ...]:
        """Return the state of every variant of every model in the server's repository."""
        return await self._run(calls.models(ready_only=ready_only), options)

    async def load(
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
        await self._run(calls.load(model, config, files), options)

    async def unload(self, model: str, **options: Unpack[CallOptions]) -> None:
        """Have the server unload a model."""
        await self._run(calls.unload(model), options)

    async def traffic(self, model: str = "", **options: Unpack[CallOptions]) -> tuple[VariantTraffic, ...]:
        """Return how variants share the traffic of a model, or of each; flyweight's server alone knows."""
        return await self._run(calls.traffic(model), options)

    async def get_traffic(self, model: str, **options: Unpack[CallOptions]) -> TrafficState:
        """Return the traffic plan that a model is served by; flyweight's server alone knows."""
        return await self._run(control.get_traffic(model), options)

    async def set_traffic(
        self, model: str, plan: TrafficPlan, revision: str = "", **options: Unpack[CallOptions]
    ) -> TrafficState:
        """Replace the whole traffic plan of a model; returns when the new one is in force.

        With a `revision`, only if the plan is still the one that has it: `Refused` otherwise.
        """
        return await self._run(control.set_traffic(model, plan, revision), options)

    async def promote(self, model: str, variant: str, **options: Unpack[CallOptions]) -> TrafficState:
        """Make a variant, or the one with this label, the baseline, and give it all the traffic."""
        return await self._run(control.promote(model, variant), options)

    async def rollback(self, model: str, **options: Unpack[CallOptions]) -> TrafficState:
        """Undo the last promotion: the baseline from before it gets all the traffic again."""
        return await self._run(control.rollback(model), options)

    async def statistics(
        self, model: str = "", variant: str = "", **options: Unpack[CallOptions]
    ) -> tuple[VariantStatistics, ...]:
        """Return what the server counted for the variants asked about; for all when none is named."""
        return await self._run(calls.statistics(model, variant), options)

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        if self._channel is not None:
            await self._channel.close(grace=None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _by_name(
        self, model: str, inputs: Mapping[str, ArrayLike] | ArrayLike, options: CallOptions
    ) -> Mapping[str, ArrayLike]:
        if isinstance(inputs, Mapping):
            return inputs
        name = self._target.only_input(model)
        if name is None:
            name = self._target.learn_only_input(
                model, await self._run(calls.model_for_predict(model), options)
            )
        return {name: inputs}

    async def _run(self, call: Call[T], options: CallOptions) -> T:
        arguments = self._target.arguments(call, options)
        try:
            response = await self._stub(call)(call.request, **arguments)
        except grpc.RpcError as error:
            return self._target.recover(call, error, arguments)
        return self._target.finish(call, response)

    def _stub(self, call: Call[T]) -> Callable[..., Awaitable[Any]]:
        # A channel of grpc.aio takes the running loop for its own, so it is opened within the first call.
        if self._channel is None:
            self._channel = _open(self._target)
        if call.method not in self._stubs:
            self._stubs[call.method] = self._channel.unary_unary(
                call.path, request_serializer=calls.serialize, response_deserializer=call.decode
            )
        return self._stubs[call.method]


def _open(target: Target) -> grpc.aio.Channel:
    if target.credentials is None:
        return grpc.aio.insecure_channel(target.address, target.options, target.compression)
    return grpc.aio.secure_channel(target.address, target.credentials, target.options, target.compression)
