from flyweight.server.runtime.usage import Usage, memory_figure, memory_kinds


def test_a_kind_that_nobody_can_tell_is_left_out() -> None:
    assert memory_kinds(Usage(file_bytes=1), load_pss_bytes=5) == {"load_pss": 5}


def test_nothing_at_all_is_a_figure_too() -> None:
    kinds = memory_kinds(Usage(file_bytes=1, own_pss_bytes=0), load_pss_bytes=0, validated_pss_bytes=7)
    assert kinds == {"own_pss": 0, "load_pss": 0, "validated_pss": 7}


def test_the_one_figure_is_the_variants_own_where_that_is_known() -> None:
    assert memory_figure(Usage(file_bytes=1, own_pss_bytes=3), validated_pss_bytes=5) == 3
    assert memory_figure(Usage(file_bytes=1), validated_pss_bytes=5) == 5
    assert memory_figure(Usage(file_bytes=1), validated_pss_bytes=0) == 0


def test_a_growth_that_is_not_known_is_left_out() -> None:
    assert memory_kinds(Usage(file_bytes=1), load_pss_bytes=None) == {}
