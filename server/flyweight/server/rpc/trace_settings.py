"""The settings of tracing: what a request for them says, and what holds for a model. Pure.

Source: Triton's trace extension. A model's settings are those that were made for it, over the global ones,
over the defaults; a setting sent without a value is taken back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from flyweight.protos.variant.names import is_valid_name
from flyweight.server.errors import InvalidRequest, Unsupported

_INT32_MAX: Final = 2**31 - 1
_MODE: Final = "triton"


class TraceLevel(StrEnum):
    """What is traced: nothing, or the moments of a request. Its tensors never are: they are payload."""

    OFF = "OFF"
    TIMESTAMPS = "TIMESTAMPS"


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """What is traced, with Triton's defaults, but for a file that has a name.

    Attributes:
        level: what of a request.
        rate: one of so many requests.
        count: how many more traces are taken; -1 for no end.
        log_frequency: traces in a file, which are then numbered; 0 for one file.
        file: the file's name in the server's trace folder.
    """

    level: TraceLevel = TraceLevel.OFF
    rate: int = 1000
    count: int = -1
    log_frequency: int = 0
    file: str = "trace.json"

    def words(self) -> dict[str, str]:
        """Return the settings by Triton's names, as they are told to clients."""
        return {
            "trace_level": self.level.value,
            "trace_rate": str(self.rate),
            "trace_count": str(self.count),
            "log_frequency": str(self.log_frequency),
            "trace_file": self.file,
            "trace_mode": _MODE,
        }


# The new values of some settings by field; None takes one back.
Changes = Mapping[str, Any]


def parse_changes(settings: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return what a request asks to change.

    Raises:
        InvalidRequest: there is no such setting, or not of this value.
        Unsupported: Triton knows the value, and flyweight does not do it.
    """
    changes: dict[str, Any] = {}
    for name, words in settings.items():
        if name == "trace_mode":
            _require_mode(words)
            continue
        field = _FIELDS.get(name)
        if field is None:
            known = ", ".join((*_FIELDS, "trace_mode"))
            raise InvalidRequest(f"There is no trace setting {name!r}; the settings are {known}.")
        changes[field] = _value(name, words) if words else None
    return changes


def merged(base: TraceSettings, *layers: Changes) -> TraceSettings:
    """Return `base` with changes made to it, the later over the earlier."""
    for layer in layers:
        base = replace(base, **{field: value for field, value in layer.items() if value is not None})
    return base


def updated(layer: Changes, changes: Changes) -> dict[str, Any]:
    """Return a layer of changes with further ones, without those that were taken back."""
    return {field: value for field, value in {**layer, **changes}.items() if value is not None}


def _value(name: str, words: Sequence[str]) -> TraceLevel | int | str:
    if name == "trace_level":
        return _level(words)
    if len(words) != 1:
        raise InvalidRequest(f"The trace setting {name!r} has {len(words)} values; send one.")
    if name == "trace_file":
        return _file(words[0])
    return _number(name, words[0], *_RANGES[name])


def _level(words: Sequence[str]) -> TraceLevel:
    if "TENSORS" in words:
        raise Unsupported("flyweight writes no tensors to traces; ask for the trace level TIMESTAMPS.")
    levels = set(words)
    if len(levels) == 1 and levels <= {level.value for level in TraceLevel}:
        return TraceLevel(words[0])
    raise InvalidRequest(f"The trace level cannot be {', '.join(words)[:80]}; send OFF or TIMESTAMPS.")


def _file(name: str) -> str:
    # Where it lies is the operator's to say: a path from a request could overwrite anything.
    if not is_valid_name(name):
        raise InvalidRequest(
            f"The trace file cannot be {name[:128]!r}; send a plain name, of letters, digits, '.', '_' and "
            "'-', which lies in the folder that the server was started with."
        )
    return name


def _number(name: str, text: str, least: int) -> int:
    try:
        value = int(text) if len(text) <= len(str(_INT32_MAX)) else _INT32_MAX + 1
    except ValueError:
        value = least - 1
    if not least <= value <= _INT32_MAX:
        raise InvalidRequest(
            f"The trace setting {name!r} cannot be {text[:80]!r}; send a whole number from {least} to "
            f"{_INT32_MAX}."
        )
    return value


def _require_mode(words: Sequence[str]) -> None:
    if any(word != _MODE for word in words):
        raise Unsupported(f"flyweight traces in the mode {_MODE!r} only; leave trace_mode out.")


_FIELDS: Final = {
    "trace_level": "level",
    "trace_rate": "rate",
    "trace_count": "count",
    "log_frequency": "log_frequency",
    "trace_file": "file",
}
# The least that each number may be.
_RANGES: Final = {"trace_rate": (1,), "trace_count": (-1,), "log_frequency": (0,)}
