"""NVIDIA's perf_analyzer, unmodified: every way in which it can ask a server over gRPC.

Its own figures of the server, from ModelStatistics, must agree with what it sent.
"""

import re
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trustme

from flyweight.server.app import Started
from flyweight.server.settings import TlsFiles

if TYPE_CHECKING:
    from conftest import Tool

pytestmark = pytest.mark.system

REQUESTS: Final = 100
# Without a number of requests it goes on until three windows agree, which on a busy machine is never: here
# any three do.
SEVERAL: Final = ("--measurement-mode", "count_windows", "--measurement-request-count", "100", "-s", "999")
ONE: Final = ("--request-count", str(REQUESTS))
SHARED: Final = ("--shared-memory", "system", "--output-shared-memory-size", "4096")

WAYS: Final = {
    "one after the other": ("-m", "double", "--sync", *ONE),
    "several threads": ("-m", "double", "--sync", "--concurrency-range", "1:9:8", *SEVERAL),
    "up to 32 at once": ("-m", "double", "--async", "--concurrency-range", "1:32:31", *SEVERAL),
    "streams": ("-m", "double", "--streaming", "--concurrency-range", "16", *ONE),
    "constant rate": ("-m", "double", "--request-rate-range", "100", *ONE),
    "random rate": ("-m", "double", "--request-rate-range", "100", "--request-distribution", "poisson", *ONE),
    "a version": ("-m", "double", "-x", "1", *ONE),
    "eight rows": ("-m", "double", "-b", "8", "--async", "--concurrency-range", "4", *ONE),
    "two tensors each way": ("-m", "sums", "-b", "3", *ONE),
    "no batch axis": ("-m", "fixed", *ONE),
    "strings": ("-m", "strings", "--string-length", "20", *ONE),
    "compressed": ("-m", "double", "--grpc-compression-algorithm", "gzip", *ONE),
    "shared inputs": ("-m", "sums", "--shared-memory", "system", *ONE),
    "shared inputs and outputs": ("-m", "sums", *SHARED, "--async", "--concurrency-range", "4", *ONE),
    "shared, in streams": ("-m", "sums", *SHARED, "--streaming", "--concurrency-range", "4", *ONE),
    "sequences": ("-m", "counter", "--concurrency-range", "4", "--sequence-length", "10", *ONE),
    "sequences in streams": ("-m", "counter", "--streaming", "--concurrency-range", "4", *ONE),
    "sequences at a rate": ("-m", "counter", "--request-rate-range", "100", "--num-of-sequences", "4", *ONE),
    "an ensemble": ("-m", "chain", "-b", "2", *ONE),
    "a response cache": ("-m", "cached", "--input-data", "zero", *ONE),
    "traced": ("-m", "double", "--trace-level", "TIMESTAMPS", "--trace-rate", "10", *ONE),
}


def figures(printed: str, name: str) -> list[int]:
    """Return a figure that it prints of every measurement."""
    return [int(found) for found in re.findall(rf"^ +{name}: (\d+)", printed, re.MULTILINE)]


def rows_of(arguments: Sequence[str]) -> int:
    return int(arguments[arguments.index("-b") + 1]) if "-b" in arguments else 1


@pytest.mark.parametrize("way", WAYS)
def test_it_measures(perf_analyzer: "Tool", server: Started, way: str) -> None:
    arguments = WAYS[way]
    printed = perf_analyzer.run("-u", server.address, "-i", "grpc", *arguments)
    sent, succeeded = figures(printed, "Request count"), figures(printed, "Successful request count")
    assert sent
    assert all(count >= REQUESTS for count in [*sent, *succeeded]), printed
    if "cached" not in arguments:
        rows = rows_of(arguments)
        assert figures(printed, "Inference count") == [rows * count for count in succeeded], printed
    assert all(
        0 < runs <= count for runs, count in zip(figures(printed, "Execution count"), succeeded, strict=True)
    )


def test_it_leaves_no_region_registered_and_says_nothing_of_it(
    perf_analyzer: "Tool", server: Started, regions: Callable[[], Sequence[str]]
) -> None:
    """It forgets the regions of CUDA too, which it never registered."""
    printed = perf_analyzer.run("-u", server.address, "-i", "grpc", "-m", "sums", *SHARED, *ONE)
    assert "Unable to unregister" not in printed
    assert not regions()


def test_it_tells_the_steps_of_an_ensemble_apart(perf_analyzer: "Tool", server: Started) -> None:
    printed = perf_analyzer.run("-u", server.address, "-i", "grpc", "-m", "chain", *ONE)
    whole, *steps = figures(printed, "Successful request count")
    assert steps == [whole, whole], printed
    assert "  double, version: 1\n" in printed
    assert "  square, version: 1\n" in printed


def test_it_tells_hits_of_the_cache(perf_analyzer: "Tool", server: Started) -> None:
    arguments = ("-u", server.address, "-i", "grpc", "-m", "cached", "--input-data", "zero", *ONE)
    perf_analyzer.run(*arguments)
    printed = perf_analyzer.run(*arguments)
    assert figures(printed, "Cache hit count") == figures(printed, "Successful request count"), printed
    assert figures(printed, "Cache miss count") == figures(printed, "Inference count") == [0]


def test_it_reads_metrics_under_tritons_names(perf_analyzer: "Tool", server: Started, tmp_path: Path) -> None:
    """It knows those of GPUs only, and says that there are none."""
    table = tmp_path / "figures.csv"
    metrics = ("--collect-metrics", "--metrics-url", server.metrics_url, "--verbose-csv", "-f", table)
    printed = perf_analyzer.run("-u", server.address, "-i", "grpc", "-m", "double", *metrics, *ONE)
    assert "Server Prometheus Metrics" in printed
    assert "Server Compute Infer" in table.read_text()


def test_it_asks_over_tls_with_a_token(
    perf_analyzer: "Tool", serve: Callable[..., Started], tmp_path: Path
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    paths = [tmp_path / name for name in ("server.crt", "server.key", "ca.crt")]
    certificate.cert_chain_pems[0].write_to_path(paths[0])
    certificate.private_key_pem.write_to_path(paths[1])
    authority.cert_pem.write_to_path(paths[2])
    digest = sha256(b"secret").hexdigest()
    access = tmp_path / "access.yaml"
    access.write_text(f"callers: [{{name: load, roles: [infer, observe], tokens_sha256: [{digest}]}}]\n")
    port = serve(tls=TlsFiles(paths[0], paths[1]), access=access).address.rpartition(":")[2]
    printed = perf_analyzer.run(
        *("-u", f"localhost:{port}", "-i", "grpc", "-m", "double", "-H", "authorization:Bearer secret"),
        *("--ssl-grpc-use-ssl", "--ssl-grpc-root-certifications-file", paths[2], *ONE),
    )
    assert figures(printed, "Successful request count") == [REQUESTS], printed
