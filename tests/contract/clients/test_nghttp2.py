"""nghttp2's programs (C): what they see of HTTP/2 itself, and many calls on few connections.

nghttp2 ends a stream whose messages break the rules of HTTP/2, so an answer that it shows keeps them.
"""

import re
import urllib.request

import numpy as np
import pytest

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest
from flyweight.server.app import Started
from tests.contract.clients.echo import SERVICE, Echo
from tests.contract.clients.programs import find, run

pytestmark = pytest.mark.system

PACKAGE = "nghttp2-client"
HEADERS = ("-H", "content-type: application/grpc", "-H", "te: trailers")
PATH = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def message(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a file with a request of 16 KB, as gRPC carries it."""
    request = ModelInferRequest(model_name="double")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4096])
    request.raw_input_contents.append(np.ones(4096, np.float32).tobytes())
    body = request.SerializeToString()
    file = tmp_path_factory.mktemp("nghttp2") / "message"
    file.write_bytes(b"\0" + len(body).to_bytes(4, "big") + body)
    return str(file)


def answered(started: Started) -> float:
    """Return how many inferences the server counts as well ended."""
    with urllib.request.urlopen(started.metrics_url) as page:
        lines = page.read().decode().splitlines()
    wanted = ('method="ModelInfer"', 'code="OK"')
    found = [line for line in lines if line.startswith("flyweight_calls_total{")]
    return sum(float(line.split()[-1]) for line in found if all(label in line for label in wanted))


def conversation_of(address: str, path: str, message: str, *headers: str) -> str:
    """Return what nghttp saw of one call."""
    nghttp = find("nghttp", "FLYWEIGHT_NGHTTP", PACKAGE)
    done = run(nghttp, "-v", "--no-dep", *HEADERS, *headers, "-d", message, f"http://{address}{path}")
    assert done.returncode == 0, done.stderr.decode()
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout.decode(errors="replace"))


def test_an_answer_is_headers_data_and_trailers(started: Started, message: str) -> None:
    said = conversation_of(started.address, PATH, message)
    frames = "".join(re.findall(r"\] recv (HEADERS|DATA) frame", said))
    assert re.fullmatch("HEADERS(DATA)+HEADERS", frames)
    before, *_, after = said.split("recv DATA frame")
    assert ":status: 200" in before
    assert "content-type: application/grpc" in before.partition("recv ")[2]
    assert "grpc-status: 0" in after


@pytest.mark.parametrize(("accepted", "is_packed"), [("identity,gzip", True), ("identity", False)])
def test_an_answer_is_packed_for_who_says_that_it_may_be(
    packing: Echo, message: str, accepted: str, is_packed: bool, transport: str
) -> None:
    if not is_packed and transport == "grpcio":
        pytest.skip("gRPC's core packs answers also for who does not say that it understands them")
    header = f"grpc-accept-encoding: {accepted}"
    said = conversation_of(packing.address, f"{SERVICE}/Same", message, "-H", header)
    sizes = [int(size) for size in re.findall(r"recv DATA frame <length=(\d+)", said)]
    assert ("grpc-encoding: gzip" in said) is is_packed
    assert (sum(sizes) < 1000) is is_packed
    assert "grpc-status: 0" in said


@pytest.mark.parametrize("connections", [1, 16])
def test_many_calls_on_few_connections_are_all_answered(
    started: Started, message: str, connections: int
) -> None:
    h2load = find("h2load", "FLYWEIGHT_H2LOAD", PACKAGE)
    before = answered(started)
    options = ("-n", "1600", "-c", str(connections), "-m", "16", *HEADERS, "-d", message)
    done = run(h2load, *options, f"http://{started.address}{PATH}")
    said = done.stdout.decode()
    assert "1600 succeeded, 0 failed, 0 errored, 0 timeout" in said, said
    assert "1600 2xx" in said
    # It does not look at grpc-status; the server does.
    assert answered(started) - before == 1600
