"""How long connections live: no socket, and a clock that the test sets."""

from dataclasses import dataclass, replace
from math import inf
from typing import Any

import pytest

from flyweight.server.settings import ConnectionSettings
from flyweight.server.wire.floods import PingPolicy
from flyweight.server.wire.frames import ConnectionFault, ErrorCode
from flyweight.server.wire.lifetime import Lifetime, Seen, Step

NEVER = ConnectionSettings(handshake_seconds=0, keepalive_seconds=0)
ACCEPTED = 1000.0


@dataclass
class Watch:
    """A connection of which everything is told, and which is looked at when it is due."""

    lifetime: Lifetime
    seen: Seen
    now: float = ACCEPTED

    def after(self, seconds: float, **changes: Any) -> list[tuple[float, Step]]:
        """Return what is done until so many seconds after it was accepted, and when."""
        self.seen = replace(self.seen, **changes)
        done: list[tuple[float, Step]] = []
        while self.lifetime.due <= ACCEPTED + seconds and len(done) < 100:
            # As often as the loop looks, at the most.
            self.now = max(self.lifetime.due, self.now + 0.1)
            if self.now > ACCEPTED + seconds:
                break
            step = self.lifetime.look(self.now, self.seen)
            if step is not Step.WAIT:
                done.append((round(self.now - ACCEPTED, 1), step))
            if step is Step.DROP:
                self.lifetime.due = inf
        self.now = max(self.now, ACCEPTED + seconds)
        return done

    def hears(self) -> None:
        self.seen = replace(self.seen, heard_at=self.now)


def watch(terms: ConnectionSettings, spread: float = 1.0, **seen: Any) -> Watch:
    return Watch(Lifetime(terms, ACCEPTED, spread), Seen(ACCEPTED, **seen))


def test_without_terms_it_lives_for_ever() -> None:
    assert watch(NEVER).lifetime.due == inf
    assert watch(NEVER, is_greeted=False).after(1e9) == []


def test_an_idle_connection_is_looked_at_seldom() -> None:
    """Ten thousand of them cost a comparison each, and nothing else."""
    assert watch(ConnectionSettings()).lifetime.due >= ACCEPTED + 20


# --- the handshake ---


def test_a_client_that_does_not_begin_is_dropped() -> None:
    silent = watch(replace(NEVER, handshake_seconds=20), is_greeted=False)
    assert silent.after(19.9) == []
    assert silent.after(30) == [(20.0, Step.DROP)]


def test_a_client_that_sends_bytes_and_does_not_begin_is_dropped_too() -> None:
    slow = watch(ConnectionSettings(handshake_seconds=20, keepalive_seconds=5), is_greeted=False)
    for second in range(19):
        assert slow.after(second) == []
        slow.hears()
    assert slow.after(60) == [(20.0, Step.DROP)]


def test_a_client_that_began_has_time() -> None:
    assert watch(replace(NEVER, handshake_seconds=20)).after(1e6) == []


# --- keepalive (gRFC A8) ---

ALIVE = replace(NEVER, keepalive_seconds=30, keepalive_timeout_seconds=20)


def test_a_silent_client_is_asked_and_dropped() -> None:
    assert watch(ALIVE).after(300) == [(30.0, Step.PING), (50.0, Step.DROP)]


@pytest.mark.parametrize("timeout_seconds", [5, 20, 90])
def test_whatever_comes_is_an_answer(timeout_seconds: float) -> None:
    client = watch(replace(ALIVE, keepalive_timeout_seconds=timeout_seconds))
    assert client.after(31) == [(30.0, Step.PING)]
    client.hears()
    assert client.after(60.9) == []
    # It was heard at 31, and is asked again when it was silent for as long.
    ((moment, step),) = client.after(65.9)
    assert step is Step.PING
    assert 61 <= moment <= 65


def test_a_client_that_speaks_is_never_asked() -> None:
    client = watch(ALIVE)
    for second in range(0, 1000, 29):
        assert client.after(second) == []
        client.hears()


def test_a_client_with_forever_to_answer_is_not_dropped() -> None:
    assert watch(replace(ALIVE, keepalive_timeout_seconds=0)).after(1e4) == [(30.0, Step.PING)]


def test_a_client_that_died_is_noticed_while_its_connection_drains() -> None:
    client = watch(ALIVE, open_streams=1)
    client.lifetime.drain(ACCEPTED)
    client.seen = replace(client.seen, turns_away=True)
    assert [step for _, step in client.after(60)] == [Step.PING, Step.DROP]


# --- idleness (gRFC A9) ---

IDLE = replace(NEVER, max_connection_idle_seconds=100)


def test_a_connection_without_a_stream_is_drained() -> None:
    (first, *_) = watch(IDLE).after(1000)
    assert first == (100.0, Step.DRAIN)


def test_pings_do_not_make_it_busy() -> None:
    client = watch(IDLE)
    for second in range(99):
        assert client.after(second) == []
        client.hears()
    assert client.after(101) == [(100.0, Step.DRAIN)]


def test_an_open_stream_keeps_it_and_idleness_counts_from_its_end() -> None:
    client = watch(IDLE, open_streams=1, last_stream=1)
    assert client.after(505) == []
    # Never early, and late by a tenth at the most.
    assert client.after(604.9, open_streams=0) == []
    ((moment, step), *_) = client.after(616)
    assert step is Step.DRAIN
    assert 605 <= moment <= 615.1


def test_a_stream_that_nobody_saw_keeps_it_too() -> None:
    client = watch(IDLE)
    for number in range(1, 40, 2):
        assert client.after(number * 45, last_stream=number) == []


# --- age (gRFC A9) ---

AGED = replace(NEVER, max_connection_age_seconds=100, max_connection_age_grace_seconds=30)


@pytest.mark.parametrize(("spread", "moment"), [(0.9, 90.0), (1.0, 100.0), (1.1, 110.0)])
def test_an_old_connection_is_drained(spread: float, moment: float) -> None:
    assert watch(AGED, spread).after(moment + 1) == [(moment, Step.DRAIN)]


def test_streams_have_their_grace_and_are_cut() -> None:
    client = watch(AGED, open_streams=1)
    assert client.after(101) == [(100.0, Step.DRAIN)]
    assert client.after(129.8, turns_away=True) == []
    ((moment, step),) = client.after(131)
    assert (round(moment), step) == (130, Step.CUT)
    # And if it does not read even that:
    ((moment, step),) = client.after(200, open_streams=0, has_unsent=True)
    assert (round(moment), step) == (132, Step.DROP)


def test_without_a_grace_time_streams_may_take_as_long_as_they_do() -> None:
    client = watch(replace(AGED, max_connection_age_grace_seconds=0), open_streams=1)
    assert client.after(101) == [(100.0, Step.DRAIN)]
    client.now = ACCEPTED + 1e6
    assert client.after(1e6 + 5, turns_away=True) == []


# --- draining (RFC 9113, section 6.8) ---


def drained(**seen: Any) -> Watch:
    client = watch(NEVER, **seen)
    client.lifetime.drain(ACCEPTED)
    return client


def test_a_client_that_does_not_hear_of_it_is_turned_away() -> None:
    ((moment, step), *_) = drained(open_streams=1).after(2.2)
    assert (moment, step) == (2.0, Step.TURN_AWAY)


def test_it_is_the_clients_to_close_first() -> None:
    """Whoever closes while the other end still sends has the kernel lose what was not read."""
    client = drained(open_streams=1, turns_away=True)
    assert client.after(50) == []
    assert client.after(60, open_streams=0, has_unsent=True) == []
    ((moment, step),) = client.after(70, has_unsent=False)
    assert step is Step.DROP
    assert 62 <= moment <= 62.3


def test_a_connection_is_drained_once() -> None:
    client = watch(AGED, open_streams=1)
    client.lifetime.drain(ACCEPTED)
    client.lifetime.drain(ACCEPTED + 1)
    assert client.after(200, turns_away=True) == []


def test_a_closing_connection_whose_client_does_not_read_is_dropped() -> None:
    client = watch(ALIVE, has_unsent=True)
    client.lifetime.close(ACCEPTED)
    client.lifetime.close(ACCEPTED + 1)
    assert client.after(100) == [(2.0, Step.DROP)]


def test_whoever_closes_it_may_be_in_a_hurry() -> None:
    client = watch(NEVER, has_unsent=True)
    client.lifetime.close(ACCEPTED, by=ACCEPTED + 0.5)
    assert client.after(100) == [(0.5, Step.DROP)]


# --- pings of clients (gRFC A8) ---


class Pings:
    def __init__(self, least_seconds: float) -> None:
        self.now = ACCEPTED
        self.policy = PingPolicy(least_seconds, lambda: self.now)

    def come(self, number: int, every: float) -> int:
        """Return how many come before it is one too many."""
        for count in range(number):
            try:
                self.policy.note()
            except ConnectionFault:
                return count
            self.now += every
        return number


def test_pings_that_are_far_enough_apart_never_count() -> None:
    assert Pings(5).come(1000, every=5) == 1000


def test_the_third_that_comes_too_early_is_one_too_many() -> None:
    pings = Pings(5)
    assert pings.come(10, every=1) == 3
    # gRPC's clients look for these very words.
    with pytest.raises(ConnectionFault, match=r"^too_many_pings$") as caught:
        pings.policy.note()
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM


def test_after_headers_or_data_pings_are_forgiven() -> None:
    """Clients ping to measure the bandwidth, as often as data comes."""
    pings = Pings(5)
    for _ in range(100):
        assert pings.come(3, every=0) == 3
        pings.policy.forgive()


def test_an_early_ping_does_not_move_the_next_ones_moment() -> None:
    pings = Pings(5)
    assert pings.come(1, every=3) == 1
    assert pings.come(1, every=2) == 1
    assert pings.come(1, every=0) == 1
    assert pings.come(3, every=0) == 1
