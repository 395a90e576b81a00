"""@grpc/grpc-js: JavaScript over Node's own HTTP/2 (nghttp2), in a process."""

import base64
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.contract.clients.conversation import AT_ONCE, PATIENCE_SECONDS, Ask, OnBody, Outcome, ignore
from tests.contract.clients.programs import find, run

SCRIPT: Final = Path(__file__).with_name("asking.js")


def find_node() -> str:
    """Return the program, or skip the test."""
    node = find("node", "FLYWEIGHT_NODE", "Node.js")
    if run(node, "-e", "require('@grpc/grpc-js')").returncode:
        pytest.skip("@grpc/grpc-js is not there: npm install it, and name its node_modules in NODE_PATH")
    return node


class Node:
    """grpc-js, which reads what to ask from its input and writes what it heard, a line for each event."""

    packs = True

    def __init__(self, node: str) -> None:
        self._node = node

    def ask(self, address: str, asks: Sequence[Ask], on_body: OnBody = ignore) -> list[Outcome]:
        bodies: list[list[bytes]] = [[] for _ in asks]
        outcomes: dict[int, Outcome] = {}
        question = json.dumps(
            {"address": address, "atOnce": AT_ONCE, "asks": [_written(each) for each in asks]}
        )
        with subprocess.Popen(
            [self._node, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(question)
            process.stdin.close()
            for line in process.stdout:
                event = json.loads(line)
                index = event["index"]
                if "body" in event:
                    bodies[index].append(base64.b64decode(event["body"]))
                    on_body(index)
                else:
                    trailers = [_read(pair) for pair in event["trailers"]]
                    sentence = event["sentence"]
                    outcomes[index] = Outcome(event["code"], sentence, tuple(bodies[index]), trailers)
            assert process.wait(PATIENCE_SECONDS) == 0
        return [outcomes[index] for index in range(len(asks))]


def _written(ask: Ask) -> dict[str, Any]:
    return {
        "path": ask.path,
        "bodies": [_text(body) for body in ask.bodies],
        "isStream": ask.is_stream,
        "metadata": [[name, _value(value)] for name, value in ask.metadata],
        "timeoutSeconds": ask.timeout_seconds,
        "isPacked": ask.is_packed,
        "isInTurns": ask.is_in_turns,
        "cancelAfter": ask.cancel_after,
    }


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _value(value: str | bytes) -> str | dict[str, str]:
    return value if isinstance(value, str) else {"octets": _text(value)}


def _read(pair: Any) -> tuple[str, str | bytes]:
    name, value = pair
    return name, value if isinstance(value, str) else base64.b64decode(value["octets"])
