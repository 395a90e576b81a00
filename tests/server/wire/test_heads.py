"""What header blocks say, when others began like them: the same as when nobody did."""

from typing import Any

from hpack import Encoder as TheirEncoder
from hypothesis import given
from hypothesis import strategies as st

from flyweight.server.wire.frames import StreamFault
from flyweight.server.wire.heads import head_of
from flyweight.server.wire.hpack import Block, Decoder, Fields

MOST = 400
USUAL = [
    *((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/s/M"), (b":authority", b"h")),
    *((b"content-type", b"application/grpc"), (b"te", b"trailers")),
]
ODD = [
    *((b":method", b"GET"), (b":path", b"/s/N"), (b":path", b""), (b"content-type", b"text/html")),
    *((b"te", b"gzip"), (b"grpc-timeout", b"1S"), (b"grpc-timeout", b"x"), (b"grpc-encoding", b"zip")),
    *((b"content-length", b"5"), (b"grpc-accept-encoding", b"gzip"), (b"x-bin", b"AA"), (b"x-bin", b"A")),
    *((b"x", b"1"), (b"x", b"2\n"), (b"X", b"1"), (b"connection", b"close"), (b"y", b"y" * 300)),
]
FIELDS = st.one_of(
    st.just(USUAL),
    st.lists(st.sampled_from(USUAL), max_size=7),
    st.permutations(USUAL),
)


def said(block: Block) -> Any:
    """Return what a block says, or that it is malformed."""
    try:
        head = head_of(block, MOST)
    except StreamFault as fault:
        return str(fault)
    public = [name for name in type(head).__slots__ if not name.startswith("_")]
    return {name: getattr(head, name) for name in public}


@given(st.lists(st.tuples(FIELDS, st.lists(st.sampled_from(ODD), max_size=3), st.booleans()), max_size=12))
def test_a_beginning_that_is_known_changes_nothing(calls: Any) -> None:
    theirs, ours = TheirEncoder(), Decoder(MOST)
    for fields, odd, is_secret in calls:
        pairs = [*fields, *odd]
        # Those that are secret enter no table, and so come as literals again and again.
        coded = theirs.encode([(name, value, is_secret and (name, value) in odd) for name, value in pairs])
        block = ours.decode(coded)
        alone = Block(block.pairs, block.size, Fields((), 0))
        assert said(block) == said(alone)


def test_calls_that_begin_alike_share_nothing_else() -> None:
    theirs, ours = TheirEncoder(), Decoder(MOST)
    theirs.encode(USUAL)
    ours.decode(TheirEncoder().encode(USUAL))
    heads = []
    for number in (b"1", b"2", b"3"):
        block = ours.decode(theirs.encode([*USUAL, (b"x-number", number, True)]))
        heads.append(head_of(block, MOST))
        assert len(block.lead.pairs) == len(USUAL)
    assert [head.metadata for head in heads] == [(("x-number", number),) for number in "123"]
    assert {head.path for head in heads} == {"/s/M"}
