"""The /metrics endpoint: plain HTTP for Prometheus to scrape."""

from prometheus_client import CollectorRegistry, start_http_server

from flyweight.server.errors import StartError


class Endpoint:
    """Serves a registry. Owns the HTTP server's thread, from construction to `close`.

    Raises:
        StartError: the address cannot be listened on.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        # A host that cannot be a name at all, such as "..", is a UnicodeError to Python's look-up.
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StartError(
                f"{host}:{port} cannot be listened on for metrics ({reason}); choose "
                "another with --metrics-port, or --metrics-port 0 for any free port."
            ) from error
        self.port = self._server.server_port

    def close(self) -> None:
        """Stop serving, and wait for the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
