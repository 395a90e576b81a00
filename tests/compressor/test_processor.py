"""Reading the processor's description."""

from flyweight.compressor.processor import parse_cpuinfo, this_processor

INTEL = "processor\t: 0\nmodel name\t: Some CPU @ 2GHz\nflags\t\t: fpu avx avx2 fma avx512f avx512_vnni\n\n"
OLD = "model name\t: Old CPU\nflags\t\t: fpu avx avx2 fma\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\n"


def test_x86_with_vnni_multiplies_bytes_exactly() -> None:
    processor = parse_cpuinfo(INTEL, 4)
    assert processor.name == "Some CPU @ 2GHz"
    assert processor.instruction_sets == ("avx", "avx2", "fma", "avx512f", "avx512_vnni")
    assert processor.isa == "avx512_vnni"
    assert processor.multiplies_bytes_exactly


def test_x86_without_it_does_not() -> None:
    assert not parse_cpuinfo(OLD, 1).multiplies_bytes_exactly
    assert parse_cpuinfo(OLD, 1).isa == "avx2"


def test_arm_with_dot_products_does() -> None:
    assert parse_cpuinfo(ARM, 1).multiplies_bytes_exactly


def test_nothing_to_read_is_no_failure() -> None:
    processor = parse_cpuinfo("", 1)
    assert (processor.name, processor.isa, processor.multiplies_bytes_exactly) == (
        "unknown",
        "unknown",
        False,
    )


def test_this_processor_has_cores() -> None:
    assert this_processor().cores >= 1
