"""Traffic changed from afar: what is written, what comes into force, what is refused, what failures leave."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flyweight.protos.errors import RepositoryError
from flyweight.server.errors import (
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    ServerError,
    TrafficPlanError,
    UnknownModel,
    UnknownVariant,
)
from flyweight.server.lifecycle.manager import Manager, ManagerSettings
from flyweight.server.runtime.fake import FakeFactory, FakeRuntime
from flyweight.server.traffic import Brownout, TrafficFile
from flyweight.server.traffic.folder import TrafficFolder
from flyweight.server.traffic.writing import revision_of

SOON = 20.0
NOWHERE = Path("x")
HALVES = {"baseline": 50.0, "int8": 50.0}

# Names a lock of another process, holds it until its input ends.
HOLD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start(repository: Path) -> Iterator[Callable[[], Manager]]:
    """Return a function that starts a manager on the repository, as many as are wanted."""
    managers: list[Manager] = []

    def start_one() -> Manager:
        factory = FakeFactory(lambda path: FakeRuntime(scale=3.0 if path.parent.name == "int8" else 2.0))
        manager = Manager(ManagerSettings(repository, poll_seconds=0.02), factory)
        managers.append(manager)
        manager.start()
        assert manager.wait_until_settled(SOON)
        return manager

    yield start_one
    for manager in managers:
        manager.stop()


@pytest.fixture
def manager(start: Callable[[], Manager]) -> Manager:
    return start()


@pytest.fixture
def traffic_yaml(repository: Path) -> Path:
    return repository / "tiny" / "traffic.yaml"


def split(**percent: float) -> TrafficFile:
    return TrafficFile(NOWHERE, split=percent)


def test_a_plan_that_is_set_is_in_force_when_the_call_returns(manager: Manager, traffic_yaml: Path) -> None:
    served = manager.set_traffic("tiny", split(baseline=50, int8=50), timeout_seconds=SOON)
    assert served.plan.weights == (("baseline", 0.5), ("int8", 0.5))
    assert manager.table.models["tiny"].plan == served.plan
    assert served.revision == revision_of(traffic_yaml.read_text())


def test_everything_that_a_plan_has_survives_the_file(manager: Manager) -> None:
    wanted = TrafficFile(
        NOWHERE,
        baseline="int8",
        split={"baseline": 33.25, "int8": 66.75},
        sticky_parameter="user: id",
        sticky_metadata="x-user",
        labels={"stable": "baseline", "canary": "int8"},
        fallback="baseline",
        brownout=Brownout("baseline", 0.75),
    )
    plan = manager.set_traffic("tiny", wanted, timeout_seconds=SOON).plan
    assert (plan.baseline, plan.fallback, plan.brownout) == ("int8", "baseline", Brownout("baseline", 0.75))
    assert plan.weights == (("baseline", 0.3325), ("int8", 0.6675))
    assert (plan.sticky_parameter, plan.sticky_metadata) == ("user: id", "x-user")
    assert plan.labels == (("canary", "int8"), ("stable", "baseline"))


def test_a_label_is_served_as_the_variant_that_has_it(manager: Manager) -> None:
    manager.set_traffic("tiny", TrafficFile(NOWHERE, labels={"canary": "int8"}), timeout_seconds=SOON)
    assert manager.table.model("tiny").variant("canary").name == "int8"
    with pytest.raises(UnknownVariant, match="'stable'"):
        manager.table.model("tiny").variant("stable")


def test_another_server_on_the_repository_follows(start: Callable[[], Manager]) -> None:
    one, other = start(), start()
    one.set_traffic("tiny", split(int8=100), timeout_seconds=SOON)
    assert other._board.wait_for(lambda: other.table.models["tiny"].plan.weights == (("int8", 1.0),), SOON)


def test_a_promotion_and_its_undoing_survive_a_restart(start: Callable[[], Manager]) -> None:
    first = start()
    first.promote("tiny", "int8", SOON)
    first.stop()
    second = start()
    assert second.table.models["tiny"].plan.weights == (("int8", 1.0),)
    assert second.table.models["tiny"].baseline == "int8"
    assert second.roll_back("tiny", SOON).baseline == "baseline"
    second.stop()
    assert start().table.models["tiny"].baseline == "baseline"


def test_a_promotion_keeps_what_it_does_not_change(manager: Manager, traffic_yaml: Path) -> None:
    traffic_yaml.write_text(
        "# ours\n\nsplit: {baseline: 90, int8: 10}\nlabels: {canary: int8}\nfallback: baseline\n"
        "sticky: {parameter: user}\n"
    )
    manager.load_model("tiny", SOON)
    plan = manager.promote("tiny", "canary", SOON).plan
    assert plan.weights == (("int8", 1.0),)
    assert (plan.fallback, plan.variant_of("canary"), plan.sticky_parameter) == ("baseline", "int8", "user")
    assert traffic_yaml.read_text().startswith("# ours\n\nbaseline: int8\n")
    assert "split" not in traffic_yaml.read_text()


def test_promotions_are_undone_one_by_one(manager: Manager, publish: Any) -> None:
    publish("fp16", 2.0, parent="baseline")
    manager.load_model("tiny", SOON)
    for variant in ("int8", "fp16"):
        manager.promote("tiny", variant, SOON)
    assert manager.roll_back("tiny", SOON).baseline == "int8"
    assert manager.roll_back("tiny", SOON).baseline == "baseline"
    with pytest.raises(TrafficPlanError, match="No promotion in 'tiny' is remembered"):
        manager.roll_back("tiny", SOON)


def test_promoting_the_baseline_takes_the_split_away_and_is_nothing_to_undo(manager: Manager) -> None:
    manager.set_traffic("tiny", split(baseline=50, int8=50), timeout_seconds=SOON)
    assert manager.promote("tiny", "baseline", SOON).plan.weights == (("baseline", 1.0),)
    with pytest.raises(TrafficPlanError, match="No promotion"):
        manager.roll_back("tiny", SOON)


def test_a_baseline_that_was_changed_since_is_not_rolled_back(manager: Manager) -> None:
    manager.promote("tiny", "int8", SOON)
    manager.set_traffic("tiny", TrafficFile(NOWHERE, baseline="baseline"), timeout_seconds=SOON)
    with pytest.raises(TrafficPlanError, match="by now it is 'baseline'; set its traffic instead"):
        manager.roll_back("tiny", SOON)


def test_a_baseline_that_is_gone_is_not_rolled_back_to(
    manager: Manager, repository: Path, traffic_yaml: Path
) -> None:
    manager.promote("tiny", "int8", SOON)
    shutil.rmtree(repository / "tiny" / "baseline")
    assert manager._board.wait_for(lambda: "baseline" not in manager.table.models["tiny"].variants, SOON)
    before = traffic_yaml.read_text()
    with pytest.raises(TrafficPlanError, match="'baseline', is not ready; publish it again"):
        manager.roll_back("tiny", SOON)
    assert traffic_yaml.read_text() == before


def test_the_memory_of_promotions_is_bounded(manager: Manager, repository: Path) -> None:
    folder = TrafficFolder(repository / "tiny")
    manager.promote("tiny", "int8", SOON)
    text = folder.read_history()
    assert text is not None
    many = text.replace("[\n", "[\n" + text.split("[\n")[1].split("]")[0].rstrip() + ",\n")
    for _ in range(6):
        many = many.replace("[\n", "[\n" + many.split("[\n")[1].split("]")[0].rstrip() + ",\n")
    folder.write_history(many)
    manager.promote("tiny", "baseline", SOON)
    kept = folder.read_history()
    assert kept is not None
    assert kept.count('"promoted"') == 32


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda m: m.set_traffic("tiny", split(baseline=50, int8=40)), InvalidRequest, "add up to 90"),
        (lambda m: m.set_traffic("tiny", split(int4=100)), TrafficPlanError, "'int4'"),
        (
            lambda m: m.set_traffic("tiny", TrafficFile(NOWHERE, labels={"no label": "int8"})),
            InvalidRequest,
            "'no label' cannot be a label",
        ),
        (
            lambda m: m.set_traffic("tiny", TrafficFile(NOWHERE, brownout=Brownout("int8", 7.0))),
            InvalidRequest,
            "'brownout.above' is '7'",
        ),
        (
            lambda m: m.set_traffic("tiny", TrafficFile(NOWHERE, fallback="../x")),
            InvalidRequest,
            "cannot be a variant's name",
        ),
        (lambda m: m.set_traffic("huge", split(int8=100)), UnknownModel, "no model 'huge'"),
        (lambda m: m.promote("tiny", "int4"), UnknownVariant, "no variant 'int4' ready"),
        (lambda m: m.promote("huge", "int4"), UnknownModel, "no model 'huge'"),
        (lambda m: m.roll_back("huge"), UnknownModel, "no model 'huge'"),
        (
            lambda m: m.set_traffic("tiny", split(int8=100), "0" * 16),
            Conflict,
            "no longer at revision '0000000000000000'",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence_and_writes_nothing(
    manager: Manager, repository: Path, change: Any, error: type[ServerError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        change(manager)
    assert sorted(path.name for path in (repository / "tiny").iterdir()) == ["baseline", "int8"]


def test_of_two_changes_with_one_revision_one_wins_and_one_is_told(
    start: Callable[[], Manager], traffic_yaml: Path
) -> None:
    """Two servers on one repository, and two callers of each, all at once."""
    managers = [start(), start()]
    revision = managers[0].table.models["tiny"].revision
    barrier, outcomes = threading.Barrier(4), list[str]()

    def change(manager: Manager, percent: float) -> None:
        barrier.wait(SOON)
        try:
            manager.set_traffic("tiny", split(baseline=percent, int8=100 - percent), revision, SOON)
        except Conflict:
            outcomes.append("conflict")
        else:
            outcomes.append("set")

    threads = [
        threading.Thread(target=change, args=(managers[index % 2], 10.0 * (index + 1))) for index in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert sorted(outcomes) == ["conflict", "conflict", "conflict", "set"]
    assert not list(traffic_yaml.parent.glob(".traffic-*.tmp"))


def test_a_faulty_file_can_be_set_by_its_revision_and_not_promoted_over(
    manager: Manager, traffic_yaml: Path
) -> None:
    traffic_yaml.write_text("split: {baseline: 50")
    faulty = revision_of("split: {baseline: 50")
    assert manager._board.wait_for(lambda: manager.table.models["tiny"].revision == faulty, SOON)
    with pytest.raises(TrafficPlanError, match="not valid YAML"):
        manager.promote("tiny", "int8", SOON)
    served = manager.set_traffic("tiny", split(int8=100), faulty, SOON)
    assert served.plan.weights == (("int8", 1.0),)
    assert served.faults == ()


def test_a_promotion_over_a_memory_that_cannot_be_read_is_refused(
    manager: Manager, repository: Path, traffic_yaml: Path
) -> None:
    (repository / "tiny" / ".traffic-history.json").write_text("[1]")
    with pytest.raises(TrafficPlanError, match="cannot be read"):
        manager.promote("tiny", "int8", SOON)
    assert not traffic_yaml.exists()
    manager.set_traffic("tiny", split(int8=100), timeout_seconds=SOON)


def fail_replace(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Have the renaming to `name` fail, as on a disk that fills up."""
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if Path(target).name == name:
            raise OSError(number, os.strerror(number), str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_file_that_cannot_be_written_changes_nothing_and_says_so(
    manager: Manager, repository: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    manager.promote("tiny", "int8", SOON)
    files = {path.name: path.read_bytes() for path in (repository / "tiny").iterdir() if path.is_file()}
    fail_replace(monkeypatch, "traffic.yaml", number)
    with pytest.raises(RepositoryError, match=r"traffic.yaml cannot be written \(.*\); nothing was changed"):
        manager.promote("tiny", "baseline", SOON)
    after = {path.name: path.read_bytes() for path in (repository / "tiny").iterdir() if path.is_file()}
    assert after == files, "the memory of promotions is as it was, too"
    assert manager.table.models["tiny"].baseline == "int8"


def fill(path: Path) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    with contextlib.suppress(OSError):
        while os.write(descriptor, b"0" * 4096):
            continue
    os.close(descriptor)


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    """A real one, of 64 KB."""
    root = tmp_path / "small"
    root.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(root)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        folder = TrafficFolder(root)
        folder.write("baseline: int8\n")
        fill(root / "fill")
        with pytest.raises(RepositoryError, match="No space left on device"):
            folder.write("baseline: " + "b" * 5000)
        assert folder.read() == "baseline: int8\n"
        assert sorted(path.name for path in root.iterdir()) == ["fill", "traffic.yaml"]
    finally:
        subprocess.run(["umount", str(root)], check=True)


def test_a_link_is_not_replaced(manager: Manager, repository: Path, traffic_yaml: Path) -> None:
    target = repository.parent / "elsewhere.yaml"
    target.write_text("baseline: int8\n")
    traffic_yaml.symlink_to(target)
    with pytest.raises(RepositoryError, match="is a link"):
        manager.set_traffic("tiny", split(int8=100), timeout_seconds=SOON)
    assert target.read_text() == "baseline: int8\n"


def test_a_files_permissions_are_kept(repository: Path, traffic_yaml: Path) -> None:
    traffic_yaml.write_text("")
    traffic_yaml.chmod(0o640)
    TrafficFolder(repository / "tiny").write("baseline: int8\n")
    assert traffic_yaml.stat().st_mode & 0o777 == 0o640


def test_a_folder_that_another_process_changes_is_waited_for(manager: Manager, repository: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(repository / "tiny")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DeadlineExceeded, match="is being changed by another server"):
            manager.set_traffic("tiny", split(int8=100), timeout_seconds=0.05)
        holder.kill()
        holder.wait(SOON)
        served = manager.set_traffic("tiny", split(int8=100), timeout_seconds=SOON)
        assert served.plan.weights == (("int8", 1.0),)
    finally:
        holder.kill()
        holder.wait(SOON)
        holder.stdin.close()
        holder.stdout.close()


def test_a_change_that_is_not_in_force_in_time_says_so_and_comes(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    read = manager._source.read
    monkeypatch.setattr(manager._source, "read", lambda: (go.wait(SOON), read())[1])
    with pytest.raises(DeadlineExceeded, match="was written, and is not in force yet"):
        manager.set_traffic("tiny", split(int8=100), timeout_seconds=0.1)
    go.set()
    assert manager._board.wait_for(
        lambda: manager.table.models["tiny"].plan.weights == (("int8", 1.0),), SOON
    )
