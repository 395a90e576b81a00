"""Floods: more than any honest client sends, frame by frame, on one connection."""

import struct
from collections.abc import Callable
from random import Random

from tests.system.stress import frames
from tests.system.stress.callers import body_of
from tests.system.stress.frames import Wire, frame, headers, message, reset

MEGABYTE = 1 << 20


def floods() -> dict[str, Callable[[Wire, Random], object]]:
    def rapid_reset(wire: Wire, _random: Random) -> None:
        for start in range(1, 8001, 400):
            if not wire.send(b"".join(headers(one) + reset(one) for one in range(start, start + 400, 2))):
                return

    def reset_in_mid_message(wire: Wire, _random: Random) -> None:
        part = message(body_of(1.0, "tiny"))
        for one in range(1, 4001, 2):
            if not wire.send(headers(one) + frame(frames.DATA, 0, one, part[:50]) + reset(one)):
                return

    def cancelled_requests(wire: Wire, _random: Random) -> None:
        part = message(body_of(1.0, "tiny"))
        for one in range(1, 4001, 2):
            if not wire.send(headers(one) + frame(frames.DATA, frames.END_STREAM, one, part) + reset(one)):
                return

    def settings_flood(wire: Wire, _random: Random) -> None:
        for number in range(20):
            if not wire.send(frames.settings(INITIAL_WINDOW_SIZE=65535 + number % 2) * 500):
                return

    def ping_flood(wire: Wire, _random: Random) -> None:
        for number in range(20):
            if not wire.send(frame(frames.PING, 0, 0, struct.pack(">Q", number)) * 500):
                return

    def window_flood(wire: Wire, _random: Random) -> None:
        wire.send(headers(1))
        wire.send(frame(frames.WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)) * 10_000)

    def huge_window(wire: Wire, _random: Random) -> None:
        wire.send(headers(1) + frame(frames.WINDOW_UPDATE, 0, 1, struct.pack(">I", (1 << 31) - 1)) * 3)

    def huge_headers(wire: Wire, _random: Random) -> None:
        for one in range(1, 200, 2):
            if not wire.send(headers(one, frames.MODEL_INFER, ("x-big", "a" * 15_000), end=True)):
                return

    def one_huge_header(wire: Wire, _random: Random) -> None:
        block = frames.header_block(frames.MODEL_INFER, ("x-big", "a" * MEGABYTE))
        wire.send(frame(frames.HEADERS, 0, 1, block[:16384]))
        for at in range(16384, len(block), 16384):
            if not wire.send(frame(frames.CONTINUATION, 0, 1, block[at : at + 16384])):
                return

    def continuation_flood(wire: Wire, _random: Random) -> None:
        wire.send(frame(frames.HEADERS, 0, 1, frames.header_block(frames.MODEL_INFER)))
        for _ in range(100):
            # Names that are never indexed, in blocks that never end.
            if not wire.send(frame(frames.CONTINUATION, 0, 1, b"\x10\x01x\x01y" * 3000)):
                return

    def empty_continuations(wire: Wire, _random: Random) -> None:
        wire.send(frame(frames.HEADERS, 0, 1, b""))
        wire.send(frame(frames.CONTINUATION, 0, 1, b"") * 20_000)

    def empty_data(wire: Wire, _random: Random) -> None:
        wire.send(headers(1))
        wire.send(frame(frames.DATA, 0, 1, b"") * 20_000)

    def hpack_bomb(wire: Wire, _random: Random) -> None:
        # One entry of the dynamic table, then references to it: 4 KB each for one byte (index 62).
        block = (
            frames.header_block(frames.MODEL_INFER) + b"\x40" + frames._text(b"x") + frames._text(b"a" * 4000)
        )
        wire.send(frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, block))
        for one in range(3, 40, 2):
            again = frames.header_block(frames.MODEL_INFER) + b"\xbe" * 12_000
            if not wire.send(frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, one, again)):
                return

    def garbage(wire: Wire, random: Random) -> None:
        wire.send(random.randbytes(50_000))

    def garbled_frames(wire: Wire, random: Random) -> None:
        for _ in range(500):
            kind, flags, stream = random.randrange(12), random.randrange(256), random.randrange(1 << 31)
            if not wire.send(frame(kind, flags, stream, random.randbytes(random.randrange(60)))):
                return

    def http1(wire: Wire, _random: Random) -> None:
        wire.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)

    return {
        name.replace("_", " "): flood
        for name, flood in locals().items()
        if callable(flood) and name != "frames"
    }
