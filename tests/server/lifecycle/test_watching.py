"""What wakes the one who scans: the kernel, a caller, or the time; and what happens where that fails."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flyweight.server.lifecycle.inotify import Inotify
from flyweight.server.lifecycle.manager import Manager, ManagerSettings
from flyweight.server.lifecycle.watching import Watch, folders_of
from flyweight.server.repository.scan import scan_repository
from flyweight.server.runtime.fake import FakeFactory, FakeRuntime
from tests.open_files import no_file_left

# Longer than any test is allowed to take: what comes back sooner was woken.
NEVER = 300.0
SOON = 20.0


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.close()


def is_woken(watch: Watch) -> bool:
    """Tell whether there is a reason to scan now; the kernel has told of what happened before it returned."""
    return watch._look(0.0)


def follow(watch: Watch, root: Path) -> bool:
    return watch.follow(folders_of(root, scan_repository(root)))


def rename(root: Path) -> None:
    (root / "tiny" / "int8").rename(root / "tiny" / "int4")


def remove(root: Path) -> None:
    (root / "tiny" / "int8" / "model.onnx").unlink()


def rewrite(root: Path) -> None:
    (root / "tiny" / "traffic.yaml").write_text("split: {baseline: 100}")


def add_model(root: Path) -> None:
    (root / "other").mkdir()


def append(root: Path) -> None:
    with (root / "tiny" / "int8" / "model.onnx").open("ab") as file:
        file.write(b"more")


def replace_root(root: Path) -> None:
    root.rename(root.with_name("before"))


@pytest.mark.parametrize("change", [rename, remove, rewrite, add_model, append, replace_root])
def test_a_change_wakes(watch: Watch, repository: Path, change: Callable[[Path], None]) -> None:
    follow(watch, repository)
    assert not is_woken(watch)
    change(repository)
    assert is_woken(watch)
    watch.wait(0.0)
    assert not is_woken(watch), "what was told is told once"


def hide(root: Path) -> None:
    (root / "tiny" / ".staging").mkdir()
    (root / "tiny" / ".staging" / "model.onnx").write_bytes(b"")
    (root / "tiny" / ".traffic.yaml.tmp").write_text("")


def read(root: Path) -> None:
    (root / "tiny" / "int8" / "model.onnx").read_bytes()
    list((root / "tiny").iterdir())


@pytest.mark.parametrize("change", [hide, read])
def test_what_no_scan_would_see_wakes_nobody(
    watch: Watch, repository: Path, change: Callable[[Path], None]
) -> None:
    follow(watch, repository)
    change(repository)
    assert not is_woken(watch)


def test_following_again_changes_nothing_until_a_folder_is_another(watch: Watch, repository: Path) -> None:
    assert follow(watch, repository)
    assert not follow(watch, repository)
    assert watch.watched == 4
    (repository / "tiny" / "int8").rename(repository / ".aside")
    assert not follow(watch, repository)
    assert watch.watched == 3
    (repository / "tiny" / "int8").mkdir()
    assert follow(watch, repository)
    is_woken(watch)
    (repository / "tiny" / "int8" / "model.onnx").write_bytes(b"")
    assert is_woken(watch)


def test_a_root_that_is_replaced_is_followed_where_it_stands_now(watch: Watch, repository: Path) -> None:
    follow(watch, repository)
    repository.rename(repository.with_name("before"))
    repository.mkdir()
    assert follow(watch, repository)
    is_woken(watch)
    (repository.with_name("before") / "tiny" / "x").mkdir()
    assert not is_woken(watch), "nobody serves what was renamed away"
    (repository / "tiny").mkdir()
    assert is_woken(watch)


def test_inner_folders_of_a_variant_are_followed_too(watch: Watch, repository: Path) -> None:
    inner = repository / "tiny" / "int8" / "weights" / "deep"
    inner.mkdir(parents=True)
    (inner / "data").write_bytes(b"1")
    folders = folders_of(repository, scan_repository(repository))
    assert folders[0] == repository
    assert folders[-2:] == [inner.parent, inner]
    watch.follow(folders)
    (inner / "data").write_bytes(b"2")
    assert is_woken(watch)


def test_a_call_wakes_a_wait_in_another_thread(watch: Watch) -> None:
    done = threading.Event()

    def wait() -> None:
        watch.wait(NEVER)
        done.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    watch.wake()
    assert done.wait(SOON)
    waiting.join(SOON)


def test_many_calls_are_one_reason(watch: Watch) -> None:
    for _ in range(100_000):
        watch.wake()
    assert is_woken(watch)
    assert not is_woken(watch)


def test_a_hidden_change_does_not_cut_a_wait_short(watch: Watch, repository: Path) -> None:
    follow(watch, repository)
    hide(repository)
    began = time.monotonic()
    watch.wait(0.05)
    assert time.monotonic() - began >= 0.05


def test_a_call_after_the_end_writes_nowhere(repository: Path) -> None:
    watch = Watch()
    watch.close()
    reading, writing = os.pipe()
    try:
        os.set_blocking(reading, False)
        watch.wake()
        with pytest.raises(BlockingIOError):
            os.read(reading, 1)
    finally:
        os.close(reading)
        os.close(writing)


def test_more_folders_than_the_most_are_told_of_once(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch(most_folders=2)
    follow(watch, repository)
    follow(watch, repository)
    assert watch.watched == 2
    (record,) = caplog.records
    assert "2 folders of the repository are watched" in record.getMessage()
    assert "the others are polled" in record.getMessage()
    rewrite(repository)
    assert is_woken(watch), "those near the root are watched"
    watch.close()


class Exhausted(Inotify):
    """A user who has no watch left but one."""

    def watch(self, folder: Path) -> int:
        if folder.name != "repository":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().watch(folder)


def test_a_kernel_without_watches_left_is_told_of_once(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch(Exhausted)
    follow(watch, repository)
    assert watch.watched == 1
    assert "fs.inotify.max_user_watches" in caplog.text
    watch.close()


def no_inotify() -> Inotify:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_without_inotify_time_and_calls_still_wake(
    caplog: pytest.LogCaptureFixture, repository: Path
) -> None:
    watch = Watch(no_inotify)
    assert "it is polled alone" in caplog.text
    assert not follow(watch, repository)
    rewrite(repository)
    assert not is_woken(watch)
    watch.wake()
    assert is_woken(watch)
    watch.wait(0.01)
    watch.close()


def test_an_overflow_of_the_kernels_queue_is_a_reason_to_scan(watch: Watch, repository: Path) -> None:
    """Caused: more events than the queue holds, all of them hidden; what was lost may have mattered."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 50_000:
        pytest.skip("this kernel's queue is too long to fill in a test")
    follow(watch, repository)
    for number in range(most // 2 + 1):
        hidden = repository / f".{number % 2}"
        hidden.touch()
        hidden.unlink()
    assert is_woken(watch)


def test_descriptors_are_given_back(repository: Path) -> None:
    with no_file_left():
        for _ in range(10):
            watch = Watch()
            follow(watch, repository)
            watch.close()


@pytest.fixture
def hourly(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """Return a manager that polls every hour, so that whatever it finds the kernel told it."""
    factory = FakeFactory(lambda path: FakeRuntime(scale=3.0 if path.parent.name == "int8" else 2.0))
    # Two scans a moment apart are enough here to believe what has no digest.
    monkeypatch.setattr("flyweight.server.lifecycle.manager._QUIET_SHARE", 0.05 / 3600)
    manager = Manager(ManagerSettings(repository, poll_seconds=3600.0), factory)
    manager.start()
    assert manager.wait_until_settled(SOON)
    yield manager
    manager.stop()


def await_ready(manager: Manager, *variants: str, model: str = "tiny") -> None:
    def is_there() -> bool:
        served = manager.table.models.get(model)
        return sorted(served.variants if served else []) == sorted(variants)

    assert manager._board.wait_for(is_there, SOON)


def test_a_published_variant_is_served_without_a_poll(hourly: Manager, publish: Any) -> None:
    publish("fp16", 2.0, parent="baseline")
    await_ready(hourly, "baseline", "fp16", "int8")


def test_a_new_model_is_served_without_a_poll(hourly: Manager, publish: Any) -> None:
    publish("baseline", 2.0, model="other")
    await_ready(hourly, "baseline", model="other")


def test_a_plain_copy_in_progress_is_served_when_it_is_whole(
    hourly: Manager, tiny_model: Any, repository: Path
) -> None:
    whole = tiny_model(repository / ".elsewhere").read_bytes()
    path = repository / "plain" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        for byte in range(0, len(whole), 40):
            file.write(whole[byte : byte + 40])
            file.flush()
    await_ready(hourly, "1", model="plain")


def test_a_repository_that_is_removed_and_made_again_is_followed(hourly: Manager, publish: Any) -> None:
    root = hourly._settings.repository
    root.rename(root.with_name("unmounted"))
    assert hourly._board.wait_for(lambda: bool(hourly._board.picture().emission.error), SOON)  # type: ignore[union-attr]
    await_ready(hourly, "baseline", "int8")
    root.mkdir()
    publish("fp16", 2.0)
    hourly.load_model("tiny", SOON)
    await_ready(hourly, "fp16")
    publish("fp32", 2.0)
    await_ready(hourly, "fp16", "fp32")
