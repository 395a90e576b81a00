"""What is listened on, and what is left of it."""

import socket
from pathlib import Path

import pytest

from flyweight.server.wire.listener import Listener


def test_a_unix_socket_has_no_port_and_takes_its_file_along(tmp_path: Path) -> None:
    listener = Listener(f"unix:{tmp_path}/socket", None)
    assert listener.port == 0
    with pytest.raises(BlockingIOError):
        listener.accept()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(tmp_path / "socket"))
        channel = listener.accept()
        assert channel.peer() == "unix:"
        channel.close()
    listener.close()
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("is_there", [True, False])
def test_the_file_of_the_next_server_is_left_to_it(tmp_path: Path, is_there: bool) -> None:
    """It may have been started before this one was done, in its place."""
    listener = Listener(f"unix:{tmp_path}/socket", None)
    (tmp_path / "socket").rename(tmp_path / "aside")
    if is_there:
        (tmp_path / "socket").touch()
    listener.close()
    assert (tmp_path / "socket").exists() == is_there


@pytest.mark.parametrize(
    ("address", "family"), [("127.0.0.1:0", socket.AF_INET), ("[::1]:0", socket.AF_INET6)]
)
def test_a_port_is_one_of_the_addresss_kind(address: str, family: socket.AddressFamily) -> None:
    listener = Listener(address, None)
    try:
        with socket.socket(fileno=socket.dup(listener.fileno())) as twin:
            assert twin.family == family
        assert listener.port > 0
    finally:
        listener.close()
