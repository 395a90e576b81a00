"""The record of one inference: what metrics and statistics are made of."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from flyweight.server.errors import Code


class Answerer(NamedTuple):
    """Who a request is counted for; empty where it is not known, so that callers cannot invent label values.

    `role` is "baseline" or "candidate", also for a caller who asked for the variant by name.
    """

    model: str = ""
    variant: str = ""
    role: str = ""


NOBODY: Final = Answerer()


class Rejection(StrEnum):
    """Why a good request was turned away without being run."""

    QUEUE_FULL = "queue_full"
    DEADLINE = "deadline"
    DRAINING = "draining"


@dataclass(slots=True)
class Record:
    """One inference, filled in as it goes; all times in seconds.

    `started` is the monotonic moment at which it reached the handler. `decode_seconds` is from the request's
    bytes to checked arrays, `queue_seconds` the wait for a turn, `run_seconds` the model itself,
    `encode_seconds` from arrays to the response's bytes, and `total_seconds` from the handler's first line to
    its last. `batch_rows` and `batch_requests` are those of the run it was part of, which `leads_run` counts
    once: it is true for one of them.
    """

    started: float = 0.0
    answerer: Answerer = NOBODY
    code: Code = Code.OK
    rejection: Rejection | None = None
    request_id: str = ""
    rows: int = 0
    batch_rows: int = 0
    batch_requests: int = 0
    leads_run: bool = False
    decode_seconds: float = 0.0
    queue_seconds: float = 0.0
    run_seconds: float = 0.0
    encode_seconds: float = 0.0
    total_seconds: float = 0.0
    # Whether the response cache had the answer; None for a variant without one.
    cache_hit: bool | None = None
