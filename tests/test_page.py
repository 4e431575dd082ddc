"""The page over real HTTP: it shows, it refuses, it escapes, and it only reads."""

from __future__ import annotations

import asyncio
import csv
import io
import logging
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import requests
import sqlalchemy as sa

from lifecycle import Lifecycle, errors, server, serving
from lifecycle.database import Database
from lifecycle.page import app, reading
from lifecycle.page.reading import Bounded, TooSlow
from lifecycle.samples import bulk
from tests import support
from tests.conftest import FAST
from tests.test_inbox import KEY, body, signed
from tests.test_server import UNTRACKED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lifecycle import ZocdocClient
    from lifecycle.sandbox import Sandbox

TOKEN = "0123456789abcdef-0123456789abcdef"
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>&lt;'{{7*7}}"
BROWSER = {"Accept": "text/html,application/xhtml+xml"}
UNTIL = datetime(2026, 11, 1, tzinfo=UTC)
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e9) SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(60)",
}


class Site:
    """A running page and how to ask it."""

    def __init__(self, lifecycle: Lifecycle, page: app.Page, port: int) -> None:
        self.lifecycle = lifecycle
        self.page = page
        self.port = port
        self.origin = f"http://127.0.0.1:{port}"

    def get(self, path: str, *, method: str = "GET", **more: Any) -> requests.Response:
        """Ask, following no redirect."""
        return requests.request(method, self.origin + path, timeout=30, allow_redirects=False, **more)

    def text(self, path: str) -> str:
        """Give a page as its text, without markup."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return " ".join(_Parsed(answer.text).text.split())


class _Parsed(HTMLParser):
    """A page as a browser reads it: its text, elements and attributes."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.text, self.elements = "", list[tuple[str, dict[str, str | None]]]()
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@contextmanager
def opened(url: str, client: ZocdocClient | None = None, **options: Any) -> Iterator[Site]:
    """Serve the page alone, in a thread."""
    with Lifecycle(url, zocdoc=client, timing=FAST) as lifecycle:
        page = app.Page(lifecycle, **options)
        with serving.running(app.create_app(page)) as port:
            yield Site(lifecycle, page, port)


@pytest.fixture
def site(database_url: str, client: ZocdocClient) -> Iterator[Site]:
    """The page on both databases in turn."""
    with opened(database_url, client) as made:
        yield made


@pytest.fixture
def told(site: Site, sandbox: Sandbox) -> str:
    """An appointment with a story: confirmed, refused, cancelled."""
    appointment_id = support.tracked(site.lifecycle, sandbox, provider_location_id="pr_a|lo_b")
    site.lifecycle.confirm(appointment_id, actor="user:17")
    with pytest.raises(errors.TransitionRefused):
        site.lifecycle.confirm(appointment_id, actor=HOSTILE)
    site.lifecycle.cancel(appointment_id, actor="job:nightly", reason_type="provider_not_available", reason="secret")
    return appointment_id


@pytest.fixture(scope="module")
def filled_url(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> str:
    """An SQLite file with 1,000 sample appointments; it is only read."""
    path = tmp_path_factory.mktemp("filled") / "filled.db"
    path.write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{path}")
    bulk.generate(database, appointments=1_000, seed=7, until=UNTIL)
    database.close()
    return f"sqlite:///{path}"


PATHS = ("/", "/events", "/events.csv", "/tables/transitions.csv", "/tables/nope.csv", "/page.css", "/nope", "/?x=1")


@pytest.mark.parametrize("path", [*PATHS, "/appointments/nope", "/appointments/a%20b", "/login"])
def test_every_answer_has_the_headers(sqlite_url: str, path: str) -> None:
    """Pages, files, refusals and failures, with a token and without."""
    with opened(sqlite_url) as open_site, opened(sqlite_url, token=TOKEN) as closed_site:
        for asked in (
            open_site.get(path),
            closed_site.get(path),
            open_site.get(path, headers={"Host": "evil.example"}),
        ):
            assert asked.headers["Content-Security-Policy"] == POLICY
            assert asked.headers["X-Content-Type-Options"] == "nosniff"
            assert asked.headers["X-Frame-Options"] == "DENY"
            assert asked.headers["Referrer-Policy"] == "no-referrer"
            assert asked.headers["Cache-Control"] == "no-store"
            assert asked.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "Server" not in asked.headers
            assert "Access-Control-Allow-Origin" not in asked.headers


@pytest.mark.parametrize("path", ["/", "/events", "/appointments/nope", "/?since=nope", "/nope"])
def test_pages_hold_nothing_that_the_policy_forbids(sqlite_url: str, path: str) -> None:
    """No script, no inline style, no event handler, nothing of another server; a language, a title, one h1."""
    with opened(sqlite_url) as site:
        found = _Parsed(site.get(path).text)
    names = {tag for tag, _ in found.elements}
    assert not names & {"script", "style", "iframe", "object", "embed", "base"}
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("href", "src", "action"):
            assert re.fullmatch(r"#.*|/(?!/).*|data:,", attributes.get(name) or "#")
    assert found.of("html") == [{"lang": "en"}]
    assert [name for name, _ in found.elements if name in {"title", "body"}][:2] == ["title", "body"]
    assert len(found.of("h1")) == len(found.of("main")) == 1
    labelled = {each["for"] for each in found.of("label")}
    assert {each["id"] for each in found.of("input", "select") if each.get("type") != "hidden"} <= labelled


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_only_get_and_head_exist(sqlite_url: str, method: str) -> None:
    """405 for whatever else, on every path of the page."""
    with opened(sqlite_url) as site:
        for path in ("/", "/events", "/events.csv", "/tables/funnel.csv", "/appointments/x", "/page.css"):
            assert site.get(path, method=method).status_code == 405
        head = site.get("/events", method="HEAD")
    assert (head.status_code, head.content) == (200, b"")


def test_the_story_tells_each_step(site: Site, told: str) -> None:
    """What happened in words, by whom, in the order of the trail; what is escaped reads as it was written."""
    text = site.text(f"/appointments/{told}")
    steps = ["First read from Zocdoc", "Confirm was applied", "Confirm was refused", "Cancel was applied"]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
    assert HOSTILE in text
    assert "provider not available" in text.replace("_", " ")
    assert "secret" not in text


def test_hostile_texts_are_text(site: Site, told: str, sandbox: Sandbox) -> None:
    """Markup in an actor, a location and a status stands there as text, in every page."""
    odd = support.tracked(site.lifecycle, sandbox, status=f"x{HOSTILE}"[:60], provider_location_id=HOSTILE)
    for path in ("/events", f"/appointments/{told}", f"/appointments/{odd}", "/", "/events?" + _query(actor=HOSTILE)):
        found = _Parsed(site.get(path).text)
        assert not found.of("script", "img")
        assert not [each for _, each in found.elements if {"onerror", "onload"} & each.keys()]
    assert HOSTILE in site.text("/events")


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"since": "nope"}, "since: use ISO 8601"),
        ({"until": "2026-13-01"}, "until: use ISO 8601"),
        ({"since": "2026-03-08T02:30", "time_zone": "America/New_York"}, "does not exist in America/New_York"),
        ({"since": "2026-11-01T01:30", "time_zone": "America/New_York"}, "exists twice"),
        ({"time_zone": "Mars/Olympus"}, "there is no such time zone"),
        ({"time_zone": "../../etc/passwd"}, "there is no such time zone"),
        ({"appointment_id": "../x"}, "appointment_id"),
        ({"actor": "\x00"}, "actor"),
        ({"actor": "a" * 301}, "actor: at most 300 characters"),
        ({"since": "2026-02-01", "until": "2026-01-01"}, "ends before it begins"),
        ({"cursor": HOSTILE}, "cursor"),
        ({HOSTILE: "x"}, "no such filter"),
    ],
)
def test_what_cannot_be_meant_is_told(sqlite_url: str, query: dict[str, str], wanted: str) -> None:
    """400, what is wrong in words, and the form with what was typed, as text."""
    with opened(sqlite_url) as site:
        answer = site.get("/events?" + _query(**query))
    found = _Parsed(answer.text)
    assert answer.status_code == 400
    assert wanted in found.text
    assert not found.of("script", "img")
    for name, value in query.items():
        shown = [each for each in found.of("input") if each.get("name") == name]
        assert [each.get("value") for each in shown] in ([value.replace("\x00", r"\x00")], [], [None])


def test_a_filter_that_is_given_twice_is_told(sqlite_url: str) -> None:
    """Nobody knows which one was meant."""
    with opened(sqlite_url) as site:
        assert "given twice" in site.get("/events?actor=a&actor=b").text


@pytest.mark.parametrize(
    "value",
    ["' OR 1=1 --", "'; DROP TABLE lifecycle_audit_events; --", "%", "_", "\\", "user:1_", "US\N{SUPERSCRIPT ONE}"],
)
def test_injections_match_nothing(site: Site, told: str, value: str) -> None:
    """A filter is compared as it is; nothing of it is SQL or a pattern."""
    assert told[:8] in site.text("/events")
    for name in ("actor", "status", "source", "provider_location_id", "event", "command", "outcome"):
        assert "No event matches" in site.text("/events?" + _query(**{name: value}))
        assert site.get("/tables/refusals.csv?" + _query(**{name: value})).text.count("\n") == 1
        assert site.get("/?" + _query(**{name: value})).status_code == 200
    assert told[:8] in site.text("/events")


def test_filters_choose(site: Site, told: str, sandbox: Sandbox) -> None:
    """Each filter alone, and together; times in the zone that is asked for."""
    other = support.tracked(site.lifecycle, sandbox, provider_location_id="pr_c|lo_d")
    for query, count in (
        ({"actor": "job:nightly"}, 2),
        ({"actor": HOSTILE}, 1),
        ({"appointment_id": told}, 6),
        ({"appointment_id": other}, 1),
        ({"provider_location_id": "pr_c|lo_d"}, 1),
        ({"command": "confirm", "outcome": "refused"}, 1),
        ({"event": "command_applied", "status": "cancelled"}, 1),
        ({"until": "2020-01-01"}, 0),
        ({"since": "2020-01-01", "source": "api"}, 7),
    ):
        rows = list(csv.reader(io.StringIO(site.get("/events.csv?" + _query(**query)).text)))
        assert len(rows) - 1 == count, query
    recorded = site.lifecycle.history(other)[0].recorded_at
    shown = site.text("/events?" + _query(appointment_id=other, time_zone="Asia/Kathmandu"))
    minutes = (recorded.hour * 60 + recorded.minute + 5 * 60 + 45) % 1440
    assert f"{minutes // 60:02}:{minutes % 60:02}" in shown


def test_paging_shows_every_event_once(filled_url: str) -> None:
    """Older and older to the end, then newer and newer back to the beginning."""
    with opened(filled_url) as site:
        query = "?since=2026-10-15&until=2026-11-01"
        expected = site.get(f"/events.csv{query}").text.count("\n") - 1
        seen, path = list[str](), f"/events{query}"
        while path:
            found = _Parsed(site.get(path).text)
            seen += [each["datetime"] or "" for each in found.of("time")]
            path = next((each["href"] or "" for each in found.of("a") if each.get("rel") == "next"), "")
            back = next((each["href"] or "" for each in found.of("a") if each.get("rel") == "prev"), "")
        assert len(seen) == expected > 300
        assert seen == sorted(seen, reverse=True)
        earlier = [each["datetime"] for each in _Parsed(site.get(back).text).of("time")]
        assert len(earlier) == 100
        assert earlier[-1] >= seen[-1]  # type: ignore[operator] # texts


def test_the_download_is_the_trail(site: Site, told: str) -> None:
    """Every column of every event, newest first; a cell that a spreadsheet would run is text."""
    with pytest.raises(errors.TransitionRefused):
        site.lifecycle.confirm(told, actor="=cmd|' /C calc'!A0")
    answer = site.get("/events.csv")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="events.csv"'
    assert answer.headers["Content-Type"].startswith("text/csv; charset=utf-8")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    history = site.lifecycle.history(told)[::-1]
    assert [int(row["seq"]) for row in rows] == [event.seq for event in history]
    assert [row["hash"] for row in rows] == [event.hash for event in history]
    assert rows[0]["actor"] == "'=cmd|' /C calc'!A0"
    assert [row["conforming"] for row in rows] == ["true"] * len(rows)
    assert rows[1]["recorded_at"] == history[1].recorded_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert rows[-1]["command"] == ""


@pytest.mark.parametrize("name", ["transitions", "funnel", "cancellations", "refusals"])
def test_the_tables_are_the_views(site: Site, told: str, database_url: str, name: str) -> None:
    """The head is the view's columns, and there are as many rows; they are of the chosen events only."""
    assert told
    rows = list(csv.DictReader(io.StringIO(site.get(f"/tables/{name}.csv").text)))
    view = support.query(database_url, f"SELECT * FROM lifecycle_{name}")  # noqa: S608 # a table of ours
    assert len(rows) == len(view) > 0
    assert rows[0].keys() == view[0].keys()
    assert len(site.get(f"/tables/{name}.csv?until=2020-01-01").text.splitlines()) == 1


def test_a_long_download_takes_little_memory(filled_url: str) -> None:
    """It is read and sent a thousand events at a time."""
    with opened(filled_url) as site:
        site.get("/events.csv?since=2026-10-31&until=2026-11-01")
        tracemalloc.start()
        try:
            with requests.get(f"{site.origin}/events.csv?since=2020-01-01", stream=True, timeout=60) as answer:
                size = sum(map(len, answer.iter_content(65536)))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert size > 1_500_000
    assert peak < 8_000_000


def test_a_download_that_breaks_does_not_end_in_order(filled_url: str) -> None:
    """Half a file that looked whole would be taken for the truth."""
    with opened(filled_url) as site, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(30)
        slow.connect(("127.0.0.1", site.port))
        slow.sendall(f"GET /events.csv?since=2020-01-01 HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n\r\n".encode())
        received = slow.recv(1000)
        assert received.startswith(b"HTTP/1.1 200")
        site.page.close()  # three thousand events are still to be read
        try:
            while more := slow.recv(65536):
                received = received[-10:] + more
        except ConnectionResetError:
            pass
    assert not received.endswith(b"0\r\n\r\n")


def test_nothing_is_written(sqlite_url: str, client: ZocdocClient, sandbox: Sandbox) -> None:
    """Whatever is asked for, the database stands as it stood, to its own count of changes."""
    with opened(sqlite_url, client) as site:
        told = support.tracked(site.lifecycle, sandbox)
        engine = sa.create_engine(sqlite_url)
        with engine.connect() as connection:
            before = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
            for path in (*PATHS, f"/appointments/{told}", "/events?actor='; DELETE FROM lifecycle_appointments; --"):
                site.get(path)
            assert connection.exec_driver_sql("PRAGMA data_version").scalar_one() == before
            site.lifecycle.confirm(told, actor="user:1")  # the connections that read can write again
            assert connection.exec_driver_sql("PRAGMA data_version").scalar_one() != before
        engine.dispose()


@pytest.mark.parametrize("statement", ["UPDATE lifecycle_appointments SET version = 2", "CREATE TABLE x (y INTEGER)"])
def test_the_database_itself_refuses_to_write(database_url: str, statement: str) -> None:
    """What the page reads through cannot write, should there ever be a statement that tries."""
    database = Database(database_url)
    bounded = Bounded(database, seconds=5)
    with pytest.raises(errors.DatabaseUnavailable), bounded.read() as connection:
        connection.exec_driver_sql(statement)
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE x (y INTEGER)")
        connection.exec_driver_sql("DROP TABLE x")
    database.close()


def test_a_read_ends_at_its_deadline(database_url: str) -> None:
    """Inside of one statement, and between two; the connection is sound afterwards."""
    database = Database(database_url)
    bounded = Bounded(database, seconds=0.3)
    begun = time.monotonic()
    with pytest.raises(TooSlow), bounded.read() as connection:
        connection.exec_driver_sql(SLOW[database.engine.dialect.name])
    assert time.monotonic() - begun < 30
    with bounded.read() as connection:
        time.sleep(0.4)
        with pytest.raises(TooSlow):
            connection.exec_driver_sql("SELECT 1")
    with Bounded(database, seconds=30).read() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    database.close()


def test_a_read_ends_when_the_server_stops(database_url: str) -> None:
    """At once, however much time it had; and nothing is read any more."""
    database = Database(database_url)
    bounded = Bounded(database, seconds=60)
    threading.Timer(0.3, bounded.interrupt).start()
    begun = time.monotonic()
    with pytest.raises(TooSlow), bounded.read() as connection:
        connection.exec_driver_sql(SLOW[database.engine.dialect.name])
    assert time.monotonic() - begun < 30
    with pytest.raises(TooSlow), bounded.read() as connection:
        connection.execute(sa.text("SELECT 1"))
    database.close()


def test_a_question_sees_one_snapshot(site: Site, told: str) -> None:
    """What is recorded while its figures are counted is in none of them, or in all."""
    bounded = Bounded(site.lifecycle.database, seconds=5)
    count = sa.text("SELECT count(*) FROM lifecycle_audit_events")
    with bounded.read() as connection:
        before = connection.execute(count).scalar_one()
        with pytest.raises(errors.TransitionRefused):
            site.lifecycle.confirm(told, actor="user:1")
        assert connection.execute(count).scalar_one() == before
    with bounded.read() as connection:
        assert connection.execute(count).scalar_one() == before + 1


def test_too_much_is_told_and_the_next_question_is_answered(filled_url: str) -> None:
    """503 and what to do, when counting takes too long."""
    with opened(filled_url, seconds=0.01) as site:
        answer = site.get("/?since=2000-01-01")
        assert answer.status_code == 503
        assert "narrow the window" in answer.text
    with opened(filled_url) as site:
        assert site.get("/?since=2026-10-30").status_code == 200


def test_a_database_that_is_away_is_told(database_url: str) -> None:
    """503 in words, and 200 again when it is back."""
    with opened(database_url) as site:
        assert site.get("/events").status_code == 200
        support.query(database_url, "ALTER TABLE lifecycle_audit_events RENAME TO away")
        answer = site.get("/events")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert "does not answer" in answer.text
        support.query(database_url, "ALTER TABLE away RENAME TO lifecycle_audit_events")
        assert site.get("/events").status_code == 200


def test_an_address_that_is_none_is_not_found(sqlite_url: str) -> None:
    """404, for appointments too; a slash more is another address."""
    with opened(sqlite_url) as site:
        for path in ("/nope", "/events/", "/appointments/", "/appointments/nope", "/page.css/", "/login"):
            answer = site.get(path)
            assert (answer.status_code, "No such" in answer.text) == (404, True)


def test_other_names_and_proxies_are_refused_without_a_token(sqlite_url: str) -> None:
    """A hostile site that gave its name our address reads nothing, nor does whoever comes through a proxy."""
    with opened(sqlite_url) as site:
        for headers in (
            {"Host": "evil.example"},
            {"Host": f"evil.example:{site.port}"},
            {"X-Forwarded-For": "1.2.3.4"},
        ):
            for path in ("/", "/events.csv", "/appointments/x"):
                assert site.get(path, headers=headers).status_code == 403
        for host in ("localhost", "127.0.0.1", "[::1]"):
            assert site.get("/", headers={"Host": f"{host}:{site.port}"}).status_code == 200
        assert site.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}).status_code == 403


def test_with_a_token_nothing_is_shown_without_it(sqlite_url: str) -> None:
    """Programs get 401, browsers the form; a bearer token opens, in no address and no body."""
    with opened(sqlite_url, token=TOKEN) as site:
        for path in ("/", "/events", "/events.csv", "/tables/funnel.csv", "/appointments/x"):
            refused = site.get(path)
            assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, 'Bearer realm="lifecycle"')
            sent = site.get(f"{path}?token={TOKEN}", headers=BROWSER)
            assert (sent.status_code, sent.headers["Location"].startswith("/login?wanted=")) == (303, True)
        assert site.get("/", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert site.get("/", headers={"Authorization": f"Bearer {TOKEN}x"}).status_code == 401


def test_signing_in_and_out(sqlite_url: str) -> None:
    """The form gives a cookie that scripts and other sites cannot use, and leads to where one wanted to go."""
    with opened(sqlite_url, token=TOKEN) as site, requests.Session() as browser:
        form = browser.get(f"{site.origin}/events?actor=user:17", headers=BROWSER, timeout=9)
        wanted = [each["value"] for each in _Parsed(form.text).of("input") if each["name"] == "wanted"]
        assert wanted == ["/events?actor=user:17"]
        login = {"url": f"{site.origin}/login", "timeout": 9, "allow_redirects": False}
        wrong = browser.post(**login, data={"token": TOKEN[:-1], "wanted": wanted[0]})  # type: ignore[arg-type]
        assert (wrong.status_code, "not the token" in wrong.text, "Set-Cookie" in wrong.headers) == (403, True, False)
        right = browser.post(**login, data={"token": TOKEN, "wanted": wanted[0]})  # type: ignore[arg-type]
        assert (right.status_code, right.headers["Location"]) == (303, wanted[0])
        cookie = right.headers["Set-Cookie"]
        assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
        assert TOKEN not in cookie
        assert "Secure" not in cookie  # this one came without TLS
        inside = browser.get(f"{site.origin}/events", headers=BROWSER, timeout=9)
        assert (inside.status_code, "Sign out" in inside.text) == (200, True)
        browser.post(**login, data={"leave": "yes"})  # type: ignore[arg-type]
        assert browser.get(f"{site.origin}/events", timeout=9).status_code == 401


def test_signing_in_leads_nowhere_else_and_takes_no_odd_forms(sqlite_url: str) -> None:
    """Not to another server, not from another site, not with a megabyte."""
    with opened(sqlite_url, token=TOKEN) as site:
        away = site.get("/login", method="POST", data={"token": TOKEN, "wanted": "//evil.example"})
        assert (away.status_code, away.headers["Location"]) == (303, "/")
        assert "evil" not in site.get("/login?wanted=https://evil.example").text
        foreign = site.get("/login", method="POST", data={"token": TOKEN}, headers={"Sec-Fetch-Site": "cross-site"})
        assert (foreign.status_code, "Set-Cookie" in foreign.headers) == (403, False)
        for odd in (b"x" * 5000, b"\xff\xfe", b"&".join([b"a=b"] * 50)):
            assert site.get("/login", method="POST", data=odd).status_code == 400
        for _ in range(8):
            last = site.get("/login", method="POST", data={"token": "wrong"})
        assert (last.status_code, last.headers["Retry-After"]) == (429, "5")


def test_logs_hold_neither_tokens_nor_addresses(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, of every library, for what is shown, refused and failed."""
    with caplog.at_level(logging.DEBUG), opened(sqlite_url, token=TOKEN) as site:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        for path in ("/events?actor=canary-actor", "/appointments/canary-id", "/canary", "/?since=canary"):
            site.get(path, headers=bearer)
            site.get(path, headers={"Authorization": "Bearer canary-wrong"})
        site.get("/login", method="POST", data={"token": TOKEN})
        support.query(sqlite_url, "ALTER TABLE lifecycle_audit_events RENAME TO away")
        site.get("/events?actor=canary-actor", headers=bearer)
        support.query(sqlite_url, "ALTER TABLE away RENAME TO lifecycle_audit_events")
    assert "page_failed" in [record.message for record in caplog.records]
    for record in caplog.records:
        if not record.name.startswith("urllib3"):  # the caller's own
            assert not re.search(f"canary|{TOKEN}", str(vars(record)))


def test_the_door_answers_while_the_page_waits(postgres_url: str) -> None:
    """The page's threads hang at a lock, a crowd waits for them: deliveries are stored as quickly as ever."""
    engine = sa.create_engine(postgres_url)
    with Lifecycle(postgres_url, webhook_keys=[KEY]) as lifecycle:
        site_of = server.create_app(lifecycle, page=app.Page(lifecycle, seconds=3.0))
        with serving.running(site_of) as port, ThreadPoolExecutor(8) as crowd, engine.begin() as holder:
            origin = f"http://127.0.0.1:{port}"
            assert requests.get(f"{origin}/events", timeout=9).status_code == 200
            holder.exec_driver_sql("LOCK TABLE lifecycle_audit_events IN ACCESS EXCLUSIVE MODE")
            asked = [crowd.submit(requests.get, f"{origin}/events", timeout=30) for _ in range(8)]
            time.sleep(0.5)
            took = []
            for number in range(5):
                content, begun = body(UNTRACKED, number=number), time.monotonic()
                answer = requests.post(f"{origin}{server.PATH}", content, headers=signed(content), timeout=9)
                assert answer.status_code == 200
                took.append(time.monotonic() - begun)
            assert statistics.median(took) < 1.0
            told = [each.result() for each in asked]
        assert {each.status_code for each in told} == {503}
        assert len(list(lifecycle.deliveries())) == 5
    engine.dispose()


def test_a_crowd_is_told_at_once(sqlite_url: str) -> None:
    """Two read, sixteen wait, the others hear that it is busy; who waited in vain hears it too."""
    held = threading.Event()

    async def crowd() -> list[Any]:
        readers = reading.Readers(Database(sqlite_url), seconds=0.5)
        asked = [asyncio.ensure_future(readers.read(lambda _: held.wait(60))) for _ in range(20)]
        at_once, left = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        assert [type(each.exception()) for each in at_once] == [reading.TooBusy] * 2
        while len(left) > 2:
            _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        held.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert await readers.read(lambda _: "free again") == "free again"
        readers.close()
        with pytest.raises(reading.TooBusy):
            await readers.read(lambda _: "closed")
        return [True if each is True else type(each) for each in found]

    found = asyncio.run(crowd())
    assert sorted(map(str, found)) == sorted(map(str, [True] * 2 + [reading.TooBusy] * 18))


def test_without_a_page_there_is_nothing_but_the_door(sqlite_url: str) -> None:
    """An application that mounts a door does not thereby publish a trail; with one the door stands as before."""
    with Lifecycle(sqlite_url, webhook_keys=[KEY]) as lifecycle:
        with serving.running(server.create_app(lifecycle)) as port:
            for path in ("/", "/events", "/events.csv", "/page.css", "/login"):
                assert requests.get(f"http://127.0.0.1:{port}{path}", timeout=9).status_code == 404
        with serving.running(server.create_app(lifecycle, page=app.Page(lifecycle))) as port:
            origin = f"http://127.0.0.1:{port}"
            assert requests.get(f"{origin}/", timeout=9).status_code == 200
            assert requests.get(f"{origin}{server.PATH}", timeout=9).status_code == 405
            assert requests.post(f"{origin}{server.PATH}/", b"", timeout=9).status_code == 404
            assert requests.post(f"{origin}{server.PATH}", b"x", timeout=9).status_code == 401
            assert requests.get(f"{origin}/healthz", timeout=9).json()["database"] == "ok"


@pytest.mark.parametrize("token", ["short", "a b" * 20])
def test_a_token_that_is_none_is_refused(sqlite_url: str, token: str) -> None:
    """Before anything is served."""
    with Lifecycle(sqlite_url) as lifecycle, pytest.raises(errors.ConfigurationError):
        app.Page(lifecycle, token=token)


@contextmanager
def _served(url: str, *options: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run `lifecycle serve` and give what it says at its start."""
    command = [sys.executable, "-m", "lifecycle", "serve", "--port", "0", *options]
    environment = support.environment(LIFECYCLE_DATABASE_URL=url, **environ)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)  # noqa: S603 # our own
    assert process.stderr is not None
    try:
        said = [process.stderr.readline()]
        said += [process.stderr.readline()] if said[0].startswith("listening") else process.stderr.readlines()
        yield process, said
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_the_command_serves_the_page_alone(sqlite_url: str) -> None:
    """No keys, no Zocdoc, only the database; it tells where it is, and stops at a signal while it reads."""
    with _served(sqlite_url, "--page-only", "--time-zone", "America/New_York") as (process, said):
        origin = said[0].split()[-1]
        assert said == [f"listening on {origin}\n", f"the page is at {origin}\n"]
        answer = requests.get(f"{origin}events", timeout=9)
        assert (answer.status_code, 'value="America/New_York"' in answer.text) == (200, True)
        assert requests.post(f"{origin}webhooks/zocdoc", b"", timeout=9).status_code == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


@pytest.mark.parametrize(
    ("options", "environ", "wanted"),
    [
        (("--page-only", "--host", "0.0.0.0"), {}, "set LIFECYCLE_PAGE_TOKEN"),  # noqa: S104 # that it is refused
        (("--page-only",), {"LIFECYCLE_PAGE_TOKEN": "canary"}, "LIFECYCLE_PAGE_TOKEN needs 32 to 512"),
        (("--page-only", "--no-page"), {}, "leave nothing to serve"),
        (("--page-only", "--time-zone", "Mars"), {}, "no such time zone"),
        ((), {}, "set LIFECYCLE_WEBHOOK_KEYS"),
    ],
)
def test_the_command_does_not_start_unsafely(
    sqlite_url: str, options: tuple[str, ...], environ: dict[str, str], wanted: str
) -> None:
    """One line that says what to set, and exit code 2; never the token."""
    with _served(sqlite_url, *options, **environ) as (process, said):
        assert process.wait(timeout=20) == 2
        assert wanted in "".join(said)
        assert "canary" not in "".join(said)


def test_on_an_address_for_others_the_door_goes_without_the_page(sqlite_url: str) -> None:
    """It says so; with a token, from a file, the page is there and asks for it."""
    keys = {"LIFECYCLE_WEBHOOK_KEYS": KEY, "LIFECYCLE_ZOCDOC_BASE_URL": "http://127.0.0.1:1"}
    keys |= {"LIFECYCLE_ZOCDOC_ACCESS_TOKEN": "x", "LIFECYCLE_ZOCDOC_TOKEN_URL": "http://127.0.0.1:1/token"}
    with _served(sqlite_url, "--host", "0.0.0.0", **keys) as (_, said):  # noqa: S104 # that is what is tested
        assert "the page is not served" in said[1]
        port = said[0].split(":")[-1].split("/")[0]
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=9).status_code == 404
        assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=9).status_code == 200
    with _served(sqlite_url, "--host", "0.0.0.0", LIFECYCLE_PAGE_TOKEN=TOKEN, **keys) as (_, said):  # noqa: S104 # as above
        port = said[0].split(":")[-1].split("/")[0]
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=9).status_code == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert requests.get(f"http://127.0.0.1:{port}/", headers=bearer, timeout=9).status_code == 200


def _query(**words: str) -> str:
    return urlencode(words)
