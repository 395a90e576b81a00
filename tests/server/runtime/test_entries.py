from pathlib import Path

import pytest

from flyweight.server.errors import StartError
from flyweight.server.runtime.entries import FactoryWithEntries
from flyweight.server.runtime.fake import FakeFactory
from flyweight.server.runtime.seam import SessionSettings

PREPACKING, SPINNING = "session.disable_prepacking", "session.intra_op.allow_spinning"


def test_the_operators_word_stands_before_the_repositorys(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    fake = FakeFactory()
    factory = FactoryWithEntries(fake, {PREPACKING: "1"})
    factory.load(tmp_path / "model.onnx", SessionSettings(2, {PREPACKING: "0", SPINNING: "1"}))
    assert fake.settings == [SessionSettings(2, {PREPACKING: "1", SPINNING: "1"})]


def test_a_setting_that_cannot_be_made_is_told_at_the_start() -> None:
    with pytest.raises(StartError, match="--session-entry asks for the session setting 'ep"):
        FactoryWithEntries(FakeFactory(), {"ep.context_file_path": "/"})
