from flyweight.server.errors import Code
from flyweight.server.metrics import Metrics
from flyweight.server.rpc.call_counts import CallCounts

INFER = "/inference.GRPCInferenceService/ModelInfer"


def value(metrics: Metrics, service: str, method: str, code: str) -> float | None:
    labels = {"service": service, "method": method, "code": code}
    return metrics.registry.get_sample_value("flyweight_calls_total", labels)


def test_calls_are_shown_by_rpc_and_code() -> None:
    metrics, counts = Metrics(), CallCounts([INFER])
    metrics.calls.show(counts.totals)
    for path, code in ((INFER, Code.OK), (INFER, Code.OK), (INFER, Code.UNAUTHENTICATED), ("/a/b", Code.OK)):
        counts.add(path, code)
    assert value(metrics, "inference.GRPCInferenceService", "ModelInfer", "OK") == 2
    assert value(metrics, "inference.GRPCInferenceService", "ModelInfer", "UNAUTHENTICATED") == 1
    assert value(metrics, "", "", "OK") == 1
    assert value(metrics, "a", "b", "OK") is None
