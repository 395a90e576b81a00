from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.server.errors import TrafficPlanError
from flyweight.server.traffic import (
    Brownout,
    Plan,
    Reason,
    Role,
    TrafficFile,
    parse_plan,
    resolve,
    restrict,
)

PATH = Path("repository/digits/traffic.yaml")
VARIANTS = ("baseline", "int8", "pruned")


def plan_of(text: str) -> Plan:
    return resolve(parse_plan(text, PATH), VARIANTS, "baseline")


def test_reads_every_key() -> None:
    traffic = parse_plan(
        "baseline: fp32\nsplit: {fp32: 50, int8: 30, pruned-int8: 20}\n"
        "sticky: {parameter: user_id, metadata: x-user-id}\n",
        PATH,
    )
    split = {"fp32": 50.0, "int8": 30.0, "pruned-int8": 20.0}
    assert traffic == TrafficFile(PATH, "fp32", split, "user_id", "x-user-id")


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}"])
def test_an_empty_file_asks_for_nothing(text: str) -> None:
    assert parse_plan(text, PATH) == TrafficFile(PATH)


def test_a_sticky_key_may_be_renamed_in_one_place_only() -> None:
    traffic = parse_plan("sticky: {parameter: user}", PATH)
    assert (traffic.sticky_parameter, traffic.sticky_metadata) == ("user", "flyweight-key")


def test_names_that_yaml_takes_for_numbers_or_booleans_stay_names() -> None:
    traffic = parse_plan("split: {1: 25, no: 25, 1e3: 25, 0x10: 25}", PATH)
    assert traffic.split is not None
    assert list(traffic.split) == ["1", "no", "1e3", "0x10"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("splt: {a: 100}", ["unknown key 'splt'", "'split'"]),
        ("sticky: {paramter: x}", ["unknown key 'paramter' in 'sticky'", "'parameter' and 'metadata'"]),
        ("split: {a: 50, b: 40}", ["add up to 90", "a: 50, b: 40", "make them add up to 100"]),
        ("split: {a: 0.5, b: 0.5}", ["add up to 1;", "make them add up to 100"]),
        ("split: {a: -10, b: 110}", ["'split.a' is '-10'", "percent from 0 to 100"]),
        ("split: {a: much}", ["'split.a' is 'much'", "percent"]),
        ("split: {a: nan}", ["'split.a' is 'nan'", "percent"]),
        ("split: {a: 50, a: 50}", ["line 1", "the key 'a' stands there twice"]),
        ("split: [a, b]", ["'split' must be", "{baseline: 90, int8: 10}"]),
        ("split: {}", ["'split' must be"]),
        ("split: {../etc: 100}", ["'../etc' cannot be a variant's name"]),
        ("baseline:", ["'baseline'", "must be the name of a variant"]),
        ("baseline: [a]", ["'baseline' must be the name of a variant"]),
        ("sticky: {metadata: X-User}", ["'sticky.metadata' is 'X-User'", "lower-case"]),
        ("split: {a: 100", ["not valid YAML", "line 1"]),
        ("? [a]\n: 1", ["not valid YAML", "a key must be a word"]),
        ("baseline: \x00", ["not valid YAML"]),
        ("[" * 1500, ["not valid YAML"]),
        ('fallback: "\\U00110000"', ["not valid YAML", "an escape sequence in it is no character"]),
        ('fallback: "\\UFFFFFFFF"', ["not valid YAML", "an escape sequence in it is no character"]),
        ("- split", ["must be a mapping with the keys 'baseline', 'split', 'sticky', 'labels', "]),
        ("labels: [a]", ["'labels' must be a variant for each label", "{stable: baseline"]),
        ("labels: {my label: a}", ["'my label' cannot be a label"]),
        ("labels: {stable: ../a}", ["'../a' cannot be a variant's name"]),
        ("labels: {stable: {a: b}}", ["must be a variant for each label"]),
        ("labels: {stable: a, stable: b}", ["the key 'stable' stands there twice"]),
        ("fallback: [a]", ["'fallback' must be the name of a variant"]),
        ("fallback: a b", ["'a b' cannot be a variant's name"]),
        ("brownout: int8", ["'brownout' is 'int8', but must be a variant and the share of a full queue"]),
        ("brownout: {to: int8}", ["'brownout' has no 'above'", "{to: int8, above: 0.5}"]),
        ("brownout: {to: int8, above: 50}", ["'brownout.above' is '50', but must be"]),
        ("brownout: {to: int8, above: nan}", ["'brownout.above' is 'nan', but must be"]),
        ("brownout: {to: int8, over: 1}", ["unknown key 'over' in 'brownout'", "'to' and 'above'"]),
    ],
)
def test_a_mistake_is_told_in_one_sentence_with_file_and_key(text: str, parts: list[str]) -> None:
    with pytest.raises(TrafficPlanError) as caught:
        parse_plan(text, PATH)
    sentence = str(caught.value)
    assert sentence.startswith(str(PATH))
    assert "\n" not in sentence
    assert sentence.endswith(".")
    for part in parts:
        assert part in sentence


@given(st.text(max_size=60))
def test_any_text_is_a_plan_or_a_sentence(text: str) -> None:
    try:
        parse_plan(text, PATH)
    except TrafficPlanError as error:
        assert "\n" not in str(error)  # noqa: PT017 -- both outcomes are allowed


def test_percentages_rounded_by_hand_are_accepted_and_normalised() -> None:
    plan = plan_of("split: {baseline: 33.3333333, int8: 33.3333333, pruned: 33.3333334}")
    assert sum(weight for _, weight in plan.weights) == pytest.approx(1.0, abs=1e-12)


def test_weights_are_fractions_in_order_of_name() -> None:
    plan = plan_of("split: {pruned: 20, int8: 30, baseline: 50}")
    assert plan.weights == (("baseline", 0.5), ("int8", 0.3), ("pruned", 0.2))
    assert plan.origin is Reason.SPLIT
    assert plan.weight_of("int8") == 0.3
    assert plan.weight_of("other") == 0.0


def test_without_a_file_the_default_baseline_answers_everything() -> None:
    plan = resolve(None, VARIANTS, "int8")
    assert plan == Plan("int8", (("int8", 1.0),), origin=Reason.DEFAULT)


def test_a_single_variant_is_the_only_one() -> None:
    assert resolve(None, ["1"], "1").origin is Reason.ONLY
    assert resolve(parse_plan("baseline: '1'", PATH), ["1"], "1").origin is Reason.ONLY


def test_a_file_without_split_gives_all_to_its_baseline() -> None:
    plan = plan_of("baseline: int8")
    assert plan.weights == (("int8", 1.0),)
    assert (plan.role_of("int8"), plan.role_of("baseline")) == (Role.BASELINE, Role.CANDIDATE)


@pytest.mark.parametrize(
    ("text", "key"), [("baseline: int4", "'baseline'"), ("split: {baseline: 90, int4: 10}", "'split'")]
)
def test_an_unknown_variant_is_named_with_those_that_are_there(text: str, key: str) -> None:
    with pytest.raises(TrafficPlanError) as caught:
        plan_of(text)
    for part in (str(PATH), key, "'int4'", "baseline, int8, pruned"):
        assert part in str(caught.value)


def test_a_lost_variants_share_goes_to_the_others_in_proportion() -> None:
    plan = plan_of("split: {baseline: 50, int8: 30, pruned: 20}")
    left = restrict(plan, ["baseline", "pruned"], "baseline")
    assert dict(left.weights) == pytest.approx({"baseline": 5 / 7, "pruned": 2 / 7})
    assert left.origin is Reason.SPLIT


def test_nothing_lost_changes_nothing() -> None:
    plan = plan_of("split: {baseline: 50, int8: 50}")
    assert restrict(plan, VARIANTS, "baseline") is plan


def test_a_lost_baseline_is_replaced_and_answers_when_nobody_else_has_a_share() -> None:
    plan = plan_of("split: {baseline: 100}")
    left = restrict(plan, ["int8", "pruned"], "int8")
    assert (left.baseline, left.weights) == ("int8", (("int8", 1.0),))


def test_one_left_without_a_split_is_the_only_one() -> None:
    assert restrict(plan_of(""), ["baseline"], "baseline").origin is Reason.DEFAULT
    assert restrict(plan_of("baseline: pruned"), ["int8"], "int8").origin is Reason.ONLY


EVERYTHING = """
split: {baseline: 90, int8: 10}
labels: {stable: baseline, canary: int8, pruned: int8}
fallback: int8
brownout: {to: pruned, above: 0.5}
"""


def test_labels_fallback_and_brownout_are_part_of_the_plan() -> None:
    plan = plan_of(EVERYTHING)
    assert (plan.fallback, plan.brownout) == ("int8", Brownout("pruned", 0.5))
    assert plan.variant_of("stable") == "baseline"
    assert plan.variant_of("canary") == "int8"
    assert plan.variant_of("other") is None


def test_a_label_that_is_a_variants_name_is_overruled_by_the_variant() -> None:
    assert plan_of(EVERYTHING).variant_of("pruned") is None


def test_without_the_keys_nobody_stands_in() -> None:
    plan = plan_of("split: {baseline: 90, int8: 10}")
    assert (plan.labels, plan.fallback, plan.brownout) == ((), "", None)
    assert plan.stand_ins == frozenset()


@pytest.mark.parametrize(
    "key", ["labels: {stable: int4}", "fallback: int4", "brownout: {to: int4, above: 1}"]
)
def test_a_variant_that_is_not_there_is_refused_wherever_it_is_named(key: str) -> None:
    with pytest.raises(TrafficPlanError, match=f"'{key.split(':', maxsplit=1)[0]}' names the variant 'int4'"):
        plan_of(key)


def test_a_restricted_plan_keeps_its_labels_and_loses_the_stand_ins_that_are_not_there() -> None:
    plan = restrict(plan_of(EVERYTHING), ["baseline", "int8"], "baseline")
    assert plan.weights == (("baseline", 0.9), ("int8", 0.1))
    assert (plan.fallback, plan.brownout) == ("int8", None)
    plan = restrict(plan, ["baseline"], "baseline")
    assert plan.weights == (("baseline", 1.0),)
    assert plan.fallback == ""
    assert plan.variant_of("canary") == "int8", "who asks for it is told that it is not there"
