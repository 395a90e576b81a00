import threading

import pytest

from flyweight.server.lifecycle.lease import Leases, VariantRetired


def test_a_variant_in_use_is_idle_only_after_its_last_lease() -> None:
    leases, idle = Leases("v"), threading.Event()
    leases.acquire()
    leases.acquire()
    leases.retire(idle.set)
    leases.release()
    assert not idle.is_set()
    leases.release()
    assert idle.is_set()


def test_a_variant_that_nobody_uses_is_idle_at_once() -> None:
    leases, idle = Leases("v"), threading.Event()
    leases.retire(idle.set)
    assert idle.is_set()


def test_a_retired_variant_gives_out_no_lease() -> None:
    leases = Leases("The variant 'int8'")
    leases.retire(lambda: None)
    with (
        pytest.raises(VariantRetired, match="The variant 'int8' is being replaced; ask again"),
        leases.hold(),
    ):
        pytest.fail("a lease was given")


def test_idle_is_told_once() -> None:
    leases, told = Leases("v"), list[str]()
    leases.acquire()
    leases.retire(lambda: told.append("first"))
    leases.retire(lambda: told.append("second"))
    leases.release()
    leases.retire(lambda: told.append("third"))
    assert told == ["first"]


def test_a_lease_ends_with_an_error_too() -> None:
    leases = Leases("v")
    with pytest.raises(KeyError), leases.hold():
        raise KeyError
    assert leases.held == 0
