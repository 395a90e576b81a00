"""Envoy as a proxy: one listener for each cluster of servers, over HTTP/2 both ways."""

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.contract.clients.conversation import PATIENCE_SECONDS
from tests.contract.clients.programs import find

_TYPE: Final = "type.googleapis.com/envoy.extensions"
_LOOK_SECONDS: Final = 0.05


def find_envoy() -> str:
    """Return the program, or skip the test."""
    return find("envoy", "FLYWEIGHT_ENVOY", "Envoy")


@contextmanager
def proxied(envoy: str, clusters: Sequence[Sequence[str]], folder: Path) -> Iterator[list[str]]:
    """Run Envoy before clusters of servers, each "host:port"; yield its address for each cluster."""
    (folder / "envoy.json").write_text(json.dumps(_configuration(clusters)))
    admin = folder / "admin"
    command = [envoy, "-c", str(folder / "envoy.json"), "--admin-address-path", str(admin)]
    # No shared memory and no hot restart: others of its kind may run.
    command += ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    with (
        (folder / "envoy.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            yield _await_listeners(process, admin, len(clusters))
        finally:
            process.terminate()


def _await_listeners(process: "subprocess.Popen[bytes]", admin: Path, count: int) -> list[str]:
    """Return the listeners' addresses once Envoy serves."""
    for _ in range(round(PATIENCE_SECONDS / _LOOK_SECONDS)):
        try:
            found = json.loads(_get(f"http://{admin.read_text()}/listeners?format=json"))
            listeners = {each["name"]: each["local_address"] for each in found["listener_statuses"]}
            if len(listeners) == count and _get(f"http://{admin.read_text()}/ready").startswith(b"LIVE"):
                ports = [listeners[str(number)]["socket_address"]["port_value"] for number in range(count)]
                return [f"127.0.0.1:{port}" for port in ports]
        except (FileNotFoundError, ValueError, KeyError, urllib.error.URLError):
            pass
        try:
            process.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError("Envoy does not serve; its log is beside its configuration.")


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
        body: bytes = answer.read()
    return body


def _configuration(clusters: Sequence[Sequence[str]]) -> dict[str, Any]:
    return {
        "admin": {"address": _address("127.0.0.1:0")},
        "static_resources": {
            "listeners": [_listener(str(number)) for number in range(len(clusters))],
            "clusters": [_cluster(str(number), servers) for number, servers in enumerate(clusters)],
        },
    }


def _listener(name: str) -> dict[str, Any]:
    route = {
        "cluster": name,
        "timeout": "0s",
        "retry_policy": {
            "retry_on": "unavailable,reset,connect-failure,refused-stream",
            "num_retries": 4,
            # Elsewhere than where it failed.
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {"@type": f"{_TYPE}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                }
            ],
            "host_selection_retry_max_attempts": 5,
        },
    }
    router = {"@type": f"{_TYPE}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "HTTP2",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
            ]
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"name": name, "address": _address("127.0.0.1:0"), "filter_chains": [{"filters": filters}]}


def _cluster(name: str, servers: Sequence[str]) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": _address(server)}} for server in servers]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        # By itself it has three retries under way at one time, and gives up on the others.
        "circuit_breakers": {"thresholds": [{"max_retries": 1024}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
