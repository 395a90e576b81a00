"""Write the results of several servers into a document: python compare.py DOCUMENT RESULTS.json ...

What lies between the marks `<!-- results -->` and `<!-- end of results -->` is replaced.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from oip.tables import reasons, shortfalls, summary

BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def compared(files: list[Path]) -> str:
    """Return the tables for the results in `files`; the first one's failures with what was seen."""
    servers = [json.loads(file.read_text()) for file in files]
    first = servers[0]["column"]
    return (
        "Passed of those run; bold where one failed, \u2014 where none applies.\n\n"
        f"{summary(servers)}\n"
        "### Cases that a server failed\n\n"
        "\u2713 passed, \u2717 failed, \u00b7 not announced, not hosted or not there.\n\n"
        f"{shortfalls(servers)}\n"
        f"### What {first} failed\n\n{reasons(servers[0])}"
    )


def replaced(document: str, tables: str) -> str:
    """Return the document with what is between its marks replaced."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"The document needs the marks {BEGIN} and {END}, each on a line of its own.")
    return f"{before}{begin}\n\n{tables}\n{end}{after}"


def main() -> None:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("document", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    arguments = parser.parse_args()
    text = arguments.document.read_text()
    arguments.document.write_text(replaced(text, compared(arguments.results)))


if __name__ == "__main__":
    main()
