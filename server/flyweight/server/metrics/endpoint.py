"""Plain HTTP beside gRPC: /metrics for Prometheus, /healthz and /readyz for whoever probes.

Probes here work where those of gRPC do not: with TLS, client certificates, tokens. They say yes or no and
nothing else, so they are open to all, as gRPC's health is.
"""

import logging
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from flyweight.server.errors import StartError

_log = logging.getLogger(__name__)

# A scrape or a probe is one short line, and Prometheus gives up after ten seconds.
_PATIENCE_SECONDS: Final = 10.0
_TEXT: Final = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]


def _yes() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Probes:
    """What the probes are told: whether the server works at all, and whether it takes requests."""

    is_live: Callable[[], bool] = _yes
    is_ready: Callable[[], bool] = _yes


class Endpoint:
    """Serves a registry and the probes. Owns the HTTP server's threads, from construction to `close`.

    Raises:
        StartError: the address cannot be listened on.
    """

    def __init__(
        self, registry: CollectorRegistry, host: str, port: int, probes: Probes | None = None
    ) -> None:
        app = _with_probes(make_wsgi_app(registry), probes or Probes())
        try:
            self._server = _listen(host, port, app)
        # A host that cannot be a name at all, such as "..", is a UnicodeError to Python's look-up.
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StartError(
                f"{host}:{port} cannot be listened on for metrics ({reason}); choose "
                "another with --metrics-port, or --metrics-port 0 for any free port."
            ) from error
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving, and wait for the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    """Has a thread for each request: a scrape that is slow to read keeps no probe waiting."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Say in one line that a peer went away or said nothing, which is all that goes wrong out here."""
        _log.debug("A request to /metrics ended early.", exc_info=True)


class _Handler(WSGIRequestHandler):
    # Of the socket: who connects and says nothing holds a thread.
    timeout = _PATIENCE_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its base's name
        """Log nothing: probes come every few seconds."""


def _listen(host: str, port: int, app: WSGIApplication) -> WSGIServer:
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]

    class OfFamily(_Server):
        address_family = family

    return make_server(str(address[0]), port, app, OfFamily, _Handler)


def _with_probes(metrics: WSGIApplication, probes: Probes) -> WSGIApplication:
    asked = {"/healthz": probes.is_live, "/readyz": probes.is_ready}

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        question = asked.get(environ["PATH_INFO"])
        if question is None:
            return metrics(environ, start_response)
        is_so = question()
        start_response("200 OK" if is_so else "503 Service Unavailable", _TEXT)
        return [b"ok\n" if is_so else b"no\n"]

    return answer
