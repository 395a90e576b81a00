"""How a variant's requests are queued, batched and run, in the words of Triton's configuration; data only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class TimeoutAction(StrEnum):
    """What becomes of a request that waited longer than its queue allows."""

    REJECT = "reject"
    DELAY = "delay"


class Merging(StrEnum):
    """Whether requests may share a run.

    ASKED: config.pbtxt says so. MEASURED: it says nothing; of a loaded variant, its rows were seen not to
    mind each other. NEVER: it says otherwise, or they do.
    """

    ASKED = "asked"
    NEVER = "never"
    MEASURED = "measured"


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """The queue of one priority level (Triton's ModelQueuePolicy).

    A `default_timeout_seconds` of None waits as long as the caller does; `max_waiting` of 0 leaves the bound
    to the server's own (--max-in-flight).
    """

    action: TimeoutAction = TimeoutAction.REJECT
    default_timeout_seconds: float | None = None
    allow_timeout_override: bool = True
    max_waiting: int = 0


@dataclass(frozen=True, slots=True)
class ServingPolicy:
    """Everything about the queue in front of one variant.

    Attributes:
        merging: whether requests may share a run.
        max_rows: of one run; 0 for a model without a batch axis, whose requests never share one.
        preferred_rows: a run of one of these is not delayed any further.
        max_delay_seconds: how long the first request of a run may wait for others.
        preserve_ordering: whether answers leave in the order in which requests came.
        priority_levels: how many there are; 0 for none. 1 is the highest.
        default_priority: of requests that name none; 0 where there are no levels.
        queue: the policy of levels that have none of their own.
        queues: by level.
        instances: runs of this variant at one time; 0 for as many as the server runs.
    """

    merging: Merging = Merging.MEASURED
    max_rows: int = 0
    preferred_rows: tuple[int, ...] = ()
    max_delay_seconds: float = 0.0
    preserve_ordering: bool = False
    priority_levels: int = 0
    default_priority: int = 0
    queue: QueuePolicy = QueuePolicy()
    queues: Mapping[int, QueuePolicy] = field(default_factory=lambda: MappingProxyType({}))
    instances: int = 0

    def queue_of(self, priority: int) -> QueuePolicy:
        """Return the policy of a priority level."""
        return self.queues.get(priority, self.queue)
