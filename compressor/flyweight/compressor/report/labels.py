"""Where to write the names of points so that they cover neither one another nor the points."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: "Box") -> float:
        """Return the area, in square pixels, that two boxes share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    def outside(self, frame: "Box") -> float:
        """Return the area, in square pixels, by which this box leaves `frame`."""
        area = (self.right - self.left) * (self.top - self.bottom)
        return area - self.overlap(frame)


@dataclass(frozen=True, slots=True)
class Spot:
    """A point with a name beside it: its centre, the radius of its marker, the size of its label; pixels."""

    x: float
    y: float
    radius: float
    width: float
    height: float

    def marker(self) -> Box:
        """Return the box that the marker covers."""
        return Box(self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)


# Directions in the order of preference: right, left, above, below, then the corners.
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_DISTANCES = (4.0, 14.0, 28.0, 46.0, 70.0)


def place_labels(spots: Sequence[Spot], frame: Box, obstacles: Sequence[Box] = ()) -> list[Box]:
    """Return a box for each label, greedily: the nearest place that is free, or the least bad one.

    Every label avoids all markers, the labels placed before it, the obstacles, and the outside of `frame`.
    The most crowded spots choose first.
    """
    markers = [spot.marker() for spot in spots]
    placed: dict[int, Box] = {}
    for index in sorted(range(len(spots)), key=lambda i: (-_crowding(spots, i), i)):
        taken = [*markers, *placed.values(), *obstacles]
        candidates = list(_candidates(spots[index]))
        costs = [_cost(box, taken, frame) + 0.01 * rank for rank, box in enumerate(candidates)]
        placed[index] = candidates[costs.index(min(costs))]
    return [placed[index] for index in range(len(spots))]


def _candidates(spot: Spot) -> list[Box]:
    return [_beside(spot, direction, distance) for distance, direction in product(_DISTANCES, _DIRECTIONS)]


def _beside(spot: Spot, direction: tuple[int, int], distance: float) -> Box:
    across, up = direction
    # At a corner a label need not clear the whole radius: the marker is round.
    reach = (spot.radius + distance) * (0.75 if across and up else 1.0)
    left = spot.x + across * reach - spot.width * (1 - across) / 2
    bottom = spot.y + up * reach - spot.height * (1 - up) / 2
    return Box(left, bottom, left + spot.width, bottom + spot.height)


def _cost(box: Box, taken: Sequence[Box], frame: Box) -> float:
    # Leaving the picture is worse than touching a neighbour: what is cut off cannot be read at all.
    return sum(box.overlap(other) for other in taken) + 3 * box.outside(frame)


def _crowding(spots: Sequence[Spot], index: int) -> int:
    own = spots[index]
    near = own.width + own.radius
    return sum(abs(own.x - o.x) < near and abs(own.y - o.y) < 3 * own.height for o in spots) - 1
