"""The load generator sends what gRPC's core takes, and counts what becomes of it."""

import argparse
import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from benchmarks.serving.load import Load, run
from benchmarks.serving.percentiles import percentile

pytestmark = pytest.mark.source

PATH = "/a.Service/Call"


def answer(body: bytes, context: grpc.ServicerContext) -> bytes:
    if body.startswith(b"refuse"):
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no")
    return b"y" * (len(body) // 2)


@pytest.fixture
def address() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.Service", {"Call": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def load(address: str, body: bytes, folder: Path, **options: float) -> Load:
    (folder / "body").write_bytes(body)
    given = {"callers": 9, "seconds": 0.1, "rate": 0.0, "fresh_headers": False} | options
    named = argparse.Namespace(address=address, path=PATH, body=folder / "body", **given)
    return asyncio.run(run(named))


@pytest.mark.parametrize("fresh", [False, True])
def test_every_caller_is_answered(address: str, tmp_path: Path, *, fresh: bool) -> None:
    found = load(address, b"x" * 100, tmp_path, fresh_headers=fresh)
    assert len(found.seconds) >= 9
    assert not found.failures
    assert set(found.sizes) == {55}


def test_a_message_larger_than_every_window_arrives_whole(address: str, tmp_path: Path) -> None:
    found = load(address, b"x" * 1_000_000, tmp_path, callers=3)
    assert len(found.seconds) >= 3
    assert set(found.sizes) == {500_005}


def test_a_status_other_than_ok_is_a_failure(address: str, tmp_path: Path) -> None:
    found = load(address, b"refuse", tmp_path)
    assert set(found.failures) == {"8"}
    assert not found.seconds


def test_a_rate_is_kept_whoever_answers(address: str, tmp_path: Path) -> None:
    found = load(address, b"x" * 10, tmp_path, rate=200.0, seconds=0.2)
    assert len(found.seconds) == pytest.approx(40, abs=2)


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"127\.0\.0\.1"):
        load("127.0.0.1:1", b"", tmp_path)


def test_percentiles_are_by_nearest_rank() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile([3.0], 99)) == (50.0, 99.0, 3.0)
    assert percentile([], 50) == 0.0
