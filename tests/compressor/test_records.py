"""The record of a run: whole or not there, and nothing left beside it."""

import os
from pathlib import Path
from typing import Any

import pytest

from flyweight.compressor.records import read_record, record_folder, write_record
from flyweight.protos.errors import RepositoryError


class Report:
    """As much of a report as is written."""

    def __init__(self, repository: Path) -> None:
        self.repository, self.model = repository, "net"

    def document(self) -> dict[str, Any]:
        return {"model": self.model}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write_record(Report(tmp_path))
    assert path == tmp_path / "net" / ".flyweight" / "report.json"
    assert read_record(tmp_path, "net") == {"model": "net"}
    assert list(path.parent.iterdir()) == [path]


def test_an_old_unfinished_record_is_removed_and_a_new_one_is_not(tmp_path: Path) -> None:
    folder = record_folder(tmp_path, "net")
    folder.mkdir(parents=True)
    for name, age in (("report.1.unfinished", 7200), ("report.2.unfinished", 0)):
        (folder / name).write_text("{")
        time = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (time, time))
    write_record(Report(tmp_path))
    assert {path.name for path in folder.iterdir()} == {"report.json", "report.2.unfinished"}


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000])
def test_a_damaged_record_is_none(text: str, tmp_path: Path) -> None:
    record_folder(tmp_path, "net").mkdir(parents=True)
    (record_folder(tmp_path, "net") / "report.json").write_text(text)
    assert read_record(tmp_path, "net") is None


def test_a_record_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "net").write_text("a file where the model's folder should be")
    with pytest.raises(RepositoryError, match=r"cannot be written .*; free space or check the rights"):
        write_record(Report(tmp_path))
