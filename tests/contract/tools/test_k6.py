"""k6, unmodified: the contracts by reflection and from the .proto, calls, streams, codes, health, load.

Each script holds its own checks, and k6 fails when one of them does.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from flyweight.protos.inference import grpc_service_pb2
from flyweight.server.app import Started

if TYPE_CHECKING:
    from conftest import Tool

pytestmark = pytest.mark.system

HERE: Final = Path(__file__).parent
# Its own address is for steering a run from outside, and its report goes to its makers.
QUIET: Final = ("run", "--quiet", "--no-usage-report", "--address=")
PROTO: Final = Path(grpc_service_pb2.__file__).with_name("grpc_service.proto")
ROOT: Final = PROTO.parents[3]
SOURCES: Final = {
    "reflection": (),
    "proto": ("-e", f"PROTO_ROOT={ROOT}", "-e", f"PROTO={PROTO.relative_to(ROOT)}"),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("script", ["calls", "streams", "arriving"])
def test_its_checks_hold(k6: "Tool", server: Started, script: str, source: str) -> None:
    printed = k6.run(*QUIET, "-e", f"ADDRESS={server.address}", *SOURCES[source], HERE / f"{script}.js")
    assert "level=error" not in printed, printed


def test_its_checks_of_health_hold(k6: "Tool", server: Started) -> None:
    """The service is not in the protocol's .proto, and so known by reflection only."""
    printed = k6.run(*QUIET, "-e", f"ADDRESS={server.address}", HERE / "health.js")
    assert "level=error" not in printed, printed


def test_its_checks_can_fail(k6: "Tool", server: Started) -> None:
    """Else the tests above would prove nothing."""
    with pytest.raises(AssertionError, match="99"):
        k6.run(*QUIET, "-e", f"ADDRESS={server.address}", "-e", "MODEL=nobody", HERE / "calls.js")
