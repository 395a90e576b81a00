"""What this machine's processor can do, against what a variant was measured with."""

from collections.abc import Collection
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")


def missing_instruction_sets(measured_with: Collection[str], cpuinfo: Path = _CPUINFO) -> list[str]:
    """Return the instruction sets of `measured_with` that this processor lacks, in order of name.

    Without them other kernels run: an int8 variant measured with VNNI may be slower here, and saturate.
    Nothing is missing where the kernel does not tell.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        key, _, value = line.partition(":")
        # x86 and Arm name the same line differently.
        if key.strip() in {"flags", "Features"}:
            return sorted(set(measured_with) - set(value.split()))
    return []


def processor_doubt(measured_with: Collection[str], cpuinfo: Path = _CPUINFO) -> str:
    """Return what to say of a variant that was measured on another processor; empty when there is nothing."""
    missing = missing_instruction_sets(measured_with, cpuinfo)
    if not missing:
        return ""
    return (
        f"was measured on a processor with {', '.join(missing)}, which this one lacks; expect other speed, "
        "and other answers within its golden tolerance."
    )
