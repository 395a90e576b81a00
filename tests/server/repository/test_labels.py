import os
from pathlib import Path

import pytest

from flyweight.protos.inference.model_config_pb2 import ModelConfig, ModelOutput
from flyweight.server.errors import LoadFailed
from flyweight.server.repository import labels
from flyweight.server.repository.labels import read_labels


def config(name: str) -> ModelConfig:
    return ModelConfig(output=[ModelOutput(name="y", label_filename=name), ModelOutput(name="z")])


@pytest.mark.parametrize("text", ["cat\ndög\n", "cat\ndög", "cat\r\ndög\r\n"])
def test_a_label_stands_on_each_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.txt").write_bytes(text.encode())
    assert read_labels(config("labels.txt"), tmp_path) == {"y": ("cat", "dög")}


def test_an_empty_line_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\n\nc\n")
    assert read_labels(config("labels.txt"), tmp_path)["y"] == ("a", "", "c")


def test_a_model_without_labels_has_none(tmp_path: Path) -> None:
    assert read_labels(ModelConfig(), tmp_path) == {}


def test_a_file_may_lie_deeper_and_be_a_link_inside(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "real.txt").write_text("a")
    (tmp_path / "link.txt").symlink_to("deep/real.txt")
    assert read_labels(config("link.txt"), tmp_path)["y"] == ("a",)


@pytest.mark.parametrize(
    "name", ["../secret.txt", "/etc/hostname", "a/../../secret.txt", "link.txt", "out/secret.txt"]
)
def test_nothing_outside_the_models_folder_is_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "out").symlink_to(tmp_path)
    with pytest.raises(LoadFailed, match="not in the model's folder"):
        read_labels(config(name), folder)


def test_a_file_that_is_not_there_is_named_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"labels\.txt.*output 'y'.*No such file"):
        read_labels(config("labels.txt"), tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LoadFailed, match="not a regular file"):
        read_labels(config("pipe"), tmp_path)


def test_what_is_no_text_or_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "labels.txt").write_bytes(b"\xff")
    with pytest.raises(LoadFailed, match="not UTF-8"):
        read_labels(config("labels.txt"), tmp_path)
    monkeypatch.setattr(labels, "_MOST_BYTES", 3)
    (tmp_path / "labels.txt").write_bytes(b"aaaa")
    with pytest.raises(LoadFailed, match="longer than 3 bytes"):
        read_labels(config("labels.txt"), tmp_path)
