"""A traffic.yaml as the server writes it, and what is remembered of promotions beside it. Pure."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import yaml

from flyweight.server.errors import TrafficPlanError
from flyweight.server.traffic.document import DEFAULT_STICKY_METADATA, DEFAULT_STICKY_PARAMETER
from flyweight.server.traffic.plan import TrafficFile

# Enough to go back through a month of daily promotions; the file stays smaller than a disk's block.
MOST_PROMOTIONS: Final = 32

_REVISION_DIGITS: Final = 16


def revision_of(text: str | None) -> str:
    """Return the name of a state of traffic.yaml: it changes with every byte of it.

    A file that is not there has a revision too, so that the first change can be made conditional.
    """
    content = b"" if text is None else b"\n" + text.encode()
    return sha256(content).hexdigest()[:_REVISION_DIGITS]


def render(traffic: TrafficFile, before: str = "") -> str:
    """Return the text of a traffic.yaml; comments at the head of the text `before` are kept."""
    document: dict[str, object] = {}
    if traffic.baseline is not None:
        document["baseline"] = traffic.baseline
    if traffic.split is not None:
        document["split"] = {name: _number(percent) for name, percent in traffic.split.items()}
    sticky = {"parameter": traffic.sticky_parameter, "metadata": traffic.sticky_metadata}
    if sticky != {"parameter": DEFAULT_STICKY_PARAMETER, "metadata": DEFAULT_STICKY_METADATA}:
        document["sticky"] = sticky
    if traffic.labels:
        document["labels"] = dict(traffic.labels)
    if traffic.fallback is not None:
        document["fallback"] = traffic.fallback
    if traffic.brownout is not None:
        document["brownout"] = {"to": traffic.brownout.to, "above": _number(traffic.brownout.above)}
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=math.inf)
    return _head(before) + (body if document else "")


def _number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value


def _head(text: str) -> str:
    """Return the lines before the first key: comments, and what separates them."""
    head: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.strip() and not line.lstrip().startswith("#"):
            break
        head.append(line)
    return "".join(head) if head and head[-1].endswith("\n") else ""


@dataclass(frozen=True, slots=True)
class Promotion:
    """A promotion that can be undone: who became the baseline, who was it before, when (RFC 3339, UTC)."""

    promoted: str
    before: str
    moment: str


def read_history(text: str | None) -> tuple[Promotion, ...]:
    """Return the promotions that a text remembers, the last one last.

    Raises:
        TrafficPlanError: the text is not what `write_history` writes.
    """
    if text is None:
        return ()
    try:
        return tuple(
            Promotion(str(entry["promoted"]), str(entry["before"]), str(entry["moment"]))
            for entry in json.loads(text)["promotions"]
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise TrafficPlanError(
            "The promotions that are remembered cannot be read; set the traffic instead, or remove the file."
        ) from error


def write_history(promotions: Sequence[Promotion]) -> str:
    """Return the text that remembers promotions: the last `MOST_PROMOTIONS` of them."""
    entries = [
        {"promoted": one.promoted, "before": one.before, "moment": one.moment}
        for one in promotions[-MOST_PROMOTIONS:]
    ]
    return json.dumps({"promotions": entries}, indent=1) + "\n"
