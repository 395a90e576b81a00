"""Servers for clients of other stacks to ask, over the transport of the run, and these clients."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import pytest
from onnx import parser, save

from flyweight.server.app import Server, Started
from flyweight.server.settings import Compression, ServerSettings, Transport
from tests.contract.clients.conversation import Ask, Client, OnBody, Outcome, ignore
from tests.contract.clients.echo import Echo
from tests.contract.clients.envoy import find_envoy, proxied
from tests.contract.clients.over_grpc_aio import GrpcAio
from tests.contract.clients.over_grpcio import Grpcio
from tests.contract.clients.over_node import Node, find_node

Proxies: TypeAlias = Mapping[str, str]

GRAPH: Final = """<ir_version: 9, opset_import: ["" : 18]>
    double (float[n,m] x) => (float[n,m] y) { y = Add(x, x) }"""


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two versions of one model, between which the caller's key chooses."""
    root = tmp_path_factory.mktemp("repository")
    for version in ("1", "2"):
        (root / "double" / version).mkdir(parents=True)
        save(parser.parse_model(GRAPH), root / "double" / version / "model.onnx")
    # So that an answer tells whether the caller's metadata arrived.
    (root / "double" / "traffic.yaml").write_text("baseline: '1'\nsplit: {'1': 50, '2': 50}\n")
    return root


@pytest.fixture(scope="session")
def serve(repository: Path, transport: str) -> Iterator[Callable[[], tuple[Server, Started]]]:
    """Return a function that starts a server of the model "double"."""
    servers: list[Server] = []

    def start() -> tuple[Server, Started]:
        settings = ServerSettings(
            repository, port=0, metrics_port=0, transport=Transport(transport), max_in_flight=512
        )
        servers.append(Server(settings))
        return servers[-1], servers[-1].start()

    yield start
    for server in servers:
        server.stop(at_once=True)


@pytest.fixture(scope="session")
def started(serve: Callable[[], tuple[Server, Started]]) -> Started:
    return serve()[1]


@pytest.fixture(scope="session")
def echo(transport: str) -> Iterator[Echo]:
    server = Echo(Transport(transport))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def packing(transport: str) -> Iterator[Echo]:
    """Return a server that packs its answers for who understands gzip."""
    server = Echo(Transport(transport), Compression.GZIP)
    yield server
    server.stop()


def _grpclib() -> Client:
    pytest.importorskip("grpclib", reason="grpclib is not there: pip install it")
    from tests.contract.clients.over_grpclib import Grpclib

    return Grpclib()


class _Proxied:
    """A client who asks the proxies of servers in the place of the servers."""

    def __init__(self, client: Client, addresses: Mapping[str, str]) -> None:
        self._client = client
        self._addresses = addresses
        self.packs = client.packs

    def ask(self, address: str, asks: Sequence[Ask], on_body: OnBody = ignore) -> list[Outcome]:
        return self._client.ask(self._addresses[address], asks, on_body)


@pytest.fixture(scope="session")
def proxies(
    echo: Echo, packing: Echo, started: Started, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxies]:
    """Return the address of Envoy before each server, by that server's."""
    servers = [echo.address, packing.address, started.address]
    with proxied(find_envoy(), [[each] for each in servers], tmp_path_factory.mktemp("envoy")) as addresses:
        yield dict(zip(servers, addresses, strict=True))


_CLIENTS: Final[dict[str, Callable[[], Client]]] = {
    "grpcio": Grpcio,
    "grpc.aio": GrpcAio,
    "grpclib": _grpclib,
    "node": lambda: Node(find_node()),
}


@pytest.fixture(scope="session", params=[*_CLIENTS, "envoy"])
def client(request: pytest.FixtureRequest) -> Client:
    """Return one client after the other, at last grpcio's through Envoy."""
    make = _CLIENTS.get(request.param)
    return _Proxied(Grpcio(), request.getfixturevalue("proxies")) if make is None else make()
