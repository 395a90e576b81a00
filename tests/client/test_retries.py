"""When a call is sent again, and when not."""

from typing import Any

import numpy as np
import pytest

from flyweight.client import InvalidRequest, Overloaded, RetryPolicy, ServerFault, Settings, Unavailable
from flyweight.client.testing import FakeServer, Fault

# Short, so that the tests are; gRPC draws each delay around it.
QUICK = Settings(retry=RetryPolicy(initial_backoff_seconds=0.01, max_backoff_seconds=0.02))
X = {"x": np.zeros((1, 2), dtype=np.float32)}


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_passing_failures_are_retried_until_they_pass(call: Any, fake: FakeServer, code: str) -> None:
    fake.fail(Fault(code), times=3)
    assert call(fake.address, "predict", "echo", X, settings=QUICK).variant == "baseline"
    assert len(fake.requests) == 4


def test_after_the_last_attempt_the_failure_is_told(call: Any, fake: FakeServer) -> None:
    fake.fail(Fault("RESOURCE_EXHAUSTED", "queue full"), times=4)
    with pytest.raises(Overloaded, match="queue full"):
        call(fake.address, "predict", "echo", X, settings=QUICK)
    assert len(fake.requests) == 4


@pytest.mark.parametrize(("code", "error"), [("INVALID_ARGUMENT", InvalidRequest), ("INTERNAL", ServerFault)])
def test_failures_that_would_come_again_are_not_retried(
    call: Any, fake: FakeServer, code: str, error: type[Exception]
) -> None:
    fake.fail(Fault(code))
    with pytest.raises(error):
        call(fake.address, "predict", "echo", X, settings=QUICK)
    assert len(fake.requests) == 1


def test_a_server_can_forbid_the_retry(call: Any, fake: FakeServer) -> None:
    fake.fail(Fault("RESOURCE_EXHAUSTED", pushback_ms=-1))
    with pytest.raises(Overloaded):
        call(fake.address, "predict", "echo", X, settings=QUICK)
    assert len(fake.requests) == 1


def test_a_server_decides_the_delay(call: Any, fake: FakeServer) -> None:
    # The policy's own delay would outlast the deadline.
    slow = Settings(timeout_seconds=20, retry=RetryPolicy(initial_backoff_seconds=60, max_backoff_seconds=60))
    fake.fail(Fault("RESOURCE_EXHAUSTED", pushback_ms=1), times=2)
    call(fake.address, "predict", "echo", X, settings=slow)
    assert len(fake.requests) == 3


def test_one_attempt_is_one_attempt(call: Any, fake: FakeServer) -> None:
    fake.fail(Fault("UNAVAILABLE"))
    with pytest.raises(Unavailable):
        call(fake.address, "predict", "echo", X, settings=Settings(retry=RetryPolicy(max_attempts=1)))
    assert len(fake.requests) == 1


def test_a_request_beyond_grpcs_own_retry_buffer_is_retried_too(call: Any, fake: FakeServer) -> None:
    fake.fail(Fault("UNAVAILABLE"))
    large = {"x": np.zeros(1 << 18, dtype=np.float32)}
    call(fake.address, "predict", "echo", large, settings=QUICK)
    assert len(fake.requests) == 2


def test_retries_stop_when_failures_outnumber_successes(call: Any, fake: FakeServer) -> None:
    # Of 4 tokens the first failure leaves 3, the second 2, which is not more than half: no third attempt.
    policy = RetryPolicy(initial_backoff_seconds=0.01, max_backoff_seconds=0.02, throttle_tokens=4)
    fake.fail(Fault("UNAVAILABLE"), times=4)
    with pytest.raises(Unavailable):
        call(fake.address, "predict", "echo", X, settings=Settings(retry=policy))
    assert len(fake.requests) == 2
