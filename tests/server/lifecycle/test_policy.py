"""The policy as a table: what is wanted, what is there, what follows."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.server.lifecycle.desired import Desired, DesiredModel, VariantSource
from flyweight.server.lifecycle.policy import Action, Actual, Failure, Key, Kind, fail, next_actions
from flyweight.server.repository.fingerprint import FileStamp, Fingerprint
from flyweight.server.traffic.plan import TrafficFile


def source(variant: str, size: int = 1, model: str = "m") -> VariantSource:
    files = Fingerprint((FileStamp("model.onnx", size, 0, 0),))
    return VariantSource(model, variant, Path("/r") / model / variant, "model.onnx", files, None)


def wanting(*sources: VariantSource, kept: str = "", dropped: str = "", baseline: str = "") -> Desired:
    traffic = TrafficFile(Path("traffic.yaml"), baseline=baseline) if baseline else None
    model = DesiredModel(
        "m",
        {each.variant: each for each in sources},
        frozenset(kept.split()),
        frozenset(dropped.split()),
        traffic,
    )
    return Desired({"m": model})


def serving(*sources: VariantSource, failed: tuple[Failure, ...] = (), now: float = 0.0) -> Actual:
    return Actual(
        {(each.model, each.variant): each for each in sources},
        {("m", each.source.variant): each for each in failed},
        now,
    )


def failure(of: VariantSource, retry_at: float = 10.0) -> Failure:
    return Failure(of, "broken", 1, retry_at)


@pytest.mark.parametrize(
    ("desired", "actual", "expected"),
    [
        pytest.param(Desired(), Actual(), [], id="nothing"),
        pytest.param(wanting(source("a")), Actual(), ["load a"], id="a new variant"),
        pytest.param(wanting(source("a")), serving(source("a")), [], id="a variant that is served"),
        pytest.param(wanting(source("a", 2)), serving(source("a")), ["reload a"], id="a changed variant"),
        pytest.param(wanting(), serving(source("a")), ["unload a"], id="a removed variant"),
        pytest.param(
            Desired(), serving(source("a"), source("b")), ["unload a", "unload b"], id="a removed model"
        ),
        pytest.param(
            wanting(source("b")),
            serving(source("a")),
            ["load b"],
            id="the new one comes before the old goes",
        ),
        pytest.param(
            wanting(source("b"), source("c")),
            serving(source("a"), source("c")),
            ["unload a", "load b"],
            id="the old one need not wait where another answers",
        ),
        pytest.param(
            wanting(source("b"), source("int8"), source("baseline")),
            Actual(),
            ["load baseline", "load b", "load int8"],
            id="the usual baseline comes first",
        ),
        pytest.param(
            wanting(source("a"), source("int8"), source("baseline"), baseline="int8"),
            Actual(),
            ["load int8", "load baseline", "load a"],
            id="the baseline that is named comes before it",
        ),
        pytest.param(
            wanting(source("2"), source("10")),
            Actual(),
            ["load 10", "load 2"],
            id="the newest number comes first",
        ),
        pytest.param(
            wanting(source("a")),
            serving(failed=(failure(source("a")),)),
            [],
            id="a failure waits for its time",
        ),
        pytest.param(
            wanting(source("a")),
            serving(failed=(failure(source("a")),), now=10.0),
            ["load a"],
            id="and is tried again",
        ),
        pytest.param(
            wanting(source("a", 2)),
            serving(failed=(failure(source("a")),)),
            ["load a"],
            id="and at once when the files change",
        ),
        pytest.param(
            wanting(source("a", 2)),
            serving(source("a"), failed=(failure(source("a", 2)),)),
            [],
            id="a failed reload leaves the old one",
        ),
        pytest.param(
            wanting(source("2"), dropped="1"),
            serving(source("1")),
            ["load 2"],
            id="a version that the policy drops stays until its successor is there",
        ),
        pytest.param(
            wanting(source("2"), dropped="1"),
            serving(source("1"), failed=(failure(source("2")),)),
            [],
            id="and longer if that one is broken",
        ),
        pytest.param(
            wanting(source("2"), dropped="1"),
            serving(source("1"), source("2")),
            ["unload 1"],
            id="and then goes",
        ),
        pytest.param(
            wanting(source("2"), kept="1"),
            serving(source("1"), source("2")),
            [],
            id="what may be wanted is neither loaded nor unloaded",
        ),
        pytest.param(wanting(kept="1"), Actual(), [], id="what may be wanted is not loaded"),
    ],
)
def test_what_follows(desired: Desired, actual: Actual, expected: list[str]) -> None:
    actions = next_actions(desired, actual)
    assert [f"{action.kind.value} {action.variant}" for action in actions] == expected
    for action in actions:
        wanted = None if action.kind is Kind.UNLOAD else desired.models["m"].wanted[action.variant]
        assert action == Action(action.kind, "m", action.variant, wanted)


def test_retries_come_twice_as_late_each_time_up_to_a_minute() -> None:
    failed, delays = None, []
    for _ in range(9):
        failed = fail(failed, source("a"), "broken", 100.0)
        delays.append(failed.retry_at_seconds - 100.0)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert fail(replace(failed, count=10**6), source("a"), "broken", 0.0).retry_at_seconds == 60


def test_other_files_start_a_new_count() -> None:
    failed = fail(fail(None, source("a"), "broken", 0.0), source("a"), "broken", 0.0)
    assert failed.count == 2
    assert fail(failed, source("a", 2), "broken", 0.0).count == 1


NAMES = st.sampled_from(["a", "b", "baseline", "1", "2"])
SOURCES = st.dictionaries(NAMES, st.integers(1, 3).map(lambda size: size), max_size=5)


@given(wanted=SOURCES, served=SOURCES, dropped=st.sets(NAMES), broken=st.sets(NAMES))
def test_doing_what_it_says_comes_to_rest_with_all_that_is_wanted(
    wanted: dict[str, int], served: dict[str, int], dropped: set[str], broken: set[str]
) -> None:
    """Whatever there was, and whatever is broken: at rest everything whole is served, and nothing is lost."""
    desired = wanting(
        *(source(name, size) for name, size in wanted.items()), dropped=" ".join(dropped - set(wanted))
    )
    there: dict[Key, VariantSource] = {("m", name): source(name, size) for name, size in served.items()}
    failed: dict[Key, Failure] = {}
    for _ in range(50):
        actions = next_actions(desired, Actual(there, failed, 0.0))
        if not actions:
            break
        action = actions[0]
        if action.source is None:
            del there[action.key]
        elif action.variant in broken:
            failed[action.key] = fail(failed.get(action.key), action.source, "broken", 0.0)
        else:
            there[action.key] = action.source
    else:
        pytest.fail("it never came to rest")
    for name, size in wanted.items():
        if name not in broken:
            assert there["m", name] == source(name, size)
        elif name in served:
            assert there["m", name] == source(name, served[name])
    assert {name for _, name in there} <= set(wanted) | (dropped & set(served))
