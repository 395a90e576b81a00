r"""A thousand swaps of a small variant under load: every request is accounted for.

    python -m benchmarks.serving.swaps [--swaps 1000] [--callers 8]

A version is published by rename, serves when it is ready, and the one before is taken away at once. The load
sends no request again: whatever is not an answer is lost.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.arriving import Versions
from benchmarks.serving.asking import grpc_question
from benchmarks.serving.contenders import Contender, flyweight_command, start
from benchmarks.serving.networks import NETWORKS, answer_of, write
from benchmarks.serving.processes import end_servers_on_sigterm
from flyweight.client import Client

_TURN_SECONDS: Final = 10.0
_PATIENCE_SECONDS: Final = 60.0


def swap_under_load(given: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Swap, and return what became of the requests."""
    network = NETWORKS["mlp"]
    source = write(network, work / "source")
    repository = work / "repository"
    repository.mkdir()
    versions = Versions(source, repository, network.name)
    expected = answer_of(network, source)
    question = grpc_question(network, expected)
    body = work / "body"
    body.write_bytes(question.body)
    command = flyweight_command(repository, "--runtime", given.runtime)
    running = start(Contender("flyweight", command, question), work, os.sched_getaffinity(0))
    load = [sys.executable, "-m", "benchmarks.serving.load", running.address, question.path, str(body)]
    load += ["--callers", str(given.callers), "--seconds", str(_TURN_SECONDS)]
    total: dict[str, Any] = {"swaps": 0, "answers": 0, "failures": {}}
    before, began = running.process.memory(), time.monotonic()
    try:
        with Client(running.address) as client:
            while total["swaps"] < given.swaps:
                _turn(load, versions, client, given.swaps, total)
        after = running.process.memory()
    finally:
        running.process.end()
    total["seconds"] = time.monotonic() - began
    total["pss_growth_megabytes"] = after.pss_megabytes - before.pss_megabytes
    return total


def _turn(load: list[str], versions: Versions, client: Client, wanted: int, total: dict[str, Any]) -> None:
    """Swap as long as one run of the load goes on."""
    process = subprocess.Popen(load, stdout=subprocess.PIPE, text=True)
    while process.poll() is None and total["swaps"] < wanted:
        versions.swap(client)
        total["swaps"] += 1
    output, _ = process.communicate(timeout=_PATIENCE_SECONDS)
    found = json.loads(output)
    total["answers"] += found["answers"]
    for status, count in found["failures"].items():
        total["failures"][status] = total["failures"].get(status, 0) + count


def main() -> None:
    """Swap, and print."""
    end_servers_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--runtime", choices=("inline", "process"), default="inline")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flyweight-bench-") as work:
        found = swap_under_load(given, Path(work))
    lost = sum(found["failures"].values())
    print(
        f"{found['swaps']} swaps in {found['seconds']:.0f} s: {found['answers']} answers, {lost} lost"
        f" {found['failures'] or ''}; PSS grew by {found['pss_growth_megabytes']:.1f} MB"
    )
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
