"""The callers that a server knows, and what they may do."""

import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from flyweight.server.security.reloaded import Reloaded
from flyweight.server.security.tokens import digest_of

# How long a change of the access file may go unnoticed: looking costs a system call, which is too much for
# every request and nothing once a second.
_LOOK_SECONDS: Final = 1.0


class Role(StrEnum):
    """What a caller may do; no role includes another."""

    INFER = "infer"
    OBSERVE = "observe"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who calls; `name` is from the access file, and empty for somebody who is in none."""

    name: str = ""
    roles: frozenset[Role] = frozenset(Role)


# Whom a server takes everybody for when it has no access file.
ANYBODY: Final = Caller()


@dataclass(frozen=True, slots=True)
class Callers:
    """Everybody that an access file names.

    `by_digest` has pairs of a token's SHA-256 and its bearer; `by_certificate` maps the names in clients'
    certificates; `anyone` are the roles of a caller without any credential.
    """

    by_digest: tuple[tuple[str, Caller], ...] = ()
    by_certificate: Mapping[str, Caller] = field(default_factory=lambda: MappingProxyType({}))
    anyone: frozenset[Role] = frozenset()

    def with_token(self, token: str) -> Caller | None:
        """Return the bearer of a token; None when nobody is known to bear it."""
        digest = digest_of(token)
        found = None
        # All of them, in a time that tells nothing of where or how far one agreed.
        for known, caller in self.by_digest:
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def with_certificate(self, names: Iterable[str]) -> Caller | None:
        """Return the holder of a certificate with one of these names; None when none of them is known."""
        return next((caller for name in names if (caller := self.by_certificate.get(name))), None)


class WatchedCallers:
    """The callers of an access file, read again when it changes. Thread-safe; owns no thread.

    Raises:
        StartError: the file cannot be used to begin with.
    """

    def __init__(
        self, path: Path, read: Callable[[Path], Callers], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file = Reloaded([path], lambda: read(path))
        self._clock = clock
        self._next_look = clock() + _LOOK_SECONDS

    def current(self) -> Callers:
        """Return the callers that the file named when it was last good."""
        now = self._clock()
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._file.refresh()
        return self._file.content
