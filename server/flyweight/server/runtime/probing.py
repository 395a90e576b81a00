"""Asking a process of its own what a variant takes, where the one that serves it holds others as well.

What a process grows by while it loads a variant is the variant's only if nothing else happens in it. Measured
with four networks of 1 to 50 MB: loaded one after the other the growth was within 8 % of that of a separate
process (a network of 1 MB: 32 %), under traffic up to 50 % off, and 40 to 500 % when loaded side by side. A
process that loads only this variant costs 0.3 s of processor time and is within 5 %, whatever else goes on.
"""

import json
import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from flyweight.server.runtime.cores import available_cores
from flyweight.server.runtime.growth import Growth
from flyweight.server.runtime.headroom import free_bytes
from flyweight.server.runtime.seam import SessionSettings

_log = logging.getLogger(__name__)

_PROBE: Final = "flyweight.server.runtime.probe"
# It only runs when nothing else does, so on a busy machine it takes long; a variant that is not measured by
# then has the figure of its publication, if any.
_LONGEST_SECONDS: Final = 600.0
# A 46 MB convnet needed 3.4 times its file while it was loaded, and the interpreter with onnxruntime 60 MB.
_PEAK_RATIO: Final = 4
_BASE_BYTES: Final = 64 << 20
# More variants than a server was seen with. What is not remembered is measured again.
_MOST_REMEMBERED: Final = 1024
_MOST_WAITING: Final = 1024
# Beside traffic a process every so often: it takes 0.3 s, and p99 does not feel what goes on for 1 % of the
# time. With one after each of many swaps it was 1.3 to 1.7 times the steady one, and without 1.0 to 1.2.
_PAUSE_SECONDS: Final = 30.0
# Fewer than four calls a second are no traffic that could feel it.
_LOOK_SECONDS: Final = 0.25
# A process that is killed is gone at once, and the thread with it, unless it waits for a disk.
_CLOSE_SECONDS: Final = 5.0

# What figures hang on: the folder's files as they were, and the session's settings.
_Key = tuple[object, ...]


class Probing:
    """One question, and its answer once there is one."""

    def __init__(self, model_file: Path, settings: SessionSettings) -> None:
        self.model_file = model_file
        self.settings = settings
        self.growth: Growth | None = None
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._process: subprocess.Popen[str] | None = None

    @property
    def is_cancelled(self) -> bool:
        """Return whether nobody waits for the answer any more."""
        return self._is_cancelled

    def cancel(self) -> None:
        """Do without the answer; a process that is working on it ends."""
        with self._lock:
            self._is_cancelled = True
            if self._process is not None:
                self._process.kill()

    def run(self, cores: int, timeout_seconds: float) -> Growth | None:
        """Start the process, wait for it, and return its answer; None when there is none."""
        command = [sys.executable, "-P", "-m", _PROBE]
        pipe = subprocess.PIPE
        with self._lock:
            if self._is_cancelled:
                return None
            self._process = subprocess.Popen(  # noqa: S603  # this interpreter and our own module
                command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace"
            )
        with self._process as process:
            try:
                told, complaint = process.communicate(self._order(cores), timeout_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                told, complaint = "", f"it took longer than {timeout_seconds:g} s"
        with self._lock:
            self._process = None
            if self._is_cancelled:
                return None
        return self._read(process.returncode, told, complaint)

    def _order(self, cores: int) -> str:
        order = {
            "parent": os.getpid(),
            "model": str(self.model_file),
            "threads": self.settings.intra_op_threads,
            "entries": dict(self.settings.config_entries),
            "cores": cores,
        }
        return json.dumps(order) + "\n"

    def _read(self, code: int, told: str, complaint: str) -> Growth | None:
        try:
            return Growth(**json.loads(told))
        except (ValueError, TypeError):
            said = (complaint.strip().splitlines() or [f"exit code {code}"])[-1]
            _log.info("The memory of %s was not measured in a process of its own: %s", self.model_file, said)
            return None


class Prober:
    """Owns one thread, which starts one process at a time and waits for it; `close` ends both.

    Args:
        cores: as the sessions of the server have them.
        free_bytes: how much memory there is; None when nobody knows.
        timeout_seconds: how long a process may take.
        count_calls: how many calls came so far; None where there are none to mind.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        cores: int | None = None,
        free_bytes: Callable[[], int | None] = free_bytes,
        timeout_seconds: float = _LONGEST_SECONDS,
        count_calls: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cores = cores or available_cores()
        self._free_bytes = free_bytes
        self._timeout_seconds = timeout_seconds
        self._count_calls = count_calls
        self._clock = clock
        self._rests_until = -math.inf
        self._changed = threading.Condition()
        self._waiting: deque[Probing] = deque(maxlen=_MOST_WAITING)
        self._current: Probing | None = None
        self._is_closed = False
        self._known: OrderedDict[_Key, Growth] = OrderedDict()
        self._thread: threading.Thread | None = None

    def ask(self, model_file: Path, settings: SessionSettings) -> Probing:
        """Ask what a model file takes with these settings; returns at once."""
        probing = Probing(model_file, settings)
        with self._changed:
            if self._is_closed:
                return probing
            self._waiting.append(probing)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="flyweight-prober", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return probing

    def close(self) -> None:
        """Answer nothing more, end the process that works, and wait for the thread."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            current, thread = self._current, self._thread
            self._changed.notify_all()
        if current is not None:
            current.cancel()
        if thread is not None:
            thread.join(_CLOSE_SECONDS)

    def wait_until_idle(self, timeout_seconds: float) -> bool:
        """Wait until everything that was asked is answered; tell whether it was."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and self._current is None, timeout_seconds
            )

    def _work(self) -> None:
        while (probing := self._take()) is not None:
            try:
                probing.growth = self._answer(probing)
            except OSError as error:
                _log.info("The memory of %s was not measured: %s.", probing.model_file, error.strerror)
            with self._changed:
                self._current = None
                self._changed.notify_all()

    def _take(self) -> Probing | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if self._is_closed:
                return None
            self._current = self._waiting.popleft()
            return self._current

    def _answer(self, probing: Probing) -> Growth | None:
        key, file_bytes = _look_at(probing)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        if not self._wait_for_a_pause(probing):
            return None
        free, needed = self._free_bytes(), file_bytes * _PEAK_RATIO + _BASE_BYTES
        if free is not None and free < needed:
            _log.info(
                "The memory of %s was not measured in a process of its own: it may take %d MB, and %d MB are "
                "free; until then the figure is that of its publication, if any.",
                probing.model_file,
                needed >> 20,
                free >> 20,
            )
            return None
        growth = probing.run(self._cores, self._timeout_seconds)
        self._rests_until = self._clock() + _PAUSE_SECONDS
        if growth is not None:
            self._known[key] = growth
            while len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)
        return growth

    def _wait_for_a_pause(self, probing: Probing) -> bool:
        """Wait until no traffic would feel a process; return whether anybody still asks for it."""
        calls = self._count_calls
        with self._changed:
            while calls is not None and self._is_wanted(probing) and self._clock() < self._rests_until:
                before = calls()
                self._changed.wait_for(lambda: not self._is_wanted(probing), _LOOK_SECONDS)
                if calls() == before:
                    break
            return self._is_wanted(probing)

    def _is_wanted(self, probing: Probing) -> bool:
        return not self._is_closed and not probing.is_cancelled


def _look_at(probing: Probing) -> tuple[_Key, int]:
    """Return what the figures hang on, and the bytes of the variant's files."""
    settings = probing.settings
    entries = tuple(sorted(settings.config_entries.items()))
    files = [(path, path.stat()) for path in sorted(probing.model_file.parent.iterdir()) if path.is_file()]
    facts = tuple((path.name, status.st_ino, status.st_size, status.st_mtime_ns) for path, status in files)
    key = (probing.model_file, facts, settings.intra_op_threads, entries)
    return key, sum(status.st_size for _, status in files)
