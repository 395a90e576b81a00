"""Everything that is measured, and how each is started."""

import base64
import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving import environments
from benchmarks.serving.asking import Question, await_answer, grpc_question, http_question
from benchmarks.serving.environments import NotInstalledError, Peer
from benchmarks.serving.networks import Network
from benchmarks.serving.processes import Process, free_port, on_processors

START_SECONDS: Final = 60.0
RAW: Final = "onnxruntime alone"
BARE: Final = "bare grpcio, threads"
FLYWEIGHT: Final = "flyweight"
FLYWEIGHT_GRPCIO: Final = "flyweight, grpcio"
FLYWEIGHT_PROCESS: Final = "flyweight, process runtime"
FLYWEIGHT_ALONE: Final = "flyweight, one run at a time"


@dataclass(frozen=True, slots=True)
class Contender:
    """A server to be measured.

    Attributes:
        title: in tables.
        command: that starts it, with {port} in it.
        question: it is asked.
        missing: why it cannot be started; empty when it can.
        is_restless: it works also when nobody asks, so it runs only when it is its turn.
    """

    title: str
    command: tuple[str, ...]
    question: Question
    missing: str = ""
    is_restless: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """A contender that answers."""

    contender: Contender
    process: Process
    address: str
    answer_bytes: int


def flyweight_command(repository: Path, *options: str) -> tuple[str, ...]:
    """Return the command that serves a repository on {port}."""
    program = str(Path(sys.executable).with_name("flyweight"))
    ports = ("--port", "{port}", "--metrics-port", "0")
    return (program, "serve", str(repository), *ports, "--threads", "1", *options)


def contenders(
    network: Network,
    model: Path,
    expected: NDArray[np.float32],
    peers: Collection[str],
    folder: Path,
    *,
    processors: int = 1,
) -> list[Contender]:
    """Return everything that serves `model` on so many processors, in the order of the table."""
    ours = grpc_question(network, expected)
    module = (sys.executable, "-m", "benchmarks.serving.bare")
    repository = model.parents[2]
    found = [
        Contender(BARE, (*module, "threads", str(model), "{port}"), ours),
        Contender("bare grpc.aio", (*module, "aio", str(model), "{port}"), ours),
        Contender(FLYWEIGHT, flyweight_command(repository), ours),
        Contender(FLYWEIGHT_GRPCIO, flyweight_command(repository, "--transport", "grpcio"), ours),
        Contender(FLYWEIGHT_PROCESS, flyweight_command(repository, "--runtime", "process"), ours),
    ]
    if processors > 1:
        # What a second run in flight is worth.
        found.append(Contender(FLYWEIGHT_ALONE, flyweight_command(repository, "--max-running", "1"), ours))
    return found + [_of_peer(environments.PEERS[name], network, model, expected, folder) for name in peers]


def _of_peer(
    peer: Peer, network: Network, model: Path, expected: NDArray[np.float32], folder: Path
) -> Contender:
    question = grpc_question(network, expected)
    if peer.path is not None:
        question = http_question(network, expected, peer.path)
    if peer.form == "base64":
        body = json.dumps({"x": base64.b64encode(question.body).decode()}).encode()
        question = replace(question, body=body)
    try:
        python = str(environments.find(peer, folder))
    except NotInstalledError as error:
        return Contender(peer.title, (), question, str(error))
    command = (python, str(peer.runner), str(model), network.name, "{port}")
    return Contender(peer.title, command, question, is_restless=peer.is_restless)


def start(
    contender: Contender, folder: Path, processors: Collection[int], extra: Mapping[str, str] | None = None
) -> Running:
    """Start a contender on some processors, and wait for its first right answer.

    Raises:
        NotServingError: it did not give one.
    """
    port = free_port()
    command = [word.format(port=port) for word in contender.command]
    with on_processors(processors):
        process = Process(command, folder / f"{port}.log", dict(extra or {}))
    address = f"127.0.0.1:{port}"
    try:
        size = await_answer(address, contender.question, START_SECONDS, lambda: process.has_ended)
    except BaseException:
        process.end()
        raise
    return Running(contender, process, address, size)
