"""`flyweight traffic`, `promote`, `rollback`, `load` and `unload`: changing what a server does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from flyweight.client.cli.connection import Connection, connection_options
from flyweight.client.cli.table import table
from flyweight.client.errors import InvalidRequest
from flyweight.client.results import TrafficPlan, TrafficState

_JSON: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)
_MODEL: Final = click.argument("model")


class _Traffic(click.Group):
    """A group that tells whoever names a model at once what was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the subcommand; see `click.Group`."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            raise click.UsageError(f"No such command {name!r}; of a model: flyweight traffic get {name}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Traffic,
    epilog="""
\b
Examples:
  flyweight traffic get digits
  flyweight traffic set digits baseline=90 int8=10 --label canary=int8
""",
)
def traffic() -> None:
    """Show or change who answers the requests of a model."""


@traffic.command(
    "get",
    epilog="""
\b
Examples:
  flyweight traffic get digits
  flyweight traffic get digits --json | jq -r .revision
""",
)
@connection_options
@_MODEL
@_JSON
def get_traffic(connection: Connection, *, model: str, as_json: bool) -> None:
    """Show the traffic plan that MODEL is served by."""
    with connection.open() as client:
        _show(client.get_traffic(model), as_json=as_json)


@traffic.command(
    "set",
    short_help="Change the traffic plan of MODEL.",
    epilog="""
\b
Examples:
  flyweight traffic set digits baseline=90 int8=10
  flyweight traffic set digits --label stable=baseline --label canary=int8
  flyweight traffic set digits --label canary= --fallback baseline
  flyweight traffic set digits int8=100 --revision 3f0a9c55d2e14b87

The plan is written to traffic.yaml in the server's repository, and holds for every
server on it. Without --revision, a change that somebody else makes at the same moment
is refused and not overwritten.
""",
)
@connection_options
@_MODEL
@click.argument("shares", nargs=-1, metavar="[VARIANT=PERCENT]...")
@click.option("--baseline", metavar="VARIANT", help="The variant that others are measured against.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="LABEL=VARIANT",
    help="Another name for a variant, for whoever asks for one; LABEL= takes it away.",
)
@click.option("--fallback", metavar="VARIANT", help="Answers when another's process died; '' for none.")
@click.option("--overflow", metavar="VARIANT", help="Answers what a full queue would refuse; '' for none.")
@click.option(
    "--overflow-above",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="From which share of a full queue on --overflow answers, 0 to 1.",
)
@click.option("--revision", metavar="REVISION", help="Change this state of the plan and no other.")
@_JSON
def set_traffic(  # noqa: PLR0913 -- one for each option
    connection: Connection,
    *,
    model: str,
    shares: Sequence[str],
    baseline: str | None,
    labels: Sequence[str],
    fallback: str | None,
    overflow: str | None,
    overflow_above: float | None,
    revision: str | None,
    as_json: bool,
) -> None:
    """Change the traffic plan of MODEL: the shares, in percent, or what else is named; the rest stays."""
    if "=" in model:
        raise click.UsageError(f"{model!r} is a share; the model comes first: traffic set MODEL {model}")
    given: dict[str, Any] = {
        "baseline": baseline,
        "split": _split(shares) or None,
        "fallback": fallback,
        "overflow": overflow,
        "overflow_above": overflow_above,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    if not changed and not labels:
        raise click.UsageError("Name what to change: shares like baseline=90 int8=10, or an option.")
    with connection.open() as client:
        state = client.get_traffic(model)
        plan = replace(state.written or state.plan, **changed)
        plan = replace(plan, labels=_labelled(plan.labels, labels))
        _show(client.set_traffic(model, plan, revision or state.revision), as_json=as_json)


@click.command(
    epilog="""
\b
Examples:
  flyweight promote digits int8
  flyweight promote digits canary
"""
)
@connection_options
@_MODEL
@click.argument("variant")
@_JSON
def promote(connection: Connection, *, model: str, variant: str, as_json: bool) -> None:
    """Make VARIANT, or the variant with that label, the baseline of MODEL, and give it all the traffic."""
    with connection.open() as client:
        _show(client.promote(model, variant), as_json=as_json)


@click.command(
    epilog="""
\b
Example:
  flyweight rollback digits
"""
)
@connection_options
@_MODEL
@_JSON
def rollback(connection: Connection, *, model: str, as_json: bool) -> None:
    """Undo the last promotion in MODEL: the baseline from before it gets all the traffic again."""
    with connection.open() as client:
        _show(client.rollback(model), as_json=as_json)


@click.command(
    epilog="""
\b
Examples:
  flyweight load digits
  flyweight load digits --timeout 300
  flyweight load digits --config config.json --file 1/model.onnx=new.onnx
"""
)
@connection_options
@_MODEL
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Serve it with this configuration (Triton's, as JSON) until it is loaded again or unloaded.",
)
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="VERSION/NAME=FILE",
    help="Send this file along, in the place of the model's in the repository; needs --config.",
)
@_JSON
def load(
    connection: Connection, *, model: str, config: Path | None, files: Sequence[str], as_json: bool
) -> None:
    """Have the server load MODEL, or load it again, and wait until it answers."""
    sent = {name: _read(Path(path)) for name, path in (_pair(each, "--file") for each in files)}
    text = None if config is None else _read(config).decode("utf-8", errors="replace")
    with connection.open() as client:
        client.load(model, config=text, files=sent)
    _done(model, "loaded", as_json=as_json)


@click.command(
    epilog="""
\b
Example:
  flyweight unload digits
"""
)
@connection_options
@_MODEL
@_JSON
def unload(connection: Connection, *, model: str, as_json: bool) -> None:
    """Have the server unload MODEL, and wait until its last request is done.

    Its files stay where they are: MODEL can be loaded again, and a server with --model-control poll does so
    when it is restarted.
    """
    with connection.open() as client:
        client.unload(model)
    _done(model, "unloaded", as_json=as_json)


def _done(model: str, what: str, *, as_json: bool) -> None:
    click.echo(json.dumps({"model": model, what: True}, indent=2) if as_json else f"{model} is {what}.")


def _split(shares: Sequence[str]) -> dict[str, float]:
    split: dict[str, float] = {}
    for variant, percent in (_pair(share, "a share") for share in shares):
        try:
            split[variant] = float(percent)
        except ValueError as error:
            raise InvalidRequest(f"{variant}={percent}: {percent!r} is no number of percent.") from error
    return split


def _labelled(labels: Mapping[str, str], changes: Sequence[str]) -> dict[str, str]:
    changed = {**labels, **dict(_pair(change, "--label") for change in changes)}
    return {label: variant for label, variant in changed.items() if variant}


def _pair(text: str, what: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidRequest(f"{text!r} is not of the form NAME=VALUE, as {what} is.")
    return name, value


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror}); check the path.") from error


def _show(state: TrafficState, *, as_json: bool) -> None:
    click.echo(json.dumps(document(state), indent=2) if as_json else text(state))


def document(state: TrafficState) -> dict[str, object]:
    """Return a model's traffic as what `--json` prints.

    {"model", "revision", "fault", "baseline", "split": {variant: percent}, "labels": {label: variant},
     "fallback", "overflow", "overflow_above", "sticky_parameter", "sticky_metadata"}
    """
    plan = state.plan
    return {
        "model": state.model,
        "revision": state.revision,
        "fault": state.fault,
        "baseline": plan.baseline,
        "split": dict(plan.split),
        "labels": dict(plan.labels),
        "fallback": plan.fallback,
        "overflow": plan.overflow,
        "overflow_above": plan.overflow_above,
        "sticky_parameter": plan.sticky_parameter,
        "sticky_metadata": plan.sticky_metadata,
    }


def text(state: TrafficState) -> str:
    """Return a model's traffic for people."""
    plan = state.plan
    names = dict.fromkeys([plan.baseline, *plan.split, *plan.labels.values(), plan.fallback, plan.overflow])
    rows = [
        [
            name,
            "baseline" if name == plan.baseline else "",
            f"{plan.split.get(name, 0.0):g} %",
            _notes(plan, name),
        ]
        for name in names
        if name
    ]
    lines = [table(["variant", "role", "traffic", "also"], rows, frozenset({"traffic"}))]
    lines.append(f"{state.model} is at revision {state.revision}.")
    if state.fault:
        lines.append(f"The plan in the repository is not in force: {state.fault}")
    return "\n\n".join(lines)


def _notes(plan: TrafficPlan, variant: str) -> str:
    notes = [f"label {label}" for label, name in plan.labels.items() if name == variant]
    if variant == plan.fallback:
        notes.append("fallback")
    if variant == plan.overflow:
        notes.append(f"overflow above {plan.overflow_above:g}")
    return ", ".join(notes)
