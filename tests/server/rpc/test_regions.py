"""Regions are read and written by copies, and nothing that a caller does to its object hurts the server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyweight.server.errors import InvalidRequest, LimitReached, RegionExists, UnknownRegion
from flyweight.server.rpc.regions import Regions
from tests.open_files import no_file_left


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "object").write_bytes(b"0123456789")
    return tmp_path


@pytest.fixture
def regions(folder: Path) -> Iterator[Regions]:
    found = Regions(most=2, folder=folder)
    yield found
    found.close()


def test_a_region_is_a_part_of_its_object(regions: Regions, folder: Path) -> None:
    regions.register("r", "/object", 2, 6)
    assert regions.get("r").read(1, 3) == b"345"
    regions.get("r").write(4, b"ab")
    assert (folder / "object").read_bytes() == b"012345ab89"


@pytest.mark.parametrize(("offset", "size"), [(0, 7), (6, 1), (7, 0), (2**64, 1), (0, 2**64)])
def test_no_more_than_the_region_is_read_or_written(regions: Regions, offset: int, size: int) -> None:
    regions.register("r", "object", 2, 6)
    with pytest.raises(InvalidRequest, match="'r' has 6 bytes"):
        regions.get("r").read(offset, size)
    with pytest.raises(InvalidRequest, match="'r' has 6 bytes"):
        regions.get("r").require(offset, size)


def test_an_object_that_was_cut_short_is_refused(regions: Regions, folder: Path) -> None:
    """Through a mapping this would be a SIGBUS."""
    regions.register("r", "object", 0, 10)
    os.truncate(folder / "object", 3)
    assert regions.get("r").read(0, 3) == b"012"
    with pytest.raises(InvalidRequest, match=r"'object' .* was cut short"):
        regions.get("r").read(0, 4)
    with pytest.raises(InvalidRequest, match=r"'object' .* was cut short"):
        regions.get("r").write(0, b"0123")
    assert (folder / "object").read_bytes() == b"012"


def test_an_object_that_was_removed_is_still_the_region(regions: Regions, folder: Path) -> None:
    regions.register("r", "object", 0, 10)
    (folder / "object").unlink()
    assert regions.get("r").read(0, 2) == b"01"


def test_an_object_that_takes_no_more_is_refused(regions: Regions, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    regions.register("r", "object", 0, 10)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(InvalidRequest, match=r"'r' cannot be written .No space left"):
        regions.get("r").write(0, b"0")


@pytest.mark.parametrize(
    "key", ["", "/", ".", "..", "../object", "/../object", "a/b", "//object", "a\0b", "x" * 256]
)
def test_a_key_is_one_name(regions: Regions, key: str) -> None:
    with pytest.raises(InvalidRequest, match="is not the key of a shared memory object"):
        regions.register("r", key, 0, 1)


@pytest.mark.parametrize("key", ["flyweight-1", "/flyweight-1", "sem.name"])
def test_objects_that_are_not_for_tensors_are_refused(regions: Regions, folder: Path, key: str) -> None:
    (folder / key.strip("/")).write_bytes(bytes(8))
    with pytest.raises(InvalidRequest, match="is not for tensors"):
        regions.register("r", key, 0, 1)


def test_links_pipes_and_folders_are_not_followed(regions: Regions, folder: Path) -> None:
    (folder / "link").symlink_to(folder / "object")
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    with no_file_left():
        for key, complaint in (("link", "cannot be opened"), ("pipe", "is not a"), ("folder", "cannot be")):
            with pytest.raises(InvalidRequest, match=f"'{key}'.*{complaint}|'{key}' {complaint}"):
                regions.register("r", key, 0, 1)


@pytest.mark.parametrize(("offset", "size"), [(0, 11), (10, 1), (2**64 - 1, 2**64 - 1)])
def test_a_region_lies_in_its_object(regions: Regions, offset: int, size: int) -> None:
    with no_file_left(), pytest.raises(InvalidRequest, match=r"would end at byte .* which has 10"):
        regions.register("r", "object", offset, size)


def test_a_region_has_bytes_and_a_name(regions: Regions) -> None:
    with pytest.raises(InvalidRequest, match="no bytes"):
        regions.register("r", "object", 0, 0)
    for name in ("", "x" * 256):
        with pytest.raises(InvalidRequest, match="name of a region"):
            regions.register(name, "object", 0, 1)


def test_an_object_that_is_not_there_is_told(regions: Regions) -> None:
    with pytest.raises(InvalidRequest, match=r"'/nothing' cannot be opened .No such file"):
        regions.register("r", "/nothing", 0, 1)


def test_a_name_is_taken_until_it_is_given_back(regions: Regions) -> None:
    regions.register("r", "object", 0, 1)
    with pytest.raises(RegionExists, match="'r' is registered already"):
        regions.register("r", "object", 5, 1)
    assert regions.get("r").offset == 0
    regions.unregister("r")
    regions.register("r", "object", 5, 1)
    assert regions.get("r").offset == 5


def test_there_are_so_many_regions_and_no_more(regions: Regions) -> None:
    for name in "ab":
        regions.register(name, "object", 0, 1)
    with pytest.raises(LimitReached, match="its 2 shared memory regions"):
        regions.register("c", "object", 0, 1)
    assert [region.name for region in regions.listed()] == ["a", "b"]
    assert [region.name for region in regions.listed("b")] == ["b"]


def test_what_is_not_registered_is_unknown_and_may_be_unregistered(regions: Regions) -> None:
    regions.unregister("r")
    with pytest.raises(UnknownRegion, match="'r'"):
        regions.get("r")
    with pytest.raises(UnknownRegion, match="'r'"):
        regions.listed("r")


def test_unregistering_while_in_use_closes_after_the_use(
    regions: Regions, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regions.register("r", "object", 0, 10)
    region, read = regions.get("r"), os.preadv

    def is_open() -> bool:
        files = (os.path.realpath(file) for file in Path("/proc/self/fd").iterdir())
        return os.fspath(folder / "object") in files

    def unregister_then_read(descriptor: int, *rest: object) -> int:
        regions.unregister()
        assert is_open()
        return read(descriptor, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "preadv", unregister_then_read)
    assert region.read(0, 4) == b"0123"
    assert not is_open()
    with pytest.raises(UnknownRegion, match="just unregistered"):
        region.read(0, 4)


def test_closing_leaves_no_file_open(folder: Path) -> None:
    with no_file_left():
        regions = Regions(folder=folder)
        for name in "abc":
            regions.register(name, "object", 0, 1)
        regions.close()
