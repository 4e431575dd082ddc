"""Who may see the page: rules of tokens, cookies, names and attempts, without HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle import errors
from lifecycle.page import access
from lifecycle.page.access import Attempts, Caller, Guarded, Local, Verdict

TOKEN = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.seconds


def caller(**told: Any) -> Caller:
    """Give a caller of port 8080 on loopback."""
    usual: dict[str, Any] = {"address": "127.0.0.1", "port": 8080, "is_tls": False, "host": "localhost:8080"}
    return Caller(**(usual | told))


def judged(**told: Any) -> Verdict:
    """Judge without a token."""
    return Local().judge(caller(**told))


@pytest.mark.parametrize(
    "host", ["localhost:8080", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080", "127.9.9.9:8080", "[0:0::1]:8080"]
)
def test_loopbacks_own_names_are_let_in(host: str) -> None:
    """Whatever spelling: an address cannot be given to another name."""
    assert judged(host=host) is Verdict.ALLOWED


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example:8080",
        "localhost.evil.example:8080",
        "127.0.0.1.evil.example:8080",
        "localhost",
        "localhost:8081",
        "localhost:08080a",
        "localhost:8080, localhost:8080",
        "localhost:8080@evil.example",
        "user@localhost:8080",
        "192.168.0.7:8080",
        "0.0.0.0:8080",
        "[::]:8080",
        "[::1:8080",
        "2130706433:8080",
        "0x7f.1:8080",
        "localhost:\N{FULLWIDTH DIGIT EIGHT}\N{FULLWIDTH DIGIT ZERO}80",
        "l\N{LATIN SMALL LETTER O WITH STROKE}calhost:8080",
    ],
)
def test_other_names_are_not_let_in_without_a_token(host: str) -> None:
    """A name that somebody else could own, another port, and what is no name."""
    assert judged(host=host) is Verdict.WRONG_HOST


def test_the_usual_port_need_not_be_named() -> None:
    """80, or 443 with TLS."""
    assert judged(host="localhost", port=80) is Verdict.ALLOWED
    assert judged(host="localhost", port=443, is_tls=True) is Verdict.ALLOWED
    assert judged(host="localhost", port=80, is_tls=True) is Verdict.WRONG_HOST


def test_a_proxys_callers_are_not_taken_for_this_machines() -> None:
    """A proxy in front calls from loopback, by loopback's name, for anybody."""
    assert judged(is_forwarded=True) is Verdict.FORWARDED


@pytest.mark.parametrize(
    ("site", "dest", "expected"),
    [
        ("cross-site", "image", Verdict.FOREIGN),
        ("cross-site", "iframe", Verdict.FOREIGN),
        ("same-site", "empty", Verdict.FOREIGN),
        ("cross-site", "document", Verdict.ALLOWED),
        ("same-origin", "style", Verdict.ALLOWED),
        ("none", "document", Verdict.ALLOWED),
        ("", "", Verdict.ALLOWED),
    ],
)
def test_other_sites_cannot_embed_it(site: str, dest: str, expected: Verdict) -> None:
    """What another site's page asks for is refused; a link that a person follows is not."""
    assert judged(fetch_site=site, fetch_dest=dest) is expected
    guarded = Guarded(TOKEN, now=Clock())
    told = caller(fetch_site=site, fetch_dest=dest, cookie=guarded.session())
    assert guarded.judge(told) is expected


@pytest.mark.parametrize("token", ["", "short", "a" * 31, "a" * 513, "a" * 31 + " ", "a" * 32 + "\n", "\xe9" * 32])
def test_a_token_must_be_long_and_plain(token: str) -> None:
    """Under 32 characters, over 512, or with what a header cannot hold: the page is not made."""
    with pytest.raises(errors.ConfigurationError) as raised:
        Guarded(token, now=Clock())
    assert token == "" or token not in str(raised.value)


def test_the_token_is_shown_as_bearer() -> None:
    """In any case and with any blanks between; nothing else is the token."""
    guarded = Guarded(TOKEN, now=Clock())
    for sound in (f"Bearer {TOKEN}", f"bearer   {TOKEN}"):
        assert guarded.judge(caller(authorization=sound)) is Verdict.ALLOWED
    for wrong in ("", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN} x", f"Bearer {TOKEN.upper()}", f"Bearer {OTHER}"):
        assert guarded.judge(caller(authorization=wrong, address=f"10.0.0.{len(wrong)}")) is Verdict.UNKNOWN


def test_with_a_token_the_name_does_not_matter() -> None:
    """Neither a cookie nor a bearer token is sent to a name that another site owns."""
    guarded = Guarded(TOKEN, now=Clock())
    told = caller(host="analysts.example", is_forwarded=True, authorization=f"Bearer {TOKEN}")
    assert guarded.judge(told) is Verdict.ALLOWED
    assert guarded.judge(caller()) is Verdict.UNKNOWN


def test_a_session_ends_and_is_not_the_token() -> None:
    """Twelve hours; the cookie holds nothing of the token, and another token knows nothing of it."""
    clock = Clock()
    guarded = Guarded(TOKEN, now=clock)
    cookie = guarded.session()
    assert TOKEN not in cookie
    assert guarded.judge(caller(cookie=cookie)) is Verdict.ALLOWED
    assert Guarded(TOKEN, now=clock).judge(caller(cookie=cookie)) is Verdict.ALLOWED
    assert Guarded(OTHER, now=clock).judge(caller(cookie=cookie)) is Verdict.UNKNOWN
    clock.seconds += access.SESSION - 1
    assert guarded.judge(caller(cookie=cookie)) is Verdict.ALLOWED
    clock.seconds += 1
    assert guarded.judge(caller(cookie=cookie)) is Verdict.UNKNOWN


def test_a_session_cannot_be_made_up_or_prolonged() -> None:
    """Each byte of a cookie counts, and its expiry is under the signature."""
    guarded = Guarded(TOKEN, now=Clock())
    cookie = guarded.session()
    expires, _, signature = cookie.partition(".")
    forged = [
        f"{int(expires) + 1}.{signature}",
        f"0{expires}.{signature}",
        f"{expires}.",
        signature,
        cookie + "0",
        TOKEN,
    ]
    forged += [cookie[:at] + ("1" if cookie[at] != "1" else "2") + cookie[at + 1 :] for at in range(len(cookie))]
    forged += [f"{expires}.{signature.upper()}", expires + "." + "\xe9" * 64, "\N{FULLWIDTH DIGIT ONE}." + "0" * 64]
    assert {guarded.judge(caller(cookie=each)) for each in forged} == {Verdict.UNKNOWN}


def test_wrong_tokens_are_limited_by_address() -> None:
    """Five, then one a second; the right one is not even looked at meanwhile, and other addresses are not concerned."""
    clock = Clock()
    guarded = Guarded(TOKEN, now=clock)
    tries = [guarded.check(OTHER, address="10.0.0.1") for _ in range(7)]
    assert tries == [Verdict.UNKNOWN] * 5 + [Verdict.TOO_MANY] * 2
    assert guarded.check(TOKEN, address="10.0.0.1") is Verdict.TOO_MANY
    assert guarded.judge(caller(address="10.0.0.1", authorization=f"Bearer {TOKEN}")) is Verdict.TOO_MANY
    assert guarded.judge(caller(address="10.0.0.1", cookie=guarded.session())) is Verdict.ALLOWED
    assert guarded.check(TOKEN, address="10.0.0.2") is Verdict.ALLOWED
    clock.seconds += 1
    assert guarded.check(OTHER, address="10.0.0.1") is Verdict.UNKNOWN
    assert guarded.check(OTHER, address="10.0.0.1") is Verdict.TOO_MANY
    clock.seconds += 1
    assert guarded.check(TOKEN, address="10.0.0.1") is Verdict.ALLOWED


def test_right_tokens_are_not_limited() -> None:
    """A script may ask as often as it likes."""
    guarded = Guarded(TOKEN, now=Clock())
    assert {guarded.check(TOKEN, address="10.0.0.1") for _ in range(100)} == {Verdict.ALLOWED}


def test_a_network_is_one_address() -> None:
    """Whoever has an IPv6 network has 2^64 addresses; an IPv4 address in IPv6 clothes is itself."""
    attempts = Attempts()
    for number in range(5):
        attempts.failed(f"2001:db8::{number}", now=0.0)
        attempts.failed(f"::ffff:10.0.0.{1 if number else 2}", now=0.0)
    assert not attempts.may_try("2001:db8::ffff", now=0.0)
    assert attempts.may_try("2001:db8:0:1::1", now=0.0)
    assert attempts.may_try("10.0.0.1", now=0.0)
    attempts.failed("10.0.0.1", now=0.0)
    assert not attempts.may_try("::ffff:10.0.0.1", now=0.0)


def test_attempts_take_bounded_memory() -> None:
    """The address that was wrong longest ago is forgotten first."""
    attempts = Attempts()
    for _ in range(5):
        attempts.failed("first", now=0.0)
    for number in range(2000):
        attempts.failed(f"10.1.{number // 256}.{number % 256}", now=0.0)
    assert len(attempts._left) == 1024
    assert attempts.may_try("first", now=0.0)


def test_hostile_texts_are_only_wrong() -> None:
    """Nothing that is no token raises: not bytes of another alphabet, not lone surrogates, not a megabyte."""
    guarded = Guarded(TOKEN, now=Clock())
    for number, text in enumerate(["\ud800", "\x00", "\N{SNOWMAN}" * 40, "a" * 10**6, TOKEN + "\n", "'; DROP TABLE x"]):
        assert guarded.check(text, address=f"10.0.1.{number}") is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("/", "/"),
        ("/events?actor=user%3A17&since=2026-01-01", "/events?actor=user%3A17&since=2026-01-01"),
        ("", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/a\\b", "/"),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("/\t/evil.example", "/"),
        ("/\r\nSet-Cookie: a=b", "/"),
        ("/" + "a" * 3000, "/"),
    ],
)
def test_signing_in_leads_to_a_path_of_ours(wanted: str, expected: str) -> None:
    """Never to another server, whatever the address of the form said."""
    assert access.own_path(wanted) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 # that it is not
        ("::", False),
        ("192.168.1.1", False),
        ("example.com", False),
        ("", False),
    ],
)
def test_what_can_be_reached_from_this_machine_only(host: str, expected: bool) -> None:  # noqa: FBT001 # a table
    """Loopback, and nothing else."""
    assert access.is_loopback(host) is expected
