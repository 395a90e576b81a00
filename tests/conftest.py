"""What every test needs: a transport, a cache folder of its own, and an end that leaves nothing running."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# The same examples in every run, and no limit on how long one takes on a busy machine.
settings.register_profile("flyweight", derandomize=True, deadline=None)
settings.load_profile("flyweight")

# The variable of `flyweight serve`'s own option, so that it reaches servers which a command of ours starts.
_TRANSPORT_VARIABLE = "FLYWEIGHT_SERVE_TRANSPORT"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that says what speaks gRPC in the servers under test."""
    parser.addoption(
        "--transport",
        choices=("grpcio", "wire"),
        default="wire",
        help="transport of every server that a test starts, unless the test names one with a reason",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM end a run as Ctrl-C does: fixtures then end what they started. Set the transport."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Whoever is forked, a worker pool's processes for instance, ends at once as ever.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    os.environ[_TRANSPORT_VARIABLE] = config.getoption("transport", "wire")


@pytest.fixture(scope="session")
def transport(request: pytest.FixtureRequest) -> str:
    """Return the transport of servers in the test's own process; others are told by their environment."""
    chosen: str = request.config.getoption("transport", "wire")
    return chosen


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
