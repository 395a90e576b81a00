"""`flyweight predict`: send the rows of a file to a model, and see who answered, how fast and how well."""

import json
import time
from pathlib import Path
from typing import TypedDict, Unpack

import click

from flyweight.client.cli.answers import Answer, Result, join_outputs, variant_of_row
from flyweight.client.cli.connection import Connection, connection_options
from flyweight.client.cli.predictions import document, text
from flyweight.client.cli.progress import track
from flyweight.client.cli.rows import DataError, Feed, make_feed, read_arrays
from flyweight.client.cli.written import VARIANT_ARRAY, check_writable, write_answers
from flyweight.client.sync import Client

_EPILOG = """
\b
Examples:
  flyweight predict digits --data test.npz
  flyweight predict digits --data test.npz --variant int8 --out answers.npz
  flyweight predict digits --data test.npz --key user-17 --json | jq .variants
"""


class Arguments(TypedDict):
    """The options of the command but for those of the connection."""

    model: str
    data: Path
    variant: str | None
    key: str | None
    batch_rows: int | None
    out: Path | None
    show: int
    as_json: bool


@click.command(epilog=_EPILOG, options_metavar="--data FILE.npz [OPTIONS]")
@click.argument("model")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="One array per input of the model, first axis = rows, or a folder of such files. "
    "An array `label` adds accuracy (integers) or mean absolute error (floats).",
)
@connection_options
@click.option("--variant", metavar="NAME", help="Ask this variant only, past the traffic split.")
@click.option("--key", metavar="KEY", help="Sticky key of all requests: one variant answers them all.")
@click.option(
    "--batch-rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="Rows in one request.  [default: 1, so that each row is routed by itself]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.npz",
    help=f"Write every output, and who answered each row as `{VARIANT_ARRAY}`.",
)
@click.option(
    "--show", type=click.IntRange(min=0), default=10, show_default=True, metavar="N", help="Rows to print."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def predict(connection: Connection, **arguments: Unpack[Arguments]) -> None:
    """Send the rows of an .npz file to MODEL, and tell which variants answered, how fast and how well.

    Latency is what the caller waits: network, queue, run, and retries if there were any.
    """
    out = arguments["out"]
    if out is not None:
        check_writable(out)
    _check_order(arguments["model"], arguments["data"])
    arrays = read_arrays(arguments["data"])
    with connection.open() as client:
        info = client.model(arguments["model"], arguments["variant"] or "")
        feed = make_feed(arguments["data"], arrays, info, arguments["batch_rows"])
        started = time.perf_counter()
        answers = _send(client, arguments, feed)
        seconds = time.perf_counter() - started
    try:
        outputs = join_outputs(answers, have_rows=feed.answers_have_rows)
    except ValueError as error:
        raise DataError(
            f"the variants of {info.name!r} answered outputs of different shapes ({error}); ask one of them "
            "with --variant."
        ) from error
    result = Result(info.name, connection.url, tuple(answers), outputs, feed.labels, seconds)
    if out is not None:
        write_answers(out, outputs, variant_of_row(answers))
    click.echo(
        json.dumps(document(result), indent=2) if arguments["as_json"] else text(result, arguments["show"])
    )


def _check_order(model: str, data: Path) -> None:
    """Check that the model is not a file and the file not a model.

    Raises:
        DataError: they seem to be swapped.
    """
    if Path(model).is_file() and not data.exists():
        raise DataError(
            f"{model} is a file and {data} is not; the model's name comes first, and the file after --data: "
            f"flyweight predict {data} --data {model}"
        )


def _send(client: Client, arguments: Arguments, feed: Feed) -> list[Answer]:
    model, variant, key = arguments["model"], arguments["variant"], arguments["key"]
    answers: list[Answer] = []
    for inputs in track(feed, feed.requests, "requests"):
        started = time.perf_counter()
        prediction = client.predict(model, inputs, variant=variant, key=key)
        seconds = time.perf_counter() - started
        rows = min(feed.rows_per_request, feed.rows - len(answers) * feed.rows_per_request)
        answers.append(Answer(prediction, rows, seconds))
    return answers
