import onnxruntime
import pytest

from flyweight.server.errors import LoadFailed
from flyweight.server.runtime.seam import SessionSettings
from flyweight.server.runtime.session_entries import ARENA_SHRINKAGE
from flyweight.server.runtime.session_options import make_options, run_options_of


@pytest.mark.parametrize(("asked", "cores", "given"), [(0, 8, 1), (4, 8, 4), (16, 8, 8)])
def test_threads_are_the_manifests_but_no_more_than_cores(asked: int, cores: int, given: int) -> None:
    options = make_options(SessionSettings(intra_op_threads=asked), cores, "tiny/int8")
    assert options.intra_op_num_threads == given
    assert options.inter_op_num_threads == 1
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL


def test_idle_threads_do_not_spin_unless_the_manifest_says_so() -> None:
    key = "session.intra_op.allow_spinning"
    assert make_options(SessionSettings(), 2, "a").get_session_config_entry(key) == "0"
    spinning = SessionSettings(config_entries={key: "1"})
    assert make_options(spinning, 2, "a").get_session_config_entry(key) == "1"


@pytest.mark.parametrize(
    "key", ["session.model_external_initializers_file_folder_path", "ep.context_file_path", "anything"]
)
def test_a_setting_that_reaches_outside_is_refused_by_name(key: str) -> None:
    with pytest.raises(LoadFailed, match=f"tiny/int8 asks for the session setting '{key}'"):
        make_options(SessionSettings(config_entries={key: "/"}), 2, "tiny/int8")


def test_the_arena_shrinks_after_each_run_where_that_is_asked_for() -> None:
    asked = SessionSettings(config_entries={ARENA_SHRINKAGE: "cpu:0"})
    make_options(asked, 2, "a")
    options = run_options_of(asked)
    assert options is not None
    assert options.get_run_config_entry(ARENA_SHRINKAGE) == "cpu:0"
    assert run_options_of(SessionSettings()) is None


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({ARENA_SHRINKAGE: "gpu:0"}, "'gpu:0'; the one arena there is is 'cpu:0'"),
        ({ARENA_SHRINKAGE: "cpu:0", "enable_mem_arena": "0"}, "there is nothing to shrink"),
    ],
)
def test_an_arena_that_is_not_there_cannot_shrink(entries: dict[str, str], sentence: str) -> None:
    """It would be taken by onnxruntime, and then every run refused."""
    with pytest.raises(LoadFailed, match=sentence):
        make_options(SessionSettings(config_entries=entries), 2, "a")
