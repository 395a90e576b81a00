"""Server reflection over a real socket."""

import threading
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PATIENCE_SECONDS = 30


def test_reflection_tells_every_service_and_message(served: Any) -> None:
    database = ProtoReflectionDescriptorDatabase(served.channel)
    services = set(database.get_services())
    assert services == {
        "inference.GRPCInferenceService",
        "flyweight.control.v1.ControlService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "grpc.reflection.v1.ServerReflection",
    }
    pool = DescriptorPool(database)
    for name in services:
        assert pool.FindServiceByName(name).methods
    assert pool.FindMethodByName("grpc.health.v1.Health.List").output_type.fields_by_name["statuses"]
    assert pool.FindMessageTypeByName("inference.ModelInferRequest").fields_by_name["raw_input_contents"]


def test_reflection_answers_by_its_stable_name_too(served: Any) -> None:
    stream = served.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (response,) = stream(iter([request]), timeout=PATIENCE_SECONDS)
    assert len(response.list_services_response.service) == 5


def test_open_reflection_streams_keep_nobody_else_waiting(served: Any) -> None:
    done = threading.Event()

    def requests() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        done.wait(PATIENCE_SECONDS)

    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    streams = [stub.ServerReflectionInfo(requests(), timeout=PATIENCE_SECONDS) for _ in range(20)]
    next(streams[0])
    served.call("/inference.GRPCInferenceService/ServerLive")
    done.set()
    for stream in streams:
        stream.cancel()
