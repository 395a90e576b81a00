import pytest

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.server.errors import NotReady, UnknownModel, UnknownVariant
from flyweight.server.lifecycle.lease import Leases
from flyweight.server.lifecycle.table import (
    LoadedVariant,
    RoutingTable,
    ServedModel,
    acquire_from,
    lease_from,
)
from flyweight.server.runtime.fake import FAKE_SIGNATURE, FakeRuntime
from flyweight.server.traffic.plan import Plan, Role


def loaded(name: str) -> LoadedVariant:
    return LoadedVariant("tiny", name, FAKE_SIGNATURE, ModelConfig(), None, FakeRuntime(), Leases(name))


def table(*variants: LoadedVariant, waiting: str = "") -> RoutingTable:
    plan = Plan("baseline", (("baseline", 1.0),))
    models = {"tiny": ServedModel("tiny", {each.name: each for each in variants}, plan)}
    return RoutingTable(models, waiting=frozenset(waiting.split()))


def test_variants_are_found_by_name_and_the_baseline_by_none() -> None:
    baseline, int8 = loaded("baseline"), loaded("int8")
    tiny = table(baseline, int8).model("tiny")
    assert tiny.variant("int8") is int8
    assert tiny.variant("") is baseline
    assert tiny.role_of("baseline") is Role.BASELINE
    assert tiny.role_of("int8") is Role.CANDIDATE


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(UnknownModel, match="no model 'huge'; the models are tiny"):
        table(loaded("baseline")).model("huge")
    with pytest.raises(UnknownModel, match="the models are none"):
        RoutingTable().model("huge")
    with pytest.raises(UnknownVariant, match="'tiny' has no variant 'int4' ready; ready are baseline"):
        table(loaded("baseline")).model("tiny").variant("int4")
    with pytest.raises(NotReady, match="'slow' has no variant ready"):
        table(loaded("baseline"), waiting="slow").model("slow")


def test_a_lease_holds_what_was_picked() -> None:
    baseline = loaded("baseline")
    with lease_from(lambda: table(baseline), lambda it: (it.model("tiny").variant(""), "why")) as held:
        assert held.variant is baseline
        assert held.runtime is baseline.runtime
        assert held.choice == "why"
        assert baseline.leases.held == 1
    assert baseline.leases.held == 0


def test_what_is_acquired_is_held_until_it_is_released() -> None:
    baseline, idle = loaded("baseline"), list[str]()
    held = acquire_from(lambda: table(baseline), lambda it: (it.model("tiny").variant(""), "why"))
    assert (held.variant, held.runtime, held.choice) == (baseline, baseline.runtime, "why")
    baseline.leases.retire(lambda: idle.append("idle"))
    assert (baseline.leases.held, idle) == (1, [])
    held.release()
    assert (baseline.leases.held, idle) == (0, ["idle"])


def test_nothing_is_held_when_there_is_nothing_to_pick() -> None:
    baseline = loaded("baseline")
    with pytest.raises(UnknownVariant):
        acquire_from(lambda: table(baseline), lambda it: (it.model("tiny").variant("int4"), None))
    assert baseline.leases.held == 0


def test_a_variant_that_is_retired_between_look_up_and_lease_is_looked_up_again() -> None:
    old, new = loaded("baseline"), loaded("baseline")
    old.leases.retire(lambda: None)
    tables = iter([table(old), table(new)])
    with lease_from(lambda: next(tables), lambda it: (it.model("tiny").variant(""), None)) as held:
        assert held.variant is new


def test_a_table_that_never_holds_still_is_not_read_for_ever() -> None:
    old = loaded("baseline")
    old.leases.retire(lambda: None)
    with (
        pytest.raises(NotReady, match="are being replaced; ask again"),
        lease_from(lambda: table(old), lambda it: (it.model("tiny").variant(""), None)),
    ):
        pytest.fail("a lease was given")


def test_a_retired_variant_leased_directly_says_so() -> None:
    old = loaded("baseline")
    old.leases.retire(lambda: None)
    with pytest.raises(NotReady), old.lease():
        pytest.fail("a lease was given")
