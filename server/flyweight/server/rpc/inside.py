"""What every inference passes and uses on its way through the server."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flyweight.protos.tensors import TensorLimits
from flyweight.server.batching.scheduler import Scheduler
from flyweight.server.caching import ResponseCache
from flyweight.server.rpc.admission import Gate
from flyweight.server.rpc.call import Wording, as_it_is
from flyweight.server.rpc.models import Models
from flyweight.server.rpc.reading import DEFAULT_LIMITS
from flyweight.server.rpc.records import Recorder
from flyweight.server.rpc.regions import Regions
from flyweight.server.security.clients import ClientLimits


@dataclass(frozen=True, slots=True)
class Inside:
    """What every request passes and uses.

    Attributes:
        models: whom it is answered by.
        gate: how many are inside.
        clients: how many of one caller's are.
        scheduler: when it runs.
        recorder: is told of each.
        regions: where shared memory is registered; None when it is switched off.
        limits: on the tensors of a request.
        cache: answers that were given before.
        wording: of the failures that callers are told.
        uniform: gives random numbers in [0, 1).
        clock: monotonic seconds, the scheduler's.
    """

    models: Models
    gate: Gate
    scheduler: Scheduler
    recorder: Recorder
    clients: ClientLimits
    regions: Regions | None = None
    limits: TensorLimits = DEFAULT_LIMITS
    cache: ResponseCache = field(default_factory=lambda: ResponseCache(0))
    wording: Wording = as_it_is
    uniform: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic
