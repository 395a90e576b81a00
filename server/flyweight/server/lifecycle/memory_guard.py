"""The memory guard: a load that would not fit is refused, before the kernel ends the server over it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from flyweight.protos.errors import FlyweightError
from flyweight.protos.variant import GOLDEN_FILE, MANIFEST_FILE, read_manifest
from flyweight.server.errors import LoadFailed
from flyweight.server.lifecycle.desired import VariantSource
from flyweight.server.runtime.headroom import Headroom

# What building a session took at its peak, in bytes for each byte of the file, with onnxruntime 1.31: 1.9 for
# MatMul and Gemm of FP32, 2.7 for int8, 3.8 for convolutions, 4.1 for FP16; 1.4 where the weights lie in a
# file beside the model. The lower figures are taken: a guess must not refuse what fits, and a manifest, where
# there is one, knows better.
_SESSION_FACTOR: Final = 1.9
_BESIDE_FACTOR: Final = 1.4

# What stays free for requests: 64 of them, the usual bound, with half a megabyte of tensors each.
RESERVE_BYTES: Final = 32 << 20

# A load that waits for another one to end looks again after this long at the latest.
_LOOK_SECONDS: Final = 1.0

_MEGABYTE: Final = 1e6


@dataclass(frozen=True, slots=True)
class Need:
    """The bytes that a load will take, and how that is known, for the middle of a sentence."""

    size_bytes: int
    known_by: str


def need_of(source: VariantSource) -> Need:
    """Return what a load will take: as it was measured before publication, else as its files suggest."""
    try:
        manifest = read_manifest(source.folder)
    except (FlyweightError, OSError):
        # The load will say what is wrong with it.
        manifest = None
    if manifest is not None and manifest.footprint.pss_bytes:
        return Need(manifest.footprint.pss_bytes, "as its manifest says")
    files = [stamp for stamp in source.fingerprint.files if stamp.path not in (MANIFEST_FILE, GOLDEN_FILE)]
    inside = sum(stamp.size_bytes for stamp in files if stamp.path == source.model_file)
    beside = sum(stamp.size_bytes for stamp in files) - inside
    size_bytes = int(_SESSION_FACTOR * inside + _BESIDE_FACTOR * beside)
    return Need(size_bytes, f"by the {(inside + beside) / _MEGABYTE:,.0f} MB of its files")


def refusal(what: str, need: Need, headroom: Headroom | None, taken_bytes: int = 0) -> str:
    """Return why a load would not fit, in one sentence with all numbers; empty when it does. Pure.

    Args:
        what: the variant.
        need: what its load will take.
        headroom: what is left; None where nothing tells, and everything fits.
        taken_bytes: what other loads in progress will take of it.
    """
    if headroom is None or need.size_bytes + RESERVE_BYTES + taken_bytes <= headroom.left_bytes:
        return ""
    return (
        f"{what} needs about {need.size_bytes / _MEGABYTE:,.0f} MB of memory ({need.known_by}), and of the "
        f"{headroom.limit_bytes / _MEGABYTE:,.0f} MB of {headroom.limited_by} only "
        f"{max(0, headroom.left_bytes) / _MEGABYTE:,.0f} MB are left, {RESERVE_BYTES / _MEGABYTE:,.0f} MB of "
        "which stay free for requests; unload something, give the server more memory, or start it with "
        "--no-memory-guard."
    )


class MemoryGuard:
    """Lets loads pass or refuses them. Thread-safe; `read` returns the headroom at the moment."""

    def __init__(self, read: Callable[[], Headroom | None]) -> None:
        self._read = read
        self._changed = threading.Condition()
        self._taken: list[int] = []

    @contextmanager
    def admit(self, source: VariantSource) -> Iterator[None]:
        """Load a variant in a `with` block, for which there is room.

        A load that fits, but not beside those in progress, waits for them; they are loads, and so end.

        Raises:
            LoadFailed: there is no room for it.
        """
        need = need_of(source)
        what = f"{source.model}/{source.variant}"
        with self._changed:
            while refusal(what, need, headroom := self._read(), sum(self._taken)):
                reason = refusal(what, need, headroom)
                if reason or not self._taken:
                    raise LoadFailed(reason)
                self._changed.wait(_LOOK_SECONDS)
            self._taken.append(need.size_bytes)
        try:
            yield
        finally:
            with self._changed:
                self._taken.remove(need.size_bytes)
                self._changed.notify_all()
