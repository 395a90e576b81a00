"""Where variants may be published, and what is refused before any work."""

from pathlib import Path

import pytest

from flyweight.compressor.publish import check_repository
from flyweight.protos.errors import RepositoryError


@pytest.mark.parametrize(
    "damaged", ["{", "[]", '{"format_version": 9}', '{"format_version": 1, "inputs": 7}', ""]
)
def test_a_baseline_that_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path, damaged: str) -> None:
    manifest = tmp_path / "net" / "baseline" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(damaged)
    with pytest.raises(RepositoryError) as caught:
        check_repository(tmp_path, "net", ())
    sentence = str(caught.value)
    assert sentence.startswith(f"{manifest} ")
    assert (
        f"so that nobody knows what model {tmp_path / 'net'} holds; remove that folder or choose" in sentence
    )
    assert "publish the variant again" not in sentence
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [manifest]
    assert manifest.read_text() == damaged


def test_a_new_repository_is_not_made_before_there_is_something_to_publish(tmp_path: Path) -> None:
    check_repository(tmp_path / "new", "net", ())
    assert not (tmp_path / "new").exists()
