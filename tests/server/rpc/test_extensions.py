from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.message import Message

from flyweight.protos.inference import grpc_service_pb2 as messages
from flyweight.server.errors import NotAllowed, StartError, UnknownModel, UnknownRegion, Unsupported
from flyweight.server.lifecycle.table import RoutingTable
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.extensions import Extensions
from flyweight.server.rpc.regions import Regions
from flyweight.server.settings import ServerSettings

MODELS: Any = SimpleNamespace(table=RoutingTable())


@pytest.fixture
def extensions(tmp_path: Path) -> Iterator[Extensions]:
    (tmp_path / "object").write_bytes(bytes(8))
    found = Extensions(regions=Regions(folder=tmp_path))
    yield found
    found.close()


def ask(extensions: Extensions, rpc: str, request: Message, *, allow_control: bool = True) -> Any:
    handler = extensions.handlers(MODELS, allow_control=allow_control)[rpc]
    return getattr(messages, f"{rpc}Response").FromString(handler(request.SerializeToString(), Call()))


def test_a_region_is_registered_told_and_forgotten(extensions: Extensions) -> None:
    register = messages.SystemSharedMemoryRegisterRequest(name="r", key="/object", offset=2, byte_size=4)
    ask(extensions, "SystemSharedMemoryRegister", register)
    status = ask(extensions, "SystemSharedMemoryStatus", messages.SystemSharedMemoryStatusRequest())
    region = status.regions["r"]
    assert (region.name, region.key, region.offset, region.byte_size) == ("r", "/object", 2, 4)
    ask(extensions, "SystemSharedMemoryUnregister", messages.SystemSharedMemoryUnregisterRequest())
    with pytest.raises(UnknownRegion, match="'r'"):
        ask(extensions, "SystemSharedMemoryStatus", messages.SystemSharedMemoryStatusRequest(name="r"))


@pytest.mark.parametrize("kind", ["Status", "Register", "Unregister"])
def test_shared_memory_that_is_off_says_how_it_is_switched_on(kind: str) -> None:
    rpc = f"SystemSharedMemory{kind}"
    with pytest.raises(Unsupported, match="--shared-memory"):
        ask(Extensions(), rpc, getattr(messages, f"{rpc}Request")())


@pytest.mark.parametrize("kind", ["Status", "Register", "Unregister"])
def test_cuda_is_refused_in_a_sentence(extensions: Extensions, kind: str) -> None:
    rpc = f"CudaSharedMemory{kind}"
    with pytest.raises(Unsupported, match="no CUDA shared memory; use system shared memory"):
        ask(extensions, rpc, getattr(messages, f"{rpc}Request")(name="region"))


def test_all_regions_of_cuda_are_forgotten_for_there_are_none(extensions: Extensions) -> None:
    ask(extensions, "CudaSharedMemoryUnregister", messages.CudaSharedMemoryUnregisterRequest())


def trace_request(model: str = "", **settings: list[str]) -> messages.TraceSettingRequest:
    request = messages.TraceSettingRequest(model_name=model)
    for name, words in settings.items():
        request.settings[name].value.extend(words)
    return request


def test_trace_settings_are_told_as_they_are_after_the_change(extensions: Extensions) -> None:
    response = ask(extensions, "TraceSetting", trace_request(trace_rate=["5"]))
    told = {name: list(setting.value) for name, setting in response.settings.items()}
    assert told == {
        "trace_level": ["OFF"],
        "trace_rate": ["5"],
        "trace_count": ["-1"],
        "log_frequency": ["0"],
        "trace_file": ["trace.json"],
        "trace_mode": ["triton"],
    }


def test_settings_of_a_model_that_is_not_there_are_unknown(extensions: Extensions) -> None:
    with pytest.raises(UnknownModel, match="'nobody'"):
        ask(extensions, "TraceSetting", trace_request("nobody"))


def test_log_settings_come_in_their_types(extensions: Extensions) -> None:
    told = ask(extensions, "LogSettings", messages.LogSettingsRequest()).settings
    assert told["log_info"].WhichOneof("parameter_choice") == "bool_param"
    assert told["log_verbose_level"].WhichOneof("parameter_choice") == "uint32_param"
    assert (told["log_format"].string_param, told["log_file"].string_param) == ("default", "")


def test_without_control_settings_are_told_and_not_changed(extensions: Extensions) -> None:
    log = messages.LogSettingsRequest()
    ask(extensions, "LogSettings", log, allow_control=False)
    log.settings["log_info"].bool_param = False
    for rpc, request in (("LogSettings", log), ("TraceSetting", trace_request(trace_rate=["5"]))):
        with pytest.raises(NotAllowed, match="--allow-control"):
            ask(extensions, rpc, request, allow_control=False)
    assert extensions.log.choice().info
    assert extensions.tracer.settings().rate == 1000


def test_what_the_operator_did_not_ask_for_is_not_there(tmp_path: Path) -> None:
    extensions = Extensions.from_settings(ServerSettings(tmp_path))
    assert extensions.regions is None
    assert extensions.names() == ()
    extensions.close()


def test_what_the_operator_asked_for_is_named(tmp_path: Path) -> None:
    settings = ServerSettings(tmp_path, shared_memory=True, trace_folder=tmp_path, max_message_bytes=1 << 20)
    extensions = Extensions.from_settings(settings)
    assert extensions.names() == ("system_shared_memory",)
    assert extensions.limits.tensor_bytes == 1 << 20
    extensions.close()


def test_a_folder_for_traces_is_there_when_the_server_starts(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"nothing, given with --trace-folder, is not a folder"):
        Extensions.from_settings(ServerSettings(tmp_path, trace_folder=tmp_path / "nothing"))


def test_closing_forgets_the_regions(extensions: Extensions) -> None:
    assert extensions.regions is not None
    extensions.regions.register("r", "object", 0, 1)
    extensions.close()
    assert extensions.regions.listed() == []
