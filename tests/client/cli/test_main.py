"""How every command ends, and how subcommands are found."""

import gc
import subprocess
import sys
from importlib.metadata import EntryPoint, version
from typing import Any

import click
import pytest

from flyweight.client.cli import commands
from flyweight.client.cli.main import main
from flyweight.protos.errors import FlyweightError


def raising(error: BaseException) -> click.Command:
    def body() -> None:
        raise error

    return click.Command("act", callback=body, help="Act. Then more.")


class Entry:
    """Stands for an installed entry point."""

    def __init__(self, name: str, module: str, command: click.Command | ModuleNotFoundError) -> None:
        self.name, self.module, self.value, self.dist = name, module, f"{module}:{name}", None
        self._command = command

    def load(self) -> click.Command:
        if isinstance(self._command, ModuleNotFoundError):
            raise self._command
        return self._command


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make these the only subcommands."""

    def install_entries(*entries: Entry) -> None:
        monkeypatch.setattr(commands, "entry_points", lambda group: list(entries))

    return install_entries


def missing(package: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {package!r}", name=package)


def test_help_lists_every_command_of_this_installation(run: Any) -> None:
    done = run("--help")
    assert done.code == 0
    for name, summary in commands.SUMMARIES.items():
        assert f"  {name} " in done.out
        assert summary.split(",")[0] in done.out


def test_every_summary_belongs_to_a_declared_command() -> None:
    assert commands.SUMMARIES.keys() == commands._found().keys()


def test_version_is_the_installed_one(run: Any) -> None:
    assert run("--version").out == f"flyweight {version('flyweight')}\n"


def test_no_command_at_all_shows_the_help_and_fails(run: Any) -> None:
    done = run()
    assert (done.code, done.out) == (2, "")
    assert "Commands:" in done.err


def test_an_unknown_command_is_named(run: Any) -> None:
    done = run("srve")
    assert (done.code, done.out) == (2, "")
    assert "flyweight: error: No such command 'srve'." in done.err


def test_a_usage_error_shows_the_usage_and_where_help_is(run: Any) -> None:
    done = run("predict", "digits")
    assert done.code == 2
    assert done.err.splitlines() == [
        "Usage: flyweight predict --data FILE.npz [OPTIONS] MODEL",
        "Try 'flyweight predict --help' for help.",
        "flyweight: error: Missing option '--data'.",
    ]


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (FlyweightError("the thing is not there; put it there."), 2, "the thing is not there; put it there."),
        (click.ClickException("no"), 2, "no"),
        (click.FileError("f", "gone"), 2, "Could not open file 'f': gone"),
    ],
    ids=["ours", "click's", "file"],
)
def test_an_expected_failure_is_one_sentence(
    install: Any, run: Any, error: Any, code: int, told: str
) -> None:
    install(Entry("act", "flyweight.server.cli", raising(error)))
    done = run("act")
    assert (done.code, done.out, done.err) == (code, "", f"flyweight: error: {told}\n")


def test_an_interruption_is_no_traceback(install: Any, run: Any) -> None:
    install(Entry("act", "flyweight.server.cli", raising(KeyboardInterrupt())))
    done = run("act")
    assert done.code == 130
    assert "Traceback" not in done.err


def test_a_bug_keeps_its_traceback(install: Any) -> None:
    install(Entry("act", "flyweight.server.cli", raising(ZeroDivisionError("bug"))))
    with pytest.raises(ZeroDivisionError):
        main(["act"])


def test_a_commands_own_exit_code_is_kept(install: Any, run: Any) -> None:
    install(Entry("act", "flyweight.server.cli", click.Command("act", callback=lambda: 2)))
    assert run("act").code == 2
    install(Entry("act", "flyweight.server.cli", raising(click.exceptions.Exit(2))))
    assert run("act").code == 2


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("flyweight.server.cli", "onnxruntime", "server"),
        ("flyweight.compressor.cli", "onnx", "compressor"),
        ("flyweight.compressor.cli", "torch", "torch"),
    ],
)
def test_a_missing_package_says_which_extra_brings_it(
    install: Any, run: Any, module: str, package: str, extra: str
) -> None:
    told = (
        f"flyweight: error: the command 'act' needs the extra [{extra}] ({package} is not installed): "
        f"pip install 'flyweight[{extra}]'\n"
    )
    install(Entry("act", module, missing(package)))
    assert run("act").err == told
    # The same when the command misses it only once it runs.
    install(Entry("act", module, raising(missing(package))))
    done = run("act")
    assert (done.code, done.err) == (2, told)


def test_a_missing_part_of_our_own_is_told_too(install: Any, run: Any) -> None:
    install(Entry("act", "flyweight.server.cli", missing("flyweight.server.cli")))
    done = run("act")
    assert done.code == 2
    assert "flyweight.server.cli is not installed" in done.err


@pytest.mark.parametrize("outcome", [raising(ValueError()), missing("elsewhere_package")])
def test_the_collector_rests_only_while_a_command_is_imported(install: Any, run: Any, outcome: Any) -> None:
    install(Entry("act", "elsewhere.cli", outcome))
    run("act", "--help")
    assert gc.isenabled()


def test_commands_of_other_packages_are_listed_with_their_own_words(install: Any, run: Any) -> None:
    install(
        Entry("serve", "flyweight.server.cli", missing("onnxruntime")),
        Entry("act", "elsewhere.cli", raising(ValueError())),
        Entry("broken", "elsewhere.cli", missing("elsewhere_package")),
    )
    listed = run("--help").out
    assert listed.index("serve") < listed.index("act") < listed.index("broken")
    assert "Act." in listed
    assert "elsewhere_package is not installed" in " ".join(listed.split())


def test_entry_points_are_what_the_stand_ins_stand_for() -> None:
    entry = EntryPoint("serve", "flyweight.server.cli:serve", commands.GROUP)
    assert (entry.module, entry.value) == ("flyweight.server.cli", "flyweight.server.cli:serve")


@pytest.mark.system
def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """The pipe's reading end is closed before anything is written to it."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m flyweight.client.cli.main --help | true"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
