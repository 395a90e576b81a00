"""What the server measures, in one Prometheus registry, and the endpoint that shows it."""

from flyweight.server.metrics.endpoint import Endpoint, Probes
from flyweight.server.metrics.registry import Metrics

__all__ = ["Endpoint", "Metrics", "Probes"]
