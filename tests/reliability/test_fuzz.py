"""Answers that nobody has thought of never crash the client and never count as a success."""

from __future__ import annotations

import gzip

import pytest

from tests.fuzz import pure, signing, sockets, webhooks
from tests.fuzz.mutations import OTHER, OWN
from tests.fuzz.reference import is_success

CASES = 60_000
OVER_SOCKETS = 300
SEED = 1
BODY = b'{"data": {"appointment_id": "%b", "appointment_status": "confirmed"}}' % OWN.encode()


def test_mutated_answers_are_never_taken_for_a_success() -> None:
    """Bodies, statuses and trees, mutated: no error but the documented ones, no success that is none, no loose text."""
    figures = pure.run(CASES, SEED)
    assert figures.findings == []
    assert figures.cases == CASES
    # The mutations leave enough answers whole: else nothing would be shown.
    assert figures.applied > CASES // 20
    assert figures.readings > CASES // 50
    assert figures.strict < CASES // 100, "the client mistrusts many answers that the reference calls a success"


@pytest.mark.timeout(1800)
def test_mutated_bytes_on_the_wire_are_never_taken_for_a_success() -> None:
    """Headers, framing, pace and ends of the connection, mutated: the call ends in time, is sent once, and is right."""
    figures = sockets.run(OVER_SOCKETS, SEED)
    assert figures.findings == []
    assert figures.applied > OVER_SOCKETS // 20
    assert figures.readings > OVER_SOCKETS // 40


@pytest.mark.parametrize(
    "body",
    [
        BODY.replace(OWN.encode(), OTHER.encode()),
        BODY[:-1],
        BODY + b"}",
        b"\xef\xbb\xbf" + BODY,
        BODY.replace(b'"confirmed"', b'"confirmed", "appointment_status": "cancelled"'),
        BODY.replace(b'"confirmed"', b"NaN"),
        BODY.replace(b'"confirmed"', b'""'),
        BODY.replace(b"{", b'{"errors": [1], ', 1),
        b"[%b]" % BODY,
        b"",
    ],
)
def test_the_reference_knows_what_is_no_success(body: bytes) -> None:
    """The judge itself, by hand-written cases: only the whole, sound body of this appointment counts."""
    assert is_success(200, BODY, OWN)
    assert not is_success(201, BODY, OWN)
    assert not is_success(200, body, OWN)


@pytest.mark.parametrize(
    ("raw", "counts"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 103\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\nContent-Length: 103\n\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 104\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 102\r\n\r\n", False),
        (b"HTTP/1.1 202 OK\r\nContent-Length: 103\r\n\r\n", False),
        (b"", False),
    ],
)
def test_the_reference_reads_http(raw: bytes, *, counts: bool) -> None:
    """Lengths, ends and preliminary answers are read as HTTP says."""
    assert len(BODY) == 103
    assert sockets.may_count(raw + BODY, OWN, may_list_errors=False) is counts


def test_the_reference_reads_chunks_and_packed_bodies() -> None:
    """A body in chunks counts when it is whole; a packed one when it can be unpacked."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"67\r\n%b\r\n0\r\n\r\n" % BODY
    assert sockets.may_count(head + chunks, OWN, may_list_errors=False)
    assert not sockets.may_count(head + chunks[:-6], OWN, may_list_errors=False)
    packed = gzip.compress(BODY)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    assert sockets.may_count(head + packed, OWN, may_list_errors=False)
    assert not sockets.may_count(head + packed[:-20], OWN, may_list_errors=False)


WEBHOOKS = 60_000


def test_mutated_webhook_calls_are_accepted_just_when_they_are_authentic() -> None:
    """Bodies, headers, versions, spellings, keys and times, mutated: the verifier judges each as the reference does."""
    figures = webhooks.run(WEBHOOKS, SEED)
    assert figures.findings == []
    assert (figures.cases, figures.false_accepts, figures.false_rejects, figures.exceptions) == (WEBHOOKS, 0, 0, 0)
    # The mutations leave enough calls of each kind: else nothing would be shown.
    assert min(figures.verdicts.values()) > WEBHOOKS // 50
    assert len(figures.verdicts) == 5


def test_the_webhook_reference_against_published_vectors() -> None:
    """The judge itself: RFC 4231's case 2, RFC 4648's examples, and a call signed by openssl."""
    assert signing.mac(b"Jefe", b"what do ya want for nothing?").hex() == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
    assert [signing.base64_of(each) for each in (b"f", b"fo", b"foo", b"foob")] == ["Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
    signed = signing.mac(signing.bytes_of(webhooks.KEYS[0]) or b"", b"1795341600.")
    assert signing.base64_of(signed) == "ozvR9ORSiGo8sVL//tqWkjA+JE8w9TJ0Scl4qA7ULLY="
    pairs = [
        ("webhook-timestamp", "1795341600"),
        ("webhook-signature", "v1:ozvR9ORSiGo8sVL//tqWkjA+JE8w9TJ0Scl4qA7ULLY="),
    ]
    assert signing.verdict(pairs, b"", webhooks.KEYS[:1], 1795341900.0) == "accepted"
    assert signing.verdict(pairs, b"", webhooks.KEYS[:1], 1795341900.1) == "stale"
    assert signing.verdict(pairs, b"x", webhooks.KEYS[:1], 1795341600.0) == "refused"
