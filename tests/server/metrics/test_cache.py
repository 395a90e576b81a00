import numpy as np

from flyweight.server.caching import ResponseCache, key_of
from flyweight.server.metrics import Metrics


def test_the_cache_tells_what_it_holds_and_what_it_let_go() -> None:
    metrics, cache = Metrics(), ResponseCache(10_000)
    metrics.cache.show(cache.statistics)
    value = metrics.registry.get_sample_value
    assert value("flyweight_response_cache_bytes", {"kind": "held"}) == 0
    assert value("flyweight_response_cache_bytes", {"kind": "limit"}) == 10_000
    assert value("flyweight_response_cache_evictions_total") == 0
    for number in range(20):
        cache.put(key_of(number, {}, ["y"]), {"y": np.zeros(64, np.float32)})
    now = cache.statistics()
    assert value("flyweight_response_cache_bytes", {"kind": "held"}) == now.held_bytes > 0
    assert value("flyweight_response_cache_entries") == now.entries
    assert value("flyweight_response_cache_evictions_total") == now.evictions == 20 - now.entries > 0


def test_a_registry_without_a_cache_shows_none() -> None:
    assert Metrics().registry.get_sample_value("flyweight_response_cache_entries") is None
