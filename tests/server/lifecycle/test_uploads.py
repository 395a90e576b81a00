"""Models that come with a load: served in the place of the repository's, whole or not at all."""

import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyweight.server.errors import LoadFailed, TrafficPlanError, UnknownModel
from flyweight.server.lifecycle.manager import Manager, ManagerSettings
from flyweight.server.lifecycle.overlay import Upload
from flyweight.server.lifecycle.table import lease_from
from flyweight.server.lifecycle.uploads import Uploads
from flyweight.server.runtime.inline import InlineFactory
from flyweight.server.traffic import TrafficFile

X = np.ones((1, 4), np.float32)
SOON = 20.0


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return folder


@pytest.fixture
def start(repository: Path, kept: Path) -> Iterator[Callable[..., Manager]]:
    managers: list[Manager] = []

    def start_one(**settings: Any) -> Manager:
        settings = {"upload_folder": kept, "poll_seconds": 0.02, **settings}
        manager = Manager(ManagerSettings(repository, **settings), InlineFactory(cores=1))
        managers.append(manager)
        manager.start()
        assert manager.wait_until_settled(SOON)
        return manager

    yield start_one
    for manager in managers:
        manager.stop()


@pytest.fixture
def manager(start: Callable[..., Manager]) -> Manager:
    return start()


@pytest.fixture
def model(tiny_model: Any, tmp_path: Path) -> Callable[[float], bytes]:
    return lambda scale: tiny_model(tmp_path / "source.onnx", scale).read_bytes()


def answer(manager: Manager, variant: str = "", model: str = "tiny") -> float:
    with lease_from(lambda: manager.table, lambda table: (table.model(model).variant(variant), None)) as held:
        return float(held.runtime.run({"x": X}).outputs["y"][0, 0])


def folders(kept: Path) -> list[Path]:
    """Return the model folders of all uploads."""
    return sorted(path for path in kept.glob("*/*/*") if path.is_dir())


def await_empty(manager: Manager, kept: Path) -> None:
    """Wait until the worker has removed what nobody uses; it does so after it has unloaded."""
    pause = threading.Event()
    for _ in range(400):
        if not folders(kept):
            return
        manager._work_now.set()
        pause.wait(0.05)
    pytest.fail(f"{folders(kept)} are still there")


def test_files_take_the_place_of_the_repositorys_until_a_load_without_any(
    manager: Manager, model: Any, kept: Path
) -> None:
    manager.load_model("tiny", SOON, Upload("", {"1/model.onnx": model(7.0)}))
    assert list(manager.table.models["tiny"].variants) == ["1"]
    assert answer(manager) == 7.0
    manager.load_model("tiny", SOON)
    assert sorted(manager.table.models["tiny"].variants) == ["baseline", "int8"]
    assert answer(manager) == 2.0
    await_empty(manager, kept)


def test_they_stay_while_the_repository_changes(manager: Manager, model: Any, publish: Any) -> None:
    manager.load_model("tiny", SOON, Upload("", {"1/model.onnx": model(7.0)}))
    publish("baseline", 4.0)
    publish("baseline", 5.0, model="other")
    manager.load_model("other", SOON)
    assert answer(manager) == 7.0


def test_a_configuration_alone_is_for_the_repositorys_files(manager: Manager) -> None:
    manager.load_model("tiny", SOON, Upload("max_batch_size: 3"))
    limits = {name: v.signature.max_batch_rows for name, v in manager.table.models["tiny"].variants.items()}
    assert limits == {"baseline": 3, "int8": 3}
    manager.load_model("tiny", SOON)
    assert manager.table.models["tiny"].variants["int8"].signature.max_batch_rows == 1024


def test_a_model_that_the_repository_lacks_can_be_brought(manager: Manager, model: Any, kept: Path) -> None:
    manager.load_model("brought", SOON, Upload("", {"1/model.onnx": model(7.0), "2/model.onnx": model(9.0)}))
    assert answer(manager, model="brought") == 9.0
    manager.unload_model("brought", SOON)
    assert list(manager.table.models) == ["tiny"]
    await_empty(manager, kept)
    with pytest.raises(UnknownModel):
        manager.load_model("brought", SOON)


def test_a_configuration_for_a_model_that_is_not_there_is_refused(manager: Manager) -> None:
    with pytest.raises(UnknownModel, match="no model 'huge'"):
        manager.load_model("huge", SOON, Upload("max_batch_size: 3"))


def test_an_upload_that_cannot_be_loaded_changes_nothing(manager: Manager, kept: Path) -> None:
    before = dict(manager.table.models["tiny"].variants)
    with pytest.raises(LoadFailed, match=r"as it was uploaded: .*1/model.onnx cannot be loaded"):
        manager.load_model("tiny", SOON, Upload("", {"1/model.onnx": b"no model"}))
    assert dict(manager.table.models["tiny"].variants) == before, "the very same, not loaded again"
    assert all(entry.reason == "" for entry in manager.index())
    await_empty(manager, kept)


def test_a_failed_upload_leaves_the_one_before_it(manager: Manager, model: Any) -> None:
    manager.load_model("tiny", SOON, Upload("", {"1/model.onnx": model(7.0)}))
    with pytest.raises(LoadFailed):
        manager.load_model("tiny", SOON, Upload("max_batch_size: -1", {"1/model.onnx": model(8.0)}))
    assert answer(manager) == 7.0


def test_an_upload_of_which_a_part_fails_is_taken_back_whole(manager: Manager, model: Any) -> None:
    everything = "version_policy { all {} }"
    with pytest.raises(LoadFailed):
        manager.load_model(
            "tiny", SOON, Upload(everything, {"2/model.onnx": model(7.0), "1/model.onnx": b"no model"})
        )
    assert manager._board.wait_for(
        lambda: sorted(manager.table.models["tiny"].variants) == ["baseline", "int8"], SOON
    )
    assert answer(manager) == 2.0


def test_requests_go_on_while_an_upload_comes_and_goes(manager: Manager, model: Any) -> None:
    with lease_from(lambda: manager.table, lambda table: (table.model("tiny").variant(""), None)) as held:
        manager.load_model("tiny", SOON, Upload("", {"1/model.onnx": model(7.0)}))
        assert held.runtime.run({"x": X}).outputs["y"][0, 0] == 2.0


def test_traffic_of_an_uploaded_model_is_not_changed(manager: Manager, model: Any, repository: Path) -> None:
    manager.load_model("tiny", SOON, Upload("", {"1/model.onnx": model(7.0)}))
    with pytest.raises(TrafficPlanError, match="is served as it was uploaded"):
        manager.set_traffic("tiny", TrafficFile(repository), timeout_seconds=SOON)
    assert not (repository / "tiny" / "traffic.yaml").exists()


def test_explicit_mode_takes_uploads_too(start: Callable[..., Manager], model: Any) -> None:
    manager = start(explicit=True)
    manager.load_model("brought", SOON, Upload("", {"1/model.onnx": model(7.0)}))
    assert list(manager.table.models) == ["brought"]


def test_the_folder_is_private_and_gone_at_the_end(
    start: Callable[..., Manager], model: Any, kept: Path
) -> None:
    manager = start()
    assert not list(kept.iterdir()), "none before it is needed"
    manager.load_model("tiny", SOON, Upload("", {"1/model.onnx": model(7.0)}))
    (base,) = kept.iterdir()
    assert stat.S_IMODE(base.stat().st_mode) == 0o700
    manager.stop()
    assert not list(kept.iterdir())


def test_more_than_there_is_room_for_is_refused_with_the_numbers(
    start: Callable[..., Manager], model: Any, kept: Path
) -> None:
    content = model(7.0)
    manager = start(most_upload_bytes=len(content) + 10)
    manager.load_model("one", SOON, Upload("", {"1/model.onnx": content}))
    with pytest.raises(LoadFailed, match=f"has {len(content)} bytes, and {len(content)} of the"):
        manager.load_model("two", SOON, Upload("", {"1/model.onnx": content}))
    assert list(kept.glob("*/*/two")) == []
    manager.unload_model("one", SOON)
    await_empty(manager, kept)
    manager.load_model("two", SOON, Upload("", {"1/model.onnx": content}))


def test_a_folder_that_cannot_be_written_is_told(start: Callable[..., Manager], kept: Path) -> None:
    kept.rmdir()
    manager = start()
    with pytest.raises(LoadFailed, match=r"cannot be written \(No such file or directory\)"):
        manager.load_model("tiny", SOON, Upload("", {"1/model.onnx": b""}))
    assert answer(manager) == 2.0


def test_paths_that_contradict_each_other_are_told(manager: Manager) -> None:
    with pytest.raises(LoadFailed, match="cannot be written"):
        manager.load_model("tiny", SOON, Upload("", {"1/a": b"", "1/a/b": b""}))
    assert answer(manager) == 2.0


def test_what_a_killed_server_left_is_removed_and_what_a_living_one_has_is_not(
    manager: Manager, kept: Path, model: Any
) -> None:
    dead, alive, strange = (kept / f"flyweight-uploads-{name}" for name in ("dead", "alive", "strange"))
    for folder in (dead, alive, strange):
        folder.mkdir()
    for folder in (dead, alive):
        (folder / ".owner").touch()
    (kept / "flyweight-uploads-link").symlink_to(dead)
    descriptor = os.open(alive / ".owner", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        manager.load_model("tiny", SOON, Upload("", {"1/model.onnx": model(7.0)}))
        assert not dead.exists()
        assert alive.exists()
        assert strange.exists()
    finally:
        os.close(descriptor)


def test_a_sweep_that_cannot_tell_removes_nothing(kept: Path) -> None:
    uploads = Uploads(kept, 100)
    with uploads.lay("m", Upload("", {"1/model.onnx": b"1"})):
        pass
    uploads.sweep(lambda: None)
    assert not uploads.is_empty
    uploads.sweep(set)
    assert uploads.is_empty
    uploads.close()
    uploads.close()
