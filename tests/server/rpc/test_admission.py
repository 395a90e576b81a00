import threading

import pytest

from flyweight.server.errors import Draining, NotReady, QueueFull
from flyweight.server.rpc.admission import Gate

PATIENCE_SECONDS = 30


def open_gate(accepted: int = 8) -> Gate:
    gate = Gate(accepted)
    gate.open()
    return gate


def test_starts_shut_and_can_be_opened_and_closed() -> None:
    gate = Gate(1)
    with pytest.raises(NotReady):
        gate.enter()
    gate.open()
    gate.enter()
    assert gate.accepted_count == 1
    gate.leave()
    gate.close()
    with pytest.raises(Draining):
        gate.enter()
    assert gate.accepted_count == 0


def test_refuses_one_too_many_with_push_back_and_recovers() -> None:
    gate = open_gate(accepted=2)
    gate.enter()
    gate.enter()
    with pytest.raises(QueueFull, match="its 2 requests") as caught:
        gate.enter()
    assert caught.value.retry_after_seconds > 0
    gate.leave()
    gate.enter()
    assert gate.accepted_count == 2


def test_tells_how_full_it_is() -> None:
    gate = open_gate(accepted=4)
    assert gate.share() == 0
    gate.enter()
    assert gate.share() == 0.25


def test_never_holds_more_than_allowed() -> None:
    gate, lock = open_gate(accepted=3), threading.Lock()
    most = refused = 0

    def come_and_go() -> None:
        nonlocal most, refused
        for _ in range(200):
            try:
                gate.enter()
            except QueueFull:
                with lock:
                    refused += 1
                continue
            with lock:
                most = max(most, gate.accepted_count)
            gate.leave()

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert 1 <= most <= 3
    assert gate.accepted_count == 0


def test_those_inside_go_on_when_it_closes() -> None:
    gate = open_gate()
    gate.enter()
    gate.close()
    assert not gate.wait_until_empty(0)
    gate.leave()
    assert gate.wait_until_empty(0)


def test_waits_until_it_is_empty() -> None:
    gate, seen = open_gate(), list[bool]()
    gate.enter()
    assert not gate.wait_until_empty(0)
    waiter = threading.Thread(target=lambda: seen.append(gate.wait_until_empty(PATIENCE_SECONDS)))
    waiter.start()
    gate.leave()
    waiter.join(PATIENCE_SECONDS)
    assert seen == [True]
