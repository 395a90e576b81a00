"""Trying a target with bytes that nobody would send: guided by coverage where atheris is installed.

A target is a module in `tests/fuzz/targets` with two functions: `seeds` returns good inputs, and `check`
takes any bytes and raises for what is a bug; expected errors are its own business. A third, `words`, may tell
what texts are made of. Inputs that once were bugs lie in `tests/fuzz/corpus/<target>`, and every run begins
with them.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

FOLDER: Final = Path(__file__).parent
LONGEST_INPUT_BYTES: Final = 4096

# Bytes at the edges of what lengths, texts and flags can be.
_EDGES: Final = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\0" * 8,
    b"\xff" * 8,
    b"\xff\xff\xff\x7f",
    b"{",
    b"[",
    b":",
)


@dataclass(frozen=True, slots=True)
class Target:
    """Something that reads bytes it cannot trust."""

    name: str
    seeds: Callable[[], list[bytes]]
    check: Callable[[bytes], None]
    words: tuple[bytes, ...] = ()

    def corpus(self) -> list[bytes]:
        """Return the seeds, and whatever was a bug before."""
        found = sorted((FOLDER / "corpus" / self.name).glob("*"))
        return [*self.seeds(), *(path.read_bytes() for path in found)]


def target_names() -> list[str]:
    """Return the names of all targets."""
    return sorted(path.stem for path in (FOLDER / "targets").glob("[a-z]*.py"))


def load(name: str) -> Target:
    """Return a target by its name."""
    module = importlib.import_module(f"tests.fuzz.targets.{name}")
    words = tuple(word.encode() for word in module.words()) if hasattr(module, "words") else ()
    return Target(name, module.seeds, module.check, words)


def mutations(target: Target, random: Random) -> Iterator[bytes]:
    """Yield changed inputs without end, the same ones for the same random numbers."""
    corpus, edges = target.corpus(), (*_EDGES, *target.words)
    while True:
        content = bytearray(random.choice(corpus))
        for _ in range(random.choice((1, 1, 1, 2, 4, 8))):
            _mutate(content, corpus, edges, random)
        yield bytes(content[:LONGEST_INPUT_BYTES])


def _mutate(content: bytearray, corpus: list[bytes], edges: tuple[bytes, ...], random: Random) -> None:
    place = random.randrange(len(content) + 1)
    length = random.choice((1, 1, 2, 4, 8, 32))
    kind = random.randrange(7)
    if kind == 0 and place < len(content):
        content[place] ^= 1 << random.randrange(8)
    elif kind == 1:
        content[place : place + 1] = random.randbytes(1)
    elif kind == 2:
        content[place:place] = random.choice(edges)
    elif kind == 3:
        del content[place : place + length]
    elif kind == 4:
        content[place:place] = content[place : place + length]
    elif kind == 5:
        other = random.choice(corpus)
        begin = random.randrange(len(other) + 1)
        content[place : place + length] = other[begin : begin + random.choice((length, 4 * length))]
    else:
        del content[place:]
