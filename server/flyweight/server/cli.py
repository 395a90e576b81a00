"""The commands `flyweight serve` and `flyweight check`."""

import logging
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Final

import click
from pydantic import TypeAdapter

from flyweight.server.app import Server
from flyweight.server.check_command import check
from flyweight.server.checking import refuse_mistaken_path
from flyweight.server.help import SectionedCommand
from flyweight.server.logs import configure_logging, warn_of_open_doors
from flyweight.server.runtime.kinds import RuntimeKind
from flyweight.server.runtime.memory import keep_one_heap
from flyweight.server.serve_options import (
    SECTIONS,
    Seconds,
    caller_options,
    choice_of,
    connection_options,
    log_options,
    nest,
    read_entries,
    size_options,
)
from flyweight.server.settings import Compat, ModelControl, ServerSettings

__all__ = ["check", "serve"]

_NOT_DRAINED: Final = 1
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
# How late a signal may be answered that another thread was given, which takes a debugger or a tracer.
_SIGNAL_SECONDS: Final = 0.5
_PORT: Final = click.IntRange(0, 65535)


class _StopBeforeReady(BaseException):  # a wish and no error: nobody who handles errors may catch it
    """A signal came while the models were being loaded."""


# Not FLYWEIGHT alone: for a service of that name Kubernetes sets FLYWEIGHT_PORT to something else.
_VARIABLES: Final = "FLYWEIGHT_SERVE"

_EPILOG: Final = """\b
Examples:
  flyweight serve repository
  flyweight serve repository --port 0 --metrics-port 0
  flyweight serve repository --host 0.0.0.0 --access access.yaml \\
      --tls-cert server.pem --tls-key server.key

When everything is loaded, one line goes to standard output ("flyweight ready
grpc=127.0.0.1:8001 metrics=http://127.0.0.1:8002/metrics models=1 variants=3"), the
log to standard error.

SIGTERM or Ctrl-C: health says NOT_SERVING, accepted requests are answered, exit
code 0. A second one, or --drain-seconds after the first: what is left is dropped, exit
code 1.

\b
Every option can be an environment variable too, which the command line
overrides:
  FLYWEIGHT_SERVE_MAX_IN_FLIGHT=128 flyweight serve repository
"""


@click.command(
    cls=SectionedCommand,
    sections=SECTIONS,
    epilog=_EPILOG,
    context_settings={"auto_envvar_prefix": _VARIABLES},
)
@click.argument("repository", type=click.Path(path_type=Path), envvar=f"{_VARIABLES}_REPOSITORY")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to serve gRPC on; unix:PATH is a Unix socket.",
)
@click.option(
    "--port",
    type=_PORT,
    default=8001,
    show_default=True,
    help="Port for gRPC; 0 takes a free one. A Unix socket has none.",
)
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Address to serve /metrics on.")
@click.option(
    "--metrics-port",
    type=_PORT,
    default=8002,
    show_default=True,
    help="Port for /metrics; 0 takes a free one.",
)
@click.option(
    "--model-control",
    type=choice_of(ModelControl),
    default=ModelControl.POLL.value,
    show_default=True,
    help="poll: serve what the repository holds, as it changes. explicit: what RepositoryModelLoad named.",
)
@click.option(
    "--poll-seconds",
    type=Seconds(0.01),
    default=0.5,
    show_default=True,
    help="How often the repository is looked at.",
)
@click.option(
    "--watch/--no-watch",
    default=True,
    show_default=True,
    help="Whether the kernel tells of changes (inotify), which are then seen before the next look.",
)
@click.option(
    "--memory-guard/--no-memory-guard",
    default=True,
    show_default=True,
    help="Whether a load is refused for which there is no memory.",
)
@click.option(
    "--memory-limit-megabytes",
    type=click.IntRange(0, 1 << 30),
    default=0,
    help="Memory that the server may take.  [default: what its cgroup and the machine leave]",
)
@click.option(
    "--upload-folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where files that come with RepositoryModelLoad are kept.  [default: the system's for such files]",
)
@click.option(
    "--upload-megabytes",
    type=click.IntRange(0, 1 << 20),
    default=1024,
    show_default=True,
    help="Room for all of these files together; 0 takes none.",
)
@click.option(
    "--load-threads",
    type=click.IntRange(0, 8),
    default=0,
    help="Variants that are loaded at one time.  [default: half of the processors, 2 to 4]",
)
@click.option(
    "--max-in-flight",
    type=click.IntRange(1, 10_000),
    default=64,
    show_default=True,
    help="Inferences held at one time, running and waiting; one more is refused with RESOURCE_EXHAUSTED.",
)
@click.option(
    "--max-running",
    type=click.IntRange(0),
    default=0,
    help="Inferences that run at one time, the others wait.  [default: one per processor]",
)
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    help="Threads inside one inference.  [default: as each variant's manifest says]",
)
@click.option(
    "--runtime",
    type=choice_of(RuntimeKind),
    default=RuntimeKind.INLINE.value,
    show_default=True,
    help="inline: the server's own process holds the models. process: each variant has a process of its own.",
)
@click.option(
    "--session-entry",
    multiple=True,
    callback=read_entries,
    metavar="KEY=VALUE",
    help="A setting of onnxruntime for every variant, in the place of the repository's; may be repeated.",
)
@click.option(
    "--measure-memory/--no-measure-memory",
    default=True,
    show_default=True,
    help="Whether a process of its own, which runs when nothing else does, measures each variant's memory "
    "(--runtime inline only).",
)
@click.option(
    "--triton-metrics/--no-triton-metrics",
    default=True,
    show_default=True,
    help="Whether /metrics has Triton's names (nv_inference_...) beside flyweight's.",
)
@click.option(
    "--response-cache-megabytes",
    type=click.IntRange(0, 1 << 20),
    default=64,
    show_default=True,
    help="Room for answers of models whose config.pbtxt asks for a response_cache; 0 keeps none.",
)
@click.option(
    "--drain-seconds",
    type=Seconds(0.0),
    default=30.0,
    show_default=True,
    help="How long accepted requests may take after SIGTERM.",
)
@click.option(
    "--shutdown-delay-seconds",
    type=Seconds(0.0),
    default=0.0,
    show_default=True,
    help="How long to go on after SIGTERM while load balancers learn that health says NOT_SERVING.",
)
@click.option("--strict", is_flag=True, help="Do not start when anything in the repository is faulty.")
@click.option(
    "--shared-memory",
    is_flag=True,
    help="Let callers on this machine pass tensors through POSIX shared memory, any that this user may open.",
)
@click.option(
    "--trace-folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for traces of requests, which callers may then switch on (TraceSetting).  [default: none]",
)
@click.option(
    "--compat",
    type=choice_of(Compat),
    default=Compat.NONE.value,
    show_default=True,
    help="triton: answer with Triton's status codes and messages, for clients that check them.",
)
@caller_options
@size_options
@connection_options
@log_options
def serve(**options: object) -> int:
    """Serve every model and variant of REPOSITORY over gRPC.

    The repository is a folder with one folder per model, and in it one folder per variant with a model.onnx
    (plain Triton repositories of ONNX models work as they are). Variants that are published while the server
    runs are loaded, those that are removed are unloaded, and traffic.yaml decides who answers; no request
    fails over it.
    """
    # Before anything has threads.
    keep_one_heap()
    nest(options)
    settings = TypeAdapter(ServerSettings).validate_python(options)
    refuse_mistaken_path(settings.repository)
    configure_logging(settings.log_format, settings.log_level)
    warn_of_open_doors(settings)
    return _run(Server(settings))


def _run(server: Server) -> int:
    """Start, wait for a signal, stop; a second signal ends the process as it is."""
    started, asked_to_stop = threading.Event(), threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if asked_to_stop.is_set():
            os._exit(_NOT_DRAINED)
        asked_to_stop.set()
        if not started.is_set():
            raise _StopBeforeReady

    for number in _SIGNALS:
        signal.signal(number, on_signal)
    try:
        click.echo(str(server.start()))
        started.set()
        # The kernel may give a signal to any thread, and Python answers it when this one wakes.
        while not asked_to_stop.wait(_SIGNAL_SECONDS):
            pass
    except _StopBeforeReady:
        # Nothing was accepted yet, or next to nothing: what follows is over at once.
        logging.getLogger(__name__).info("Asked to stop before everything was loaded.")
    except BaseException:
        server.stop(at_once=True)
        raise
    if not server.stop():
        # A run that will not end would keep the interpreter from ending, which waits for every thread.
        logging.shutdown()
        os._exit(_NOT_DRAINED)
    return 0
