"""What every inference passes and uses on its way through the server."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flyweight.protos.tensors import TensorLimits
from flyweight.server.batching.scheduler import Scheduler
from flyweight.server.caching import ResponseCache
from flyweight.server.rpc.admission import Gate
from flyweight.server.rpc.answers import Answers
from flyweight.server.rpc.call import Wording, as_it_is
from flyweight.server.rpc.layouts import Layouts
from flyweight.server.rpc.models import Models
from flyweight.server.rpc.reading import DEFAULT_LIMITS
from flyweight.server.rpc.regions import Regions
from flyweight.server.rpc.tallies import Tallies
from flyweight.server.rpc.tracer import Tracer
from flyweight.server.security.clients import ClientLimits


@dataclass(frozen=True, slots=True)
class Inside:
    """What every request passes and uses.

    Attributes:
        models: whom it is answered by.
        gate: how many are inside.
        clients: how many of one caller's are.
        scheduler: when it runs.
        tallies: are told of each.
        tracer: is told of each while it is on.
        regions: where shared memory is registered; None when it is switched off.
        limits: on the tensors of a request.
        cache: answers that were given before.
        wording: of the failures that callers are told.
        layouts: of requests that were understood before.
        answers: write what their answers have in common.
        uniform: gives random numbers in [0, 1).
        clock: monotonic seconds, the scheduler's.
    """

    models: Models
    gate: Gate
    scheduler: Scheduler
    tallies: Tallies
    clients: ClientLimits
    regions: Regions | None = None
    limits: TensorLimits = DEFAULT_LIMITS
    cache: ResponseCache = field(default_factory=lambda: ResponseCache(0))
    tracer: Tracer = field(default_factory=lambda: Tracer(None))
    wording: Wording = as_it_is
    layouts: Layouts = field(default_factory=Layouts)
    answers: Answers = field(default_factory=Answers)
    uniform: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic
