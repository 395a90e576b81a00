"""TraceSetting and LogSettings: what the server traces and logs, read and changed from outside.

Source of all: Triton, protocol extensions, "Trace Extension" and "Logging Extension".
"""

from collections.abc import Iterator
from typing import Any

import pytest
from oip.cases import BEWILDERED, SILENCE, Code, case, extension
from oip.target import Answer, Target

from flyweight.protos.inference.grpc_service_pb2 import LogSettingsRequest, TraceSettingRequest

TRACE, LOGGING = extension("trace"), extension("logging")


def trace(target: Target, model: str = "", **settings: list[str]) -> Answer:
    asked = TraceSettingRequest(model_name=model)
    for name, values in settings.items():
        asked.settings[name].value.extend(values)
    return target.call("TraceSetting", asked)


def traced(target: Target, model: str = "", **settings: list[str]) -> dict[str, list[str]]:
    found = trace(target, model, **settings).must_be_ok().settings
    return {name: list(value.value) for name, value in found.items()}


def log(target: Target, **settings: bool | int | str) -> Answer:
    asked = LogSettingsRequest()
    for name, value in settings.items():
        kinds: dict[type, str] = {bool: "bool_param", int: "uint32_param", str: "string_param"}
        setattr(asked.settings[name], kinds[type(value)], value)
    return target.call("LogSettings", asked)


def logged(target: Target, **settings: bool | int | str) -> dict[str, Any]:
    found = log(target, **settings).must_be_ok().settings
    return {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in found.items()}


@pytest.fixture
def tracing(target: Target) -> Iterator[dict[str, list[str]]]:
    before = traced(target)
    yield before
    # An empty list of values clears a model's setting; the server's own are set back to what they were.
    trace(target, "add_sub", trace_rate=[])
    trace(target, trace_rate=before["trace_rate"], trace_level=before["trace_level"])


@pytest.fixture
def logs(target: Target) -> Iterator[dict[str, Any]]:
    before = logged(target)
    yield before
    log(target, log_verbose_level=int(before["log_verbose_level"]), log_info=bool(before["log_info"]))


@case("trace/read", TRACE)
def test_trace_settings_are_told(target: Target) -> None:
    """A request without settings tells the present ones: level, rate, count and log frequency at least.

    Source: Triton, "Trace Extension", Trace Setting.
    """
    assert {"trace_level", "trace_rate", "trace_count", "log_frequency"} <= set(traced(target))


@case("trace/write", TRACE)
def test_a_trace_setting_is_changed(target: Target, tracing: dict[str, list[str]]) -> None:
    """A setting that is sent is in force afterwards, and told so; the others stay.

    Source: Triton, "Trace Extension", Trace Setting.
    """
    assert traced(target, trace_rate=["77"])["trace_rate"] == ["77"]
    after = traced(target)
    assert after["trace_rate"] == ["77"]
    assert {name: after[name] for name in after if name != "trace_rate"} == {
        name: tracing[name] for name in tracing if name != "trace_rate"
    }


@case("trace/model", TRACE)
def test_a_model_has_trace_settings_of_its_own(target: Target, tracing: dict[str, list[str]]) -> None:
    """A setting of a model leaves the server's alone, and is gone when it is cleared.

    Source: Triton, "Trace Extension", Trace Setting, model name; an empty value clears.
    """
    assert traced(target, "add_sub", trace_rate=["55"])["trace_rate"] == ["55"]
    assert traced(target)["trace_rate"] == tracing["trace_rate"]
    assert traced(target, "add_sub", trace_rate=[])["trace_rate"] == tracing["trace_rate"]


@case("trace/then-infer", TRACE)
def test_traced_requests_are_answered(target: Target, tracing: dict[str, list[str]]) -> None:
    """With every request traced, requests are answered.

    Source: Triton, "Trace Extension", trace_level TIMESTAMPS.
    """
    answer = trace(target, trace_level=["TIMESTAMPS"], trace_rate=["1"])
    if answer.code is Code.INVALID_ARGUMENT:
        pytest.skip(f"tracing cannot be switched on here: {answer}")
    answer.must_be_ok()
    target.must_still_answer()


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        pytest.param("", {"no_such_setting": ["1"]}, id="unknown-setting"),
        pytest.param("", {"trace_rate": ["often"]}, id="no-number"),
        pytest.param("", {"trace_rate": ["-1"]}, id="negative"),
        pytest.param("", {"trace_level": ["EVERYTHING"]}, id="unknown-level"),
        pytest.param("no_such_model", {"trace_rate": ["1"]}, id="unknown-model"),
    ],
)
@case("trace/refused", TRACE)
def test_a_wrong_trace_setting_is_refused(
    target: Target, tracing: dict[str, list[str]], model: str, settings: dict[str, list[str]]
) -> None:
    """A setting that is none is an error that says so, and changes nothing.

    Source: Triton, "Trace Extension"; grpc/grpc, doc/statuscodes.md.
    """
    trace(target, model, **settings).must_be_refused(never=SILENCE | BEWILDERED)
    assert traced(target) == tracing


@case("logging/read", LOGGING)
def test_log_settings_are_told(target: Target) -> None:
    """A request without settings tells the present ones.

    Source: Triton, "Logging Extension", Log Settings.
    """
    known = {"log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format"}
    assert set(logged(target)) >= known


@case("logging/write", LOGGING)
def test_a_log_setting_is_changed(target: Target, logs: dict[str, Any]) -> None:
    """A setting that is sent is in force afterwards, and told so; the others stay.

    Source: Triton, "Logging Extension", Log Settings.
    """
    expected = logs | {"log_verbose_level": 1, "log_info": not logs["log_info"]}
    assert logged(target, log_verbose_level=1, log_info=not logs["log_info"]) == expected
    assert logged(target) == expected
    target.must_still_answer()


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"no_such_setting": True}, id="unknown-setting"),
        pytest.param({"log_info": "yes"}, id="wrong-type"),
        pytest.param({"log_verbose_level": "high"}, id="level-no-number"),
        pytest.param({"log_format": "poetry"}, id="unknown-format"),
    ],
)
@case("logging/refused", LOGGING)
def test_a_wrong_log_setting_is_refused(
    target: Target, logs: dict[str, Any], settings: dict[str, bool | str]
) -> None:
    """A setting that is none is an error that says so, and changes nothing.

    Source: Triton, "Logging Extension"; grpc/grpc, doc/statuscodes.md.
    """
    log(target, **settings).must_be_refused(never=SILENCE | BEWILDERED)
    assert logged(target) == logs
