"""What is believed after a sequence of scans, each as a table: model -> variants and texts."""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from flyweight.protos.variant import MANIFEST_FILE
from flyweight.server.repository.fingerprint import FileStamp, Fingerprint
from flyweight.server.repository.settling import Settled, settle
from flyweight.server.repository.snapshot import Fault, ModelSnapshot, Snapshot, VariantSnapshot

ROOT = Path("/repository")


def plain(name: str, size: int = 1) -> VariantSnapshot:
    return VariantSnapshot(name, ROOT / "m" / name, Fingerprint((FileStamp("model.onnx", size, 0, 0),)))


def published(name: str, size: int = 1) -> VariantSnapshot:
    stamps = (FileStamp(MANIFEST_FILE, size, 0, 0), FileStamp("model.onnx", size, 0, 0))
    return VariantSnapshot(name, ROOT / "m" / name, Fingerprint(stamps))


def model(*variants: VariantSnapshot, config: str | None = None, traffic: str | None = None) -> ModelSnapshot:
    return ModelSnapshot("m", ROOT / "m", MappingProxyType({v.name: v for v in variants}), config, traffic)


def repository(*models: ModelSnapshot, faults: tuple[Fault, ...] = ()) -> Snapshot:
    return Snapshot(MappingProxyType({each.name: each for each in models}), faults)


def after(*scans: Snapshot) -> Settled:
    """Return what is believed after scans that are far enough apart."""
    settled, earlier = Settled(), None
    for number, scan in enumerate(scans):
        settled = settle(settled.snapshot if number else None, earlier, scan)
        earlier = scan
    return settled


EMPTY = repository()
ONE = repository(model(published("a")))


@pytest.mark.parametrize(
    ("scans", "believed", "is_changing"),
    [
        pytest.param([ONE], ONE, False, id="a published variant is believed at once"),
        pytest.param(
            [ONE, repository(model(published("a"), published("b")))],
            repository(model(published("a"), published("b"))),
            False,
            id="so is one that comes later",
        ),
        pytest.param(
            [ONE, repository(model(published("a", 2)))],
            repository(model(published("a", 2))),
            False,
            id="and one that is replaced",
        ),
        pytest.param(
            [repository(model(plain("1")))],
            repository(model()),
            True,
            id="a plain variant waits for a second scan",
        ),
        pytest.param(
            [repository(model(plain("1")))] * 2,
            repository(model(plain("1"))),
            False,
            id="and is believed when nothing changed",
        ),
        pytest.param(
            [repository(model(plain("1", size))) for size in (1, 2, 3)],
            repository(model()),
            True,
            id="a plain variant that still grows is not believed",
        ),
        pytest.param(
            [*[repository(model(plain("1")))] * 2, repository(model(plain("1", 2)))],
            repository(model(plain("1"))),
            True,
            id="a plain variant that changes stays as it was",
        ),
        pytest.param([ONE, repository(model())], ONE, True, id="a variant missing once is still there"),
        pytest.param(
            [ONE, repository(model()), repository(model())],
            repository(model()),
            False,
            id="a variant missing twice is gone",
        ),
        pytest.param(
            [ONE, repository(model()), ONE], ONE, False, id="a replaced variant was missing for a moment"
        ),
        pytest.param([ONE, EMPTY], ONE, True, id="a model missing once is still there"),
        pytest.param([ONE, EMPTY, EMPTY], EMPTY, False, id="a model missing twice is gone"),
        pytest.param([EMPTY, ONE], EMPTY, True, id="a new model waits for its texts"),
        pytest.param([EMPTY, ONE, ONE], ONE, False, id="and comes when they are quiet"),
        pytest.param(
            [ONE, repository(model(published("a"), traffic="split"))],
            ONE,
            True,
            id="a new traffic.yaml waits for a second scan",
        ),
        pytest.param(
            [ONE, *[repository(model(published("a"), traffic="split"))] * 2],
            repository(model(published("a"), traffic="split")),
            False,
            id="and is believed when it is quiet",
        ),
        pytest.param(
            [repository(model(published("a"), config="c", traffic="t"))],
            repository(model(published("a"), config="c", traffic="t")),
            False,
            id="at the start texts are taken as they are",
        ),
    ],
)
def test_what_is_believed(scans: list[Snapshot], believed: Snapshot, is_changing: bool) -> None:
    settled = after(*scans)
    assert settled.snapshot == believed
    assert settled.changing == (frozenset({"m"}) if is_changing else frozenset())


def test_without_an_earlier_scan_to_compare_with_nothing_new_is_believed_and_nothing_is_lost() -> None:
    believed = repository(model(plain("1"), published("a"), traffic="t"))
    assert settle(believed, None, believed) == Settled(believed)
    assert settle(believed, None, EMPTY).snapshot == believed
    grown = repository(model(plain("1", 2), published("a"), traffic="u"))
    assert settle(believed, None, grown) == Settled(believed, frozenset({"m"}))


def test_what_cannot_be_read_stays_as_it_was() -> None:
    model_fault = repository(faults=(Fault("m", "", "cannot be read", unreadable=True),))
    settled = after(ONE, model_fault, model_fault, model_fault)
    assert settled.snapshot.models == ONE.models
    assert settled.snapshot.faults == model_fault.faults
    assert not settled.changing
    variant_fault = repository(model(), faults=(Fault("m", "a", "cannot be read", unreadable=True),))
    settled = after(ONE, variant_fault, variant_fault, variant_fault)
    assert settled.snapshot.models == ONE.models
    assert not settled.changing


@pytest.mark.parametrize(("changed_ns", "names"), [(99.0, ["1"]), (100.0, ["1"]), (101.0, [])])
def test_at_first_an_old_plain_variant_is_believed_at_once(changed_ns: float, names: list[str]) -> None:
    variant = plain("1")
    variant = replace(variant, fingerprint=replace(variant.fingerprint, changed_ns=changed_ns))
    settled = settle(None, None, repository(model(variant)), old_ns=100)
    assert [*settled.snapshot.models["m"].variants] == names
    assert bool(settled.changing) is not bool(names)


def test_later_even_an_old_plain_variant_waits() -> None:
    variant = plain("1")
    variant = replace(variant, fingerprint=replace(variant.fingerprint, changed_ns=1))
    settled = settle(repository(model()), repository(model()), repository(model(variant)), old_ns=100)
    assert not settled.snapshot.models["m"].variants
