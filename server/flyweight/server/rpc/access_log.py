"""The access log: a line for each RPC that ended, with who called and what became of it, and no contents."""

import logging
from typing import Final

from flyweight.server.errors import Code
from flyweight.server.logs import FIELDS
from flyweight.server.rpc.call import Call

# A logger of its own, so that its lines can be told from the others and sent elsewhere.
logger = logging.getLogger("flyweight.access")

# Ids are the callers'; one that is longer is no id, and may be the contents of something.
_LONGEST_ID: Final = 128


class AccessLog:
    """Writes the lines. Thread-safe. One that `is_on` is not costs a call."""

    def __init__(self, *, is_on: bool) -> None:
        self.is_on = is_on

    def write(self, path: str, call: Call, code: Code, seconds: float) -> None:
        """Write the line of the RPC `path`, which took `seconds` from its first step to its last."""
        if not self.is_on:
            return
        peer = call.peer()
        fields = {
            "method": path.rpartition("/")[2],
            "code": code.name,
            "milliseconds": round(seconds * 1000, 3),
            "peer": peer.address,
            # Both empty where callers are not asked who they are.
            "caller": call.caller.name,
            "certificate": next(iter(peer.certificate_names), ""),
            "model": call.answerer.model,
            "variant": call.answerer.variant,
            "request_id": _shortened(call.request_id),
        }
        said = {name: value for name, value in fields.items() if value != ""}
        logger.info(" ".join(f"{name}={_shown(value)}" for name, value in said.items()), extra={FIELDS: said})


def _shortened(request_id: str) -> str:
    return request_id if len(request_id) <= _LONGEST_ID else f"{request_id[:_LONGEST_ID]}..."


def _shown(value: object) -> str:
    """Return a value as one word, so that an id with spaces and "=" in it cannot pass for other fields."""
    text = str(value)
    return repr(text) if any(mark in text for mark in " =\"'\\") or not text.isprintable() else text
