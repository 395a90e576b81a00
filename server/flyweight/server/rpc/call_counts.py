"""How the calls of every RPC ended, counted at the one place that all of them pass."""

from collections.abc import Iterable, Iterator

from flyweight.server.errors import Code


class CallCounts:
    """A count for each RPC and status; calls of RPCs that there are not count for "", whatever their name.

    Counted by one thread, the one that takes events, and read by any: each count is one number.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._counts = {path: [0] * len(Code) for path in ("", *paths)}

    def add(self, path: str, code: Code) -> None:
        """Count a call of the RPC "/package.Service/Method" that ended."""
        counts = self._counts.get(path)
        if counts is None:
            counts = self._counts[""]
        counts[code] += 1

    def totals(self) -> Iterator[tuple[str, Code, int]]:
        """Return each path and status that was there, and how often."""
        for path, counts in self._counts.items():
            for code, count in zip(Code, counts, strict=True):
                if count:
                    yield path, code, count
