r"""From the start of a server to its first right answer, one small model; and what it holds when idle.

    python -m benchmarks.serving.first_answer [--rounds 7] [--peers all --environments DIR]

The clock starts when the process is made and stops when a ModelInfer is answered rightly; the port is tried
every two milliseconds. Medians over rounds in turns, after one that does not count: it leaves behind the
bytecode of Python's modules, as an installation does, and a model that was not copied just now.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.serving.asking import NotServingError, ask
from benchmarks.serving.contenders import Contender, contenders
from benchmarks.serving.environments import PEERS
from benchmarks.serving.networks import NETWORKS, answer_of, write
from benchmarks.serving.processes import Memory, Process, end_servers_on_sigterm, free_port, is_listening

_LOOK_SECONDS: Final = 0.002
_PATIENCE_SECONDS: Final = 60.0
# What a server does after its first answer, measuring its models for instance, is over by then.
_IDLE_SECONDS: Final = 2.0


def measure(contender: Contender, folder: Path) -> tuple[float, Memory]:
    """Return the seconds to the first answer, and the memory held after a while.

    Raises:
        NotServingError: it did not come.
    """
    port = free_port()
    began = time.monotonic()
    command = [word.format(port=port) for word in contender.command]
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    process = Process(command, folder / "log", bytecode)
    try:
        while True:
            if is_listening(port):
                try:
                    ask(f"127.0.0.1:{port}", contender.question)
                    break
                except NotServingError:
                    pass
            if process.has_ended or time.monotonic() - began > _PATIENCE_SECONDS:
                raise NotServingError(f"{contender.title} did not answer")
            time.sleep(_LOOK_SECONDS)
        seconds = time.monotonic() - began
        time.sleep(_IDLE_SECONDS)
        return seconds, process.memory()
    finally:
        process.end()


def main() -> None:
    """Measure, and print a table."""
    end_servers_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", default="")
    parser.add_argument(
        "--environments", type=Path, default=Path(os.environ.get("FLYWEIGHT_BENCH_PEERS", "."))
    )
    given = parser.parse_args()
    peers = list(PEERS) if given.peers == "all" else [name for name in given.peers.split(",") if name]
    network = NETWORKS["mlp"]
    with tempfile.TemporaryDirectory(prefix="flyweight-bench-") as work:
        model = write(network, Path(work) / "repository")
        expected = answer_of(network, model)
        entrants = contenders(network, model, expected, peers, given.environments.absolute())
        found: dict[str, list[tuple[float, Memory]]] = {}
        for _ in range(given.rounds + 1):
            for entrant in entrants:
                if not entrant.missing:
                    found.setdefault(entrant.title, []).append(measure(entrant, Path(work)))
    print(f"{network.title}: {given.rounds} rounds, medians")
    print(f"{'':30}{'first answer, s':>16}{'idle RSS MB':>13}{'idle PSS MB':>13}")
    for title, (_, *rows) in found.items():
        seconds = statistics.median(row[0] for row in rows)
        rss = statistics.median(row[1].rss_megabytes for row in rows)
        pss = statistics.median(row[1].pss_megabytes for row in rows)
        print(f"{title:30}{seconds:16.2f}{rss:13.0f}{pss:13.0f}")
    for entrant in entrants:
        if entrant.missing:
            print(f"{entrant.title:30} {entrant.missing}")


if __name__ == "__main__":
    main()
