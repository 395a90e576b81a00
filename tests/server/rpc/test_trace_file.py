"""A file of traces is a whole JSON array after every write, and nothing but traces is ever written over."""

import json
import os
import threading
from pathlib import Path

import pytest

from flyweight.server.rpc.trace_file import TraceFiles, append


def read(path: Path) -> list[int]:
    return list(json.loads(path.read_text()))


def test_the_array_is_whole_after_every_write(tmp_path: Path) -> None:
    path = tmp_path / "t"
    append(path, b"1")
    assert read(path) == [1]
    append(path, b"2,\n3")
    assert read(path) == [1, 2, 3]


def test_a_restarted_server_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    for round_ in range(2):
        files = TraceFiles(tmp_path)
        files.add("t", str(round_).encode())
        files.close()
    assert read(tmp_path / "t") == [0, 1]


@pytest.mark.parametrize("content", [b"x", b"[1]", b"somebody's notes\n]", b"]", b"{}\n"])
def test_a_file_that_is_none_of_ours_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(OSError, match="not a file of traces"):
        append(tmp_path / "t", b"1")
    assert (tmp_path / "t").read_bytes() == content


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"")
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError, match=name):
            append(tmp_path / name, b"1")
    assert (tmp_path / "real").read_bytes() == b""


def test_a_full_disk_leaves_the_array_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "t", os.pwrite
    append(path, b"1")
    calls = iter([3, None])

    def partly(descriptor: int, data: bytes, position: int) -> int:
        limit = next(calls, 0)
        if limit is None:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:limit] if limit else data, position)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", partly)
        with pytest.raises(OSError, match="No space left"):
            append(path, b"2222")
    assert read(path) == [1]


def test_every_file_gets_its_own(tmp_path: Path) -> None:
    files = TraceFiles(tmp_path)
    for index in range(100):
        files.add(f"t{index % 2}", str(index).encode())
    files.close()
    assert read(tmp_path / "t0") == list(range(0, 100, 2))
    assert read(tmp_path / "t1") == list(range(1, 100, 2))
    assert files.dropped == 0


def test_more_than_the_bound_is_dropped_counted_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = TraceFiles(tmp_path, most_bytes=20)
    for _ in range(10):
        files.add("t", b"12345678")
    files.close()
    assert files.dropped >= 8
    assert len((tmp_path / "t").read_bytes() if (tmp_path / "t").exists() else b"") <= 24
    assert caplog.text.count("reached their bound") == 1


def test_what_cannot_be_written_is_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "t").mkdir()
    files = TraceFiles(tmp_path)
    files.add("t", b"1")
    files.close()
    assert files.dropped == 1
    assert "Is a directory" in caplog.text


def test_nobody_waits_for_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, is_writing = threading.Event(), threading.Event()

    def slow(_descriptor: int, data: bytes, _position: int) -> int:
        is_writing.set()
        assert go_on.wait(30)
        return len(data)

    monkeypatch.setattr(os, "pwrite", slow)
    files = TraceFiles(tmp_path, most_waiting=2)
    files.add("t", b"1")
    assert is_writing.wait(30)
    for _ in range(5):
        files.add("t", b"1")
    assert files.dropped == 3
    go_on.set()
    files.close()


def test_closing_what_never_wrote_starts_nothing(tmp_path: Path) -> None:
    before = threading.active_count()
    TraceFiles(tmp_path).close()
    assert threading.active_count() == before
