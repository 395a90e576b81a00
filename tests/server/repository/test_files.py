"""Tensors in files that a config.pbtxt names."""

import os
from pathlib import Path

import pytest

from flyweight.server.errors import LoadFailed
from flyweight.server.repository.files import read_tensor_file
from flyweight.server.repository.fingerprint import take_loose_files
from flyweight.server.repository.scan import scan_repository


def test_a_file_is_read_as_raw_contents(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"\x01\0\0\0\x02\0\0\0")
    assert read_tensor_file(tmp_path, "raw", "INT32", (2, 1), "It").tolist() == [[1], [2]]


def make_loop(folder: Path) -> None:
    (folder / "bad").symlink_to("bad")


def make_folder(folder: Path) -> None:
    (folder / "bad").mkdir()


def make_pipe(folder: Path) -> None:
    os.mkfifo(folder / "bad")


@pytest.mark.parametrize("make", [make_loop, make_folder, make_pipe])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path)
    with pytest.raises(LoadFailed, match=r"^It names"):
        read_tensor_file(tmp_path, "bad", "INT32", (1,), "It")


@pytest.mark.parametrize("name", ["../raw", "/raw", "a/../../raw"])
def test_a_file_elsewhere_is_not_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(LoadFailed, match="must lie in"):
        read_tensor_file(tmp_path, name, "INT32", (1,), "It")


def test_files_beside_the_variants_are_seen_by_the_scan(repository: Path) -> None:
    model = repository / "tiny"
    for path in ("config.pbtxt", "traffic.yaml", "labels.txt", ".hidden", "warmup/a", "initial_state/b/c"):
        (model / path).parent.mkdir(parents=True, exist_ok=True)
        (model / path).write_text("")
    (model / "nowhere").symlink_to("nowhere")
    snapshot = scan_repository(repository)
    stamps = [stamp.path for stamp in snapshot.models["tiny"].files.files]
    assert stamps == ["initial_state/b/c", "labels.txt", "warmup/a"]
    assert [stamp.path for stamp in take_loose_files(model)] == ["config.pbtxt", "labels.txt", "traffic.yaml"]


def test_a_file_in_place_of_the_folder_of_samples_is_no_harm(repository: Path) -> None:
    (repository / "tiny" / "warmup").write_text("")
    assert [stamp.path for stamp in scan_repository(repository).models["tiny"].files.files] == ["warmup"]
