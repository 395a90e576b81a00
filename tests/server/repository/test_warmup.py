"""model_warmup: the samples that config.pbtxt describes."""

from pathlib import Path

import numpy as np
import pytest

from flyweight.server.errors import LoadFailed
from flyweight.server.repository.model_config import parse_model_config
from flyweight.server.repository.warmup import WarmupSample, warmup_samples


def samples(text: str, folder: Path = Path("/nowhere"), rows: int = 8) -> list[WarmupSample]:
    config = parse_model_config(f"max_batch_size: {rows} model_warmup [{{{text}}}]", Path("config.pbtxt"))
    return list(warmup_samples(config, "m", folder))


def one_input(text: str, batch: int = 1) -> str:
    return f'name: "s" batch_size: {batch} inputs {{key: "x" value {{{text}}}}}'


def test_zeros_are_repeated_for_every_row() -> None:
    (sample,) = samples(one_input("data_type: TYPE_FP32 dims: [2, 3] zero_data: true", batch=4))
    assert sample.inputs["x"].shape == (4, 2, 3)
    assert sample.inputs["x"].dtype == np.float32
    assert not sample.inputs["x"].any()
    assert sample.count == 1


def test_without_a_batch_axis_there_is_none() -> None:
    (sample,) = samples(one_input("data_type: TYPE_INT64 dims: [2] zero_data: true"), rows=0)
    assert sample.inputs["x"].shape == (2,)


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "INT8", "UINT64", "BOOL", "STRING"])
def test_random_data_are_the_same_every_time(datatype: str) -> None:
    text = one_input(f"data_type: TYPE_{datatype} dims: [16] random_data: true")
    (first,), (second,) = samples(text), samples(text)
    np.testing.assert_array_equal(first.inputs["x"], second.inputs["x"])
    assert datatype == "STRING" or len(set(first.inputs["x"].ravel().tolist())) > 1


def test_data_come_from_a_file_in_warmup(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.int32)
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "raw").write_bytes(array.tobytes())
    (sample,) = samples(one_input('data_type: TYPE_INT32 dims: [6] input_data_file: "raw"', 2), tmp_path)
    np.testing.assert_array_equal(sample.inputs["x"], [array, array])


def test_strings_in_a_file_are_as_on_the_wire(tmp_path: Path) -> None:
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "raw").write_bytes(b"\x02\0\0\0hi\x00\0\0\0")
    (sample,) = samples(one_input('data_type: TYPE_STRING dims: [2] input_data_file: "raw"'), tmp_path)
    assert sample.inputs["x"].tolist() == [[b"hi", b""]]


def test_a_sample_of_no_rows_is_skipped_and_a_count_is_kept() -> None:
    assert samples(one_input("data_type: TYPE_FP32 dims: [1] zero_data: true", batch=0)) == []
    text = one_input("data_type: TYPE_FP32 dims: [1] zero_data: true") + " count: 3"
    assert samples(text)[0].count == 3


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (one_input("data_type: TYPE_FP32 dims: [-1] zero_data: true"), "free length"),
        (one_input("dims: [1] zero_data: true"), "no data_type"),
        (one_input("data_type: TYPE_FP32 dims: [1]"), "says nothing of the contents of 'x'"),
        (one_input("data_type: TYPE_FP32 dims: [1] zero_data: true", 9), "9 rows where max_batch_size is 8"),
        (one_input("data_type: TYPE_FP32 dims: [1] zero_data: true") + " count: 20000", "20000 runs"),
        (one_input("data_type: TYPE_FP32 dims: [65536, 65536] zero_data: true"), "more than 2147483648"),
        (one_input('data_type: TYPE_FP32 dims: [2] input_data_file: "short"'), "takes 8 bytes, and 4 were"),
        (one_input('data_type: TYPE_FP32 dims: [1] input_data_file: "none"'), "is not there"),
        (one_input('data_type: TYPE_FP32 dims: [1] input_data_file: "../secret"'), "must lie in"),
        (one_input('data_type: TYPE_FP32 dims: [1] input_data_file: "link"'), "leads out of"),
    ],
)
def test_a_sample_that_cannot_be_made_is_refused(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "short").write_bytes(b"\0" * 4)
    (tmp_path / "secret").write_bytes(b"\0" * 4)
    (tmp_path / "warmup" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(LoadFailed, match=r"^The config\.pbtxt of m, in the warm-up sample 's',") as caught:
        samples(text, tmp_path)
    assert named in str(caught.value)
