from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
from demo.__main__ import main

pytestmark = pytest.mark.torch


def test_missing_fashion_mnist_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    arguments = ["--data", "fashion", "--data-folder", str(tmp_path), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "install the Debian package dataset-fashion-mnist" in result.stderr
    assert result.stderr.count("\n") == 1


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(main, ["--out", str(tmp_path / "file" / "out")])
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_help_names_the_data() -> None:
    assert "fashion" in CliRunner().invoke(main, ["--help"]).output
