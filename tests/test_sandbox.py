"""The stand-in answers as the published contract says, fails as it is told to, and writes everything down."""

from __future__ import annotations

import ast
import gzip
import io
import json
import socket
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from lifecycle import sandbox as sandbox_package
from lifecycle.sandbox import Fault, Kind, Moment, Sandbox, Server, serve, serve_forever

if TYPE_CHECKING:
    from collections.abc import Iterator

STATUSES = {
    "pending_booking",
    "confirmed",
    "booking_failed",
    "cancelled",
    "no_show",
    "pending_reschedule",
    "rescheduled",
    "reschedule_failed",
}
FIXTURES = {
    "2b29f79b-6d7f-472a-9603-d0c378bc9531": ("pending_booking", "pr_pending|lo_pending"),
    "d2ee5bd8-643a-42c8-8c5a-be450e903430": ("confirmed", "pr_confirmed|lo_confirmed"),
    "423e6a11-8dac-4873-b933-d8d02f9a370f": ("confirmed", "pr_confirmed|lo_confirmed"),
    "34e4ead3-ca69-4448-9438-58702dd1048f": ("booking_failed", "pr_bookingfailed|lo_bookingfailed"),
    "21990114-ea71-4d7d-9d1e-00c43ae44bcd": ("cancelled", "pr_cancelled|lo_cancelled"),
    "a0a7770d-e667-416c-9f06-9c3b40a7bb84": ("no_show", "pr_noshow|lo_noshow"),
    "63f995c2-49c4-40c8-a93a-140fb32e913b": (
        "pending_reschedule",
        "pr_pendingreschedule|lo_pendingreschedule",
    ),
    "8507d05f-cbe5-4732-b72a-22add9c80120": ("rescheduled", "pr_rescheduled|lo_rescheduled"),
    "84d04f67-b2cf-4afd-ab64-193072498ed5": (
        "reschedule_failed",
        "pr_reschedulefailed|lo_reschedulefailed",
    ),
}
GUIDE = "d04b049a-41b1-4aba-9268-d8973cf72cdd"
MISSING = "83f5cf14-3eb1-4034-be1f-e7c3058aad21"
FAILING = "dc69a428-8a73-461b-bd7b-df755910a3fb"
LATER = "2027-03-01T09:00:00-05:00"

OPTIONAL_TEXT = (str, type(None))
BASE = {"appointment_id": str, "appointment_status": str}
BASE_MORE = {"developer_patient_id": OPTIONAL_TEXT}
FULL = BASE | {"is_provider_resource": bool, "confirmation_type": str, "visit_type": str}
FULL_MORE = BASE_MORE | dict.fromkeys(
    ("location_phone_number", "location_phone_extension", "waiting_room_path", "notes"), OPTIONAL_TEXT
)
READ = FULL | {"start_time": str, "provider_location_id": str, "visit_reason_id": str}
READ_MORE = FULL_MORE | {
    "created_time_utc": str,
    "last_modified_time_utc": str,
    "practice_id": OPTIONAL_TEXT,
    "patient_type": str,
    "cancellation_reason": OPTIONAL_TEXT,
    "source": OPTIONAL_TEXT,
}

ALLOWED = {
    "confirm": {"pending_booking"},
    "cancel": {
        "pending_booking",
        "booking_failed",
        "confirmed",
        "pending_reschedule",
        "reschedule_failed",
        "rescheduled",
    },
    "reschedule": {"pending_booking", "confirmed", "pending_reschedule", "rescheduled"},
    "no_show": STATUSES - {"cancelled", "booking_failed", "no_show"},
    "arrived": STATUSES - {"cancelled", "booking_failed", "no_show"},
}
TARGET = {"confirm": "confirmed", "cancel": "cancelled", "reschedule": "rescheduled", "no_show": "no_show"}
BOOKING: dict[str, Any] = {
    "appointment_type": "providers",
    "data": {
        "start_time": LATER,
        "visit_reason_id": "pc_test",
        "provider_location_id": "pr_a|lo_b",
        "patient_type": "new",
        "notes": "synthetic",
        "patient": {
            "developer_patient_id": "patient-1",
            "first_name": "Test",
            "last_name": "Patient",
            "date_of_birth": "2000-01-01",
            "sex_at_birth": "female",
            "phone_number": "555-0100",
            "email_address": "test@example.com",
            "patient_address": {"address1": "1 Test", "city": "Test", "state": "NY", "zip_code": "00000"},
        },
    },
}


@dataclass
class Clock:
    """A clock that a test moves."""

    present: datetime = field(default_factory=lambda: datetime(2026, 6, 1, 12, tzinfo=UTC))

    def __call__(self) -> datetime:
        """Return the present of this clock."""
        return self.present


class Api:
    """The stand-in as a client over a real socket sees it."""

    def __init__(self, server: Server, session: requests.Session) -> None:
        self.server = server
        self.sandbox = server.sandbox
        self.session = session
        self.session.trust_env = False

    def sign_in(self, **overrides: Any) -> requests.Response:
        """Ask for a machine token; `overrides` replace members of the body."""
        wanted = {
            "grant_type": "client_credentials",
            "client_id": "sandbox-client",
            "client_secret": "sandbox-secret",
            "audience": self.server.audience,
        }
        return self.session.post(self.server.token_url, json=wanted | overrides, timeout=30)

    def use(self, token: str) -> None:
        """Use this bearer token from now on."""
        self.session.headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> requests.Response:
        """Send one request, never following a redirect."""
        options = {"timeout": 30, "allow_redirects": False} | more
        url = path if path.startswith("http") else self.server.base_url + path
        if body is not None:
            options["json"] = body
        return self.session.request(method, url, **options)

    def get(self, appointment_id: str, **more: Any) -> requests.Response:
        """Read an appointment."""
        return self.call("GET", f"/v1/appointments/{appointment_id}", **more)

    def list(self, **query: Any) -> Any:
        """Return a page of the list as JSON."""
        return self.call("GET", "/v1/appointments", params=query).json()

    def order(self, command: str, appointment_id: str, **more: Any) -> requests.Response:
        """Send a command with a body that fits it."""
        named = {"appointment_id": appointment_id}
        if command in ("arrived", "no_show"):
            wanted = named | {"appointment_status": command}
            return self.call("PUT", "/v1/appointments/update-status", wanted, **more)
        body = named | {"start_time": LATER} if command == "reschedule" else named
        return self.call("POST", f"/v1/appointments/{command}", body, **more)


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still."""
    return Clock()


@pytest.fixture
def api(clock: Clock) -> Iterator[Api]:
    """Serve a fresh stand-in and hand out a signed-in client of it."""
    with serve(Sandbox(now=clock)) as server, requests.Session() as session:
        client = Api(server, session)
        client.use(client.sign_in().json()["access_token"])
        yield client


def assert_shape(data: dict[str, Any], required: dict[str, Any], optional: dict[str, Any]) -> None:
    """Every required member is there, none is unknown, and each is of its type."""
    assert set(required) <= set(data) <= set(required | optional)
    assert all(isinstance(value, (required | optional)[name]) for name, value in data.items())


def assert_error(response: requests.Response, status: int, field: str | None = None) -> None:
    """Check for the documented error envelope, naming this field."""
    body = response.json()
    assert (response.status_code, set(body)) == (status, {"request_id", "error_type", "errors"})
    assert body["error_type"] == ("api_error" if status >= 500 else "invalid_request")
    assert [error.get("field") for error in body["errors"]] == [field]
    assert all(isinstance(error["message"], str) for error in body["errors"])


def assert_bare(response: requests.Response, status: int) -> None:
    """Check for this status and no body at all."""
    assert (response.status_code, response.content) == (status, b"")


# Operations


def test_the_three_calls_of_the_guide_run_in_sequence_word_for_word(api: Api) -> None:
    """Confirm, cancel and reschedule of the published examples succeed, the past start included."""
    cancel = {
        "appointment_id": GUIDE,
        "cancellation_reason": "string",
        "cancellation_reason_type": "patient_no_longer_needs_appointment",
    }
    move = {
        "appointment_id": "63f995c2-49c4-40c8-a93a-140fb32e913b",
        "start_time": "2022-04-27T09:00:00-04:00",
    }
    answers = [
        api.call("POST", "/v1/appointments/confirm", {"appointment_id": GUIDE}),
        api.call("POST", "/v1/appointments/cancel", cancel),
        api.call("POST", "/v1/appointments/reschedule", move),
    ]
    statuses = [(answer.status_code, answer.json()["data"]["appointment_status"]) for answer in answers]
    assert statuses == [(200, "confirmed"), (200, "cancelled"), (200, "rescheduled")]
    assert api.get(GUIDE).json()["data"]["cancellation_reason"] == "string"
    assert api.get(move["appointment_id"]).json()["data"]["start_time"] == move["start_time"]


@pytest.mark.parametrize(("appointment_id", "expected"), FIXTURES.items())
def test_each_fixture_reads_as_published(api: Api, appointment_id: str, expected: tuple[str, str]) -> None:
    """A published id answers with its published status and location, in the documented shape."""
    data = api.get(appointment_id).json()["data"]
    assert_shape(data, READ, READ_MORE)
    assert (data["appointment_status"], data["provider_location_id"]) == expected


@pytest.mark.parametrize("command", ["confirm", "cancel", "reschedule", "no_show", "arrived"])
@pytest.mark.parametrize("status", sorted(STATUSES))
def test_a_command_succeeds_from_its_documented_statuses_only(
    api: Api, clock: Clock, status: str, command: str
) -> None:
    """A status that does not permit a command is a 409, for a reschedule a 400, and nothing changes."""
    yesterday = (clock() - timedelta(days=1)).isoformat()
    made = api.sandbox.add(status=status, start_time=yesterday)
    before = api.sandbox.appointment(made)
    response = api.order(command, made)
    if status in ALLOWED[command]:
        required, optional = (FULL, FULL_MORE) if command == "reschedule" else (BASE, BASE_MORE)
        assert_shape(response.json()["data"], required, optional)
        assert response.json()["data"]["appointment_status"] == TARGET.get(command, status)
        assert api.sandbox.status_of(made) == TARGET.get(command, status)
        assert api.sandbox.appointment(made).modified > before.modified
    else:
        is_move = command == "reschedule"
        assert_error(response, 400 if is_move else 409, "appointment_id" if is_move else None)
        assert api.sandbox.appointment(made) == before
    assert api.sandbox.ledger.effects(made) == (status in ALLOWED[command])


@pytest.mark.parametrize("command", ["confirm", "cancel", "reschedule", "arrived"])
def test_an_unknown_appointment_is_a_404(api: Api, command: str) -> None:
    """A command on an id that does not exist is a 404 with the envelope, as is a read."""
    assert_error(api.order(command, MISSING), 404, "appointment_id")
    assert_error(api.get(MISSING), 404, "appointment_id")


@pytest.mark.parametrize("command", ["cancel", "reschedule"])
def test_the_failing_fixture_is_a_500(api: Api, command: str) -> None:
    """The published id for failures answers 500 on get, cancel and reschedule."""
    assert_error(api.order(command, FAILING), 500)
    assert_error(api.get(FAILING), 500)
    assert_bare(api.order("arrived", FAILING), 500)


@pytest.mark.parametrize(
    ("age", "status"),
    [
        (timedelta(seconds=-1), 400),
        (timedelta(0), 400),
        (timedelta(seconds=1), 200),
        (timedelta(days=2), 200),
        (timedelta(days=2, seconds=1), 400),
    ],
)
def test_a_no_show_is_reported_within_two_days_of_the_start(
    api: Api, clock: Clock, age: timedelta, status: int
) -> None:
    """The start must lie in the past and be at most two days old."""
    made = api.sandbox.add(status="confirmed", start_time=(clock() - age).isoformat())
    response = api.order("no_show", made)
    assert response.status_code == status
    if status == 400:
        assert_error(response, 400, "appointment_status")


@pytest.mark.parametrize(
    ("method", "path", "body", "wrong"),
    [
        ("POST", "confirm", {}, "appointment_id"),
        ("POST", "confirm", {"appointment_id": 7}, "appointment_id"),
        ("POST", "confirm", [], None),
        ("POST", "cancel", {}, "appointment_id"),
        (
            "POST",
            "cancel",
            {"appointment_id": GUIDE, "cancellation_reason_type": "bored"},
            "cancellation_reason_type",
        ),
        ("POST", "cancel", {"appointment_id": GUIDE, "cancellation_reason": 7}, "cancellation_reason"),
        ("POST", "reschedule", {"start_time": LATER}, "appointment_id"),
        ("POST", "reschedule", {"appointment_id": GUIDE}, "start_time"),
        ("POST", "reschedule", {"appointment_id": GUIDE, "start_time": "2027-03-01T09:00:00"}, "start_time"),
        ("POST", "reschedule", {"appointment_id": GUIDE, "start_time": "2027-13-01T09:00:00Z"}, "start_time"),
        (
            "POST",
            "reschedule",
            {"appointment_id": GUIDE, "start_time": "0001-01-01T00:00:00+14:00"},
            "start_time",
        ),
        ("PUT", "update-status", {"appointment_id": GUIDE}, "appointment_status"),
        (
            "PUT",
            "update-status",
            {"appointment_id": GUIDE, "appointment_status": "confirmed"},
            "appointment_status",
        ),
    ],
)
def test_a_body_that_does_not_fit_is_a_400_that_names_its_field(
    api: Api, method: str, path: str, body: Any, wrong: str | None
) -> None:
    """A missing, mistyped or undocumented value is refused before anything changes."""
    assert_error(api.call(method, f"/v1/appointments/{path}", body), 400, wrong)
    assert api.sandbox.ledger.effects(GUIDE) == 0


@pytest.mark.parametrize("raw", [b"", b"not json", b"[" * 100_000, b"\xff\xfe"])
def test_a_body_that_is_not_json_is_a_400(api: Api, raw: bytes) -> None:
    """Nothing that cannot be parsed as a JSON object is carried out."""
    assert_error(api.call("POST", "/v1/appointments/confirm", data=raw), 400)


def test_null_counts_as_left_out(api: Api) -> None:
    """An optional member that is null is accepted."""
    body = {"appointment_id": GUIDE, "cancellation_reason": None, "cancellation_reason_type": None}
    assert api.call("POST", "/v1/appointments/cancel", body).status_code == 200


def test_a_repeated_reschedule_is_applied_again(api: Api) -> None:
    """No idempotency exists: the same reschedule twice has two effects and moves the modification time."""
    times = []
    for _ in range(2):
        assert api.order("reschedule", GUIDE).status_code == 200
        times.append(api.get(GUIDE).json()["data"]["last_modified_time_utc"])
    assert api.sandbox.ledger.effects(GUIDE, "reschedule") == 2
    assert times[0] < times[1]


@pytest.mark.parametrize(
    ("answer", "status", "start"),
    [
        ("pending_reschedule", "pending_reschedule", LATER),
        ("unchanged", "confirmed", LATER),
        ("reschedule_failed", "reschedule_failed", "2026-12-01T09:00:00-05:00"),
    ],
)
def test_a_reschedule_answers_as_its_provider_does(api: Api, answer: str, status: str, start: str) -> None:
    """A manual provider is asked first, another keeps the status, a failed move keeps the start."""
    made = api.sandbox.add(status="confirmed", start_time="2026-12-01T09:00:00-05:00", on_reschedule=answer)
    assert api.order("reschedule", made).json()["data"]["appointment_status"] == status
    data = api.get(made).json()["data"]
    assert (data["appointment_status"], data["start_time"]) == (status, start)


def test_a_booking_is_confirmed_and_readable(api: Api) -> None:
    """Booking at any ordinary location answers `confirmed` and a fresh id that a read then knows."""
    booked = api.call("POST", "/v1/appointments", BOOKING).json()["data"]
    assert_shape(booked, FULL, FULL_MORE)
    read = api.get(booked["appointment_id"]).json()["data"]
    assert (read["appointment_status"], read["start_time"]) == ("confirmed", LATER)
    assert (read["developer_patient_id"], read["notes"]) == ("patient-1", "synthetic")
    assert api.sandbox.ledger.effects(booked["appointment_id"], "book") == 1


@pytest.mark.parametrize(("appointment_id", "expected"), FIXTURES.items())
def test_booking_at_a_magic_location_answers_its_fixture(
    api: Api, appointment_id: str, expected: tuple[str, str]
) -> None:
    """A published location answers with its status and id; `booking_failed` comes on a 200."""
    is_existing = appointment_id.startswith("423e")
    changes = {
        "provider_location_id": expected[1],
        "patient_type": "existing" if is_existing else "new",
    }
    booked = api.call("POST", "/v1/appointments", BOOKING | {"data": BOOKING["data"] | changes})
    assert booked.status_code == 200
    data = booked.json()["data"]
    assert (data["appointment_id"], data["appointment_status"]) == (appointment_id, expected[0])


@pytest.mark.parametrize(
    ("change", "status", "wrong"),
    [
        ({"provider_location_id": "pr_error|lo_error"}, 500, None),
        ({"provider_location_id": "pr_missing|lo_missing"}, 404, "data.provider_location_id"),
        ({"start_time": "tomorrow"}, 400, "data.start_time"),
        ({"notes": "x" * 101}, 400, "data.notes"),
        ({"patient_type": "old"}, 400, "data.patient_type"),
        ({"patient": None}, 400, "data.patient"),
        ({"patient": BOOKING["data"]["patient"] | {"first_name": ""}}, 400, "data.patient.first_name"),
    ],
)
def test_a_booking_that_does_not_fit_is_refused(
    api: Api, change: dict[str, Any], status: int, wrong: str | None
) -> None:
    """The failing location is a 500, the missing one a 404, a wrong body a 400 with its field."""
    response = api.call("POST", "/v1/appointments", BOOKING | {"data": BOOKING["data"] | change})
    assert_error(response, status, wrong)


def test_what_is_not_documented_is_a_404_or_405(api: Api) -> None:
    """Unknown paths and methods are refused with the envelope."""
    assert_error(api.call("GET", "/v2/anything"), 404)
    assert_error(api.call("DELETE", "/v1/appointments/confirm"), 405)
    assert_error(api.get("a%2Fb"), 404, "appointment_id")


def test_absent_values_are_null_for_some_fields_and_left_out_for_others(api: Api) -> None:
    """A reader meets both forms of nothing."""
    data = api.get(GUIDE).json()["data"]
    assert data["practice_id"] is None
    assert "source" not in data


# The list


@pytest.fixture
def crowd(api: Api) -> list[str]:
    """Put 25 appointments of one patient, one hour apart, beside the fixtures."""
    return [
        api.sandbox.add(
            f"row-{number:02}",
            status="confirmed" if number % 2 else "pending_booking",
            start_time=f"2026-07-{1 + number // 24:02}T{number % 24:02}:00:00Z",
            developer_patient_id="crowd",
            provider_location_id=f"pr_{number % 3}|lo_{number % 5}",
            practice_id=f"pt_{number % 2}",
        )
        for number in range(25)
    ]


def test_pages_follow_their_next_url_to_an_empty_one(api: Api, crowd: list[str]) -> None:
    """`next_url` is absolute and keeps the filters; the last page has an empty one; every row comes once."""
    pages, url = [], "/v1/appointments?developer_patient_id=crowd&page_size=10&sort_direction=ascending"
    while url:
        page = api.call("GET", url).json()
        pages.append(page)
        url = page["next_url"]
        assert url == "" or url.startswith(f"{api.server.base_url}/v1/appointments?")
        for row in page["data"]:
            assert_shape(row, READ, READ_MORE)
    assert [(page["page"], page["page_size"], page["total_count"]) for page in pages] == [
        (0, 10, 25),
        (1, 10, 25),
        (2, 10, 25),
    ]
    assert [row["appointment_id"] for page in pages for row in page["data"]] == crowd


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"statuses": "confirmed"}, range(1, 25, 2)),
        ({"statuses": "confirmed,pending_booking"}, range(25)),
        ({"provider_ids": "pr_0,pr_1", "location_ids": "lo_0"}, (0, 10, 15)),
        ({"practice_ids": "pt_1"}, range(1, 25, 2)),
        ({"start_time_utc_min": "2026-07-01T22:00:00Z"}, (22, 23, 24)),
        ({"start_time_utc_max": "2026-07-01T01:00:00"}, (0, 1)),
        (
            {"start_time_utc_min": "2026-06-30T20:00:00-04:00", "start_time_utc_max": "2026-07-01T00:30:00Z"},
            (0,),
        ),
        ({"created_time_utc_min": "2026-06-02"}, ()),
        ({"created_time_utc_max": "2026-06-02"}, range(25)),
        ({"last_modified_time_utc_min": "2026-06-01T12:00:00Z"}, range(25)),
        ({"last_modified_time_utc_max": "2026-06-01T11:59:59Z"}, ()),
    ],
)
def test_each_documented_filter_narrows_the_list(
    api: Api, crowd: list[str], query: dict[str, str], expected: Any
) -> None:
    """Filters combine with and; bounds are inclusive."""
    page = api.list(developer_patient_id="crowd", page_size=100, sort_direction="ascending", **query)
    assert [row["appointment_id"] for row in page["data"]] == [crowd[number] for number in expected]


def test_the_default_order_is_by_start_descending(api: Api, crowd: list[str]) -> None:
    """Without a wish the latest start comes first, ten rows at a time."""
    page = api.list(developer_patient_id="crowd")
    assert [row["appointment_id"] for row in page["data"]] == crowd[:-11:-1]


def test_a_delta_sync_sees_what_changed_last(api: Api, clock: Clock, crowd: list[str]) -> None:
    """`last_modified_time_utc_min` with its order gives the changes since, in order."""
    clock.present += timedelta(minutes=5)
    since = clock.present.isoformat()
    for number in (7, 3):
        api.sandbox.change(crowd[number], status="no_show")
        clock.present += timedelta(seconds=1)
    page = api.list(last_modified_time_utc_min=since, sort_by="last_modified_time_utc", sort_direction="ascending")
    assert [row["appointment_id"] for row in page["data"]] == [crowd[7], crowd[3]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page", "11"),
        ("page", "-1"),
        ("page", "1_0"),
        ("page_size", "0"),
        ("page_size", "101"),
        ("statuses", "confirmed,waitlisted"),
        ("sort_by", "name"),
        ("sort_direction", "up"),
        ("start_time_utc_min", "yesterday"),
    ],
)
def test_a_wrong_list_parameter_is_a_400_that_names_it(api: Api, name: str, text: str) -> None:
    """Undocumented values of list parameters are refused."""
    assert_error(api.call("GET", "/v1/appointments", params={name: text}), 400, name)


def test_the_list_ends_after_a_thousand_rows(api: Api) -> None:
    """Ten pages of a hundred are served; the count tells that more match."""
    for number in range(1_005):
        api.sandbox.add(f"many-{number}", developer_patient_id="many")
    ninth = api.list(developer_patient_id="many", page_size=100, page=9)
    assert (len(ninth["data"]), ninth["next_url"], ninth["total_count"]) == (100, "", 1_005)
    assert api.list(developer_patient_id="many", page_size=100, page=10)["data"] == []


# Credentials


def test_the_token_endpoint_answers_as_documented(api: Api) -> None:
    """A token answer carries the token, its lifetime of an hour and its type."""
    answer = api.sign_in().json()
    assert (answer["expires_in"], answer["token_type"]) == (3600, "Bearer")
    assert isinstance(answer["access_token"], str)


@pytest.mark.parametrize(
    ("overrides", "status"),
    [
        ({"client_secret": "wrong"}, 401),
        ({"client_id": "wrong"}, 401),
        ({"client_id": None}, 401),
        ({"audience": "http://elsewhere/"}, 403),
        ({"grant_type": "password"}, 400),
    ],
)
def test_wrong_credentials_get_no_token(api: Api, overrides: dict[str, Any], status: int) -> None:
    """Wrong credentials are a 401, a wrong audience (or one without its slash) a 403, both with JSON."""
    assert api.sign_in(**overrides).status_code == status
    assert api.sign_in(audience=api.server.base_url).status_code == 403
    assert "access_token" not in api.sign_in(**overrides).json()


def test_a_bad_token_is_a_bare_401(api: Api, clock: Clock) -> None:
    """Missing, unknown, expired and revoked tokens are refused without a body."""
    good = str(api.session.headers["Authorization"])
    for header in ("", "Bearer unknown", good.removeprefix("Bearer "), good.replace("Bearer", "Basic")):
        api.session.headers["Authorization"] = header
        assert_bare(api.get(GUIDE), 401)
    api.session.headers["Authorization"] = good
    assert api.get(GUIDE).status_code == 200
    clock.present += timedelta(seconds=3600)
    assert_bare(api.get(GUIDE), 401)
    api.use(api.sign_in().json()["access_token"])
    api.sandbox.revoke_tokens()
    assert_bare(api.get(GUIDE), 401)


def test_a_missing_scope_is_a_bare_403(api: Api) -> None:
    """Reading needs the read scope, changing the write scope."""
    api.sandbox.tokens.scopes = frozenset({"external.appointment.read"})
    api.use(api.sign_in().json()["access_token"])
    assert api.get(GUIDE).status_code == 200
    assert_bare(api.order("confirm", GUIDE), 403)
    api.sandbox.tokens.scopes = frozenset({"external.appointment.write"})
    api.use(api.sign_in().json()["access_token"])
    assert_bare(api.get(GUIDE), 403)
    assert api.order("confirm", GUIDE).status_code == 200


def test_an_appointment_belongs_to_the_kind_of_credential_that_booked_it(api: Api) -> None:
    """Booked by a user: that user only. Booked by machine: any machine token, and no user."""
    machine = str(api.session.headers["Authorization"]).removeprefix("Bearer ")
    api.use(api.sandbox.user_token("17"))
    theirs = api.call("POST", "/v1/appointments", BOOKING).json()["data"]["appointment_id"]
    assert api.get(theirs).status_code == 200
    assert_bare(api.get(GUIDE), 403)
    assert [row["appointment_id"] for row in api.list()["data"]] == [theirs]
    api.use(api.sandbox.user_token("18"))
    assert_bare(api.order("cancel", theirs), 403)
    api.use(machine)
    assert_bare(api.order("cancel", theirs), 403)
    api.use(api.sign_in().json()["access_token"])
    assert api.order("confirm", GUIDE).status_code == 200
    assert api.sandbox.ledger.effects(theirs, "cancel") == 0


# The ledger


def test_the_ledger_tells_every_request_in_order(api: Api) -> None:
    """Method, body, answer, effect, request id and subject are written down, refusals included."""
    confirmed = api.order("confirm", GUIDE)
    again = api.order("confirm", GUIDE)
    api.session.headers["Authorization"] = ""
    api.get(GUIDE)
    entries = api.sandbox.ledger.entries(appointment_id=GUIDE)
    assert [(e.operation, e.method, e.answered, e.effect, e.subject) for e in entries] == [
        ("confirm", "POST", 200, True, "machine"),
        ("confirm", "POST", 409, False, "machine"),
        ("get", "GET", 401, False, None),
    ]
    assert [e.request_id for e in entries[:2]] == [r.json()["request_id"] for r in (confirmed, again)]
    assert entries[0].body == {"appointment_id": GUIDE}
    assert json.loads(entries[0].raw) == entries[0].body
    assert entries[0].at < entries[1].at < entries[2].at


def test_the_ledger_keeps_no_client_secret(api: Api) -> None:
    """The body of a token request is not written down."""
    (entry,) = api.sandbox.ledger.entries(operation="token")
    assert (entry.answered, entry.raw, entry.body) == (200, b"", None)


def test_of_many_callers_at_once_one_has_the_effect(api: Api) -> None:
    """A confirm from eight threads is applied once and refused seven times."""
    barrier, answers = threading.Barrier(8), []

    def confirm() -> None:
        with requests.Session() as session:
            client = Api(api.server, session)
            session.headers["Authorization"] = api.session.headers["Authorization"]
            barrier.wait()
            answers.append(client.order("confirm", GUIDE).status_code)

    threads = [threading.Thread(target=confirm) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] + [409] * 7
    assert api.sandbox.ledger.effects(GUIDE) == 1


# Faults


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500, 503])
def test_a_status_can_be_answered_before_anything_happens(api: Api, status: int) -> None:
    """An `answer` fault leaves the request unapplied, once; 401 and 403 are bare."""
    api.sandbox.faults.add(Fault(kind=Kind.ANSWER, operation="confirm", status=status))
    response = api.order("confirm", GUIDE)
    if status in (401, 403):
        assert_bare(response, status)
    else:
        assert_error(response, status)
    assert api.sandbox.ledger.entries(appointment_id=GUIDE)[0].answered == status
    assert api.sandbox.ledger.effects(GUIDE) == 0
    assert api.order("confirm", GUIDE).status_code == 200


def test_an_answer_can_carry_headers_and_any_body(api: Api) -> None:
    """Retry-After, redirects, proxy pages, empty, deep and huge bodies, 202 and 204 can be sent."""
    api.sandbox.faults.add(
        Fault(kind=Kind.ANSWER, status=429, headers={"Retry-After": "7"}),
        Fault(kind=Kind.ANSWER, status=302, headers={"Location": "http://127.0.0.1:1/elsewhere"}),
        Fault(kind=Kind.ANSWER, status=502),
        Fault(kind=Kind.ANSWER, status=200, body="", when=Moment.AFTER),
        Fault(kind=Kind.ANSWER, status=200, body="<p>not json", content_type="text/plain"),
        Fault(kind=Kind.ANSWER, status=200, body="[", repeat=200_000),
        Fault(kind=Kind.ANSWER, status=202),
        Fault(kind=Kind.ANSWER, status=204),
    )
    answers = [api.order("confirm", GUIDE) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [429, 302, 502, 200, 200, 200, 202, 204]
    assert answers[0].headers["Retry-After"] == "7"
    assert answers[1].headers["Location"] == "http://127.0.0.1:1/elsewhere"
    assert (answers[2].headers["Content-Type"], answers[2].text[:6]) == ("text/html", "<html>")
    assert [answer.content for answer in answers[3:5]] == [b"", b"<p>not json"]
    assert answers[5].content == b"[" * 200_000
    assert [answer.content for answer in answers[6:]] == [b"", b""]
    assert api.sandbox.ledger.effects(GUIDE) == 1


def test_a_500_can_hide_that_the_request_was_applied(api: Api) -> None:
    """A fault `after` answers 500 and leaves the effect behind."""
    api.sandbox.faults.add(Fault(kind=Kind.ANSWER, operation="cancel", when=Moment.AFTER))
    assert_error(api.order("cancel", GUIDE), 500)
    assert api.sandbox.status_of(GUIDE) == "cancelled"
    (entry,) = api.sandbox.ledger.entries(operation="cancel")
    assert (entry.answered, entry.effect) == (500, True)


@pytest.mark.parametrize("when", list(Moment))
@pytest.mark.parametrize(("kind", "answered"), [(Kind.RESET, "reset"), (Kind.CLOSE, "none")])
def test_a_connection_can_end_without_an_answer(api: Api, kind: Kind, answered: str, when: Moment) -> None:
    """Reset and close strike before or after the request is applied, and the ledger tells which."""
    api.sandbox.faults.add(Fault(kind=kind, operation="confirm", when=when))
    with pytest.raises(requests.ConnectionError) as caught:
        api.order("confirm", GUIDE)
    assert ("ConnectionResetError" in str(caught.value)) == (kind is Kind.RESET)
    (entry,) = api.sandbox.ledger.entries(operation="confirm")
    assert (entry.answered, entry.effect) == (answered, when is Moment.AFTER)
    assert api.sandbox.status_of(GUIDE) == ("confirmed" if when is Moment.AFTER else "pending_booking")


@pytest.mark.parametrize("when", list(Moment))
def test_an_answer_can_be_late(api: Api, when: Moment) -> None:
    """A delay lies before or after the effect, and both end in the effect."""
    seconds = 0.3 if when is Moment.BEFORE else 30.0
    api.sandbox.faults.add(Fault(kind=Kind.DELAY, operation="confirm", when=when, seconds=seconds))
    begun = time.monotonic()
    with pytest.raises(requests.ReadTimeout):
        api.order("confirm", GUIDE, timeout=0.1)
    wait_for_effect(api.sandbox)
    (entry,) = api.sandbox.ledger.entries(operation="confirm")
    assert (entry.at - begun >= seconds) == (when is Moment.BEFORE)


def test_a_body_can_be_cut_short(api: Api) -> None:
    """Fewer bytes come than were announced, though the request was applied."""
    api.sandbox.faults.add(Fault(kind=Kind.TRUNCATE, times=2))
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        api.order("confirm", GUIDE)
    assert api.sandbox.ledger.effects(GUIDE) == 1


@pytest.mark.parametrize("kind", [Kind.DRIP_BODY, Kind.DRIP_HEADERS])
def test_an_answer_can_drip(api: Api, kind: Kind) -> None:
    """Bytes come one by one, and the whole takes its time."""
    api.sandbox.faults.add(Fault(kind=kind, operation="get", seconds=0.003))
    head = f"GET /v1/appointments/{GUIDE} HTTP/1.1\r\nAuthorization: {api.session.headers['Authorization']!s}\r\n\r\n"
    begun = time.monotonic()
    with closing(socket.create_connection(("127.0.0.1", api.server.port), timeout=30)) as connection:
        connection.sendall(head.encode())
        pieces = list(iter(lambda: connection.recv(65536), b""))
    assert time.monotonic() - begun > 0.2
    assert len(pieces) > 20
    _, _, content = b"".join(pieces).partition(b"\r\n\r\n")
    assert json.loads(content)["data"]["appointment_status"] == "pending_booking"


def test_an_answer_can_carry_a_status_that_nobody_knows(api: Api) -> None:
    """The applied request answers 200 with an undocumented status."""
    api.sandbox.faults.add(Fault(kind=Kind.UNKNOWN_STATUS), Fault(kind=Kind.UNKNOWN_STATUS, value="lost"))
    assert api.order("confirm", GUIDE).json()["data"]["appointment_status"] == "waitlisted"
    assert {row["appointment_status"] for row in api.list()["data"]} == {"lost"}
    api.sandbox.change(GUIDE, status="teleported")
    assert api.get(GUIDE).json()["data"]["appointment_status"] == "teleported"


def test_an_answer_can_speak_of_another_appointment(api: Api) -> None:
    """The applied request answers 200 with a foreign id."""
    api.sandbox.faults.add(Fault(kind=Kind.FOREIGN_ID, value="somebody-else"))
    assert api.order("confirm", GUIDE).json()["data"]["appointment_id"] == "somebody-else"
    assert api.sandbox.ledger.effects(GUIDE) == 1


@pytest.mark.parametrize("status", [500, 0])
def test_a_zombie_is_applied_after_its_caller_gave_up(api: Api, status: int) -> None:
    """The caller gets a 500 or a reset at once; the effect comes later, as an entry of its own."""
    api.sandbox.faults.add(Fault(kind=Kind.ZOMBIE, operation="confirm", seconds=0.1, status=status))
    if status:
        assert_error(api.order("confirm", GUIDE), 500)
    else:
        with pytest.raises(requests.ConnectionError):
            api.order("confirm", GUIDE)
    wait_for_effect(api.sandbox)
    entries = api.sandbox.ledger.entries(operation="confirm")
    assert entries[1].at - entries[0].at >= 0.1
    assert [(e.answered, e.effect, e.late) for e in entries] == [
        (status or "reset", False, False),
        ("none", True, True),
    ]


def wait_for_effect(sandbox: Sandbox) -> None:
    """Wait until the guide's appointment was confirmed, for ten seconds at most."""
    deadline = time.monotonic() + 10
    while not sandbox.ledger.effects(GUIDE, "confirm"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_fault_strikes_only_what_it_names_and_only_so_often(api: Api) -> None:
    """Operation, appointment and number of times narrow a fault; `*` spares the token endpoint."""
    other = api.sandbox.add()
    api.sandbox.faults.add(
        Fault(kind=Kind.ANSWER, operation="get", appointment_id=GUIDE, status=503, times=2),
        Fault(kind=Kind.ANSWER, appointment_id=other, status=429),
    )
    assert [api.get(GUIDE).status_code for _ in range(3)] == [503, 503, 200]
    assert api.order("arrived", GUIDE).status_code == 200
    assert [api.order("confirm", other).status_code for _ in range(2)] == [429, 200]
    api.sandbox.faults.add(Fault(kind=Kind.ANSWER, status=503))
    assert (api.sign_in().status_code, api.list(), api.sandbox.faults.pending)[::2] == (200, 0)
    api.sandbox.faults.add(Fault(kind=Kind.ANSWER, operation="token", status=503), Fault(kind=Kind.RESET))
    assert api.sign_in().status_code == 503
    api.sandbox.faults.clear()
    assert api.get(GUIDE).status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"operation": "fly"},
        {"status": 42},
        {"seconds": -1},
        {"seconds": float("nan")},
        {"times": 0},
        {"status": 0},
    ],
)
def test_a_fault_that_cannot_strike_is_refused(wrong: dict[str, Any]) -> None:
    """Unknown operations and numbers out of range are errors at once, not silence later."""
    with pytest.raises(ValueError, match=r"operation|status|seconds"):
        Fault(kind=Kind.ANSWER, **wrong)


# Control over HTTP


def test_a_stand_in_in_another_process_is_steered_over_http(api: Api) -> None:
    """Appointments, faults, tokens and the ledger are reached without a token and leave no entry."""
    api.session.headers["Authorization"] = ""
    rows = [{"appointment_id": "one", "status": "confirmed", "booked_by": "user:17"}, {"start_time": LATER}]
    made = api.call("POST", "/_sandbox/appointments", rows).json()["appointment_ids"]
    assert made[0] == "one"
    assert len(made) == 2
    changed = api.call("POST", "/_sandbox/appointments/one", {"status": "no_show", "start_time": LATER})
    assert (changed.json()["appointment_status"], changed.json()["start_time"]) == ("no_show", LATER)
    faults = [{"kind": "answer", "operation": "get", "status": 503}, {"kind": "reset", "when": "after"}]
    assert api.call("POST", "/_sandbox/faults", faults).json() == {"pending": 2}
    api.use(api.call("POST", "/_sandbox/tokens", {"user": "17"}).json()["access_token"])
    assert api.get("one").status_code == 503
    assert api.call("DELETE", "/_sandbox/faults").json() == {"pending": 0}
    assert api.get("one").json()["data"]["appointment_status"] == "no_show"
    shown = api.call("GET", "/_sandbox/ledger?operation=get").json()["entries"]
    assert [(entry["answered"], entry["subject"]) for entry in shown] == [(503, "user:17"), (200, "user:17")]
    assert api.order("reschedule", "one").status_code == 400
    assert api.call("POST", "/_sandbox/appointments/one", {"status": "confirmed"}).status_code == 200
    assert api.order("reschedule", "one").status_code == 200
    assert api.call("GET", "/_sandbox/effects").json() == {"effects": {"one": {"reschedule": 1}}}
    assert api.call("GET", "/_sandbox/appointments/one").json()["booked_by"] == "user:17"
    assert api.call("DELETE", "/_sandbox/tokens").status_code == 200
    assert_bare(api.get("one"), 401)
    assert not [e for e in api.sandbox.ledger.entries() if e.path.startswith("/_sandbox")]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("faults", {"kind": "flood"}, 400),
        ("faults", {"kind": "delay", "seconds": "1"}, 400),
        ("faults", {"kind": "delay", "speed": 1}, 400),
        ("faults", 7, 400),
        ("appointments", {"colour": "red"}, 400),
        ("appointments", {"status": 7}, 400),
        ("appointments", {"appointment_id": 7}, 400),
        ("appointments", {"start_time": "noon"}, 400),
        ("appointments", "one", 400),
        ("appointments/nobody", {"status": "confirmed"}, 404),
        ("tokens", {}, 400),
        ("magic", {}, 404),
    ],
)
def test_a_wrong_control_request_is_refused(api: Api, path: str, body: Any, status: int) -> None:
    """What does not fit is told to the person who steers."""
    response = api.call("POST", f"/_sandbox/{path}", body)
    assert (response.status_code, list(response.json())) == (status, ["error"])


def test_control_can_be_switched_off() -> None:
    """Without control its addresses do not exist."""
    with serve(Sandbox(control=False)) as server, requests.Session() as session:
        assert_bare(Api(server, session).call("GET", "/_sandbox/ledger"), 404)


# The server


def exchange(server: Server, raw: bytes) -> bytes:
    """Send raw bytes and return everything that comes back until the connection ends."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as connection:
        connection.sendall(raw)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return received


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 65_518, 431),
        (b"GET / HTTP/1.0\r\n\r\n", 401),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 401),
    ],
)
def test_the_server_bounds_what_it_reads(api: Api, raw: bytes, status: int) -> None:
    """Malformed and oversized requests are answered and end their connection."""
    assert exchange(api.server, raw).startswith(f"HTTP/1.1 {status} ".encode())


def test_pipelined_requests_are_answered_in_order(api: Api) -> None:
    """Two requests in one packet get two answers."""
    first = b"GET /_sandbox/effects HTTP/1.1\r\n\r\n"
    received = exchange(api.server, first + first.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert received.count(b"HTTP/1.1 200 OK") == 2


def test_a_client_that_asks_may_send_its_body(api: Api) -> None:
    """`Expect: 100-continue` is granted before the body is read."""
    head = b"POST /_sandbox/appointments HTTP/1.1\r\nConnection: close\r\nExpect: 100-continue\r\n"
    with closing(socket.create_connection(("127.0.0.1", api.server.port), timeout=30)) as connection:
        connection.sendall(head + b"Content-Length: 2\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_gzip_is_understood_both_ways(api: Api, crowd: list[str]) -> None:
    """A packed request is unpacked; a large answer is packed for who accepts it; broken gzip is a 400."""
    body = gzip.compress(json.dumps({"appointment_id": GUIDE}).encode())
    packed = {"Content-Encoding": "gzip"}
    confirmed = api.call("POST", "/v1/appointments/confirm", data=body, headers=packed)
    assert confirmed.json()["data"]["appointment_status"] == "confirmed"
    assert_error(api.call("POST", "/v1/appointments/confirm", data=b"{}", headers=packed), 400)
    large = api.call("GET", "/v1/appointments?page_size=100")
    assert (large.headers["Content-Encoding"], large.json()["total_count"]) == ("gzip", len(crowd) + 10)


def test_closing_is_quick_and_ends_open_connections() -> None:
    """A server with an idle kept connection is closed at once, and its port is free again."""
    took = []
    for _ in range(3):
        server = serve(Sandbox())
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as connection:
            connection.sendall(b"GET /_sandbox/effects HTTP/1.1\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            begun = time.monotonic()
            server.close()
            took.append(time.monotonic() - begun)
            assert connection.recv(1000) == b""
    assert min(took) < 0.2
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


def test_it_serves_the_loopback_only() -> None:
    """Any other host is an error before anything listens."""
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com"):  # noqa: S104 - refused
        with pytest.raises(ValueError, match=r"loopback|IPv4"):
            serve_forever(Sandbox(), host=host, port=0)


def test_serving_forever_announces_itself_and_ends_when_closed() -> None:
    """`announce` gets the listening server, whose `close` ends the call."""
    announced: list[Server] = []
    ready = threading.Event()

    def announce(server: Server) -> None:
        announced.append(server)
        ready.set()

    thread = threading.Thread(target=serve_forever, args=(Sandbox(), "localhost", 0, announce))
    thread.start()
    assert ready.wait(30)
    with requests.Session() as session:
        assert Api(announced[0], session).sign_in().status_code == 200
    announced[0].close()
    thread.join(30)
    assert not thread.is_alive()


# In process


def test_it_is_an_independent_witness() -> None:
    """No module of the stand-in imports the rest of the package, or anything but the standard library."""
    for path in Path(sandbox_package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                known = name.partition(".")[0] in sys.stdlib_module_names
                assert known or name.startswith("lifecycle.sandbox"), (path.name, name)


def wsgi_call(sandbox: Sandbox, method: str, path: str, body: bytes = b"") -> tuple[str, bytes]:
    """Call the WSGI application as a server would and return the status line and the body."""
    started: list[str] = []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_AUTHORIZATION": f"Bearer {sandbox.user_token('1')}",
        "SERVER_NAME": "stand-in",
        "SERVER_PORT": "80",
        "wsgi.input": io.BytesIO(body),
        "wsgi.url_scheme": "http",
    }
    answer = sandbox.wsgi(environ, lambda status, _headers, _info=None: started.append(status) or bytes)  # type: ignore[func-returns-value]
    return started[0], b"".join(answer)


def test_it_is_a_wsgi_application_too() -> None:
    """In process the same answers come without a socket."""
    sandbox = Sandbox()
    sandbox.add("one", booked_by="user:1")
    body = json.dumps({"appointment_id": "one"}).encode()
    status, answer = wsgi_call(sandbox, "POST", "/v1/appointments/confirm", body)
    assert (status, json.loads(answer)["data"]["appointment_status"]) == ("200 OK", "confirmed")
    assert wsgi_call(sandbox, "GET", "/v1/appointments/two")[0] == "404 Not Found"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (Kind.RESET, ConnectionResetError),
        (Kind.CLOSE, ConnectionAbortedError),
        (Kind.TRUNCATE, ConnectionAbortedError),
    ],
)
def test_in_process_a_broken_connection_is_an_exception(kind: Kind, error: type[Exception]) -> None:
    """Faults that need a socket raise, after the request was applied or left as they say."""
    sandbox = Sandbox()
    sandbox.add("one", booked_by="user:1")
    sandbox.faults.add(Fault(kind=kind, when=Moment.AFTER))
    with pytest.raises(error, match="the stand-in"):
        wsgi_call(sandbox, "POST", "/v1/appointments/confirm", b'{"appointment_id": "one"}')
    assert sandbox.status_of("one") == "confirmed"


def test_python_callers_are_told_of_unknown_appointments() -> None:
    """Reading or changing what does not exist is a KeyError, a start without offset a ValueError."""
    sandbox = Sandbox()
    with pytest.raises(KeyError):
        sandbox.status_of("nobody")
    with pytest.raises(KeyError):
        sandbox.change("nobody", status="confirmed")
    with pytest.raises(ValueError, match="noon"):
        sandbox.change(GUIDE, start_time="noon")
