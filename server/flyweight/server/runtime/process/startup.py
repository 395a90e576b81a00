"""What a worker is told when it starts, on its command line, and what it answers: JSON, once in its life."""

import json
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from typing import Any, Final

from flyweight.server.runtime.process.faults import PacketFault
from flyweight.server.runtime.seam import SessionSettings, Signature, TensorSpec

# A report lists every input and output; a model of ten thousand takes less.
LARGEST_REPORT_BYTES: Final = 4 << 20
_NO_SIGNATURE: Final = Signature((), ())


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to do. `control`, `lanes` and `room` are file descriptors that it inherits."""

    front_pid: int
    control: int
    lanes: tuple[int, ...]
    room: int
    model_file: str
    is_coded: bool
    cores: int
    settings: SessionSettings

    def encode(self) -> str:
        """Return it as an argument of a command."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> "Order":
        """Return the order that was encoded."""
        fields: dict[str, Any] = json.loads(text)
        fields["lanes"] = tuple(fields["lanes"])
        fields["settings"] = SessionSettings(**fields["settings"])
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says when its session is built; `failure` is the sentence of a LoadFailed, or nothing.

    `base_pss_bytes` is the worker's PSS before the session, `load_pss_bytes` by how much it grew, and
    `load_peak_bytes` by how much resident memory grew at most meanwhile; `loaded_anonymous_bytes` are the
    pages of no file that it had with the session. None where the kernel does not tell.
    """

    failure: str = ""
    signature: Signature = _NO_SIGNATURE
    base_pss_bytes: int | None = None
    load_pss_bytes: int | None = None
    load_peak_bytes: int | None = None
    load_uss_bytes: int | None = None
    loaded_anonymous_bytes: int | None = None

    def encode(self) -> bytes:
        """Return it as one line."""
        return json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> "Report":
        """Return the report that was encoded.

        Raises:
            PacketFault: it is not one.
        """
        try:
            fields: dict[str, Any] = json.loads(line)
            signature: dict[str, Any] = fields.pop("signature")
            inputs, outputs = (tuple(map(_spec, signature[end])) for end in ("inputs", "outputs"))
            report = cls(signature=Signature(inputs, outputs), **fields)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise PacketFault(f"a worker's report cannot be read: {error}") from error
        sizes = (getattr(report, name) for name in _SIZES)
        if not isinstance(report.failure, str) or not all(map(_is_size, sizes)):
            raise PacketFault("a worker's report says something else than a sentence and numbers of bytes")
        return report


_SIZES: Final = tuple(each.name for each in fields_of(Report) if each.name.endswith("_bytes"))


def _is_size(value: object) -> bool:
    return value is None or (type(value) is int and value >= 0)


def _spec(fields: dict[str, Any]) -> TensorSpec:
    spec = TensorSpec(**{**fields, "shape": tuple(fields["shape"])})
    is_right = isinstance(spec.name, str) and isinstance(spec.datatype, str) and type(spec.optional) is bool
    if not is_right or not all(type(length) is int for length in spec.shape):
        raise TypeError("an input or output is described by something else than a name, a type and lengths")
    return spec
