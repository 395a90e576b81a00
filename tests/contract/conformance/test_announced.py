"""What a server announces it does, and what it does not announce it refuses in so many words."""

import pytest
from oip.cases import SHOULD, Code, case
from oip.survey import Survey
from oip.target import Target

from flyweight.protos.inference import grpc_service_pb2 as messages

# An extension and a call of it that changes nothing.
HARMLESS = {
    "model_configuration": ("ModelConfig", messages.ModelConfigRequest(name="add_sub")),
    "statistics": ("ModelStatistics", messages.ModelStatisticsRequest(name="add_sub")),
    "model_repository": ("RepositoryIndex", messages.RepositoryIndexRequest()),
    "system_shared_memory": ("SystemSharedMemoryStatus", messages.SystemSharedMemoryStatusRequest()),
    "cuda_shared_memory": ("CudaSharedMemoryStatus", messages.CudaSharedMemoryStatusRequest()),
    "trace": ("TraceSetting", messages.TraceSettingRequest()),
    "logging": ("LogSettings", messages.LogSettingsRequest()),
}


@pytest.mark.parametrize("name", sorted(HARMLESS))
@case("announced", SHOULD)
def test_announcement_and_deed_agree(target: Target, server: Survey, name: str) -> None:
    """An extension that is announced answers OK; one that is not answers UNIMPLEMENTED with a sentence.

    ALLOWED of what is announced: PERMISSION_DENIED, where the server was started so.
    Source: Open Inference Protocol, gRPC, "Server Metadata", field extensions; grpc/grpc, doc/statuscodes.md.
    """
    answer = target.call(*HARMLESS[name])
    if server.has(name):
        answer.must_be(Code.OK, Code.PERMISSION_DENIED)
    else:
        answer.must_be(Code.UNIMPLEMENTED)
        assert answer.details, "REQUIRED a sentence beside UNIMPLEMENTED"
