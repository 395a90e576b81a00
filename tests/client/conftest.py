"""A fake server with two variants of one model, and a way to call either client."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from flyweight.client import AsyncClient, Client, Settings, TensorInfo
from flyweight.client.testing import FakeModel, FakeServer, serve_fake

# Calls one method of a client once: (address, method, *args, **options) -> what it returns.
Caller = Callable[..., Any]


def scores(inputs: Any) -> Any:
    return {"logits": inputs["pixels"] * np.float32(2)}


def rounded_scores(inputs: Any) -> Any:
    return {"logits": (inputs["pixels"] * np.float32(2)).round()}


def digits() -> FakeModel:
    return FakeModel(
        variants={"baseline": scores, "int8": rounded_scores},
        inputs=(TensorInfo("pixels", "FP32", (-1, 3)),),
        outputs=(TensorInfo("logits", "FP32", (-1, 3)),),
    )


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with serve_fake({"digits": digits(), "echo": dict}) as server:
        yield server


def call_sync(address: str, method: str, *args: Any, settings: Settings | None = None, **options: Any) -> Any:
    with Client(address, settings) as client:
        return getattr(client, method)(*args, **options)


def call_async(
    address: str, method: str, *args: Any, settings: Settings | None = None, **options: Any
) -> Any:
    async def run() -> Any:
        async with AsyncClient(address, settings) as client:
            return await getattr(client, method)(*args, **options)

    return asyncio.run(run())


@pytest.fixture(params=[call_sync, call_async], ids=["sync", "asyncio"])
def call(request: pytest.FixtureRequest) -> Caller:
    caller: Caller = request.param
    return caller
