"""The schema of the access file, and one clear sentence for each way to get it wrong."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flyweight.server.errors import StartError
from flyweight.server.plain_yaml import PlainYamlError, load_text
from flyweight.server.security.callers import Caller, Callers, Role
from flyweight.server.security.tokens import digest_of

_STRICT: Final = ConfigDict(extra="forbid", frozen=True)

NAME_RULE: Final = "up to 100 letters, digits and _ . @ : / -, the first a letter or digit"

# What a shell gives for a variable that is not set.
_OF_NOTHING: Final = digest_of("")

_Roles = Annotated[tuple[Role, ...], Field(min_length=1)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, Field(min_length=1)]


class CallerDocument(BaseModel):
    """One caller: what it may do, and how it is recognised."""

    model_config = _STRICT

    # What logs and limits call it.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@:/-]{0,99}$")]
    roles: _Roles
    tokens_sha256: tuple[_Digest, ...] = ()
    certificates: tuple[_Name, ...] = ()


class AccessDocument(BaseModel):
    """The keys of the access file."""

    model_config = _STRICT

    callers: tuple[CallerDocument, ...] = ()
    # What somebody without a token or a known certificate may do.
    anyone: tuple[Role, ...] = ()


def read_callers(path: Path) -> Callers:
    """Read an access file.

    Raises:
        StartError: with one sentence that names the file, the key and what to do.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise StartError(f"The access file {path} cannot be read ({reason}); check it.") from error
    return callers_of(text, path)


def callers_of(text: str, path: Path) -> Callers:
    """Read the text of an access file.

    Raises:
        StartError: as `read_callers`.
    """
    try:
        content = load_text(text)
    except PlainYamlError as error:
        raise StartError(f"The access file {path} is not valid YAML: {error}; correct it.") from error
    # An empty file is what is left when writing it failed; nobody means to lock everybody out by it.
    if content is None:
        raise StartError(f"The access file {path} is empty; write 'callers:' and a list of callers below it.")
    if isinstance(content, list):
        raise StartError(
            f"The access file {path} is a list without a key; write 'callers:' above it if it is of callers."
        )
    if not isinstance(content, dict):
        raise StartError(f"The access file {path} must be a mapping with the keys 'callers' and 'anyone'.")
    try:
        document = AccessDocument.model_validate(content)
    except ValidationError as error:
        raise StartError(f"The access file {path}: {_explain(error)}") from error
    return _assembled(document, path)


def _assembled(document: AccessDocument, path: Path) -> Callers:
    by_digest: list[tuple[str, Caller]] = []
    by_certificate: dict[str, Caller] = {}
    for each in document.callers:
        if not each.tokens_sha256 and not each.certificates:
            raise StartError(
                f"The access file {path}: the caller '{each.name}' cannot be recognised; give it "
                "'tokens_sha256' or 'certificates'."
            )
        if _OF_NOTHING in each.tokens_sha256:
            raise StartError(
                f"The access file {path}: a token of the caller '{each.name}' is empty, which everybody has; "
                "make one with 'flyweight token'."
            )
        caller = Caller(each.name, frozenset(each.roles))
        by_digest += [(digest, caller) for digest in each.tokens_sha256]
        by_certificate |= dict.fromkeys(each.certificates, caller)
    _refuse_doubles(path, "name", (each.name for each in document.callers))
    _refuse_doubles(path, "token's SHA-256", (digest for digest, _ in by_digest))
    _refuse_doubles(path, "certificate", (name for each in document.callers for name in each.certificates))
    return Callers(tuple(by_digest), MappingProxyType(by_certificate), frozenset(document.anyone))


def _refuse_doubles(path: Path, what: str, values: Iterable[str]) -> None:
    value, count = next(iter(Counter(values).most_common(1)), ("", 0))
    if count > 1:
        raise StartError(
            f"The access file {path}: the {what} '{value}' stands there {count} times; leave one of them."
        )


_ROLES: Final = f"a list of roles, which are {', '.join(Role)}"
_DIGEST: Final = "64 lower-case hexadecimal digits, as 'flyweight token' prints them"
_CALLER: Final = "'name', 'roles', and 'tokens_sha256' or 'certificates'"
_EXPECTED: Final = {
    "callers": f"a list of callers, each begun with '-' and with {_CALLER}",
    "anyone": _ROLES,
    "name": NAME_RULE,
    "roles": _ROLES,
    "tokens_sha256": f"a list of SHA-256 digests of tokens, each of {_DIGEST}",
    "certificates": "a list of names as they stand in clients' certificates",
}
# Of one entry of such a list.
_EXPECTED_ENTRY: Final = {
    "anyone": f"one of {', '.join(Role)}",
    "roles": f"one of {', '.join(Role)}",
    "tokens_sha256": f"a token's SHA-256, {_DIGEST}",
    "certificates": "a name as it stands in a client's certificate",
}


def _explain(error: ValidationError) -> str:
    """Tell the first of the schema's complaints; never what was given, which may be a token."""
    first = error.errors(include_url=False, include_input=False)[0]
    match first["loc"]:
        case ("callers", int(number), *rest):
            inside, places = f" of caller {number + 1}", rest
        case places:
            inside, places = "", list(places)
    if not places:
        return f"{inside.removeprefix(' of ')} must be a mapping with {_CALLER}."
    key, entry = str(places[0]), places[1:]
    if first["type"] == "extra_forbidden":
        known = CallerDocument if inside else AccessDocument
        return f"unknown key '{key}'{inside}; the keys there are {', '.join(known.model_fields)}."
    if first["type"] == "missing":
        return f"the key '{key}'{inside} is missing; it is {_EXPECTED[key]}."
    if entry:
        return f"entry {int(entry[0]) + 1} of '{key}'{inside} must be {_EXPECTED_ENTRY[key]}."
    return f"'{key}'{inside} must be {_EXPECTED[key]}."
