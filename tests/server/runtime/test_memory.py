import mmap
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flyweight.server.runtime.memory import (
    process_folder,
    read_cpu_seconds,
    read_held,
    read_pss_bytes,
    reset_peak,
    trim_heap,
)

ROLLUP = """55d0-7ffc ---p 00000000 00:00 0  [rollup]
Rss:             900 kB
Pss:             700 kB
Private_Clean:     1 kB
Private_Dirty:     2 kB
Private_Hugetlb:   4 kB
Anonymous:       300 kB
"""


def test_pss_is_read_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "smaps_rollup").write_text(ROLLUP)
    assert read_pss_bytes(tmp_path) == 700 * 1024


def test_pss_is_zero_where_the_kernel_does_not_tell(tmp_path: Path) -> None:
    assert read_pss_bytes(tmp_path / "nothing") == 0


def test_what_a_process_holds_is_read_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "smaps_rollup").write_text(ROLLUP)
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t 950 kB\nThreads:\t3\n")
    held = read_held(tmp_path)
    assert held is not None
    assert (held.pss_bytes, held.uss_bytes, held.anonymous_bytes) == (700 * 1024, 7 * 1024, 300 * 1024)
    assert (held.resident_bytes, held.peak_resident_bytes) == (900 * 1024, 950 * 1024)


def test_a_process_that_is_gone_holds_nothing_that_could_be_told() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        process.wait(60)
    assert read_held(process_folder(process.pid)) is None
    assert read_cpu_seconds(process_folder(process.pid)) is None


def test_processor_time_counts_past_a_name_with_parentheses(tmp_path: Path) -> None:
    fields = ["S", *["0"] * 10, "150", "50", *["0"] * 30]
    (tmp_path / "stat").write_text(f"123 (a) b( c) {' '.join(fields)}\n")
    assert read_cpu_seconds(tmp_path) == 200 / os.sysconf("SC_CLK_TCK")


def test_processor_time_is_that_of_this_process() -> None:
    seconds = read_cpu_seconds()
    assert seconds is not None
    assert seconds == pytest.approx(time.process_time(), abs=0.5)


def test_memory_in_use_is_in_the_pss() -> None:
    size_bytes = 16 << 20
    before = read_pss_bytes()
    # Pages of its own: an array might be given memory that was freed and is still counted.
    with mmap.mmap(-1, size_bytes) as block:
        block.write(b"\x01" * size_bytes)
        assert read_pss_bytes() - before >= size_bytes // 2


def test_a_peak_begins_anew() -> None:
    size_bytes = 16 << 20
    with mmap.mmap(-1, size_bytes) as block:
        block.write(b"\x01" * size_bytes)
        before = read_held()
    assert before is not None
    if not reset_peak():
        pytest.skip("the kernel does not let this process reset its peak")
    after = read_held()
    assert after is not None
    assert before.peak_resident_bytes - after.peak_resident_bytes >= size_bytes // 2


def test_trimming_the_heap_is_harmless() -> None:
    trim_heap()


# Threads fill heaps of their own from the bottom and free everything; what of it is left, in bytes.
LEFT = """
import ctypes, sys, threading
from flyweight.server.runtime.memory import keep_one_heap, read_held, trim_heap
if sys.argv[1] == "one":
    keep_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, as it becomes by itself where large blocks come and go
libc.mallopt(-1, 64 << 20)  # M_TRIM_THRESHOLD, likewise
before = read_held().anonymous_bytes
def fill():
    blocks = [libc.malloc(8 << 20) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, 8 << 20)
    for block in blocks:
        libc.free(block)
thread = threading.Thread(target=fill)
thread.start()
thread.join()
trim_heap()
print(read_held().anonymous_bytes - before)
"""


@pytest.mark.skipif("glibc" not in platform.libc_ver()[0], reason="only glibc has heaps of threads")
def test_one_heap_gives_back_what_the_heaps_of_threads_keep() -> None:
    def left(heaps: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", LEFT, heaps], check=True, capture_output=True, timeout=60, env=environment
        )
        return int(done.stdout)

    environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    assert left("many") > 16 << 20
    assert left("one") < 4 << 20
