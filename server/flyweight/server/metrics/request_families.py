"""The names, questions and labels of what is told of requests and runs."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from flyweight.server.rpc.tallies import STAGES

__all__ = ["STAGES", "WHO", "RequestFamilies"]

WHO: Final = ("model", "variant", "role")


class RequestFamilies:
    """One scrape's worth of metrics, empty."""

    def __init__(self) -> None:
        self.requests = CounterMetricFamily(
            "flyweight_requests",
            "Inference requests by the gRPC status they ended with: how much traffic, how many errors?",
            labels=(*WHO, "code"),
        )
        self.stages = HistogramMetricFamily(
            "flyweight_request_stage_seconds",
            "Time of successful requests by stage (decode, queue, run, encode, total): where does it go?",
            labels=(*WHO, "stage"),
        )
        self.rows = HistogramMetricFamily(
            "flyweight_request_rows",
            "Rows in successful requests, as their callers batched them: how large are requests?",
            labels=WHO,
        )
        self.in_flight = GaugeMetricFamily(
            "flyweight_requests_in_flight",
            "Requests that hold a variant now: is it in use, is it drained?",
            labels=WHO,
        )
        self.rejected = CounterMetricFamily(
            "flyweight_requests_rejected",
            "Requests turned away before they ran (queue_full, deadline, draining): is there overload?",
            labels=("model", "reason"),
        )
        self.run_rows = HistogramMetricFamily(
            "flyweight_run_rows", "Rows in runs of the session: do batches fill?", labels=WHO
        )
        self.run_requests = HistogramMetricFamily(
            "flyweight_run_requests", "Requests that shared a run: is batching at work?", labels=WHO
        )
        self.run_seconds = HistogramMetricFamily(
            "flyweight_run_seconds", "Time of runs, each counted once: how busy is the session?", labels=WHO
        )
        self.cache = CounterMetricFamily(
            "flyweight_response_cache_lookups",
            "Requests that the response cache was asked for (hit, miss): is it worth its memory?",
            labels=(*WHO, "outcome"),
        )

    def all(self) -> Iterator[Metric]:
        """Return every one, in the order in which they are shown."""
        yield from (self.requests, self.stages, self.rows, self.in_flight, self.rejected)
        yield from (self.run_rows, self.run_requests, self.run_seconds, self.cache)
