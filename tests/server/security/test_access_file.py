"""The access file: what it says, what is wrong with it, and how it is followed."""

import json
import logging
from pathlib import Path

import pytest
from click.testing import CliRunner

from flyweight.server.errors import StartError
from flyweight.server.security.callers import Caller, Role, WatchedCallers
from flyweight.server.security.document import callers_of, read_callers
from flyweight.server.security.tokens import digest_of, new_token
from flyweight.server.token_command import token

PATH = Path("access.yaml")
# The SHA-256 of "abc", from FIPS 180-2, appendix B.1.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
SHOP = (
    f"callers: [{{name: shop, roles: [infer, observe], tokens_sha256: [{ABC}], "
    "certificates: [shop.example]}]"
)


def test_a_digest_is_the_sha256_of_the_token() -> None:
    assert digest_of("abc") == ABC


def test_a_caller_is_recognised_by_token_and_by_certificate() -> None:
    callers = callers_of(SHOP, PATH)
    shop = Caller("shop", frozenset({Role.INFER, Role.OBSERVE}))
    assert callers.with_token("abc") == shop
    assert callers.with_certificate(["unknown", "shop.example"]) == shop


def test_nobody_is_recognised_by_something_alike() -> None:
    callers = callers_of(SHOP, PATH)
    assert [callers.with_token(token) for token in ("", "ab", "abcd", "ABC", ABC)] == [None] * 5
    assert callers.with_certificate(["SHOP.example", "a.shop.example", ""]) is None


def test_a_caller_may_have_two_tokens_while_one_takes_over() -> None:
    text = f"callers: [{{name: shop, roles: [infer], tokens_sha256: [{ABC}, {digest_of('new')}]}}]"
    callers = callers_of(text, PATH)
    assert callers.with_token("abc") is callers.with_token("new") is not None


def test_anyone_has_the_roles_that_the_file_says() -> None:
    assert callers_of("anyone: [infer]", PATH).anyone == {Role.INFER}
    assert callers_of("callers: []", PATH).anyone == frozenset()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty; write 'callers:'"),
        ("# callers:", "is empty; write 'callers:'"),
        ("shop", "must be a mapping with the keys 'callers' and 'anyone'"),
        # What is left of following 'flyweight token' without its last words.
        ("  - {name: shop, roles: [infer]}", "is a list without a key; write 'callers:' above it"),
        ("callers:\n\t- name: a", "line 2, column 1: a tab stands where only spaces may"),
        ("callers: [", "not valid YAML: line 1, column"),
        ("calers: []", "unknown key 'calers'; the keys there are callers, anyone"),
        ("callers: {}", "'callers' must be a list of callers, each begun with '-'"),
        ("callers: [shop]", ": caller 1 must be a mapping with 'name', 'roles', and"),
        ("anyone: infer", "'anyone' must be a list of roles, which are infer, observe, control"),
        ("anyone: [infer, admin]", "entry 2 of 'anyone' must be one of infer, observe, control"),
        ("callers: [{roles: [infer]}]", "the key 'name' of caller 1 is missing"),
        ("callers: [{name: a, roles: [infer]}]", "the caller 'a' cannot be recognised"),
        ("callers: [{name: a, roles: [], certificates: [a]}]", "'roles' of caller 1 must be a list of roles"),
        ("callers: [{name: a, roles: [infer], token: abc}]", "unknown key 'token' of caller 1"),
        ("callers: [{name: a b, roles: [infer], certificates: [a]}]", "'name' of caller 1 must be up to 100"),
        (
            "callers: [{name: a, roles: [infer], tokens_sha256: [abc]}]",
            "entry 1 of 'tokens_sha256' of caller 1 must be a token's SHA-256, 64 lower-case",
        ),
        (
            f"callers: [{{name: a, roles: [infer], tokens_sha256: {ABC}}}]",
            "'tokens_sha256' of caller 1 must be a list of SHA-256 digests",
        ),
        (
            f"callers: [{{name: a, roles: [infer], tokens_sha256: [{digest_of('')}]}}]",
            "a token of the caller 'a' is empty, which everybody has",
        ),
        (
            "callers: [{name: a, roles: [read], certificates: [a]}]",
            "entry 1 of 'roles' of caller 1 must be one of infer, observe, control",
        ),
        ("callers: [{name: a, roles: [infer], roles: [control]}]", "the key 'roles' stands there twice"),
        (f"{SHOP[:-1]}, {SHOP[10:]}", "the name 'shop' stands there 2 times"),
        ("callers: [{name: a, roles: [infer], certificates: [x, x]}]", "'x' stands there 2 times"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(text: str, complaint: str) -> None:
    with pytest.raises(StartError) as caught:
        callers_of(text, PATH)
    sentence = str(caught.value)
    assert sentence.startswith("The access file access.yaml")
    assert complaint in sentence
    assert "\n" not in sentence


def test_what_stands_where_a_digest_should_is_never_shown() -> None:
    """Somebody may have written the token itself there."""
    with pytest.raises(StartError) as caught:
        callers_of("callers: [{name: a, roles: [infer], tokens_sha256: [hunter2]}]", PATH)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "access.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartError, match=r"access\.yaml cannot be read"):
        read_callers(path)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def rewrite(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def test_a_change_is_followed_at_the_next_look(tmp_path: Path) -> None:
    path, clock = tmp_path / "access.yaml", Clock()
    path.write_text("anyone: [infer]")
    callers = WatchedCallers(path, read_callers, clock)
    rewrite(path, "anyone: [observe]")
    clock.now = 0.9
    assert callers.current().anyone == {Role.INFER}
    clock.now = 1.0
    assert callers.current().anyone == {Role.OBSERVE}


@pytest.mark.parametrize("broken", ["callers: [", "", None])
def test_a_broken_change_keeps_the_callers_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    path, clock = tmp_path / "access.yaml", Clock()
    path.write_text("anyone: [infer]")
    callers = WatchedCallers(path, read_callers, clock)
    if broken is None:
        path.unlink()
    else:
        rewrite(path, broken)
    with caplog.at_level(logging.WARNING):
        for clock.now in range(1, 5):
            assert callers.current().anyone == {Role.INFER}
    assert len(caplog.records) == 1
    rewrite(path, "anyone: [control]")
    clock.now = 9.0
    assert callers.current().anyone == {Role.CONTROL}


def test_two_tokens_are_never_the_same_and_long_enough_not_to_be_guessed() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    # 256 bits, of which a base64 character holds 6.
    assert all(len(each) >= 43 for each in tokens)


def test_the_token_command_prints_a_token_and_an_entry_that_knows_it() -> None:
    result = CliRunner().invoke(token, ["--name", "shop", "--role", "infer", "--role", "observe"])
    callers = callers_of(f"callers:\n{result.stderr}", PATH)
    assert callers.with_token(result.stdout.strip()) == Caller("shop", frozenset({Role.INFER, Role.OBSERVE}))
    assert result.stdout.strip() not in result.stderr


def test_the_token_commands_json_is_one_document() -> None:
    document = json.loads(CliRunner().invoke(token, ["--name", "shop", "--json"]).stdout)
    assert document["caller"] == {
        "name": "shop",
        "roles": ["infer"],
        "tokens_sha256": [digest_of(document["token"])],
    }


def test_the_token_command_refuses_a_name_that_the_file_would_refuse() -> None:
    result = CliRunner().invoke(token, ["--name", "a b"])
    assert result.exit_code == 2
    assert "cannot be a caller's name" in result.stderr
    assert result.stdout == ""
