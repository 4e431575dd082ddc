"""Webhook calls: who may be believed, and what is read from them. The vectors were computed by `openssl dgst`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle import zocdoc
from lifecycle.zocdoc import InvalidConfiguration, NotAuthentic, OutOfTolerance
from lifecycle.zocdoc.webhook import Call, Update, check_keys, parse, verify

# Zocdoc's published example; its last letter has bits that no byte needs.
KEY = "g9Y9hjTUk9KKH7ffBRbtRmJYo2OISsdMK4flbfDa3zR="
OTHER_KEY = "YW5vdGhlci1rZXktb2YtZXhhY3RseS0zMi1ieXRlcyE="
BODY = (
    b'{"event_type":"appointment_updated","webhook_timestamp":"2026-11-22T10:00:00Z","data":{"data_type":'
    b'"appointment_data","appointment_data":{"appointment_id":"62g4ar44-1yv9-0931-dl3t-e9c2174kks09",'
    b'"appointment_updated_timestamp":"2026-11-22T09:59:58.5Z","appointment_update_type":"updated",'
    b'"changed_attributes":[{"attribute_path":"start_time"}]}}}'
)
SECONDS = 1795341600
SIGNED_AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
# printf '%s.%s' 1795341600 "$BODY" | openssl dgst -sha256 -mac HMAC -macopt hexkey:83d63d86... -binary | base64
RIGHT = "bpAw/0yfoFUaxQRzxucsUCatOhE1mRD0lh5QpMuL6gk="
BY_OTHER_KEY = "yJNLpIh5WQzkzLcrhPlh7aSkdrR6oM6PH7vGK0TM488="
WRONG = "bpAw/0yfoFUaxQRzxucsUCatOhE1mRD0lh5QpMuL6gg="
DIGEST = "7d3b77c5a881f7dde0bd0cbb3ca5fcf93342b8ad13fb17eb08528614c7276f2c"


def call(signature: Any = f"v1:{RIGHT}", **changes: Any) -> Call:
    """Verify the vector with a few things changed."""
    headers = {"webhook-timestamp": str(SECONDS), "webhook-signature": signature}
    given: dict[str, Any] = {"body": BODY, "headers": headers, "keys": [KEY], "now": SECONDS + 1.5}
    return verify(**(given | changes))


def test_the_hand_written_vector_is_accepted() -> None:
    """The signature that openssl made under the published key, and what is told about the call."""
    assert call() == Call(DIGEST, SIGNED_AT, 0)
    assert hashlib.sha256(BODY).hexdigest() == DIGEST


@pytest.mark.parametrize(
    "signature",
    [
        f"v1:{RIGHT};v2:{WRONG}",
        f"v2:anything at all:=;v1:{RIGHT}",
        f"v1:{WRONG};v1:{RIGHT}",
        f"v1:{RIGHT};v1:{WRONG}",
        f"v1:short;v1:{RIGHT}",
        f" v1:{RIGHT} ; v2:x\t",
        f"v1:{RIGHT};",
    ],
)
def test_one_right_entry_of_a_known_version_is_enough(signature: str) -> None:
    """Unknown versions are skipped, of several v1 entries any may be right, and blanks that HTTP allows do no harm."""
    assert call(signature).key_index == 0


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        ("", "missing_signature"),
        (" \t", "missing_signature"),
        (f"v2:{RIGHT}", "unknown_version"),
        (f"V1:{RIGHT}", "unknown_version"),
        (f"v1 :{RIGHT}", "unknown_version"),
        (RIGHT, "malformed_signature"),
        (f":{RIGHT}", "malformed_signature"),
        (f"v1={RIGHT}", "malformed_signature"),
        (f"v1:{RIGHT};v2", "malformed_signature"),
        (f"v1:{RIGHT},v1:{RIGHT}", "malformed_signature"),
        (f"v2:x, v2:x;v1:{RIGHT}", "malformed_signature"),
        ("v1:", "malformed_signature"),
        (";;", "malformed_signature"),
        (f"v1:{RIGHT[:-1]}", "malformed_signature"),
        (f"v1:{RIGHT}=", "malformed_signature"),
        (f"v1:{RIGHT[:-1]}\n=", "malformed_signature"),
        (f"v1:{RIGHT}\n", "malformed_signature"),
        (f"v1: {RIGHT}", "malformed_signature"),
        (f"v1:{RIGHT.replace('/', '_')}", "malformed_signature"),
        (f"v1:{RIGHT};v2:é", "malformed_signature"),
        (f"v1:{RIGHT};v2:{'x' * 4096}", "malformed_signature"),
        (f"v1:{RIGHT};" + "v2:x;" * 16, "malformed_signature"),
        ([f"v1:{RIGHT}"], "malformed_signature"),
        (f"v1:{RIGHT}".encode(), "malformed_signature"),
        (f"v1:{WRONG}", "bad_signature"),
        (f"v1:{BY_OTHER_KEY}", "bad_signature"),
        (f"v1:{RIGHT.lower()}", "bad_signature"),
        # Decodes to the same bytes, yet is not what Zocdoc would have written.
        (f"v1:{RIGHT[:-2]}l=", "bad_signature"),
    ],
)
def test_a_signature_that_is_not_right_is_refused(signature: Any, reason: str) -> None:
    """Each kind has its code; an entry in another alphabet, form or spelling is not right."""
    assert base64.b64decode(f"{RIGHT[:-2]}l=") == base64.b64decode(RIGHT)
    with pytest.raises(NotAuthentic) as caught:
        call(signature)
    assert (caught.value.reason_code, caught.value.header) == (reason, "webhook-signature")


@pytest.mark.parametrize(
    ("timestamp", "reason"),
    [
        (None, "missing_timestamp"),
        ("", "missing_timestamp"),
        ("-1795341600", "malformed_timestamp"),
        ("+1795341600", "malformed_timestamp"),
        ("1795341600.0", "malformed_timestamp"),
        ("1_795_341_600", "malformed_timestamp"),
        ("0x6B02D1A0", "malformed_timestamp"),
        ("1795341600\n", "malformed_timestamp"),
        ("1795341600, 1795341600", "malformed_timestamp"),
        ("\u0661\u0667\u0669\u0665\u0663\u0664\u0661\u0666\u0660\u0660", "malformed_timestamp"),
        ("9" * 12, "malformed_timestamp"),
        ("1" * 5000, "malformed_timestamp"),
        ([str(SECONDS)], "malformed_timestamp"),
        (SECONDS, "malformed_timestamp"),
        ("01795341600", "bad_signature"),
        ("99999999999", "bad_signature"),
        (str(SECONDS + 1), "bad_signature"),
    ],
)
def test_the_timestamp_is_ascii_digits_as_they_were_signed(timestamp: Any, reason: str) -> None:
    """Nothing that Python would also read as a number, and no other way to write the same one."""
    headers = {"webhook-timestamp": timestamp, "webhook-signature": f"v1:{RIGHT}"}
    with pytest.raises(NotAuthentic) as caught:
        call(headers={name: value for name, value in headers.items() if value is not None})
    assert caught.value.reason_code == reason
    assert caught.value.header == ("webhook-signature" if reason == "bad_signature" else "webhook-timestamp")


def test_header_names_have_no_case_and_occur_once() -> None:
    """Two spellings of one header contradict each other, even when they agree; look-alike letters are no letters."""
    right = {"Webhook-Timestamp": str(SECONDS), "WEBHOOK-SIGNATURE": f"v1:{RIGHT}"}
    assert call(headers=right).key_index == 0
    for name in ("webhook-timestamp", "webhook-signature"):
        value = str(SECONDS) if name.endswith("p") else f"v1:{RIGHT}"
        with pytest.raises(NotAuthentic, match="malformed_"):
            call(headers=right | {name: value})
    with pytest.raises(NotAuthentic, match="missing_signature"):
        call(headers={"webhook-timestamp": str(SECONDS), "webhoo\u212a-signature": f"v1:{RIGHT}"})


@pytest.mark.parametrize(
    "body", [b"", BODY + b"\n", b" " + BODY, BODY[:-1], BODY.replace(b"updated", b"Updated", 1), BODY[::-1]]
)
def test_another_body_is_refused(body: bytes) -> None:
    """The raw bytes count, not what they mean."""
    with pytest.raises(NotAuthentic, match="bad_signature"):
        call(body=body)


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        (300.0, None),
        (-300.0, None),
        (300.001, "stale"),
        (-300.001, "future"),
        (10**8, "stale"),
        (float("nan"), "stale"),
    ],
)
def test_the_time_may_be_five_minutes_off_to_either_side(age: float, reason: str | None) -> None:
    """The boundary itself counts as near."""
    if reason is None:
        assert call(now=SECONDS + age).signed_at == SIGNED_AT
        return
    with pytest.raises(OutOfTolerance) as caught:
        call(now=SECONDS + age)
    assert caught.value.reason_code == reason
    assert caught.value.call == Call(DIGEST, SIGNED_AT, 0)


def test_out_of_tolerance_means_authentic() -> None:
    """A forged call is refused as forged, however old it says it is; a wider tolerance may be asked for."""
    with pytest.raises(NotAuthentic):
        call(f"v1:{WRONG}", now=SECONDS + 10**8)
    assert not issubclass(OutOfTolerance, NotAuthentic)
    assert call(now=SECONDS + 3600, tolerance=3600).key_index == 0


def test_rotation_tries_every_key() -> None:
    """While keys are rotated both are right, and the call tells which one fitted."""
    assert call(keys=[KEY, OTHER_KEY]).key_index == 0
    assert call(keys=(OTHER_KEY, KEY)).key_index == 1
    assert call(f"v1:{BY_OTHER_KEY}", keys=(KEY, OTHER_KEY)).key_index == 1
    assert call(f"v1:{BY_OTHER_KEY};v1:{RIGHT}", keys=(KEY, OTHER_KEY)).key_index == 0
    with pytest.raises(NotAuthentic, match="bad_signature"):
        call(keys=[OTHER_KEY])


def test_the_published_key_is_decoded_in_spite_of_its_last_bits() -> None:
    """Its canonical spelling ends with another letter and is the same key."""
    expected = bytes.fromhex("83d63d8634d493d28a1fb7df0516ed466258a363884ac74c2b87e56df0dadf34")
    assert check_keys([KEY, "g9Y9hjTUk9KKH7ffBRbtRmJYo2OISsdMK4flbfDa3zQ=", "YQ=="]) == (expected, expected, b"a")


@pytest.mark.parametrize(
    "keys",
    [
        [],
        (),
        "",
        KEY,
        KEY.encode(),
        [""],
        [KEY, ""],
        [KEY[:-1]],
        [f"{KEY}="],
        [f" {KEY}"],
        [f"{KEY}\n"],
        ["secret!"],
        ["====="],
        ["a"],
        ["YQ="],
        ["YQ==YQ=="],
        [KEY.replace("g9", "-_")],
        [None],
        [KEY.encode()],
        ["é" * 4],
    ],
)
def test_unusable_keys_are_named_by_number_only(keys: Any) -> None:
    """No key, an empty one, another alphabet, missing padding: the text says which, never what."""
    with pytest.raises(InvalidConfiguration, match=r"webhook key(s| \d)") as caught:
        check_keys(keys)
    assert all(str(key)[:6] not in str(caught.value) for key in keys if key and len(str(key)) > 5)
    with pytest.raises(InvalidConfiguration):
        call(keys=keys)


def test_errors_travel_and_say_nothing_of_what_was_sent() -> None:
    """They can be pickled; text and repr hold neither header values nor keys."""
    for signature, now in ((f"v1:{WRONG}", SECONDS), ("canary", SECONDS), (f"v1:{RIGHT}", SECONDS - 400)):
        with pytest.raises(zocdoc.WebhookError) as caught:
            call(signature, now=now)
        copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 # our own
        assert (type(copy), str(copy), copy.reason_code) == (
            type(caught.value),
            str(caught.value),
            caught.value.reason_code,
        )
        for sent in (WRONG, RIGHT, "canary", KEY, BODY.decode()):
            assert sent not in str(caught.value) + repr(caught.value)
        assert caught.value.__cause__ is None


@given(st.binary(max_size=200), st.integers(0, 10**11 - 1), st.lists(st.binary(min_size=1, max_size=80), min_size=1))
def test_what_is_signed_by_any_key_is_accepted(body: bytes, seconds: int, secrets: list[bytes]) -> None:
    """Whatever body, time and key."""
    mac = hmac.new(secrets[-1], f"{seconds}.".encode() + body, hashlib.sha256).digest()
    headers = {"webhook-timestamp": str(seconds), "webhook-signature": "v1:" + base64.b64encode(mac).decode()}
    found = verify(body=body, headers=headers, keys=[base64.b64encode(each).decode() for each in secrets], now=seconds)
    assert found.body_digest == hashlib.sha256(body).hexdigest()
    assert found.signed_at.timestamp() == seconds


@given(st.binary(max_size=100), st.text(max_size=60), st.text(max_size=20))
def test_nothing_else_is_accepted(body: bytes, signature: str, timestamp: str) -> None:
    """Arbitrary calls are refused by the one family of errors."""
    headers = {"webhook-timestamp": timestamp, "webhook-signature": signature}
    with pytest.raises(NotAuthentic):
        verify(body=body, headers=headers, keys=[KEY], now=0)


def event(**changes: Any) -> bytes:
    """Write the documented event with fields of the appointment changed."""
    found = json.loads(BODY)
    found["data"]["appointment_data"] |= changes
    return json.dumps(found).encode()


def test_the_documented_event_is_read() -> None:
    """Id, type and time; the time in UTC."""
    expected = datetime(2026, 11, 22, 9, 59, 58, 500_000, UTC)
    assert parse(BODY) == Update("62g4ar44-1yv9-0931-dl3t-e9c2174kks09", "updated", expected)
    assert parse(event(appointment_updated_timestamp="2026-11-22T04:59:58.500-05:00")) == parse(BODY)
    assert parse(event(new_field={"of": "Zocdoc"})) == parse(BODY)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"appointment_update_type": "merged"}, ("merged", True)),
        ({"appointment_update_type": "x" * 33}, (None, True)),
        ({"appointment_update_type": "John Doe"}, (None, True)),
        ({"appointment_update_type": None}, (None, True)),
        ({"appointment_update_type": ["updated"]}, (None, True)),
        ({"appointment_updated_timestamp": "yesterday"}, ("updated", False)),
        ({"appointment_updated_timestamp": "2026-11-22T09:59:58"}, ("updated", False)),
        ({"appointment_updated_timestamp": "0001-01-01T00:00:00+14:00"}, ("updated", False)),
        ({"appointment_updated_timestamp": "2026-13-22T09:59:58Z"}, ("updated", False)),
        ({"appointment_updated_timestamp": 1795341600}, ("updated", False)),
    ],
)
def test_an_odd_detail_does_not_hide_the_appointment(changes: dict[str, Any], expected: tuple[str, bool]) -> None:
    """A new type is kept if it is a short code; what is no code and no instant is not told."""
    found = parse(event(**changes))
    assert found is not None
    assert (found.update_type, found.updated_at is not None) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"nonsense",
        b"\xff\xfe",
        b"\xef\xbb\xbf" + BODY,
        BODY[:-1],
        BODY + b"}",
        BODY.replace(b"appointment_updated", b"provider_updated", 1),
        BODY.replace(b'"appointment_updated"', b'["appointment_updated"]', 1),
        BODY.replace(b'{"data_type"', b'[{"data_type"').replace(b"}}}", b"}}]}"),
        BODY.replace(b'"2026-11-22T10:00:00Z"', b"NaN", 1),
        BODY.replace(b'"2026-11-22T10:00:00Z"', b"1" * 10_000, 1),
        BODY.replace(b'"2026-11-22T10:00:00Z"', b"[" * 100_000 + b"]" * 100_000, 1),
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        BODY.replace(b'"2026-11-22T10:00:00Z"', rb'"\ud800"', 1),
        BODY + b" " * 1024 * 1024,
        event(appointment_id=None),
        event(appointment_id=7),
        event(appointment_id=""),
        event(appointment_id="a" * 65),
        event(appointment_id="../other"),
        event(appointment_id="a\n"),
        event(appointment_id="\u0661"),
    ],
    ids=range(26),
)
def test_what_is_no_readable_event_is_none(body: bytes) -> None:
    """Other events, broken or deep JSON, no numbers, odd shapes, ids that must not reach a URL: none of them raises."""
    assert parse(body) is None


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=9))
def test_any_value_in_any_place_is_read_or_left(value: Any) -> None:
    """Whatever stands in a place, reading never raises."""
    whole = json.loads(BODY)
    for spoiled in (
        whole | {"data": value},
        whole | {"event_type": value},
        whole | {"data": {"appointment_data": value}},
        whole | {"data": {"appointment_data": {"appointment_id": "a", "appointment_updated_timestamp": value}}},
    ):
        found = parse(json.dumps(spoiled).encode())
        assert found is None or found.appointment_id == "a"


def test_the_package_gives_webhooks_without_loading_them() -> None:
    """Who imports the client's names alone does not pay for pydantic."""
    code = (
        "import sys; from lifecycle import zocdoc; assert not [m for m in sys.modules if m.startswith('pydantic')];"
        "assert zocdoc.webhook.verify; assert zocdoc.NotAuthentic is zocdoc.webhook.NotAuthentic"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 # our own interpreter
