"""Clients for the Open Inference Protocol: numpy in, numpy out.

Example:
    from flyweight.client import Client

    with Client("127.0.0.1:8001") as client:
        prediction = client.predict("digits", {"input": pixels})
        print(prediction.variant, prediction.output.argmax(axis=1))
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyweight.client.aio import AsyncClient
    from flyweight.client.calls import CallOptions, PredictOptions
    from flyweight.client.errors import (
        Cancelled,
        ClientError,
        DeadlineExceeded,
        InvalidRequest,
        InvalidResponse,
        NotFound,
        Overloaded,
        PermissionDenied,
        Refused,
        ServerFault,
        Unauthenticated,
        Unavailable,
        Unsupported,
    )
    from flyweight.client.results import (
        Duration,
        ModelInfo,
        Prediction,
        ServerInfo,
        TensorInfo,
        TrafficPlan,
        TrafficState,
        VariantState,
        VariantStatistics,
        VariantTraffic,
    )
    from flyweight.client.settings import Compression, RetryPolicy, Settings, TlsSettings
    from flyweight.client.sync import Client

__all__ = [
    "AsyncClient",
    "CallOptions",
    "Cancelled",
    "Client",
    "ClientError",
    "Compression",
    "DeadlineExceeded",
    "Duration",
    "InvalidRequest",
    "InvalidResponse",
    "ModelInfo",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "PredictOptions",
    "Prediction",
    "Refused",
    "RetryPolicy",
    "ServerFault",
    "ServerInfo",
    "Settings",
    "TensorInfo",
    "TlsSettings",
    "TrafficPlan",
    "TrafficState",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "VariantState",
    "VariantStatistics",
    "VariantTraffic",
]

_MODULES = ("errors", "settings", "results", "calls", "sync", "aio")


def __getattr__(name: str) -> object:
    """Import a public name when it is asked for: the command `flyweight` must not wait for numpy and grpc."""
    if name in __all__:
        for module in _MODULES:
            found = getattr(import_module(f"{__name__}.{module}"), name, None)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
