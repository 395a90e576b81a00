"""The processor that measures: its name, what its kernels can use, and how much of it we may have."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

# The sets that decide which of onnxruntime's kernels run; the others change nothing we measure.
_DECISIVE: Final = (
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
# Dot products of unsigned and signed bytes that add up in 32 bits: without one of these, U8S8 products of
# two pairs are added in 16 bits and saturate.
_BYTE_DOT_PRODUCTS: Final = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor as /proc/cpuinfo describes it."""

    name: str
    instruction_sets: tuple[str, ...]
    cores: int

    @property
    def multiplies_bytes_exactly(self) -> bool:
        """Whether int8 convolutions and products cannot saturate halfway."""
        return bool(_BYTE_DOT_PRODUCTS & set(self.instruction_sets))

    @property
    def preferred_multiple(self) -> int:
        """The number of channels that kernels like to work on at once: fp32 values in a vector register."""
        return 16 if "avx512f" in self.instruction_sets else 8

    @property
    def isa(self) -> str:
        """The most telling instruction set in one word."""
        order = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "avx", "i8mm", "asimddp", "asimd")
        return next((name for name in order if name in self.instruction_sets), "unknown")


@cache
def this_processor() -> Processor:
    """Describe the processor this process runs on."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    return parse_cpuinfo(text, len(os.sched_getaffinity(0)))


def parse_cpuinfo(text: str, cores: int) -> Processor:
    """Read name and instruction sets from the text of /proc/cpuinfo, of x86 or ARM."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = set(fields.get("flags", fields.get("features", "")).split())
    name = fields.get("model name") or fields.get("cpu implementer") or "unknown"
    return Processor(name, tuple(name for name in _DECISIVE if name in flags), cores)
