"""Fuzz one target: `python -m tests.fuzz infer --seconds 60`.

With atheris installed (`pip install atheris`; it is not among the test dependencies, for its size) it is
guided by coverage, keeps what it finds interesting in --corpus, and writes the input that broke something to
the folder it was started in. Without it the seeds are mutated blindly. What was a bug goes to
tests/fuzz/corpus/<target> once it is mended, under a name that says what it is.
"""

import argparse
import importlib
import logging
import sys
import time
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from tests.fuzz.engine import LONGEST_INPUT_BYTES, Target, load, mutations, target_names

# What an input may take: a file of a few kilobytes that costs more is a bug too.
_MEGABYTES, _SECONDS = 2048, 20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=target_names())
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, help="a folder that keeps what was interesting")
    parser.add_argument("--replay", type=Path, nargs="+", help="try these files and nothing else")
    options = parser.parse_args()
    # Every refused file would be a line.
    logging.getLogger("flyweight").setLevel(logging.ERROR)
    if options.replay:
        for path in options.replay:
            load(options.target).check(path.read_bytes())
        return
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        _blindly(load(options.target), options)
        return
    # By its name: what it imports is instrumented while it is imported.
    with atheris.instrument_imports(include=["flyweight", "tests.fuzz.targets", "yaml", "google.protobuf"]):
        importlib.import_module(f"tests.fuzz.targets.{options.target}")
    _guided(atheris, load(options.target), options)


def _blindly(target: Target, options: argparse.Namespace) -> None:
    for data in target.corpus():
        target.check(data)
    ends, count = time.monotonic() + options.seconds, 0
    for data in mutations(target, Random(options.seed)):
        if time.monotonic() >= ends:
            break
        count += 1
        try:
            target.check(data)
        except BaseException:
            Path(f"crash-{target.name}").write_bytes(data)
            print(f"input {count} broke it; it is in crash-{target.name}", file=sys.stderr)
            raise
    print(f"{target.name}: {count} inputs, no surprise")


def _guided(atheris: Any, target: Target, options: argparse.Namespace) -> None:
    with TemporaryDirectory() as temporary:
        folder = options.corpus or Path(temporary) / "corpus"
        folder.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(target.corpus()):
            (folder / f"seed-{number}").write_bytes(content)
        words = Path(temporary) / "words"
        words.write_text("".join(f"{_quoted(word)}\n" for word in target.words))
        arguments = [
            sys.argv[0],
            *([f"-dict={words}"] if target.words else ()),
            "-len_control=0",
            str(folder),
            f"-max_total_time={options.seconds}",
            f"-max_len={LONGEST_INPUT_BYTES}",
            f"-rss_limit_mb={_MEGABYTES}",
            f"-timeout={_SECONDS}",
            f"-seed={options.seed or 1}",
            f"-artifact_prefix=crash-{target.name}-",
        ]
        atheris.Setup(arguments, target.check)
        atheris.Fuzz()


def _quoted(word: bytes) -> str:
    """Return a word as libFuzzer's dictionaries have it."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"'


if __name__ == "__main__":
    main()
