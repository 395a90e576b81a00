from typing import Any

import pytest

from flyweight.compressor.report.document import read_document
from flyweight.compressor.report.page import page_of


def variant_part(name: str, **changes: Any) -> dict[str, Any]:
    """Return one variant of a document, with figures in the middle of the usual."""
    part: dict[str, Any] = {
        "name": name,
        "kind": name,
        "path": f"repository/digits/{name}",
        "published": True,
        "reason": "faster and smaller",
        "bytes": 400_000,
        "bytes_ratio": 0.25,
        "parameters": 100_000,
        "macs": 5_000_000,
        "quality": {
            "metric": "accuracy",
            "value": 0.98,
            "baseline_value": 0.99,
            "delta": -0.01,
            "samples": 540,
        },
        "latency": {"1": {"p50_ms": 0.4, "p99_ms": 0.6}, "8": {"p50_ms": 2.0, "p99_ms": 2.5}},
        "memory": {"pss_bytes": 3_000_000},
        "passes": ["export", "static_int8"],
        "notes": ["One Add was left in float."],
        "seconds": 3.0,
    }
    return part | changes


@pytest.fixture(scope="session")
def report_page() -> str:
    """The page of `report_document`, drawn once."""
    return page_of(read_document(document()))


@pytest.fixture
def report_document() -> dict[str, Any]:
    """A document for a test to change."""
    return document()


def document() -> dict[str, Any]:
    """Return a compression: a baseline, a good variant, a refused one; traffic on the first two."""
    baseline = variant_part(
        "baseline",
        bytes=1_600_000,
        quality={"metric": "accuracy", "value": 0.99, "baseline_value": 0.99, "delta": 0.0},
        latency={"1": {"p50_ms": 1.0, "p99_ms": 1.5}, "8": {"p50_ms": 6.0, "p99_ms": 7.0}},
        memory={"pss_bytes": 6_000_000},
    )
    slow = variant_part(
        "int8-dynamic",
        published=False,
        path=None,
        reason="It is 4 times slower than the baseline.",
        latency={"1": {"p50_ms": 4.0, "p99_ms": 5.0}, "8": {"p50_ms": 20.0, "p99_ms": 22.0}},
    )
    served = {
        "requests": 60,
        "share": 0.6,
        "asked": 0.5,
        "p50_ms": 1.5,
        "p99_ms": 3.0,
        "stages": {"decode": {"mean_ms": 0.1}, "run": {"mean_ms": 0.9}},
        "memory_bytes": 4_000_000,
        "accuracy": 0.98,
    }
    return {
        "model": "digits",
        "repository": "build/demo/repository",
        "recommended": "int8",
        "baseline": "baseline",
        "data": {"samples": 540, "digest": "ab" * 32, "quality_metric": "accuracy"},
        "environment": {"cpu": "A CPU", "isa": "AVX2", "cores": 2, "onnxruntime": "1.31.1"},
        "variants": [baseline, variant_part("int8"), slow],
        "serving": {
            "requests": 100,
            "failed": 0,
            "seconds": 2.0,
            "variants": {"baseline": served | {"role": "baseline"}, "int8": served | {"requests": 40}},
            "hot_load": {
                "variant": "int8",
                "seconds_to_ready": 0.25,
                "published_at": 1.0,
                "ready_at": 1.25,
                "requests_during": 12,
                "failed_during": 0,
            },
            "timeline": [[0.0, {"baseline": 30}], [0.5, {"baseline": 20, "int8": 10}], [1.0, {"int8": 30}]],
        },
    }
