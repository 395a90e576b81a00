"""What a loaded variant uses, as far as the one who holds its session can tell. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes and seconds of one variant; None where a figure cannot be told, which is not 0.

    A session in a process of its own has figures of its own (proc(5): smaps_rollup, status, stat), of the
    whole process and with nothing subtracted; one that shares its process with others has only what is known
    from the time of loading.

    Attributes:
        file_bytes: the variant's folder on disk.
        pss_bytes: proportional set size: pages that processes share count by their share.
        uss_bytes: unique set size: what the kernel gets back when the process ends.
        peak_rss_bytes: the most that was ever resident, shared pages counted whole.
        cpu_seconds: processor time since the process began, user and system.
        load_peak_bytes: by how much resident memory rose at most while the session was built.
        arena_bytes: by how much its own pages grew since the session was built: arena and buffers of runs.
        base_pss_bytes: PSS of the process before it held a session: what an empty one costs.
        own_pss_bytes: what the variant adds to a process that holds only it: the figure that compares.
        own_uss_bytes: of these, what no other process shares.
        restarts: how often the process that holds the session was started again.
    """

    file_bytes: int
    pss_bytes: int | None = None
    uss_bytes: int | None = None
    peak_rss_bytes: int | None = None
    cpu_seconds: float | None = None
    load_peak_bytes: int | None = None
    arena_bytes: int | None = None
    base_pss_bytes: int | None = None
    own_pss_bytes: int | None = None
    own_uss_bytes: int | None = None
    restarts: int | None = None


def memory_kinds(usage: Usage, load_pss_bytes: int | None, validated_pss_bytes: int = 0) -> dict[str, int]:
    """Return what is known of a variant's memory, in bytes by kind; what cannot be told is left out.

    Args:
        usage: what it uses now.
        load_pss_bytes: by how much the process that holds it grew while it was loaded; None for unknown.
        validated_pss_bytes: what it took when it was published; 0 when nobody measured.
    """
    kinds = {
        "own_pss": usage.own_pss_bytes,
        "own_uss": usage.own_uss_bytes,
        "load_pss": load_pss_bytes,
        "load_peak": usage.load_peak_bytes,
        "arena": usage.arena_bytes,
        "process_pss": usage.pss_bytes,
        "process_uss": usage.uss_bytes,
        "process_peak_rss": usage.peak_rss_bytes,
        "validated_pss": validated_pss_bytes or None,
    }
    return {kind: value for kind, value in kinds.items() if value is not None}


def memory_figure(usage: Usage, validated_pss_bytes: int) -> int:
    """Return the one figure for a variant's memory, in bytes: its own, else that of its publication; else 0.

    By how much a process grew while it loaded is not in it: the first variant of a process pays for what all
    have in common, and is many times too large.
    """
    return validated_pss_bytes if usage.own_pss_bytes is None else usage.own_pss_bytes
