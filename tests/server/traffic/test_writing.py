from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.server.errors import TrafficPlanError
from flyweight.server.traffic import Brownout, TrafficFile, parse_plan
from flyweight.server.traffic.writing import (
    MOST_PROMOTIONS,
    Promotion,
    read_history,
    render,
    revision_of,
    write_history,
)

PATH = Path("repository/digits/traffic.yaml")
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True)
PLANS = st.builds(
    TrafficFile,
    st.just(PATH),
    st.none() | NAMES,
    st.none()
    | st.tuples(NAMES, st.integers(1, 99)).map(lambda pair: {pair[0]: 100.0 - pair[1], "_": pair[1]}),
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9),
    st.from_regex(r"[0-9a-z_.-]{1,9}", fullmatch=True),
    st.dictionaries(NAMES, NAMES, max_size=3),
    st.none() | NAMES,
    st.none() | st.builds(Brownout, NAMES, st.floats(0, 1)),
)


def named(traffic: TrafficFile) -> TrafficFile:
    """Give the second variant of a split a name that is allowed."""
    if traffic.split is None:
        return traffic
    (first, share), (_, rest) = traffic.split.items()
    split = {first: share, f"{first}2"[:128]: float(rest)}
    return TrafficFile(
        PATH,
        traffic.baseline,
        split,
        traffic.sticky_parameter,
        traffic.sticky_metadata,
        traffic.labels,
        traffic.fallback,
        traffic.brownout,
    )


@given(PLANS.map(named))
def test_what_is_written_reads_as_what_was_meant(traffic: TrafficFile) -> None:
    assert parse_plan(render(traffic), PATH) == traffic


def test_an_empty_plan_is_an_empty_file() -> None:
    assert render(TrafficFile(PATH)) == ""


def test_the_text_is_as_people_write_it() -> None:
    traffic = TrafficFile(PATH, "fp32", {"fp32": 90.0, "int8": 10.0}, labels={"canary": "int8"})
    assert render(traffic) == "baseline: fp32\nsplit:\n  fp32: 90\n  int8: 10\nlabels:\n  canary: int8\n"


@pytest.mark.parametrize(
    ("before", "head"),
    [
        ("", ""),
        ("# ours\n# and yours\nsplit: {a: 100}\n# not this\n", "# ours\n# and yours\n"),
        ("\n  # ours\n\nbaseline: a\n", "\n  # ours\n\n"),
        ("split: {a: 100}\n# ours\n", ""),
        ("# without an end", ""),
    ],
)
def test_comments_at_the_head_are_kept(before: str, head: str) -> None:
    assert render(TrafficFile(PATH, "int8"), before) == head + "baseline: int8\n"


def test_a_revision_changes_with_every_byte_and_an_absent_file_has_one() -> None:
    revisions = [revision_of(text) for text in (None, "", " ", "baseline: a\n", "baseline: b\n")]
    assert len(set(revisions)) == 5
    assert all(len(revision) == 16 for revision in revisions)


def test_promotions_are_remembered_in_order_and_not_for_ever() -> None:
    promotions = [Promotion(f"v{n}", f"v{n - 1}", "2026-01-01T00:00:00Z") for n in range(1, 100)]
    assert read_history(write_history(promotions)) == tuple(promotions[-MOST_PROMOTIONS:])
    assert read_history(None) == ()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"promotions": [1]}', '{"promotions": 1}', "[" * 9000, "\0"]
)
def test_a_memory_that_is_none_is_told_in_a_sentence(text: str) -> None:
    with pytest.raises(TrafficPlanError, match="cannot be read; set the traffic instead"):
        read_history(text)
