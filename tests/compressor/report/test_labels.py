from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.report.labels import Box, Spot, place_labels

FRAME = Box(0, 0, 600, 400)


def test_lonely_label_stands_to_the_right_of_its_point() -> None:
    (box,) = place_labels([Spot(100, 100, 5, 40, 12)], FRAME)
    assert box.left > 105
    assert box.overlap(Spot(100, 100, 5, 40, 12).marker()) == 0


def test_label_at_the_right_edge_stands_inside() -> None:
    (box,) = place_labels([Spot(590, 100, 5, 40, 12)], FRAME)
    assert box.outside(FRAME) == 0


def test_label_avoids_an_obstacle() -> None:
    line = Box(0, 99, 600, 101)
    (box,) = place_labels([Spot(100, 100, 5, 40, 12)], FRAME, [line])
    assert box.overlap(line) == 0


@given(st.lists(st.tuples(st.integers(80, 520), st.integers(40, 360)), min_size=1, max_size=7))
def test_seven_labels_never_cover_one_another(places: list[tuple[int, int]]) -> None:
    boxes = place_labels([Spot(x, y, 6, 60, 12) for x, y in places], FRAME)
    assert all(a.overlap(b) == 0 for i, a in enumerate(boxes) for b in boxes[:i])
