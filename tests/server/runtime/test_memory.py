from pathlib import Path

import numpy as np

from flyweight.server.runtime.memory import read_pss_bytes, trim_heap


def test_pss_is_read_in_bytes(tmp_path: Path) -> None:
    rollup = tmp_path / "smaps_rollup"
    rollup.write_text("55d0 ---p [rollup]\nRss:  4096 kB\nPss:   2048 kB\nPss_Dirty:  1 kB\n")
    assert read_pss_bytes(rollup) == 2048 * 1024


def test_pss_is_zero_where_the_kernel_does_not_tell(tmp_path: Path) -> None:
    assert read_pss_bytes(tmp_path / "nothing") == 0


def test_memory_in_use_is_in_the_pss() -> None:
    before = read_pss_bytes()
    block = np.ones(16 << 20, np.uint8)
    assert read_pss_bytes() - before >= block.nbytes // 2


def test_trimming_the_heap_is_harmless() -> None:
    trim_heap()
