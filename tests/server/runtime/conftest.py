"""Every runtime that holds real models, for tests of what they all do."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flyweight.server.runtime.inline import InlineFactory
from flyweight.server.runtime.process.factory import ProcessFactory
from flyweight.server.runtime.seam import Runtime, RuntimeFactory, SessionSettings

MAKERS: dict[str, Callable[[], RuntimeFactory]] = {
    "inline": lambda: InlineFactory(cores=2),
    "process": lambda: ProcessFactory(cores=2),
}


class ClosingFactory:
    """Makes runtimes by another factory, and closes all of them in the end."""

    def __init__(self, inner: RuntimeFactory) -> None:
        self.inner = inner
        self.made: list[Runtime] = []

    def load(self, model_file: Path, settings: SessionSettings) -> Runtime:
        runtime = self.inner.load(model_file, settings)
        self.made.append(runtime)
        return runtime

    def close(self) -> None:
        for runtime in self.made:
            runtime.close()


@pytest.fixture(params=["inline", "process"])
def factory(request: pytest.FixtureRequest) -> Iterator[ClosingFactory]:
    closing = ClosingFactory(MAKERS[request.param]())
    yield closing
    closing.close()
