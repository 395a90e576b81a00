"""Scrapes, requests, loads and unloads at the same time raise nothing and lose nothing."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from flyweight.server.errors import Code
from flyweight.server.lifecycle.table import RoutingTable
from flyweight.server.metrics import Metrics
from flyweight.server.rpc.records import Answerer, Record, Rejection
from flyweight.server.runtime.usage import Usage

ROUNDS, VARIANTS = 300, 5


def test_nothing_is_raised_and_nothing_lost(table_of: Callable[..., RoutingTable]) -> None:
    metrics = Metrics()
    over = threading.Event()

    def come_and_go(name: str) -> None:
        model = f"model-{name}"
        for _ in range(ROUNDS):
            table = table_of(model, **{name: Usage(1, own_pss_bytes=2, cpu_seconds=0.5)})
            metrics.on_load(table.models[model].variants[name], 0.1)
            metrics.on_table(table)
            metrics.on_load_failed(model, "broken", "It is broken.", 0.1)
            metrics.on_table(RoutingTable())
            metrics.on_unload(model, name)
            metrics.on_scan(ok=True)

    def ask(name: str) -> None:
        answerer = Answerer("tiny", name, "candidate")
        for number in range(ROUNDS):
            metrics.requests.begin(answerer)
            full = number % 3 == 0
            record = Record(answerer=answerer, rows=1, batch_rows=1, batch_requests=1, leads_run=not full)
            if full:
                record.code, record.rejection = Code.RESOURCE_EXHAUSTED, Rejection.QUEUE_FULL
            metrics.requests.record(record)
            metrics.requests.end(answerer)
            metrics.requests.forget("tiny", name)

    def scrape() -> int:
        scrapes = 0
        while not over.is_set():
            list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))
            scrapes += 1
        return scrapes

    with ThreadPoolExecutor(2 * VARIANTS + 2) as pool:
        scrapers = [pool.submit(scrape) for _ in range(2)]
        busy = [pool.submit(work, f"v{n}") for n in range(VARIANTS) for work in (come_and_go, ask)]
        try:
            for each in busy:
                each.result(timeout=120)
        finally:
            over.set()
        assert all(scraper.result(timeout=60) > 0 for scraper in scrapers)

    for number in range(VARIANTS):
        who = {"model": "tiny", "variant": f"v{number}", "role": "candidate"}
        read = metrics.registry.get_sample_value
        assert read("flyweight_requests_total", who | {"code": "OK"}) == ROUNDS * 2 // 3
        assert read("flyweight_requests_total", who | {"code": "RESOURCE_EXHAUSTED"}) == ROUNDS // 3
        loads = {"model": f"model-v{number}", "variant": f"v{number}", "outcome": "ok"}
        assert read("flyweight_loads_total", loads) == ROUNDS
