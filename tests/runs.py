"""What waits for a run, for a carrier whose RPCs run nothing."""


class NoRuns:
    """Nothing waits, and nothing runs."""

    def is_running(self) -> bool:
        return False

    def has_work(self) -> bool:
        return False

    def advance(self) -> float | None:
        return None
