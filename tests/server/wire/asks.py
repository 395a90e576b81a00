"""Calls that a client of gRPC may make of the pair, as values and as strategies."""

import json
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

import grpc
from hypothesis import strategies as st

from tests.server.wire.pair import ECHO, FAIL, LATER, MANY, MOST_MESSAGE_BYTES, NEVER, SUM, TELL

PATIENCE_SECONDS: Final = 10.0
UNKNOWN: Final = "/t.Pair/Unknown"
COMPRESSIONS: Final = st.sampled_from(
    [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate]
)

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class Ask:
    """A call; with `stops_after` so many answers it is cancelled, and until then not half-closed."""

    path: str
    # Not shown: of some hundred kilobytes nobody learns anything.
    bodies: tuple[bytes, ...] = field(default=(b"",), repr=False)
    metadata: Metadata = ()
    compression: grpc.Compression = grpc.Compression.NoCompression
    timeout: float | None = PATIENCE_SECONDS
    stops_after: int | None = None

    @property
    def is_unary(self) -> bool:
        return self.path not in {ECHO, MANY, SUM}

    @property
    def is_refused_in_own_words(self) -> bool:
        """Whether both refuse it, each by a sentence of its own."""
        return (
            self._metadata_bytes >= 10_000
            or max(map(len, self.bodies), default=0) > MOST_MESSAGE_BYTES
            or self.path == NEVER
        )

    @property
    def _metadata_bytes(self) -> int:
        return sum(len(name) + len(value) for name, value in self.metadata)

    @property
    def is_counted_alike(self) -> bool:
        """Whether both count it as the same; the core has calls with too much metadata as cancelled."""
        return self._metadata_bytes < 10_000


# None that gRPC or HTTP mean something by: those are tried frame by frame.
NAMES = st.one_of(
    st.sampled_from(["x", "x-a", "x-bin", "-", ".", "_", "0", "a.b_c-d", "x-bin-x", "bin", "cookie"]),
    st.from_regex(r"\Ax[a-z0-9_.-]{0,20}(-bin)?\Z"),
)
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60)
SIZES = st.one_of(st.sampled_from([0, 1, 5, 16_379, 16_384, 16_385, 65_535, 100_000]), st.integers(0, 40_000))


@st.composite
def metadata(draw: st.DrawFn) -> Metadata:
    names = draw(st.lists(NAMES, max_size=5))
    if names:
        names += draw(st.lists(st.sampled_from(names), max_size=3))
    return tuple(
        (name, draw(st.binary(max_size=60)) if name.endswith("-bin") else draw(TEXTS)) for name in names
    )


@st.composite
def body(draw: st.DrawFn, sizes: st.SearchStrategy[int] = SIZES) -> bytes:
    size = draw(sizes)
    # What packs well, and what does not at all.
    return bytes(size) if draw(st.booleans()) else Random(size).randbytes(size)


def tell() -> st.SearchStrategy[Ask]:
    size = st.tuples(st.just("x-size"), SIZES.map(str))
    return st.builds(
        Ask,
        path=st.sampled_from([TELL, TELL, LATER, UNKNOWN]),
        bodies=st.tuples(body()),
        metadata=st.tuples(metadata(), size).map(lambda parts: (*parts[0], parts[1])),
        compression=COMPRESSIONS,
        timeout=st.sampled_from([None, PATIENCE_SECONDS, 1e6]),
    )


def fail() -> st.SearchStrategy[Ask]:
    code = st.tuples(st.just("x-code"), st.integers(1, 16).map(str))
    trailers = st.lists(st.tuples(st.sampled_from(["x-t-a", "x-t-b", "x-t-"]), TEXTS), max_size=3)
    return st.builds(
        lambda code, trailers, sentence: Ask(
            FAIL,
            (sentence.encode(),),
            (code, *trailers),
        ),
        code,
        trailers,
        st.text(max_size=100),
    )


def too_much() -> st.SearchStrategy[Ask]:
    large = body(st.integers(MOST_MESSAGE_BYTES + 1, MOST_MESSAGE_BYTES + 9))
    return st.one_of(
        st.builds(Ask, path=st.sampled_from([TELL, ECHO]), bodies=st.tuples(large), compression=COMPRESSIONS),
        # Not of exactly the limit, which the core counts in: it says "less than", and the wire "at most".
        st.sampled_from([10_000, 15_000, 17_000, 50_000]).map(
            lambda size: Ask(TELL, metadata=(("x", "y" * size),))
        ),
        st.builds(Ask, path=st.just(NEVER), timeout=st.floats(0.005, 0.05)),
    )


def stream() -> st.SearchStrategy[Ask]:
    several = st.lists(st.one_of(body(), body(), st.just(b"fail")), max_size=5).map(tuple)
    many = st.lists(SIZES, max_size=6).map(lambda sizes: (json.dumps(sizes).encode(),))
    return st.one_of(
        st.builds(Ask, path=st.just(SUM), bodies=several, metadata=metadata(), compression=COMPRESSIONS),
        st.builds(Ask, path=st.just(ECHO), bodies=several, compression=COMPRESSIONS),
        st.builds(Ask, path=st.just(MANY), bodies=st.one_of(many, st.just(()))),
    )


def stopped() -> st.SearchStrategy[Ask]:
    several = st.lists(body(), min_size=1, max_size=4).map(tuple)
    return st.builds(Ask, path=st.just(ECHO), bodies=several, stops_after=st.integers(0, 4)).map(
        lambda ask: replace(ask, stops_after=min(ask.stops_after or 0, len(ask.bodies)))
    )


def anything() -> st.SearchStrategy[Ask]:
    return st.one_of(tell(), tell(), fail(), stream(), stream(), stopped(), too_much())
