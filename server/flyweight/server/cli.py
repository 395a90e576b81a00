"""The commands `flyweight serve` and `flyweight check`."""

import json
import logging
import math
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
from pydantic import TypeAdapter

from flyweight.server.app import Server
from flyweight.server.checking import CheckReport, check_repository
from flyweight.server.logs import configure_logging
from flyweight.server.settings import MEGABYTE, LogFormat, ModelControl, ServerSettings

_FAULTY: Final = 2
_NOT_DRAINED: Final = 1
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_LONGEST_SECONDS: Final = 86_400.0
_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_PORT: Final = click.IntRange(0, 65535)


class _Seconds(click.FloatRange):
    """Seconds, of which there is a number that clocks can wait for: neither NaN nor more than a day."""

    def __init__(self, least: float, *, min_open: bool = False) -> None:
        super().__init__(least, _LONGEST_SECONDS, min_open=min_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number of seconds; NaN compares with nothing, and so would pass as in range."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


class _StopBeforeReady(BaseException):  # a wish and no error: nobody who handles errors may catch it
    """A signal came while the models were being loaded."""


_EPILOG: Final = """\b
Examples:
  flyweight serve repository
  flyweight serve repository --port 0 --metrics-port 0
  flyweight serve repository --host 0.0.0.0 --tls-cert server.pem --tls-key server.key

\b
When everything is loaded, one line goes to standard output, and the log to standard error:
  flyweight ready grpc=127.0.0.1:8001 metrics=http://127.0.0.1:8002/metrics models=1 variants=3

\b
SIGTERM or Ctrl-C: health says NOT_SERVING, accepted requests are answered, exit code 0.
A second one, or --drain-seconds without an end: what is left is dropped, exit code 1.
"""


@click.command(epilog=_EPILOG)
@click.argument("repository", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve gRPC on.")
@click.option(
    "--port", type=_PORT, default=8001, show_default=True, help="Port for gRPC; 0 takes a free one."
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
    type=click.Choice(ModelControl, case_sensitive=False),
    default=ModelControl.POLL,
    show_default=True,
    help="poll: serve what the repository holds, as it changes. explicit: what RepositoryModelLoad named.",
)
@click.option(
    "--poll-seconds",
    type=_Seconds(0.01),
    default=0.5,
    show_default=True,
    help="How often the repository is looked at.",
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
    "--max-message-megabytes",
    type=click.IntRange(1, 2047),
    default=64,
    show_default=True,
    help="The largest request that is read; --max-in-flight of them must fit into memory.",
)
@click.option(
    "--drain-seconds",
    type=_Seconds(0.0),
    default=30.0,
    show_default=True,
    help="How long accepted requests may take after SIGTERM.",
)
@click.option(
    "--shutdown-delay-seconds",
    type=_Seconds(0.0),
    default=0.0,
    show_default=True,
    help="How long to go on after SIGTERM while load balancers learn that health says NOT_SERVING.",
)
@click.option("--strict", is_flag=True, help="Do not start when anything in the repository is faulty.")
@click.option(
    "--allow-control/--no-allow-control",
    default=True,
    show_default=True,
    help="Whether callers may use RepositoryModelLoad and RepositoryModelUnload.",
)
@click.option("--tls-cert", type=_FILE, help="Certificate chain (PEM); gRPC is then served over TLS only.")
@click.option("--tls-key", type=_FILE, help="The certificate's key (PEM).")
@click.option(
    "--tls-client-ca", type=_FILE, help="Authority (PEM) that clients' certificates must come from."
)
@click.option(
    "--log-format",
    type=click.Choice(LogFormat, case_sensitive=False),
    default=LogFormat.TEXT,
    show_default=True,
    help="How log lines look.",
)
def serve(**options: object) -> int:
    """Serve every model and variant of REPOSITORY over gRPC.

    The repository is a folder with one folder per model, and in it one folder per variant with a model.onnx
    (plain Triton repositories of ONNX models work as they are). Variants that are published while the server
    runs are loaded, those that are removed are unloaded, and traffic.yaml decides who answers; no request
    fails over it.
    """
    settings = _settings(options)
    configure_logging(settings.log_format)
    return _run(Server(settings))


def _settings(options: dict[str, object]) -> ServerSettings:
    certificate, key = options.pop("tls_cert"), options.pop("tls_key")
    authority = options.pop("tls_client_ca")
    if (certificate is None) != (key is None):
        raise click.UsageError("Give --tls-cert and --tls-key together.")
    if authority is not None and certificate is None:
        raise click.UsageError("Give --tls-client-ca together with --tls-cert and --tls-key.")
    megabytes = options.pop("max_message_megabytes")
    assert isinstance(megabytes, int)
    options["max_message_bytes"] = megabytes * MEGABYTE
    if certificate is not None:
        options["tls"] = {"certificate": certificate, "key": key, "client_authority": authority}
    return TypeAdapter(ServerSettings).validate_python(options)


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
        asked_to_stop.wait()
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


@click.command(
    epilog="""\b
Examples:
  flyweight check repository
  flyweight check repository --json | jq .faults
"""
)
@click.argument("repository", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=_Seconds(0.0, min_open=True),
    default=300.0,
    show_default=True,
    help="Seconds that loading everything may take.",
)
def check(repository: Path, *, as_json: bool, timeout_seconds: float) -> int:
    """Load everything in REPOSITORY as the server would, and say what is wrong with it.

    Digests, manifests, models, golden outputs, config.pbtxt and traffic.yaml are looked at. The exit code is
    0 when all is well, and 2 with a sentence on standard error for each fault. A variant that
    can be served but does not come from where its manifest says is a warning.
    """
    report = check_repository(repository, timeout_seconds)
    if as_json:
        click.echo(json.dumps(report.document(), indent=2))
    else:
        _print(report)
    return _FAULTY if report.faults else 0


def _print(report: CheckReport) -> None:
    for variant in report.variants:
        click.echo(
            f"{variant.model}/{variant.variant}: {variant.role}, {variant.share:.0%} of the traffic, "
            f"{variant.file_bytes:,} bytes"
        )
    for warning in report.warnings:
        click.echo(f"flyweight: warning: {warning}", err=True)
    for fault in report.faults:
        click.echo(f"flyweight: error: {fault}", err=True)
    if not report.faults:
        click.echo(f"{report.repository} is fine: {len(report.variants)} variants can be served.")
