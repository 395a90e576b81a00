import mmap
from pathlib import Path

from flyweight.server.runtime.memory import read_pss_bytes, trim_heap


def test_pss_is_read_in_bytes(tmp_path: Path) -> None:
    rollup = "55d0 ---p [rollup]\nRss:  4096 kB\nPss:   2048 kB\nPss_Dirty:  1 kB\n"
    (tmp_path / "smaps_rollup").write_text(rollup)
    assert read_pss_bytes(tmp_path) == 2048 * 1024


def test_pss_is_zero_where_the_kernel_does_not_tell(tmp_path: Path) -> None:
    assert read_pss_bytes(tmp_path / "nothing") == 0


def test_memory_in_use_is_in_the_pss() -> None:
    size_bytes = 16 << 20
    before = read_pss_bytes()
    # Pages of its own: an array might be given memory that was freed and is still counted.
    with mmap.mmap(-1, size_bytes) as block:
        block.write(b"\x01" * size_bytes)
        assert read_pss_bytes() - before >= size_bytes // 2


def test_trimming_the_heap_is_harmless() -> None:
    trim_heap()
