"""Finding subcommands: by entry point, imported only when they are called.

`flyweight --help` must not wait for onnxruntime and torch, so the sentences it shows stand here.
"""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Final

import click

from flyweight.protos.errors import FlyweightError

GROUP: Final = "flyweight.commands"

# In the order of a model's way through the product; commands of other packages follow by name.
SUMMARIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "compress": "Compress a model, measure every variant, publish the ones that pay.",
        "report": "Write the HTML report of a compression.",
        "passes": "List what compression recipes are made of, or explain one pass.",
        "check": "Check a model repository as the server would read it.",
        "token": "Make a bearer token for one caller of a server.",
        "serve": "Serve every variant in a model repository.",
        "predict": "Send the rows of an .npz file to a model.",
        "models": "List the models and variants that a server holds.",
        "traffic": "Show or change who answers the requests of a model.",
        "promote": "Make a variant the baseline, with all the traffic.",
        "rollback": "Undo the last promotion.",
        "load": "Have a server load a model, or load it again.",
        "unload": "Have a server unload a model.",
    }
)

# What belongs to the extra [torch]; any other missing package belongs to the extra of the command's own part.
_TORCH_PACKAGES: Final = frozenset({"torch", "torch_pruning", "onnxscript", "safetensors"})


class Commands(click.Group):
    """The subcommands that the installed parts declare, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all subcommands, ours first."""
        found = _found()
        ours = [name for name in SUMMARIES if name in found]
        return ours + sorted(found.keys() - SUMMARIES.keys())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        """Import and return a subcommand; None when there is none of that name.

        Raises:
            FlyweightError: it is there, but a package it needs is not.
        """
        found = _found().get(cmd_name)
        return None if found is None else _load(found)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands without importing any of ours."""
        rows = [(name, self._summary(ctx, name)) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def _summary(self, ctx: click.Context, name: str) -> str:
        if name in SUMMARIES:
            return SUMMARIES[name]
        try:
            command = self.get_command(ctx, name)
        except FlyweightError as error:
            return str(error)
        return command.get_short_help_str(limit=100) if command else ""

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand; a package that it misses only then is told like one that it misses at once."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            found = _found().get(ctx.invoked_subcommand or "")
            if found is None or _package(error) == "flyweight":
                raise
            raise _missing(found, error) from error


def _found() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load(entry: EntryPoint) -> click.Command:
    try:
        with _collector_let_be():
            command = entry.load()
    except ModuleNotFoundError as error:
        raise _missing(entry, error) from error
    assert isinstance(command, click.Command), f"{entry.value} is not a click command"
    return command


@contextmanager
def _collector_let_be() -> Iterator[None]:
    """Import without the garbage collector, which would look for what is not there at every step.

    What modules are made of stays to the end, so it need not be looked at later either.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _package(error: ModuleNotFoundError) -> str:
    return (error.name or "").partition(".")[0]


def _missing(entry: EntryPoint, error: ModuleNotFoundError) -> FlyweightError:
    """Say which extra holds the package that a command misses."""
    package = _package(error)
    parts = entry.module.split(".")
    if package == "flyweight" or parts[0] != "flyweight":
        return FlyweightError(
            f"the command '{entry.name}' cannot run: {error.name} is not installed; install "
            f"{entry.dist.name if entry.dist else parts[0]} again."
        )
    extra = "torch" if package in _TORCH_PACKAGES else parts[1]
    return FlyweightError(
        f"the command '{entry.name}' needs the extra [{extra}] ({package} is not installed): "
        f"pip install 'flyweight[{extra}]'"
    )
