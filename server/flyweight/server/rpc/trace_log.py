"""TraceSetting and LogSettings: what is traced and what is logged, told and changed."""

from flyweight.protos.inference.grpc_service_pb2 import (
    LogSettingsRequest,
    LogSettingsResponse,
    TraceSettingRequest,
    TraceSettingResponse,
)
from flyweight.server.errors import NotAllowed
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.log_settings import LogControl
from flyweight.server.rpc.messages import parse
from flyweight.server.rpc.models import Models
from flyweight.server.rpc.trace_settings import parse_changes
from flyweight.server.rpc.tracer import Tracer


class TraceAndLog:
    """Answers both RPCs. With `allow_control` false the settings are told and not changed."""

    def __init__(self, models: Models, tracer: Tracer, log: LogControl, *, allow_control: bool) -> None:
        self._models = models
        self._tracer = tracer
        self._log = log
        self._allow_control = allow_control

    def trace_setting(self, body: bytes, _call: Call) -> bytes:
        """Change some settings of a model, or the global ones, and tell them all.

        Raises:
            UnknownModel, NotReady: there is no such model.
            InvalidRequest, Unsupported: a setting is none, or its value is not one.
            NotSetUp: tracing was switched on, and there is no folder for traces.
            NotAllowed: callers may change nothing.
        """
        request = parse(TraceSettingRequest, body)
        if request.model_name:
            self._models.table.model(request.model_name)
        if request.settings:
            self._require_control("what is traced")
            changes = parse_changes({name: setting.value for name, setting in request.settings.items()})
            self._tracer.change(request.model_name, changes)
        response = TraceSettingResponse()
        for name, word in self._tracer.settings(request.model_name).words().items():
            response.settings[name].value.append(word)
        return response.SerializeToString()

    def log_settings(self, body: bytes, _call: Call) -> bytes:
        """Change some settings, and tell them all.

        Raises:
            InvalidRequest, Unsupported, NotSetUp: as `LogControl.change`; nothing was changed then.
            NotAllowed: callers may change nothing.
        """
        request = parse(LogSettingsRequest, body)
        choice = self._log.choice()
        if request.settings:
            self._require_control("what is logged")
            choice = self._log.change({name: _value(entry) for name, entry in request.settings.items()})
        response = LogSettingsResponse()
        for name, value in choice.values().items():
            setting = response.settings[name]
            if isinstance(value, bool):
                setting.bool_param = value
            elif isinstance(value, int):
                setting.uint32_param = value
            else:
                setting.string_param = value
        return response.SerializeToString()

    def _require_control(self, what: str) -> None:
        if not self._allow_control:
            raise NotAllowed(
                f"This server does not let callers change {what}; have it started with --allow-control."
            )


def _value(entry: LogSettingsRequest.SettingValue) -> bool | int | str | None:
    choice = entry.WhichOneof("parameter_choice")
    return None if choice is None else getattr(entry, choice)
