"""Tracing: the moments of some requests, written as Triton writes them."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from flyweight.server.errors import Code, NotSetUp
from flyweight.server.rpc.records import Record
from flyweight.server.rpc.trace_file import TraceFiles
from flyweight.server.rpc.trace_settings import Changes, TraceLevel, TraceSettings, merged, updated

_NANOSECONDS: Final = 1_000_000_000
# Identities that restart with the server would be found twice in a file that is appended to.
_IDENTITIES_PER_SECOND: Final = 1_000_000


class _Sampler:
    """Which requests of one scope, a model or all that have no settings of their own, are traced."""

    def __init__(self, settings: TraceSettings) -> None:
        self.settings = settings
        self.left = settings.count
        self._seen = 0
        self._taken = 0

    def change(self, settings: TraceSettings) -> None:
        """Go on with other settings; a new count counts from now, and a new file from its first trace."""
        if settings.count != self.settings.count:
            self.left = settings.count
        if (settings.file, settings.log_frequency) != (self.settings.file, self.settings.log_frequency):
            self._taken = 0
        self.settings = settings

    def take(self) -> str:
        """Return the file that the next request's trace goes to; nothing if it is not traced."""
        if self.settings.level is TraceLevel.OFF or self.left == 0:
            return ""
        self._seen += 1
        if self._seen % self.settings.rate:
            return ""
        if self.left > 0:
            self.left -= 1
        frequency = self.settings.log_frequency
        index, self._taken = self._taken // frequency if frequency else 0, self._taken + 1
        return f"{self.settings.file}.{index}" if frequency else self.settings.file


class Tracer:
    """Keeps the settings, and traces by them while it `is_on`. Thread-safe.

    Args:
        files: where traces go; None when the operator named no folder, and tracing cannot be switched on.
        wall_clock: gives seconds since 1970, which identities begin with.
    """

    def __init__(self, files: TraceFiles | None, wall_clock: Callable[[], float] = time.time) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._layers: dict[str, dict[str, Any]] = {"": {}}
        self._samplers = {"": _Sampler(TraceSettings())}
        # Asked for every request; the others are for those who change it.
        self.is_on = False
        self._identity = int(wall_clock()) * _IDENTITIES_PER_SECOND

    def settings(self, model: str = "") -> TraceSettings:
        """Return what holds for a model, or, with an empty name, for all without settings of their own.

        `count` is how many more traces will be taken.
        """
        with self._lock:
            sampler = self._samplers.get(model) or self._samplers[""]
            return replace(sampler.settings, count=sampler.left)

    def change(self, model: str, changes: Changes) -> None:
        """Change the settings of a model, or the global ones.

        Raises:
            NotSetUp: tracing would be on, and there is no folder for traces.
        """
        with self._lock:
            layers = {**self._layers, model: updated(self._layers.get(model, {}), changes)}
            if not layers[model] and model:
                del layers[model]
            effective = {
                scope: merged(TraceSettings(), layers[""], layer) if scope else merged(TraceSettings(), layer)
                for scope, layer in layers.items()
            }
            is_on = any(settings.level is not TraceLevel.OFF for settings in effective.values())
            if is_on and self._files is None:
                raise NotSetUp(
                    "This server was started without a folder for traces; have it started with "
                    "--trace-folder to trace requests."
                )
            self._layers = layers
            self._samplers = {scope: self._sampler(scope, each) for scope, each in effective.items()}
            self.is_on = is_on

    def _sampler(self, scope: str, settings: TraceSettings) -> _Sampler:
        sampler = self._samplers.get(scope)
        if sampler is None:
            return _Sampler(settings)
        sampler.change(settings)
        return sampler

    def record(self, record: Record) -> None:
        """Trace a request that a variant answered, or failed to, if it is its turn."""
        if not self.is_on or not record.answerer.variant or self._files is None:
            return
        with self._lock:
            sampler = self._samplers.get(record.answerer.model) or self._samplers[""]
            file = sampler.take()
            if not file:
                return
            self._identity += 1
            identity = self._identity
        self._files.add(file, written(identity, record))

    def close(self) -> None:
        """Write what waits to be written."""
        if self._files is not None:
            self._files.close()


def written(identity: int, record: Record) -> bytes:
    """Return a trace as Triton writes it: an object that says what, and one for each moment."""
    model, variant = record.answerer.model, record.answerer.variant
    version = int(variant) if variant.isascii() and variant.isdecimal() else variant
    head: dict[str, int | str] = {"id": identity, "model_name": model, "model_version": version}
    if record.request_id:
        head["request_id"] = record.request_id
    moments = [
        {"id": identity, "timestamps": [{"name": name, "ns": round(seconds * _NANOSECONDS)}]}
        for name, seconds in moments_of(record)
    ]
    return ",".join(json.dumps(each, separators=(",", ":")) for each in (head, *moments)).encode()


def moments_of(record: Record) -> list[tuple[str, float]]:
    """Return the moments of a request by Triton's names, on the clock of time.monotonic(), in order.

    The model's inputs are made before the request is queued, so COMPUTE_INPUT_END is COMPUTE_START. Of a
    request that failed only the beginning and the end are known.
    """
    started, ended = record.started, record.started + record.total_seconds
    if record.code is not Code.OK:
        return [("REQUEST_START", started), ("REQUEST_END", ended)]
    queued = started + record.decode_seconds
    began = queued + record.queue_seconds
    ran = began + record.run_seconds
    encoded = ran + record.encode_seconds
    return [
        ("REQUEST_START", started),
        ("QUEUE_START", queued),
        ("COMPUTE_START", began),
        ("COMPUTE_INPUT_END", began),
        ("COMPUTE_OUTPUT_START", ran),
        ("COMPUTE_END", encoded),
        ("REQUEST_END", max(encoded, ended)),
    ]
