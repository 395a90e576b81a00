from pathlib import Path

import pytest

from flyweight.server.runtime.processor import missing_instruction_sets, processor_doubt


@pytest.mark.parametrize("key", ["flags\t\t", "Features\t"])
def test_what_the_processor_lacks_is_listed(tmp_path: Path, key: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{key}: fpu avx2 avx512f\n")
    assert missing_instruction_sets(["avx512_vnni", "avx2", "amx_int8"], cpuinfo) == [
        "amx_int8",
        "avx512_vnni",
    ]
    assert missing_instruction_sets(["avx2"], cpuinfo) == []


def test_nothing_is_missing_where_the_kernel_does_not_tell(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor: 0\n")
    assert missing_instruction_sets(["avx2"], tmp_path / "cpuinfo") == []
    assert missing_instruction_sets(["avx2"], tmp_path / "nothing") == []


def test_another_processor_is_told_in_one_sentence_and_the_same_one_not(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags: avx2\n")
    assert processor_doubt(["avx2"], tmp_path / "cpuinfo") == ""
    assert processor_doubt(["avx2", "amx_int8"], tmp_path / "cpuinfo") == (
        "was measured on a processor with amx_int8, which this one lacks; expect other speed, and other "
        "answers within its golden tolerance."
    )
