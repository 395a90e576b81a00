"""The command `flyweight`: finds its subcommands in the parts that are installed, and ends every one alike.

Exit codes: 0 done; 2 an expected failure, told in one sentence on standard error; 130 interrupted
(128 + SIGINT); 1 the reader of our output went away, as click has it. Anything else is a bug and keeps its
traceback.
"""

import os
import sys
from collections.abc import Sequence
from typing import IO, Any

import click

from flyweight.client.cli.commands import Commands
from flyweight.protos.errors import FlyweightError

_EXPECTED_FAILURE = 2
_INTERRUPTED = 130
_OUTPUT_CLOSED = 1


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every command explains itself: flyweight COMMAND --help",
)
@click.version_option(package_name="flyweight", prog_name="flyweight", message="%(prog)s %(version)s")
def flyweight() -> None:
    """Compress trained networks, serve every variant beside the original, compare them on live traffic."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (the process's own by default) and return its exit code."""
    # gRPC's core would add lines of its own about every broken connection to what we say of it.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        result = flyweight.main(arguments, prog_name="flyweight", standalone_mode=False)
        sys.stdout.flush()
    except (FlyweightError, click.ClickException) as error:
        return _fail(error)
    except (click.Abort, KeyboardInterrupt) as error:
        # click turns Ctrl-C, and the end of standard input at a prompt, into Abort.
        return _EXPECTED_FAILURE if isinstance(error.__cause__, EOFError) else _INTERRUPTED
    except BrokenPipeError:
        _silence(sys.stdout)
        return _OUTPUT_CLOSED
    return result if isinstance(result, int) else 0


def _fail(error: FlyweightError | click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return _EXPECTED_FAILURE
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"Try '{error.ctx.command_path} --help' for help.", err=True)
    sentence = error.format_message() if isinstance(error, click.ClickException) else str(error)
    click.echo(f"flyweight: error: {sentence}", err=True)
    return _EXPECTED_FAILURE


def _silence(stream: IO[Any]) -> None:
    """Point a closed stream at nothing, so that the interpreter's last flush does not fail as well."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
