import os
import time
from pathlib import Path
from typing import Any

import pytest

from flyweight.protos.errors import RepositoryError
from flyweight.server.repository import scan
from flyweight.server.repository.fingerprint import take_fingerprint
from flyweight.server.repository.scan import scan_repository


def test_models_variants_and_texts_are_read(repository: Path) -> None:
    (repository / "tiny" / "config.pbtxt").write_text('name: "tiny"')
    (repository / "tiny" / "traffic.yaml").write_text("baseline: baseline\n")
    snapshot = scan_repository(repository)
    tiny = snapshot.models["tiny"]
    assert sorted(tiny.variants) == ["baseline", "int8"]
    assert tiny.config_text == 'name: "tiny"'
    assert tiny.traffic_text == "baseline: baseline\n"
    files = [stamp.path for stamp in tiny.variants["int8"].fingerprint.files]
    assert files == ["golden.npz", "manifest.json", "model.onnx"]
    assert snapshot.faults == ()


def test_the_same_files_give_an_equal_snapshot(repository: Path) -> None:
    assert scan_repository(repository) == scan_repository(repository)


def test_hidden_folders_and_loose_files_are_ignored(repository: Path) -> None:
    for name in (".git", "tiny/.int8.0123.publishing", "lost+found"):
        (repository / name).mkdir()
    (repository / "README.md").write_text("read me")
    (repository / "tiny" / "int8" / ".swap").write_text("")
    snapshot = scan_repository(repository)
    assert list(snapshot.models) == ["tiny"]
    assert sorted(snapshot.models["tiny"].variants) == ["baseline", "int8"]
    assert not snapshot.models["tiny"].variants["int8"].fingerprint.has(".swap")
    assert snapshot.faults == ()


def test_names_that_are_not_allowed_are_skipped_with_a_fault(repository: Path) -> None:
    (repository / "my model").mkdir()
    (repository / "tiny" / "-v").mkdir()
    snapshot = scan_repository(repository)
    assert [(fault.model, fault.variant) for fault in snapshot.faults] == [("my model", ""), ("tiny", "-v")]
    assert snapshot.faults[0].reason.startswith("'my model' cannot name a model: use 1 to 128 letters")
    assert list(snapshot.models) == ["tiny"]


def test_a_repository_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"nowhere cannot be read \(No such file or directory\)"):
        scan_repository(tmp_path / "nowhere")


def test_a_file_in_place_of_the_repository_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RepositoryError, match="Not a directory"):
        scan_repository(tmp_path / "file")


@pytest.mark.parametrize("vanishing", ["tiny", "tiny/int8", "tiny/traffic.yaml"])
def test_what_vanishes_meanwhile_is_left_out(
    repository: Path, monkeypatch: pytest.MonkeyPatch, vanishing: str
) -> None:
    """The file system answers "no such file" from the moment at which it is gone."""
    (repository / "tiny" / "traffic.yaml").write_text("")
    real = os.scandir

    def scandir(path: Path) -> Any:
        if Path(path) == repository / vanishing:
            raise FileNotFoundError
        return real(path)

    if vanishing.endswith(".yaml"):
        (repository / vanishing).unlink()
    monkeypatch.setattr(os, "scandir", scandir)
    snapshot = scan_repository(repository)
    assert snapshot.faults == ()
    if vanishing == "tiny":
        assert not snapshot.models
    elif vanishing == "tiny/int8":
        assert list(snapshot.models["tiny"].variants) == ["baseline"]
    else:
        assert snapshot.models["tiny"].traffic_text is None


@pytest.mark.parametrize("unreadable", ["tiny", "tiny/int8"])
def test_what_cannot_be_read_is_a_fault_that_says_so(
    repository: Path, monkeypatch: pytest.MonkeyPatch, unreadable: str
) -> None:
    real = os.scandir

    def scandir(path: Path) -> Any:
        if Path(path) == repository / unreadable:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (fault,) = scan_repository(repository).faults
    assert "/".join(filter(None, (fault.model, fault.variant))) == unreadable
    assert fault.unreadable
    assert (
        fault.reason
        == f"{repository / unreadable} cannot be read (Permission denied); check its permissions."
    )


def test_a_text_that_is_not_utf8_is_read_as_far_as_it_goes(repository: Path) -> None:
    (repository / "tiny" / "config.pbtxt").write_bytes(b"name: \xff")
    assert scan_repository(repository).models["tiny"].config_text == "name: \ufffd"


def test_only_the_beginning_of_a_huge_text_is_read(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As much as shows that it is too long, whatever its characters take."""
    monkeypatch.setattr(scan, "_MOST_READ_BYTES", 4)
    (repository / "tiny" / "traffic.yaml").write_text("0123456789")
    assert scan_repository(repository).models["tiny"].traffic_text == "0123"


def test_a_model_folder_may_be_a_link(repository: Path) -> None:
    (repository / "linked").symlink_to(repository / "tiny")
    assert sorted(scan_repository(repository).models["linked"].variants) == ["baseline", "int8"]


def test_a_link_to_a_folder_above_does_not_loop(repository: Path) -> None:
    (repository / "tiny" / "int8" / "up").symlink_to(repository)
    assert not take_fingerprint(repository / "tiny" / "int8").has("up/tiny/int8/model.onnx")


def test_a_fingerprint_changes_with_any_file(repository: Path) -> None:
    folder = repository / "tiny" / "int8"
    before = take_fingerprint(folder)
    content = (folder / "model.onnx").read_bytes()
    status = (folder / "model.onnx").stat()
    # Replaced by a file of the same length and time: only the inode tells.
    (folder / "other").write_bytes(content)
    os.utime(folder / "other", ns=(status.st_atime_ns, status.st_mtime_ns))
    (folder / "other").rename(folder / "model.onnx")
    after = take_fingerprint(folder)
    assert before != after
    assert before.size_bytes == after.size_bytes
    (folder / "sub").mkdir()
    (folder / "sub" / "weights").write_bytes(b"12345")
    assert take_fingerprint(folder).has("sub/weights")
    assert take_fingerprint(folder).size_bytes == before.size_bytes + 5


def test_a_fingerprint_tells_when_something_in_it_last_changed(repository: Path) -> None:
    folder = repository / "tiny" / "int8"
    before = time.time_ns()
    (folder / "sub").mkdir()
    made = take_fingerprint(folder)
    # The file system's clock has ticks.
    assert made.changed_ns >= before - 1_000_000_000
    # As a copy does that keeps times: what was changed is told by the file's own change.
    os.utime(folder / "model.onnx", (0, 0))
    touched = take_fingerprint(folder)
    assert touched.files != made.files
    assert touched.changed_ns == (folder / "model.onnx").stat().st_ctime_ns


@pytest.mark.parametrize("folder", [".", "tiny"])
def test_a_link_that_leads_nowhere_safe_is_named_and_the_rest_is_read(repository: Path, folder: str) -> None:
    (repository / folder / "loop").symlink_to("loop")
    snapshot = scan_repository(repository)
    assert sorted(snapshot.models["tiny"].variants) == ["baseline", "int8"]
    (fault,) = snapshot.faults
    assert (fault.model, fault.variant) == (("loop", "") if folder == "." else ("tiny", "loop"))
    assert fault.unreadable
    assert "loop cannot be read (Too many levels of symbolic links)" in fault.reason


def test_a_pipe_in_place_of_a_text_is_not_waited_for(repository: Path) -> None:
    os.mkfifo(repository / "tiny" / "traffic.yaml")
    snapshot = scan_repository(repository)
    assert "traffic.yaml cannot be read (Not a regular file)" in snapshot.faults[0].reason
