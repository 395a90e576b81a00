r"""What serving costs: onnxruntime alone, bare gRPC servers, flyweight, and other servers, in one run.

    python -m benchmarks.serving                              a table for each of five networks
    python -m benchmarks.serving --quick                      one network, two rounds: a minute
    python -m benchmarks.serving --models mlp --fresh-headers  calls whose headers never repeat
    python -m benchmarks.serving --peers all --environments DIR

Servers are on one processor, the load is on another. All servers are up for the whole run and take turns,
round after round; figures are medians over the rounds, ratios medians of the ratios inside a round: read
those. CPU is that of the server's processes per answer, and stands even where something else is slow.
"load CPU" is the load generator's share of its processor: at 100 % it was the bottleneck.

Peers are made once, each in an environment of its own below --environments (or $FLYWEIGHT_BENCH_PEERS).
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc
import onnxruntime

from benchmarks.serving import environments
from benchmarks.serving.contenders import contenders
from benchmarks.serving.environments import PEERS, NotInstalledError
from benchmarks.serving.generators import choose
from benchmarks.serving.measuring import Plan, measure
from benchmarks.serving.networks import NETWORKS, answer_of, write
from benchmarks.serving.processes import end_servers_on_sigterm
from benchmarks.serving.tables import document, show


def main() -> None:
    """Measure, and print one table for each network."""
    end_servers_on_sigterm()
    given = parse()
    if given.isolated and "_FLYWEIGHT_ISOLATED" not in os.environ:
        isolate()
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        raise SystemExit("Two processors are needed: one for the servers, one for the load.")
    failed = install(given)
    generator = choose(given.load, fresh=given.fresh_headers)
    where = {"cpu": cpu_name(), "grpcio": grpc.__version__, "onnxruntime": onnxruntime.__version__}
    where |= {"load": generator.name, "peers": failed}
    print(", ".join(f"{key} {value}" for key, value in where.items() if value))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="flyweight-bench-") as work:
        plan = Plan(
            given.rounds,
            given.seconds,
            given.callers,
            processors[:1],
            processors[1:2],
            generator,
            Path(work),
        )
        if given.unpinned:
            plan = Plan(
                given.rounds, given.seconds, given.callers, processors, processors, generator, Path(work)
            )
        for name in given.models:
            network = NETWORKS[name]
            # A repository of its own: a server holds this network and no other.
            model = write(network, (given.cache or Path(work)) / f"only-{name}")
            expected = answer_of(network, model)
            entrants = contenders(
                network,
                model,
                expected,
                given.peers,
                given.environments,
                processors=len(plan.server_processors),
            )
            if given.only:
                entrants = [one for one in entrants if any(part in one.title for part in given.only)]
            result = measure(network, model, entrants, plan)
            show(result)
            found[name] = document(result)
    if given.json:
        given.json.write_text(json.dumps({**where, "models": found}, indent=2) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    home = os.environ.get("FLYWEIGHT_BENCH_PEERS", "")
    parser.add_argument("--models", type=names(NETWORKS), default=list(NETWORKS), metavar="A,B")
    parser.add_argument(
        "--peers", type=names(PEERS), default=[], metavar="A,B", help=f"all, or {','.join(PEERS)}"
    )
    parser.add_argument("--environments", type=Path, default=Path(home) if home else None, metavar="DIR")
    parser.add_argument("--peer-python", action="append", default=[], metavar="PEER=PYTHON",
                        help="the interpreter to make a peer's environment with")  # fmt: skip
    parser.add_argument(
        "--isolated", action="store_true", help="in a network namespace (Linux): Ray needs it"
    )
    parser.add_argument("--only", action="append", help="contenders whose title has this; may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one turn")
    parser.add_argument(
        "--callers", type=lambda text: [int(word) for word in text.split(",")], default=[1, 8, 32]
    )
    parser.add_argument("--unpinned", action="store_true", help="servers and load share all processors")
    parser.add_argument("--load", choices=("auto", "h2load", "own"), default="auto")
    parser.add_argument(
        "--fresh-headers",
        action="store_true",
        help="each call has a traceparent and a grpc-timeout of its own (--load own)",
    )
    parser.add_argument("--quick", action="store_true", help="the first network, two rounds of one second")
    parser.add_argument("--cache", type=Path, help="folder in which networks are kept between runs")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    given = parser.parse_args()
    if given.quick:
        given.models, given.rounds, given.seconds = given.models[:1], 2, 1.0
    if given.peers and given.environments is None:
        parser.error("--peers needs --environments DIR, or $FLYWEIGHT_BENCH_PEERS")
    if given.environments is not None:
        given.environments = given.environments.absolute()
    return given


def names(known: dict[str, Any]) -> Any:
    """Return a reader of names that are separated by commas; "all" stands for every one."""

    def read(text: str) -> list[str]:
        chosen = list(known) if text == "all" else text.split(",")
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(known)}")
        return chosen

    return read


def install(given: argparse.Namespace) -> dict[str, str]:
    """Make the peers' environments that are not there; return why some could not be made."""
    pythons = dict(word.split("=", 1) for word in given.peer_python)
    failed: dict[str, str] = {}
    for name in given.peers:
        try:
            environments.install(PEERS[name], given.environments, pythons)
        except NotInstalledError as error:
            failed[name] = str(error)
    return failed


def isolate() -> None:
    """Go on in a network namespace in which there is nothing but the loopback."""
    if shutil.which("unshare") is None:
        raise SystemExit("--isolated needs unshare, of util-linux.")
    again = [sys.executable, "-m", "benchmarks.serving", *sys.argv[1:]]
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    script = 'ip link set lo up && exec "$@"'
    os.environ["_FLYWEIGHT_ISOLATED"] = "1"
    os.execvp("unshare", ["unshare", "--net", *user, "--", "sh", "-c", script, "sh", *again])  # noqa: S606, S607


def cpu_name() -> str:
    """Return what the kernel calls the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()} x {os.cpu_count()}"
    return f"unknown x {os.cpu_count()}"


if __name__ == "__main__":
    main()
