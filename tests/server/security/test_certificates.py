"""TLS whose files change while the server runs."""

import logging
import shutil
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flyweight.server.errors import StartError
from flyweight.server.security.certificates import read_pems, server_context, watched_pems
from flyweight.server.settings import TlsFiles, Transport

Make = Callable[[str], Any]


@pytest.fixture(params=Transport)
def transport(request: pytest.FixtureRequest) -> str:
    """Both, whichever the run is about."""
    return str(request.param)


def certificate_of(
    authority: Any, names: list[x509.GeneralName], common_names: list[str]
) -> trustme.LeafCert:
    """Return a client's certificate as trustme cannot make it."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(authority.root)
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])
    built = x509.CertificateBuilder(
        issuer.subject, subject, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1)
    )
    if names:
        built = built.add_extension(x509.SubjectAlternativeName(names), critical=not common_names)
    signed = built.sign(authority.authority._private_key, hashes.SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return trustme.LeafCert(pem, signed.public_bytes(serialization.Encoding.PEM), [])


def replace_by(files: TlsFiles, others: TlsFiles) -> None:
    """Replace files as tools do that are careful: written beside, then renamed over."""
    for old, new in zip(
        (files.certificate, files.key, files.client_authority),
        (others.certificate, others.key, others.client_authority),
        strict=True,
    ):
        assert old is not None
        assert new is not None
        beside = old.with_suffix(".new")
        shutil.copy(new, beside)
        beside.replace(old)


def test_the_next_client_sees_a_new_certificate_and_old_connections_live_on(
    make_authority: Make, start_echo: Callable[..., Any], connect: Callable[..., grpc.Channel]
) -> None:
    old, new = make_authority("old"), make_authority("new")
    echo = start_echo(tls=old.files)
    open_before = connect(echo.port, old.client("before.example.org"))
    echo.call(open_before)
    replace_by(old.files, new.files)
    echo.call(connect(echo.port, new.client("after.example.org")))
    echo.call(open_before)
    with pytest.raises(grpc.RpcError):
        echo.call(connect(echo.port, old.client("late.example.org")))
    assert [peer.certificate_names[0] for peer in echo.seen] == [
        "before.example.org",
        "after.example.org",
        "before.example.org",
    ]


def test_a_swapped_folder_of_links_is_seen(
    make_authority: Make,
    start_echo: Callable[..., Any],
    connect: Callable[..., grpc.Channel],
    tmp_path: Path,
) -> None:
    """Kubernetes mounts secrets so: the files are links into ..data, itself a link that is swapped."""
    first, second = make_authority("..first"), make_authority("..second")
    data = tmp_path / "..data"
    data.symlink_to("..first")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(Path("..data") / name)
    echo = start_echo(tls=TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key"))
    echo.call(connect(echo.port, first.client()))
    (tmp_path / "..next").symlink_to("..second")
    (tmp_path / "..next").replace(data)
    echo.call(connect(echo.port, second.client()))


@pytest.mark.parametrize("broken", ["certificate", "key", "client_authority"])
def test_a_broken_file_keeps_the_old_certificate_with_one_warning(
    make_authority: Make,
    start_echo: Callable[..., Any],
    connect: Callable[..., grpc.Channel],
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    authority = make_authority("only")
    echo = start_echo(tls=authority.files)
    path: Path = getattr(authority.files, broken)
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\ngarbage\n-----END CERTIFICATE-----\n")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            echo.call(connect(echo.port, authority.client("client.example.org")))
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("flyweight")]
    assert str(path) in warning
    assert "Going on with what was read before" in warning


def test_a_file_that_vanished_keeps_the_old_certificate(
    make_authority: Make, start_echo: Callable[..., Any], connect: Callable[..., grpc.Channel]
) -> None:
    authority, other = make_authority("only"), make_authority("other")
    echo = start_echo(tls=authority.files)
    authority.files.key.unlink()
    echo.call(connect(echo.port, authority.client("client.example.org")))
    replace_by(authority.files, other.files)
    echo.call(connect(echo.port, other.client("client.example.org")))


def test_a_certificate_whose_key_comes_later_is_taken_when_both_are_there(make_authority: Make) -> None:
    old, new = make_authority("old"), make_authority("new")
    pems = watched_pems(old.files)
    shutil.copy(new.files.certificate, old.files.certificate)
    assert not pems.refresh()
    shutil.copy(new.files.key, old.files.key)
    assert pems.refresh()
    assert pems.content.certificate == new.files.certificate.read_bytes()
    assert pems.content.key == new.files.key.read_bytes()


def test_nothing_is_read_while_nothing_changes(make_authority: Make) -> None:
    pems = watched_pems(make_authority("only").files)
    content = pems.content
    assert not pems.refresh()
    assert pems.content is content


def test_a_key_of_another_certificate_is_refused(make_authority: Make) -> None:
    one, other = make_authority("one"), make_authority("other")
    with pytest.raises(StartError, match=r"key values mismatch.*the key being the certificate's"):
        read_pems(TlsFiles(one.files.certificate, other.files.key))


def test_an_authority_without_certificates_is_refused(make_authority: Make) -> None:
    files = make_authority("one").files
    assert files.client_authority is not None
    files.client_authority.write_text("no certificate")
    with pytest.raises(StartError, match=r"ca\.crt cannot be used"):
        read_pems(files)


def test_a_client_of_another_authority_is_not_let_in(
    make_authority: Make, start_echo: Callable[..., Any], connect: Callable[..., grpc.Channel]
) -> None:
    ours, theirs = make_authority("ours"), make_authority("theirs")
    echo = start_echo(tls=ours.files)
    stranger = theirs.authority.issue_cert("client.example.org")
    chain = b"".join(pem.bytes() for pem in stranger.cert_chain_pems)
    credentials = grpc.ssl_channel_credentials(ours.root, stranger.private_key_pem.bytes(), chain)
    for nobody in (credentials, ours.client()):
        with pytest.raises(grpc.RpcError):
            echo.call(connect(echo.port, nobody))
    assert echo.seen == []


def test_the_peer_has_its_address_and_every_name_of_its_certificate(
    make_authority: Make, start_echo: Callable[..., Any], connect: Callable[..., grpc.Channel]
) -> None:
    authority = make_authority("only")
    echo = start_echo(tls=authority.files)
    names = ("client.example.org", "second.example.org", "someone@example.org")
    echo.call(connect(echo.port, authority.client(*names, common_name="the old way")))
    (peer,) = echo.seen
    assert peer.host == "127.0.0.1"
    assert peer.certificate_names == (*names, "the old way")


def test_the_names_are_uris_first_and_the_first_common_name_last(
    make_authority: Make, start_echo: Callable[..., Any], connect: Callable[..., grpc.Channel]
) -> None:
    authority = make_authority("only")
    echo = start_echo(tls=authority.files)
    certificate = certificate_of(
        authority,
        [
            x509.RFC822Name("someone@example.org"),
            x509.IPAddress(ip_address("10.0.0.1")),
            x509.DNSName("client.example.org"),
            x509.UniformResourceIdentifier("spiffe://example.org/shop"),
            x509.DNSName("*.example.org"),
        ],
        ["first Ü", "second"],
    )
    echo.call(connect(echo.port, authority.bearing(certificate)))
    assert echo.seen[0].certificate_names == (
        "spiffe://example.org/shop",
        "client.example.org",
        "*.example.org",
        "someone@example.org",
        "first Ü",
    )


def test_a_certificate_without_a_name_gives_none(
    make_authority: Make, start_echo: Callable[..., Any], connect: Callable[..., grpc.Channel]
) -> None:
    """Or all such clients would count as one, by the name of nothing."""
    authority = make_authority("only")
    echo = start_echo(tls=authority.files)
    echo.call(connect(echo.port, authority.bearing(certificate_of(authority, [], []))))
    assert echo.seen[0].certificate_names == ()


def test_an_authority_below_another_may_be_named_alone(
    make_authority: Make, start_echo: Callable[..., Any], connect: Callable[..., grpc.Channel]
) -> None:
    authority = make_authority("only")
    below = authority.authority.create_child_ca()
    authority.files.client_authority.write_bytes(below.cert_pem.bytes())
    echo = start_echo(tls=authority.files)
    echo.call(connect(echo.port, authority.bearing(below.issue_cert("client.example.org"))))
    with pytest.raises(grpc.RpcError):
        echo.call(connect(echo.port, authority.client("sibling.example.org")))
    assert [peer.certificate_names[0] for peer in echo.seen] == ["client.example.org"]


def test_no_key_is_written_anywhere(make_authority: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    files = make_authority("only").files
    loaded: list[str] = []
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", lambda _, *paths, **__: loaded.extend(paths))
    read_pems(files)
    assert len(loaded) == 2
    assert all(path.startswith("/proc/self/fd/") and not Path(path).exists() for path in loaded)


def test_files_that_change_between_two_looks_are_not_mixed(
    make_authority: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was checked is what is used: the bytes, not the files."""
    one, other = make_authority("one"), make_authority("other")
    pems = read_pems(one.files)
    replace_by(one.files, other.files)
    assert server_context(pems).verify_mode is ssl.CERT_REQUIRED


def test_a_peer_without_tls_has_an_address_only(
    start_echo: Callable[..., Any], connect: Callable[..., grpc.Channel]
) -> None:
    echo = start_echo()
    echo.call(connect(echo.port))
    assert echo.seen[0].certificate_names == ()
    assert echo.seen[0].address.startswith("127.0.0.1:")
