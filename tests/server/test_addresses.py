"""Addresses, and what is at a Unix socket's path before a server is."""

import socket
from pathlib import Path

import pytest

from flyweight.server.addresses import address_of, clear, probe, unix_path
from flyweight.server.errors import StartError
from flyweight.server.settings import is_loopback


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1:8001"),
        ("::1", "[::1]:8001"),
        ("models.example.org", "models.example.org:8001"),
        ("unix:/run/models.sock", "unix:/run/models.sock"),
    ],
)
def test_an_address_is_what_clients_connect_to(host: str, address: str) -> None:
    assert address_of(host, 8001) == address


@pytest.mark.parametrize(
    ("address", "path"),
    [("unix:a.sock", "a.sock"), ("unix:/run/a", "/run/a"), ("unix:///run/a", "/run/a")],
)
def test_a_unix_socket_is_named_as_grpc_names_it(address: str, path: str) -> None:
    assert unix_path(address) == Path(path)
    assert is_loopback(address)


@pytest.mark.parametrize("address", ["unix:", "unix://", "unix://relative", "unix:/run/"])
def test_a_name_of_no_file_is_refused(address: str) -> None:
    with pytest.raises(StartError, match="names no Unix socket; give unix:path"):
        unix_path(address)


@pytest.mark.parametrize("mark", " \t%?#\x07")
def test_what_clients_misread_is_refused(mark: str) -> None:
    with pytest.raises(StartError, match="which clients misread"):
        unix_path(f"unix:/run/a{mark}b")


@pytest.mark.parametrize("name", ["a" * 102, "\xfc" * 51])
def test_a_path_is_as_long_as_the_kernel_takes_it(name: str) -> None:
    unix_path(f"unix:/run/{name}")
    with pytest.raises(StartError, match="a path of 108 bytes, and 107 are the most"):
        unix_path(f"unix:/run/{name}a")


def test_what_a_dead_server_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    clear(path)
    assert not path.exists()


@pytest.mark.parametrize("backlog", [5, 0])
def test_a_living_server_is_left_alone(tmp_path: Path, backlog: int) -> None:
    """Also if so many wait for it that nobody can connect."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as living, socket.socket(socket.AF_UNIX) as caller:
        living.bind(str(path))
        living.listen(backlog)
        caller.connect(str(path))
        with pytest.raises(StartError, match="has a server already"):
            clear(path)
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "socket"
    if kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch()
    with pytest.raises(StartError, match="is no socket"):
        clear(path)
    assert path.is_symlink() or path.exists()


def test_what_the_kernel_says_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"cannot be listened on \(No such file or directory\)"):
        probe(f"unix:{tmp_path}/missing/socket", 0)


def test_a_probe_leaves_nothing(tmp_path: Path) -> None:
    probe(f"unix:{tmp_path}/socket", 0)
    assert [*tmp_path.iterdir()] == []
