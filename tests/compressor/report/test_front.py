from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.report.front import dominates, pareto_front

COSTS = st.dictionaries(st.text(min_size=1, max_size=3), st.tuples(*[st.integers(0, 9)] * 2), max_size=12)


def test_a_point_worse_at_everything_is_not_on_the_front() -> None:
    assert pareto_front({"a": (1, 5), "b": (2, 4), "c": (3, 6)}) == ("a", "b")


def test_equal_points_are_both_on_the_front() -> None:
    assert pareto_front({"a": (1, 1), "b": (1, 1)}) == ("a", "b")


@given(COSTS)
def test_nobody_on_the_front_is_dominated_and_everybody_else_is(costs: dict[str, tuple[int, int]]) -> None:
    front = pareto_front(costs)
    for name, cost in costs.items():
        assert any(dominates(costs[other], cost) for other in costs) == (name not in front)
