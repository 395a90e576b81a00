from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flyweight.server.runtime.fake import FakeRuntime

if TYPE_CHECKING:
    from conftest import Bench


def test_a_start_and_a_stop_with_a_split_warn_of_nothing(
    bench: "Bench", repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Variants come one after the other and go together; none of that is a fault to tell."""
    bench.factory._make = lambda path: FakeRuntime(scale=3.0 if path.parent.name == "int8" else 2.0)
    (bench.root / "tiny" / "traffic.yaml").write_text("split: {baseline: 50, int8: 50}")
    bench.settle()
    for loaded in bench.board.take_all_out():
        bench.worker.retire(loaded)
    bench.worker.close_idle()
    assert bench.board.is_drained()
    assert not bench.board.table.models
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
