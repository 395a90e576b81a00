import pytest

from flyweight.server.errors import InvalidRequest, Unsupported
from flyweight.server.rpc.trace_settings import TraceLevel, TraceSettings, merged, parse_changes, updated


def test_the_defaults_are_tritons_but_for_the_files_name() -> None:
    assert TraceSettings().words() == {
        "trace_level": "OFF",
        "trace_rate": "1000",
        "trace_count": "-1",
        "log_frequency": "0",
        "trace_file": "trace.json",
        "trace_mode": "triton",
    }


def test_every_setting_is_read_and_no_value_takes_it_back() -> None:
    words = {
        "trace_level": ["TIMESTAMPS"],
        "trace_rate": ["10"],
        "trace_count": ["5"],
        "log_frequency": ["2"],
        "trace_file": ["a.json"],
        "trace_mode": ["triton"],
    }
    assert merged(TraceSettings(), parse_changes(words)) == TraceSettings(
        TraceLevel.TIMESTAMPS, 10, 5, 2, "a.json"
    )
    assert parse_changes({"trace_rate": []}) == {"rate": None}


def test_what_was_told_reads_back_the_same() -> None:
    settings = TraceSettings(TraceLevel.TIMESTAMPS, 7, 9, 3, "b.json")
    words = {name: [word] for name, word in settings.words().items()}
    assert merged(TraceSettings(), parse_changes(words)) == settings


def test_a_later_layer_counts_before_an_earlier_one() -> None:
    assert merged(TraceSettings(), {"rate": 5, "count": 3}, {"rate": 7}) == TraceSettings(rate=7, count=3)
    assert updated({"rate": 5, "count": 3}, {"rate": None, "file": "a"}) == {"count": 3, "file": "a"}


@pytest.mark.parametrize(
    ("name", "words", "complaint"),
    [
        ("trace_speed", ["1"], "no trace setting 'trace_speed'; the settings are trace_level, "),
        ("trace_rate", ["0"], "'trace_rate' cannot be '0'; send a whole number from 1 to 2147483647"),
        ("trace_rate", ["x"], "'trace_rate' cannot be 'x'"),
        ("trace_rate", ["2147483648"], "'trace_rate' cannot be"),
        ("trace_rate", ["9" * 5000], "'trace_rate' cannot be '9999"),
        ("trace_rate", ["1", "2"], "'trace_rate' has 2 values; send one"),
        ("trace_count", ["-2"], "'trace_count' cannot be '-2'; send a whole number from -1"),
        ("log_frequency", ["-1"], "'log_frequency' cannot be '-1'"),
        ("trace_level", ["OFF", "TIMESTAMPS"], "trace level cannot be OFF, TIMESTAMPS"),
        ("trace_level", ["FULL"], "trace level cannot be FULL"),
        ("trace_file", [""], "trace file cannot be ''"),
        ("trace_file", ["../a"], "trace file cannot be '../a'; send a plain name"),
        ("trace_file", ["/etc/passwd"], "trace file cannot be '/etc/passwd'"),
        ("trace_file", [".."], "trace file cannot be '..'"),
        ("trace_file", [".hidden"], "trace file cannot be '.hidden'"),
        ("trace_file", ["a\0b"], "trace file cannot be"),
        ("trace_file", ["x" * 200], "trace file cannot be"),
    ],
)
def test_what_is_no_setting_is_refused_by_name(name: str, words: list[str], complaint: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_changes({name: words})
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "words", "complaint"),
    [
        ("trace_level", ["TENSORS"], "writes no tensors"),
        ("trace_level", ["TIMESTAMPS", "TENSORS"], "writes no tensors"),
        ("trace_mode", ["opentelemetry"], "mode 'triton' only"),
    ],
)
def test_what_triton_has_and_we_have_not_is_unsupported(name: str, words: list[str], complaint: str) -> None:
    with pytest.raises(Unsupported, match=complaint):
        parse_changes({name: words})
