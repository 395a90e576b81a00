"""The access file: who may do what, from bytes of a file."""

from pathlib import Path

from flyweight.server.errors import StartError
from flyweight.server.security.document import callers_of

_PATH = Path("access.yaml")


def check(data: bytes) -> None:
    """Read an access file; anything but callers or a StartError is a bug."""
    try:
        callers_of(data.decode("utf-8", "replace"), _PATH)
    except StartError as error:
        assert str(error).startswith("The access file access.yaml")  # noqa: PT017 -- not a test of raising


def seeds() -> list[bytes]:
    """Return access files that people write."""
    digest = b"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    return [
        b"callers:\n  - {name: shop, roles: [infer], tokens_sha256: [" + digest + b"]}\nanyone: []\n",
        b"callers:\n  - name: deploy\n    roles: [control, observe]\n    certificates: ['a.example']\n",
        b"anyone: [infer]\ncallers: []\n",
        b"callers: &all\n  - &one {name: a, roles: [infer], certificates: [x]}\n  - *one\n",
        b'callers:\n- {name: "\\u0041", roles: !!set {infer}, certificates: ["\\x41"]}\n',
        b"? [a, b]\n: {c: 1}\n",
        b"%YAML 1.1\n---\ncallers: |\n  text\n...\n",
    ]


def words() -> list[str]:
    """Return what an access file is made of."""
    keys = [
        "callers",
        "anyone",
        "name",
        "roles",
        "tokens_sha256",
        "certificates",
        "infer",
        "observe",
        "control",
    ]
    return [
        *keys,
        "!!python/object:os.system",
        "!!binary",
        "!!set",
        "<<: *",
        "&a",
        "*a",
        '"\\U0010FFFF"',
        "---\n",
    ]
