from collections.abc import Callable
from typing import Any

import pytest

from flyweight.protos.control.v1 import control_pb2
from flyweight.protos.inference import grpc_service_pb2 as pb
from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest
from flyweight.server.errors import (
    InvalidRequest,
    NotAllowed,
    UnknownModel,
    UnknownVariant,
    Unsupported,
)
from flyweight.server.lifecycle.index import IndexEntry, State
from flyweight.server.lifecycle.table import RoutingTable
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.records import Answerer, Record
from flyweight.server.rpc.statistics import Statistics
from flyweight.server.rpc.tallies import Tallies
from flyweight.server.runtime.fake import FakeRuntime
from flyweight.server.runtime.seam import Usage

CALL = Call()


def ask(bench: Any, rpc: str, request: Any) -> bytes:
    return bench.handlers[rpc](request.SerializeToString(), CALL)


def test_is_live_and_ready(bench: Any) -> None:
    assert pb.ServerLiveResponse.FromString(ask(bench, "ServerLive", pb.ServerLiveRequest())).live
    assert pb.ServerReadyResponse.FromString(ask(bench, "ServerReady", pb.ServerReadyRequest())).ready


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("tiny", "", True),
        ("tiny", "int8", True),
        ("tiny", "int4", False),
        ("slow", "", False),
        ("nothing", "", False),
    ],
)
def test_tells_which_models_and_variants_are_ready(bench: Any, name: str, version: str, ready: bool) -> None:
    body = ask(bench, "ModelReady", pb.ModelReadyRequest(name=name, version=version))
    assert pb.ModelReadyResponse.FromString(body).ready is ready


def test_tells_what_the_server_is(bench: Any) -> None:
    told = pb.ServerMetadataResponse.FromString(ask(bench, "ServerMetadata", pb.ServerMetadataRequest()))
    assert told.name == "flyweight"
    assert told.version
    assert "binary_tensor_data" in told.extensions


def test_tells_what_a_model_takes_and_gives(bench: Any) -> None:
    body = ask(bench, "ModelMetadata", pb.ModelMetadataRequest(name="tiny"))
    told = pb.ModelMetadataResponse.FromString(body)
    assert (told.name, list(told.versions), told.platform) == (
        "tiny",
        ["baseline", "int8"],
        "onnxruntime_onnx",
    )
    assert [(x.name, x.datatype, list(x.shape)) for x in told.inputs] == [("x", "FP32", [-1, 4])]
    assert [x.name for x in told.outputs] == ["y"]


def test_tells_a_models_configuration(bench: Any) -> None:
    body = ask(bench, "ModelConfig", pb.ModelConfigRequest(name="tiny", version="int8"))
    assert pb.ModelConfigResponse.FromString(body).config.max_batch_size == 8


@pytest.mark.parametrize(
    ("rpc", "kind"),
    [
        ("ModelMetadata", pb.ModelMetadataRequest),
        ("ModelConfig", pb.ModelConfigRequest),
        ("ModelStatistics", pb.ModelStatisticsRequest),
    ],
)
def test_what_is_not_there_is_named(bench: Any, rpc: str, kind: Any) -> None:
    with pytest.raises(UnknownModel, match="'nothing'"):
        ask(bench, rpc, kind(name="nothing"))
    with pytest.raises(UnknownVariant, match="'int4'"):
        ask(bench, rpc, kind(name="tiny", version="int4"))


def test_the_index_has_reasons_and_can_leave_out_what_is_not_ready(bench: Any) -> None:
    bench.models.entries.append(IndexEntry("tiny", "bad", State.UNAVAILABLE, "Its digest is wrong."))
    every = pb.RepositoryIndexResponse.FromString(ask(bench, "RepositoryIndex", pb.RepositoryIndexRequest()))
    ready = pb.RepositoryIndexResponse.FromString(
        ask(bench, "RepositoryIndex", pb.RepositoryIndexRequest(ready=True))
    )
    assert [(m.version, m.state, m.reason) for m in every.models][-1] == (
        "bad",
        "UNAVAILABLE",
        "Its digest is wrong.",
    )
    assert [m.version for m in ready.models] == ["baseline", "int8"]


def test_another_repository_is_unknown(bench: Any) -> None:
    with pytest.raises(InvalidRequest, match="'other'"):
        ask(bench, "RepositoryIndex", pb.RepositoryIndexRequest(repository_name="other"))


def test_loads_and_unloads_where_that_is_allowed(bench: Any) -> None:
    ask(bench, "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="tiny"))
    ask(bench, "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="tiny"))
    assert bench.models.asked == [("load", "tiny"), ("unload", "tiny")]


def test_refuses_to_load_and_unload_where_it_is_not(build: Callable[..., Any]) -> None:
    bench = build(allow_control=False)
    for rpc, request in [
        ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="tiny")),
        ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="tiny")),
    ]:
        with pytest.raises(NotAllowed, match="--no-allow-control"):
            ask(bench, rpc, request)
    assert bench.models.asked == []


def test_a_parameter_of_a_load_that_nobody_knows_is_refused_by_name(bench: Any) -> None:
    request = pb.RepositoryModelLoadRequest(model_name="tiny")
    request.parameters["color"].string_param = "blue"
    with pytest.raises((InvalidRequest, Unsupported), match="color"):
        ask(bench, "RepositoryModelLoad", request)
    assert bench.models.asked == []


def test_counts_requests_and_rows_by_variant(
    bench: Any, make_request: Callable[..., ModelInferRequest]
) -> None:
    for rows in (1, 3, 3):
        ask(bench, "ModelInfer", make_request(rows=rows, version="int8"))
    bad = make_request(version="int8")
    bad.raw_input_contents[0] = b""
    assert "'x'" in bench.refusal(bad).sentence
    body = ask(bench, "ModelStatistics", pb.ModelStatisticsRequest())
    idle, busy = pb.ModelStatisticsResponse.FromString(body).model_stats
    assert (idle.version, idle.inference_count, idle.last_inference) == ("baseline", 0, 0)
    assert (busy.version, busy.inference_count, busy.execution_count) == ("int8", 7, 3)
    stats = busy.inference_stats
    assert (stats.success.count, stats.fail.count, stats.queue.count, stats.compute_infer.count) == (
        3,
        1,
        3,
        3,
    )
    assert stats.success.ns >= stats.compute_input.ns + stats.compute_output.ns > 0
    assert [(batch.batch_size, batch.compute_infer.count) for batch in busy.batch_stats] == [(1, 1), (3, 2)]
    assert busy.last_inference > 0
    assert 1000 in [memory.byte_size for memory in busy.memory_usage]


def test_answers_of_the_cache_succeed_and_wait_but_are_not_run(bench: Any) -> None:
    """Source: Triton's statistics extension, "inference_count", "execution_count", "queue"."""
    tallies, answerer = Tallies(), Answerer("tiny", "int8")
    statistics = Statistics(bench.models, tallies)
    miss = Record(answerer=answerer, rows=4, batch_rows=4, leads_run=True, cache_hit=False)
    for record in (miss, *[Record(answerer=answerer, rows=4, cache_hit=True)] * 2):
        tallies.record(record)
    body = statistics.model_statistics(pb.ModelStatisticsRequest(name="tiny").SerializeToString(), CALL)
    _, busy = pb.ModelStatisticsResponse.FromString(body).model_stats
    stats = busy.inference_stats
    assert (busy.inference_count, busy.execution_count) == (4, 1)
    assert (stats.success.count, stats.queue.count, stats.compute_infer.count) == (3, 3, 1)
    assert (stats.cache_hit.count, stats.cache_miss.count) == (2, 1)


def test_of_a_variant_only_so_many_sizes_of_runs_are_told_apart(bench: Any) -> None:
    tallies = Tallies()
    statistics = Statistics(bench.models, tallies)
    for rows in range(1, 1001):
        record = Record(answerer=Answerer("tiny", "int8"), rows=rows, batch_rows=rows, leads_run=True)
        tallies.record(record)
    body = statistics.model_statistics(pb.ModelStatisticsRequest(name="tiny").SerializeToString(), CALL)
    _, busy = pb.ModelStatisticsResponse.FromString(body).model_stats
    assert busy.execution_count == 1000
    assert len(busy.batch_stats) == 256


class Measured(FakeRuntime):
    """A runtime of which somebody knows what it takes alone."""

    def usage(self) -> Usage:
        return Usage(file_bytes=100, own_pss_bytes=700)


def test_a_variants_memory_is_what_it_takes_alone_and_nothing_while_that_is_not_known(
    build: Callable[..., Any],
) -> None:
    bench = build(runtimes={"baseline": FakeRuntime(), "int8": Measured()})
    listed = ask(bench, "ListVariants", control_pb2.ListVariantsRequest(model="tiny"))
    baseline, int8 = control_pb2.ListVariantsResponse.FromString(listed).variants
    assert (baseline.memory_bytes, int8.memory_bytes) == (0, 700)
    told = ask(bench, "ModelStatistics", pb.ModelStatisticsRequest())
    usages = [
        {usage.type: usage.byte_size for usage in stats.memory_usage}
        for stats in pb.ModelStatisticsResponse.FromString(told).model_stats
    ]
    # Triton's name for it is CPU; what the server grew by has one of its own.
    assert ["CPU" in usage for usage in usages] == [False, True]
    assert usages[1] == {"CPU": 700, "file": 100, "own_pss": 700, "load_pss": 1000}


def test_lists_variants_with_their_shares(bench: Any) -> None:
    bench.models.entries.append(IndexEntry("tiny", "bad", State.UNAVAILABLE, "Its digest is wrong."))
    body = ask(bench, "ListVariants", control_pb2.ListVariantsRequest(model="tiny"))
    baseline, int8, bad = control_pb2.ListVariantsResponse.FromString(body).variants
    assert (baseline.role, baseline.share_percent) == (control_pb2.ROLE_BASELINE, 50)
    assert int8.role == control_pb2.ROLE_CANDIDATE
    assert (bad.state, bad.reason) == (control_pb2.VARIANT_STATE_UNAVAILABLE, "Its digest is wrong.")
    with pytest.raises(UnknownModel):
        ask(bench, "ListVariants", control_pb2.ListVariantsRequest(model="nothing"))


def test_tells_the_plan_in_force_and_names_its_state(bench: Any, build: Callable[..., Any]) -> None:
    def traffic(of: Any) -> control_pb2.GetTrafficResponse:
        body = ask(of, "GetTraffic", control_pb2.GetTrafficRequest(model="tiny"))
        return control_pb2.GetTrafficResponse.FromString(body)

    told = traffic(bench)
    assert told.plan.baseline == "baseline"
    assert {share.variant: share.percent for share in told.plan.shares} == {"baseline": 50, "int8": 50}
    assert told.plan.sticky.parameter == "flyweight_key"
    assert told.fault == ""
    assert told.revision == traffic(build()).revision


def test_an_empty_server_has_nothing_to_tell(bench: Any) -> None:
    bench.models.table = RoutingTable()
    body = ask(bench, "ModelStatistics", pb.ModelStatisticsRequest())
    assert not pb.ModelStatisticsResponse.FromString(body).model_stats


@pytest.mark.parametrize("rpc", ["StartRollout", "GetComparison", "ReportOutcomes"])
def test_what_is_declared_and_not_there_says_so(bench: Any, rpc: str) -> None:
    with pytest.raises(Unsupported, match=f"flyweight does not implement {rpc} of "):
        bench.handlers[rpc](b"", CALL)


def test_the_index_names_a_folder_whose_name_is_not_unicode(bench: Any) -> None:
    bench.models.entries.append(IndexEntry("bad\udcff", "", State.UNAVAILABLE, "bad\udcff cannot be a name."))
    index = pb.RepositoryIndexResponse.FromString(ask(bench, "RepositoryIndex", pb.RepositoryIndexRequest()))
    assert (index.models[-1].name, index.models[-1].reason) == ("bad\\udcff", "bad\\udcff cannot be a name.")
