"""Where gRPC is served: a host and a port, or a Unix socket by gRPC's name for it (gRPC's doc/naming.md).

The latter is unix:relative/path, unix:/absolute/path or unix:///absolute/path.
"""

import os
import re
import socket
import stat
from pathlib import Path
from typing import Final

from flyweight.server.errors import StartError

_UNIX: Final = "unix:"
# unix(7): sun_path is 108 bytes long, of which gRPC leaves the last one to a zero.
_LONGEST_PATH_BYTES: Final = 107
# Clients read the name as a URI, and scripts the ready line as words.
_UNREADABLE: Final = re.compile(r"[\s%?#]")


def address_of(host: str, port: int) -> str:
    """Return what clients connect to; a Unix socket has no port."""
    if is_unix(host):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_unix(address: str) -> bool:
    """Tell whether an address is the name of a Unix socket."""
    return address.startswith(_UNIX)


def unix_path(address: str) -> Path:
    """Return the file of a Unix socket.

    Raises:
        StartError: there can be no such socket.
    """
    text = address.removeprefix(_UNIX)
    path = text.removeprefix("//")
    if not path or path.endswith("/") or (path != text and not path.startswith("/")):
        raise StartError(f"{address} names no Unix socket; give unix:path or unix:///absolute/path.")
    if _UNREADABLE.search(path) or not path.isprintable():
        raise StartError(
            f"The Unix socket {address!r} has a space or one of % ? # in its path, which clients misread; "
            "choose another."
        )
    size = len(os.fsencode(path))
    if size > _LONGEST_PATH_BYTES:
        raise StartError(
            f"The Unix socket {address} has a path of {size} bytes, and {_LONGEST_PATH_BYTES} are the most; "
            "choose a shorter one, or a relative one."
        )
    return Path(path)


def clear(path: Path) -> None:
    """Remove the socket that a server left behind as it died.

    Raises:
        StartError: somebody listens on it, or it is something else.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refusal(path, error) from error
    if not stat.S_ISSOCK(mode):
        raise StartError(f"{path} is there and is no socket; choose another path with --host, or remove it.")
    try:
        if _has_listener(path):
            raise StartError(
                f"The Unix socket {path} has a server already; stop it, or choose another with --host."
            )
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _refusal(path, error) from error


def _has_listener(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        try:
            caller.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            # So many connect to it that they have to wait.
            return True
        return True


def probe(host: str, port: int) -> None:
    """Listen on an address for a moment.

    Raises:
        StartError: it cannot be listened on.
    """
    if is_unix(host):
        _probe_unix(unix_path(host))
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        # As servers do: a connection that just ended does not make the port taken.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen()
        # A host that cannot be a name at all is a UnicodeError to Python's look-up.
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StartError(
                f"{host}:{port} cannot be listened on ({reason}); choose another with --host or "
                "--port, or --port 0 for any free port."
            ) from error


def _probe_unix(path: Path) -> None:
    clear(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.bind(os.fspath(path))
        except OSError as error:
            raise _refusal(path, error) from error
        path.unlink()


def _refusal(path: Path, error: OSError) -> StartError:
    return StartError(
        f"The Unix socket {path} cannot be listened on ({error.strerror}); choose another with --host."
    )
