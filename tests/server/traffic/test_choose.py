import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.server.traffic import Plan, Reason, Role, choose, pin, restrict, sticky_key

NAMES = ("baseline", "int8", "pruned", "tiny")
KEYS = [sticky_key("digits", f"user-{number}") for number in range(1500)]

shares = st.lists(st.integers(0, 100), min_size=2, max_size=4).filter(any)
keys = st.binary(max_size=40)


def plan_of(weights: list[int]) -> Plan:
    total = sum(weights)
    fractions = tuple((name, weight / total) for name, weight in zip(NAMES, weights, strict=False))
    return Plan("baseline", fractions, origin=Reason.SPLIT)


def by_keys(plan: Plan) -> list[str]:
    return [choose(plan, key, 0.0).variant for key in KEYS]


@given(shares, keys, st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_the_same_key_gets_the_same_variant_whatever_the_dice_say(
    weights: list[int], key: bytes, one: float, other: float
) -> None:
    plan = plan_of(weights)
    assert choose(plan, key, one) == choose(plan, key, other)


def test_the_choice_for_a_key_is_pinned_for_all_time() -> None:
    """Replicas of two versions must agree: these literals change only with a note in the changelog."""
    plan = plan_of([50, 30, 20])
    assert [choose(plan, sticky_key("digits", user), 0.0).variant for user in range(8)] == PINNED


PINNED = ["baseline", "pruned", "baseline", "baseline", "baseline", "int8", "baseline", "baseline"]


@settings(max_examples=30)
@given(shares)
def test_shares_by_key_are_within_binomial_bounds(weights: list[int]) -> None:
    plan = plan_of(weights)
    answers = by_keys(plan)
    for name, fraction in plan.weights:
        # Five standard deviations of a binomial, and one for the count being whole.
        margin = 5 * math.sqrt(len(KEYS) * fraction * (1 - fraction)) + 1
        assert abs(answers.count(name) - len(KEYS) * fraction) <= margin * (fraction > 0)


@settings(max_examples=60)
@given(shares, shares)
def test_a_key_moves_only_towards_a_larger_factor_of_growth(before: list[int], after: list[int]) -> None:
    old, new = plan_of(before), plan_of(after)
    for source, target in set(zip(by_keys(old), by_keys(new), strict=True)):
        if source != target:
            grown = new.weight_of(target) * old.weight_of(source)
            assert grown >= new.weight_of(source) * old.weight_of(target)


@settings(max_examples=30)
@given(shares, st.integers(0, 3), st.integers(1, 100))
def test_raising_one_share_moves_keys_to_it_alone(weights: list[int], index: int, more: int) -> None:
    index %= len(weights)
    raised = [weight + more * (position == index) for position, weight in enumerate(weights)]
    for source, target in zip(by_keys(plan_of(weights)), by_keys(plan_of(raised)), strict=True):
        assert target in {source, NAMES[index]}


def test_a_lost_variant_moves_its_own_keys_alone() -> None:
    plan = plan_of([50, 30, 20])
    left = restrict(plan, ["baseline", "pruned"], "baseline")
    for source, target in zip(by_keys(plan), by_keys(left), strict=True):
        assert source in {target, "int8"}


@settings(max_examples=30)
@given(shares, shares)
def test_few_more_keys_move_than_must(before: list[int], after: list[int]) -> None:
    old, new = plan_of(before), plan_of(after)
    distance = sum(abs(old.weight_of(name) - new.weight_of(name)) for name in NAMES) / 2
    moved = sum(a != b for a, b in zip(by_keys(old), by_keys(new), strict=True))
    bound = 2 * distance / (1 + distance)
    assert moved <= len(KEYS) * bound + 5 * math.sqrt(len(KEYS) * bound * (1 - bound)) + 1


@given(shares, st.floats(0, 1, exclude_max=True))
def test_without_a_key_the_interval_that_holds_the_number_answers(weights: list[int], uniform: float) -> None:
    plan = plan_of(weights)
    choice = choose(plan, None, uniform)
    below = sum(weight for name, weight in plan.weights if name < choice.variant)
    assert below <= uniform + 1e-12
    assert uniform <= below + plan.weight_of(choice.variant) + 1e-12
    assert plan.weight_of(choice.variant) > 0
    assert choice.reason is Reason.SPLIT


def test_a_share_of_zero_is_never_drawn() -> None:
    plan = plan_of([0, 100, 0])
    drawn = {choose(plan, None, number / 100).variant for number in range(100)}
    assert drawn == {"int8"} == set(by_keys(plan))


def test_a_key_decides_nothing_where_there_is_no_split() -> None:
    plan = Plan("baseline", (("baseline", 1.0),), origin=Reason.DEFAULT)
    assert choose(plan, b"somebody", 0.7) == choose(plan, None, 0.2)
    assert choose(plan, None, 0.2).reason is Reason.DEFAULT


def test_the_role_is_the_variants_under_the_plan() -> None:
    plan = plan_of([50, 50])
    assert choose(plan, None, 0.1).role is Role.BASELINE
    assert choose(plan, None, 0.9).role is Role.CANDIDATE


def test_a_pinned_variant_says_so() -> None:
    assert (pin("int8").role, pin("int8").reason) == (Role.PINNED, Reason.PINNED)


def test_a_users_choices_for_two_models_are_independent() -> None:
    plan = plan_of([50, 50])
    other = [choose(plan, sticky_key("faces", f"user-{number}"), 0.0).variant for number in range(len(KEYS))]
    same = sum(a == b for a, b in zip(by_keys(plan), other, strict=True))
    assert abs(same - len(KEYS) / 2) <= 5 * math.sqrt(len(KEYS) / 4)


@pytest.mark.parametrize("value", ["7", 7])
def test_a_number_and_its_text_are_the_same_caller(value: str | int) -> None:
    assert sticky_key("digits", value) == b"digits\x007"
