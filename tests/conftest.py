"""What every test needs: a cache folder that is not the user's, and an end that leaves nothing running."""

import os
import signal
from collections.abc import Iterator

import pytest


def pytest_configure() -> None:
    """Let SIGTERM end a run as Ctrl-C does: fixtures then end what they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Whoever is forked, a worker pool's processes for instance, ends at once as ever.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
