"""A lane: the way of one variant's requests, from the queue to the runtime."""

from flyweight.server.batching.pace import Pace
from flyweight.server.batching.queue import BatchQueue
from flyweight.server.repository.serving import Merging, ServingPolicy
from flyweight.server.runtime.seam import Runtime


class Lane:
    """One variant's queue, the runtime behind it, and what is known of its runs.

    Not thread-safe: the scheduler's lock guards everything but `runtime`.
    """

    def __init__(
        self,
        what: str,
        runtime: Runtime,
        policy: ServingPolicy,
        *,
        runs_elsewhere: bool = False,
    ) -> None:
        self.what = what
        self.runtime = runtime
        self.queue = BatchQueue(what, policy)
        self.pace = Pace(policy.max_rows)
        self.running = 0
        # Its runs take no processor time of this process, so none is short enough to be done in between.
        self.runs_elsewhere = runs_elsewhere
        self._merging = policy.merging if policy.max_rows > 1 else Merging.NEVER
        self._max_rows = policy.max_rows
        self.delay_seconds = policy.max_delay_seconds
        # Answers of one run at a time leave in the order in which their requests came.
        self.keeps_order = policy.preserve_ordering
        self._most_running = 1 if policy.preserve_ordering else policy.instances

    @property
    def limit(self) -> int:
        """Return the most rows of the next run: what was asked for, or what was found to be worth it."""
        if self._merging is Merging.NEVER:
            return 1
        return self._max_rows if self._merging is Merging.ASKED else self.pace.limit

    @property
    def must_merge(self) -> bool:
        """Whether large runs were asked for, and not only found to be worth it."""
        return self._merging is Merging.ASKED

    def may_run(self) -> bool:
        """Tell whether one more run of this variant may begin, as far as the variant is concerned."""
        return not self._most_running or self.running < self._most_running

    def stop_merging(self) -> None:
        """Let every request have a run of its own from now on."""
        self._merging = Merging.NEVER
