"""Who is at the other end of a call."""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeAlias, cast
from urllib.parse import unquote

from flyweight.server.rpc.call import Peer

# Where gRPC's core puts the names of a verified client certificate: the subject alternative names by which
# services and people are called, and the common name, which older authorities use for that.
_NAMES: Final = ("peer_uri", "peer_dns", "peer_email", "x509_common_name")

# The stubs know one value of each; a certificate may have several names of a kind.
_Properties: TypeAlias = Mapping[str, Sequence[bytes]]


class Connected(Protocol):
    """A call that knows its connection, as grpc.ServicerContext does."""

    def peer(self) -> str:
        """Return the address of the other end as gRPC writes it."""
        ...

    def auth_context(self) -> Mapping[str, object]:
        """Return the properties of the connection's credentials."""
        ...


def peer_of(context: Connected) -> Peer:
    """Return the caller's address and the names in its certificate."""
    properties = cast("_Properties", context.auth_context())
    names = (name.decode(errors="replace") for key in _NAMES for name in properties.get(key, ()))
    # Each name once, in the order above; a common name that is not there is an empty one.
    return Peer(_address_of(context.peer()), tuple(dict.fromkeys(filter(None, names))))


def _address_of(peer: str) -> str:
    """Return "host:port" for gRPC's "ipv4:host:port" and "ipv6:%5Bhost%5D:port" (gRPC's doc/naming.md)."""
    kind, _, address = peer.partition(":")
    return unquote(address) if kind in {"ipv4", "ipv6"} else peer
