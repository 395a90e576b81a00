"""`flyweight models`: what a server holds, in which state, and what goes in and comes out."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import click

from flyweight.client.cli.connection import Connection, connection_options
from flyweight.client.cli.table import table
from flyweight.client.errors import NotFound, Refused, Unavailable, Unsupported
from flyweight.client.results import ModelInfo, TensorInfo, VariantState, VariantTraffic
from flyweight.client.sync import Client

_EPILOG = """
\b
Examples:
  flyweight models
  flyweight models digits
  flyweight models --url 10.0.0.7:8001 --ca ca.pem
  flyweight models --json | jq -r '.models[].name'
"""


_LEGEND = "memory: what the variant adds to a process that holds only it; - while nobody has measured that"


@dataclass(frozen=True, slots=True)
class Listing:
    """What a server said.

    Attributes:
        url: its address.
        states: every variant of every model, in the server's order.
        models: what goes in and out, of each model that can answer.
        traffic: by model and variant; None when the server does not say.
    """

    url: str
    states: tuple[VariantState, ...]
    models: Mapping[str, ModelInfo]
    traffic: Mapping[tuple[str, str], VariantTraffic] | None


@click.command(epilog=_EPILOG)
@connection_options
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def models(connection: Connection, *, model: str | None, as_json: bool) -> None:
    """List the models and variants that a server holds, or those of MODEL: state, traffic, inputs, outputs.

    A variant that is not READY says why. Memory is what the variant adds to a process that holds only it
    (own_pss in the server's metrics). A server that holds its models itself measures that some moments after
    a variant is loaded, or not at all when told so; until then it is what was measured when the variant was
    published, if anything was.
    """
    with connection.open() as client:
        listing = _ask(client, connection.url, model)
    click.echo(json.dumps(document(listing), indent=2) if as_json else text(listing))


def _ask(client: Client, url: str, model: str | None) -> Listing:
    states = client.models()
    if model is not None:
        states = _of(model, states, url)
    # Asking about a model that cannot answer would wait for the retries of UNAVAILABLE.
    answering = dict.fromkeys(state.model for state in states if state.state == "READY")
    found = {name: _info(client, name) for name in answering}
    known = {name: info for name, info in found.items() if info is not None}
    return Listing(url, states, known, _traffic(client))


def _of(model: str, states: tuple[VariantState, ...], url: str) -> tuple[VariantState, ...]:
    found = tuple(state for state in states if state.model == model)
    if not found:
        names = ", ".join(dict.fromkeys(state.model for state in states)) or "none"
        hint = "; a server's address goes after --url" if ":" in model else ""
        raise NotFound(f"the server at {url} has no model {model!r}; its models are {names}{hint}.")
    return found


def _info(client: Client, model: str) -> ModelInfo | None:
    try:
        return client.model(model)
    except (NotFound, Refused, Unavailable):
        # It went away since it was listed.
        return None


def _traffic(client: Client) -> Mapping[tuple[str, str], VariantTraffic] | None:
    try:
        return {(line.model, line.variant): line for line in client.traffic()}
    except Unsupported:
        return None


def document(listing: Listing) -> dict[str, object]:
    """Return the listing as what `--json` prints.

    {"url", "models": [{"name", "platform", "inputs": [{"name", "datatype", "shape"}], "outputs",
     "variants": [{"name", "state", "reason", "role", "share_percent", "memory_bytes"}]}]}
    with null for what the server does not say.
    """
    names = dict.fromkeys(state.model for state in listing.states)
    return {"url": listing.url, "models": [_model(listing, name) for name in names]}


def _model(listing: Listing, name: str) -> dict[str, object]:
    info = listing.models.get(name)
    return {
        "name": name,
        "platform": info.platform if info else None,
        "inputs": [asdict(tensor) for tensor in info.inputs] if info else None,
        "outputs": [asdict(tensor) for tensor in info.outputs] if info else None,
        "variants": [_variant(listing, state) for state in listing.states if state.model == name],
    }


def _variant(listing: Listing, state: VariantState) -> dict[str, object]:
    traffic = (listing.traffic or {}).get((state.model, state.variant))
    return {
        "name": state.variant,
        "state": state.state,
        "reason": state.reason,
        "role": traffic.role if traffic else None,
        "share_percent": traffic.share_percent if traffic else None,
        "memory_bytes": traffic.memory_bytes if traffic else None,
    }


def text(listing: Listing) -> str:
    """Return the listing for people."""
    if not listing.states:
        return f"The server at {listing.url} holds no models."
    header = ["model", "variant", "state"]
    cells = [[state.model, state.variant or "-", state.state] for state in listing.states]
    if listing.traffic is not None:
        header += ["role", "traffic", "memory"]
        for row, state in zip(cells, listing.states, strict=True):
            row.extend(_traffic_cells(listing.traffic.get((state.model, state.variant))))
    if any(state.reason for state in listing.states):
        header.append("reason")
        for row, state in zip(cells, listing.states, strict=True):
            row.append(state.reason)
    tensors = [
        f"{name}: {_tensors(info.inputs)} -> {_tensors(info.outputs)}"
        for name, info in listing.models.items()
    ]
    parts = [table(header, cells, frozenset({"traffic", "memory"})), "\n".join(tensors)]
    if listing.traffic is not None and any(state.state == "READY" for state in listing.states):
        parts.append(_LEGEND)
    return "\n\n".join(part for part in parts if part)


def _traffic_cells(traffic: VariantTraffic | None) -> list[str]:
    if traffic is None:
        return ["-", "-", "-"]
    memory = f"{traffic.memory_bytes / 1e6:.1f} MB" if traffic.memory_bytes else "-"
    return [traffic.role or "-", f"{traffic.share_percent:g} %", memory]


def _tensors(tensors: Iterable[TensorInfo]) -> str:
    return (
        ", ".join(f"{tensor.name} {tensor.datatype} {list(tensor.shape)}" for tensor in tensors) or "nothing"
    )
