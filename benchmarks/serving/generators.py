"""The two load generators behind one call: h2load, a program in C, where there is one, else our own.

Both run in a process of their own, whose processor time is measured: one that is near a whole processor was
the bottleneck. h2load does not see grpc-status; an answer that failed has no message, so the bytes of data
that came say how many there were.
"""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from benchmarks.serving.asking import Question
from benchmarks.serving.frames import grpc_message
from benchmarks.serving.load import CALLERS_OF_A_CONNECTION
from benchmarks.serving.percentiles import percentile

_OVERHEAD_SECONDS: Final = 60.0
_DATA_BYTES: Final = re.compile(r"\((\d+)\) data")
_REQUESTS: Final = re.compile(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one turn of load saw.

    Attributes:
        answers: that were right by their status and size.
        errors: whatever else came, or did not.
        seconds: from the first question to the last answer.
        p50_us, p99_us: of an answer, microseconds.
        load_cpu_share: processor time of the generator per second.
    """

    answers: int
    errors: int
    seconds: float
    p50_us: float
    p99_us: float
    load_cpu_share: float


class Generator(Protocol):
    """Keeps so many callers asking for so many seconds."""

    name: str

    def takes(self, question: Question) -> bool:
        """Tell whether it can send this question."""
        ...

    def run(
        self, address: str, question: Question, answer_bytes: int, callers: int, seconds: float
    ) -> Sample:
        """Ask, and return what came; `answer_bytes` is the size of a right answer's message."""
        ...


class Own:
    """Our own generator; gRPC only.

    Args:
        fresh: see `frames.Connection`.
    """

    def __init__(self, *, fresh: bool = False) -> None:
        self._fresh = fresh
        self.name = "our own (benchmarks/serving/load.py)" + (", fresh headers" if fresh else "")

    def takes(self, question: Question) -> bool:
        """Tell whether the question goes over gRPC."""
        return question.is_grpc

    def run(
        self, address: str, question: Question, answer_bytes: int, callers: int, seconds: float
    ) -> Sample:
        """Run it as a process, and read its line."""
        del answer_bytes
        with tempfile.NamedTemporaryFile() as body:
            body.write(question.body)
            body.flush()
            options = ["--callers", str(callers), "--seconds", str(seconds)]
            options += ["--fresh-headers"] if self._fresh else []
            module = [sys.executable, "-m", "benchmarks.serving.load"]
            output, cpu = _run([*module, address, question.path, body.name, *options], seconds)
        found = json.loads(output)
        errors = sum(found["failures"].values()) + found["odd_sizes"]
        share = cpu / (found["seconds"] or seconds)
        times = found["p50_us"], found["p99_us"]
        return Sample(found["answers"] - found["odd_sizes"], errors, found["seconds"], *times, share)


class H2load:
    """nghttp2's h2load."""

    name = "h2load"

    def takes(self, question: Question) -> bool:
        """Tell that every question can be sent."""
        del question
        return True

    def run(
        self, address: str, question: Question, answer_bytes: int, callers: int, seconds: float
    ) -> Sample:
        """Run it, and read its log of requests: start, HTTP status and microseconds of each."""
        with tempfile.TemporaryDirectory() as folder:
            body, log = Path(folder) / "body", Path(folder) / "log"
            body.write_bytes(grpc_message(question.body) if question.is_grpc else question.body)
            command = ["h2load", "-D", str(max(1, round(seconds))), "-d", str(body), "--log-file", str(log)]
            command += _shape(question, callers)
            output, cpu = _run([*command, f"http://{address}{question.path}"], seconds)
            lines = log.read_text(encoding="ascii").splitlines() if log.exists() else []
        return _read(output, lines, answer_bytes + (5 if question.is_grpc else 0), callers, cpu)


def _shape(question: Question, callers: int) -> list[str]:
    """Return h2load's options for so many callers."""
    if not question.is_grpc:
        kind = "application/json" if question.body[:1] == b"{" else "application/octet-stream"
        return ["--h1", "-c", str(callers), "-H", f"content-type: {kind}"]
    connections = max(1, callers // CALLERS_OF_A_CONNECTION)
    streams = callers // connections
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    return ["-c", str(connections), "-m", str(streams), *headers]


def _read(output: str, lines: list[str], answer_bytes: int, callers: int, cpu: float) -> Sample:
    """Return what h2load's summary and log say."""
    rows = [line.split("\t") for line in lines]
    good = [row for row in rows if row[1] == "200"]
    microseconds = [float(row[2]) for row in good]
    starts = [int(row[0]) for row in rows]
    ends = [int(row[0]) + int(row[2]) for row in rows]
    seconds = (max(ends) - min(starts)) / 1e6 if rows else 1.0
    errors = len(rows) - len(good)
    data = _DATA_BYTES.search(output)
    requests = _REQUESTS.search(output)
    if data is not None and requests is not None:
        errors = max(errors, int(requests[1]) - int(requests[2]))
        # Those under way when time is up have come in part.
        missing = len(good) - int(data[1]) // answer_bytes
        errors += missing if missing > callers else 0
    answers = max(0, len(rows) - errors)
    times = percentile(microseconds, 50), percentile(microseconds, 99)
    return Sample(answers, errors, seconds, *times, cpu / seconds)


def _run(command: list[str], seconds: float) -> tuple[str, float]:
    """Return what a command prints, and the processor time it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + _OVERHEAD_SECONDS,
        env=os.environ,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def choose(name: str, *, fresh: bool = False) -> Generator:
    """Return the generator of that name; "auto" is h2load where it is installed, and repeats its headers."""
    if fresh:
        return Own(fresh=True)
    if name == "own" or (name == "auto" and shutil.which("h2load") is None):
        return Own()
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed (Debian: nghttp2-client); --load own needs nothing.")
    return H2load()
