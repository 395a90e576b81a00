"""The options of the suite, the server under test, and the report of what was found."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# The suite runs from wherever its folder lies; its helpers are in the package beside this file.
sys.path.insert(0, str(Path(__file__).parent))

from oip.cases import CASE, case_of
from oip.known import known_shortfalls
from oip.launch import CommandHost, FlyweightHost, Host, flyweight_options, flyweight_transport
from oip.report import Report, write_reports
from oip.survey import Survey, await_models, survey
from oip.target import Target

_REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; they are missing when pytest finds this folder only while it collects."""
    group = parser.getgroup("conformance", "conformance to the Open Inference Protocol")
    group.addoption("--address", default="", help="HOST:PORT of a running server; else one is started")
    group.addoption(
        "--start", default="", help="command that starts the server at --address, and again if it dies"
    )
    group.addoption("--column", default="", help="the server's name in the report; else what it calls itself")
    group.addoption("--require", default="", help="extensions whose absence is a failure, with commas")
    group.addoption("--results", default="", help="write the results to this file as JSON")
    group.addoption("--results-markdown", default="", help="write the results to this file as a table")
    group.addoption(
        "--fuzz-examples", type=int, default=60, help="requests that the fuzzer tries of each kind"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known and begin the report."""
    config.addinivalue_line("markers", "conformance(identity, level, models): one case of the protocol")
    config.addinivalue_line("markers", "system: starts real processes on loopback")
    config.stash[_REPORT] = Report(config.getoption("column", ""))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note which case a test stands for."""
    case = case_of(item)
    if case is not None:
        item.stash[CASE] = case
        item.add_marker("system")
        known = {} if item.config.getoption("address", "") else known_shortfalls(flyweight_transport())
        if case.identity in known:
            item.add_marker(pytest.mark.xfail(reason=known[case.identity], strict=True))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Write the outcome down."""
    outcome: Any = yield
    case = item.stash.get(CASE, None)
    if case is not None:
        item.config.stash[_REPORT].add(case, outcome.get_result(), call.excinfo)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the files that were asked for."""
    config = session.config
    write_reports(
        config.stash[_REPORT], config.getoption("results", ""), config.getoption("results_markdown", "")
    )


@pytest.fixture(scope="session")
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host | None]:
    """Give what starts the server; None where somebody else did."""
    address, command = (request.config.getoption(name, "") for name in ("address", "start"))
    if address and not command:
        yield None
        return
    folder = tmp_path_factory.mktemp("conformance")
    if not address:
        pytest.importorskip("onnx", reason="without --address the models are written with the package onnx")
    found = (
        CommandHost(command, address, folder / "server.log")
        if address
        else FlyweightHost(folder, flyweight_options(folder))
    )
    yield found
    found.stop()


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest, host: Host | None) -> Iterator[Target]:
    """Give the server at --address, or flyweight's own over a repository made for it."""
    found = Target(host.start() if host else request.config.getoption("address"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def server(target: Target, request: pytest.FixtureRequest) -> Survey:
    """Give what the server says of itself, once the models that every host must have are ready."""
    required = request.config.getoption("require", "")
    found = survey(target, frozenset(filter(None, required.split(","))))
    request.config.stash[_REPORT].name_server(found.name, found.version, found.extensions)
    return found


@pytest.fixture(autouse=True)
def _applies(request: pytest.FixtureRequest) -> Iterator[None]:
    """Skip a case that does not apply here; afterwards see whether the server has survived it."""
    case = request.node.stash.get(CASE, None)
    if case is None:
        yield
        return
    surveyed, host = request.getfixturevalue("server"), request.getfixturevalue("host")
    reason = surveyed.why_not(case)
    if reason and case.extension in surveyed.required:
        pytest.fail(f"REQUIRED by --require {case.extension}: {reason}", pytrace=False)
    if reason:
        pytest.skip(reason)
    yield
    target = surveyed.target
    if target.is_alive():
        return
    if host is None:
        surveyed.killer = case.identity
    else:
        target.move(host.start())
        await_models(target)
    pytest.fail("REQUIRED a server that answers afterwards; it died or fell silent", pytrace=False)
