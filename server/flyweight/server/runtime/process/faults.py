"""What goes wrong between two processes. None of it is seen by callers as it is."""


class PacketFault(Exception):  # noqa: N818 -- a failure is named by what happened
    """The other end sent what it never should: it is broken, and nothing it says counts any more."""


class LaneClosed(Exception):  # noqa: N818 -- a failure is named by what happened
    """The other end is gone: its process ended, or it was told to."""


class TooLarge(Exception):  # noqa: N818 -- a failure is named by what happened
    """The tensors of one run are larger than the room for them; nothing was sent."""

    def __init__(self, size_bytes: int, most_bytes: int) -> None:
        super().__init__(f"{size_bytes:,} bytes where at most {most_bytes:,} fit")
