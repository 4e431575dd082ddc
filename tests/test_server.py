"""The door: what is stored is answered, what cannot be stored is not; nothing that a sender chose is kept or told."""

from __future__ import annotations

import json
import logging
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import requests

from lifecycle import Lifecycle, server, serving
from tests import support
from tests.conftest import FAST
from tests.test_inbox import KEY, OTHER, body, signed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lifecycle import ZocdocClient
    from lifecycle.sandbox import Sandbox, Server

CANARY = "Jane-Canary"
UNTRACKED = "0b9c3f4e-1111-4222-8333-000000000001"


class Door:
    """A running door and how to call it."""

    def __init__(self, lifecycle: Lifecycle, url: str, port: int, app: Any) -> None:
        self.lifecycle = lifecycle
        self.database_url = url
        self.port = port
        self.app = app

    def post(self, content: bytes, headers: dict[str, str], path: str = server.PATH) -> int:
        """Deliver and give the status."""
        return requests.post(f"http://127.0.0.1:{self.port}{path}", content, headers=headers, timeout=20).status_code

    def raw(self, content: bytes, *, seconds: float, has_left: threading.Event | None = None) -> tuple[bytes, float]:
        """Deliver over a bare socket; give every byte that came within the time, and how long the connection lasted."""
        head = "".join(f"{name}: {value}\r\n" for name, value in signed(content).items())
        sent = f"POST {server.PATH} HTTP/1.1\r\nHost: door\r\nContent-Length: {len(content)}\r\n{head}\r\n".encode()
        begun, found = time.monotonic(), b""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(sent + content)
            if has_left is not None:
                has_left.set()
            while (left := begun + seconds - time.monotonic()) > 0:
                connection.settimeout(left)
                try:
                    more = connection.recv(65536)
                except (TimeoutError, ConnectionResetError):
                    break
                if not more:
                    break
                found += more
        return found, time.monotonic() - begun

    def rows(self) -> list[tuple[str, str | None]]:
        """Give what is in the inbox."""
        return [(each.state, each.appointment_id) for each in self.lifecycle.deliveries()]


@contextmanager
def opened(url: str, client: ZocdocClient | None, **options: Any) -> Iterator[Door]:
    """Run a door in a thread."""
    with Lifecycle(url, zocdoc=client, timing=FAST, webhook_keys=[KEY, OTHER]) as lifecycle:
        app = server.create_app(lifecycle, recover_every=1.0, **options)
        with serving.running(app) as port:
            yield Door(lifecycle, url, port, app)


@pytest.fixture
def door(sqlite_url: str, client: ZocdocClient) -> Iterator[Door]:
    """A door on SQLite."""
    with opened(sqlite_url, client) as made:
        yield made


def test_a_change_is_followed_within_a_second(database_url: str, client: ZocdocClient, sandbox: Sandbox) -> None:
    """The call is stored and answered; soon after the appointment stands here as at Zocdoc."""
    with opened(database_url, client) as door:
        appointment_id = support.tracked(door.lifecycle, sandbox, status="confirmed")
        took: list[float] = []
        while not took or (took[-1] > 1.5 and len(took) < 4):  # a machine that stalls makes it longer, not shorter
            status = ("cancelled", "confirmed")[len(took) % 2]
            sandbox.change(appointment_id, status=status)
            content = body(appointment_id, number=len(took))
            begun = time.monotonic()
            answer = requests.post(
                f"http://127.0.0.1:{door.port}{server.PATH}", content, headers=signed(content), timeout=9
            )
            assert (answer.status_code, answer.content) == (200, b"{}")
            support.until(lambda status=status: door.lifecycle.get(appointment_id).status == status)  # type: ignore[misc]
            took.append(time.monotonic() - begun)
        assert took[-1] < 1.5
        support.until(lambda: door.rows() == [("followed", appointment_id)] * len(took))


def test_the_stand_ins_own_calls_are_followed(door: Door, sandbox: Sandbox) -> None:
    """The stand-in signs and calls as Zocdoc does, with code of its own."""
    appointment_id = support.tracked(door.lifecycle, sandbox, status="confirmed")
    sandbox.webhooks.subscribe(f"http://127.0.0.1:{door.port}{server.PATH}", KEY)
    sandbox.change(appointment_id, status="arrived")
    support.until(lambda: door.lifecycle.get(appointment_id).status == "arrived")
    assert [each.update_type for each in door.lifecycle.deliveries()] == ["updated"]


def test_unknown_appointments_are_tracked_if_asked_for(sqlite_url: str, client: ZocdocClient, sandbox: Sandbox) -> None:
    """With `track_unknown` a delivery makes an appointment tracked; without it ends as untracked."""
    appointment_id = sandbox.add(UNTRACKED, status="confirmed")
    with opened(sqlite_url, client) as door:
        content = body(appointment_id)
        assert door.post(content, signed(content)) == 200
        support.until(lambda: door.rows() == [("untracked", appointment_id)])
    with opened(sqlite_url, client, track_unknown=True) as door:
        content = body(appointment_id, number=1)
        assert door.post(content, signed(content)) == 200
        support.until(lambda: [each.appointment_id for each in door.lifecycle.appointments()] == [appointment_id])


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_the_same_call_again_is_stored_once(door: Door, key: str) -> None:
    """Both keys count while they are rotated; copies are counted and answered alike."""
    content = body(UNTRACKED)
    assert [door.post(content, signed(content, key=key)) for _ in range(3)] == [200, 200, 200]
    assert [each.copies for each in door.lifecycle.deliveries()] == [3]


@pytest.mark.parametrize("age", [301, 10**6, -400])
def test_an_authentic_call_of_another_time_is_kept_as_a_hint(door: Door, age: float) -> None:
    """Stale or from the future: stored, marked, answered."""
    content = body(UNTRACKED)
    assert door.post(content, signed(content, age=age)) == 200
    assert [each.is_stale for each in door.lifecycle.deliveries()] == [True]


CONTENT = body(UNTRACKED)
BAD = {
    "bad signature": (CONTENT, signed(CONTENT, key="YQ=="), 401),
    "altered body": (CONTENT + b" ", signed(CONTENT), 401),
    "no signature": (CONTENT, {"Webhook-Timestamp": "1795341600"}, 401),
    "no timestamp": (CONTENT, {"Webhook-Signature": signed(CONTENT)["Webhook-Signature"]}, 401),
    "no header": (CONTENT, {}, 401),
    "another version": (CONTENT, signed(CONTENT) | {"Webhook-Signature": f"v2:{CANARY}"}, 401),
    "malformed signature": (CONTENT, signed(CONTENT) | {"Webhook-Signature": CANARY}, 400),
    "malformed timestamp": (CONTENT, signed(CONTENT) | {"Webhook-Timestamp": CANARY}, 400),
    "another timestamp": (CONTENT, signed(CONTENT) | {"Webhook-Timestamp": "1795341600"}, 401),
    "empty body": (b"", {}, 401),
    "10 MB": (b"x" * 10**7, {}, 413),
    "one byte too many": (b"x" * 65537, {}, 413),
}


@pytest.mark.parametrize("name", BAD)
def test_a_call_that_is_not_zocdocs_changes_nothing(door: Door, name: str) -> None:
    """It is refused with its status, nothing is stored, and nobody is called."""
    content, headers, expected = BAD[name]
    try:
        assert door.post(content, headers) == expected
    except requests.ConnectionError:  # it was refused while it was still being sent
        assert expected == 413
    assert door.rows() == []
    assert list(door.lifecycle.appointments()) == []


ODD = {
    "no JSON": f"{CANARY} <xml/>".encode(),
    "no text": b"\xff\xfe\x00",
    "deep": b'{"event_type":"appointment_updated","data":' + b"[" * 30_000,
    "another event": json.dumps({"event_type": CANARY}).encode(),
    "an id with slashes": body(f"../{CANARY}"),
    "an id too long": body("a" * 65),
    "NaN": b'{"event_type": NaN}',
}


@pytest.mark.parametrize("name", ODD)
def test_an_authentic_call_that_tells_nothing_is_stored_and_ignored(door: Door, name: str) -> None:
    """Odd bodies end as ignored; nothing of them is kept."""
    assert door.post(ODD[name], signed(ODD[name])) == 200
    assert door.rows() == [("ignored", None)]


def test_a_body_in_chunks_is_counted_while_it_comes(door: Door) -> None:
    """Without a length the limit holds as well, and the rest is not read."""
    sent = 0
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as connection:
        connection.sendall(f"POST {server.PATH} HTTP/1.1\r\nHost: door\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        answer = b""
        try:
            while sent < 100 * 10**6:
                connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                sent += 65536
            answer = connection.recv(100)
        except OSError:
            pass
    assert sent < 50 * 10**6
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")
    assert requests.get(f"http://127.0.0.1:{door.port}/healthz", timeout=9).json()["calls"] == {"body_too_large": 1}


def test_a_length_that_is_too_large_is_refused_before_the_body_comes(door: Door) -> None:
    """Not a byte of it is waited for."""
    with socket.create_connection(("127.0.0.1", door.port), timeout=20) as connection:
        connection.sendall(f"POST {server.PATH} HTTP/1.1\r\nHost: door\r\nContent-Length: 10000000\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_header_that_comes_twice_is_refused(door: Door) -> None:
    """Whichever of them is right."""
    head = "".join(f"{name}: {value}\r\n" * 2 for name, value in signed(CONTENT).items())
    sent = f"POST {server.PATH} HTTP/1.1\r\nHost: door\r\nContent-Length: {len(CONTENT)}\r\n{head}\r\n".encode()
    with socket.create_connection(("127.0.0.1", door.port), timeout=20) as connection:
        connection.sendall(sent + CONTENT)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


def test_other_methods_and_paths_do_not_exist(door: Door) -> None:
    """405 and 404, a slash at the end included."""
    base = f"http://127.0.0.1:{door.port}"
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        assert requests.request(method, base + server.PATH, timeout=9).status_code == 405
    assert requests.post(f"{base}/healthz", timeout=9).status_code == 405
    for path in ("/", f"{server.PATH}/", "/webhooks", "/docs", f"/{CANARY}"):
        assert door.post(CONTENT, signed(CONTENT), path) == 404
    assert door.rows() == []


def test_health_tells_counts_and_no_ids(door: Door) -> None:
    """The database's state, what waits, and what was refused since the start, by code."""
    assert door.post(CONTENT, signed(CONTENT)) == 200
    for name in ("bad signature", "no signature", "malformed timestamp"):
        door.post(*BAD[name][:2])
    support.until(lambda: door.rows() == [("untracked", UNTRACKED)])
    answer = requests.get(f"http://127.0.0.1:{door.port}/healthz", timeout=9)
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "database": "ok",
            "waiting": 0,
            "calls": {"stored": 1, "bad_signature": 1, "missing_signature": 1, "malformed_timestamp": 1},
        },
    )


def test_logs_hold_nothing_that_the_sender_chose(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, of every library, for sound, odd and refused calls."""
    with caplog.at_level(logging.DEBUG):
        for content, headers, _ in BAD.values():
            if len(content) < 65536:
                door.post(content, headers | {"User-Agent": CANARY, "X-Other": CANARY})
        for content in ODD.values():
            door.post(content, signed(content), f"{server.PATH}?{CANARY}")
        requests.get(f"http://127.0.0.1:{door.port}/{CANARY}", timeout=9)
        with socket.create_connection(("127.0.0.1", door.port), timeout=20) as connection:
            connection.sendall(f"{CANARY} no HTTP\r\n\r\n".encode())
            connection.recv(100)
    ours = [record for record in caplog.records if record.name.startswith(("lifecycle", "uvicorn", "starlette"))]
    assert {"webhook_refused", "webhook_received"} <= {record.message for record in ours}
    for record in caplog.records:
        if not record.name.startswith("urllib3"):  # the caller's own
            assert CANARY not in str(vars(record))


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Hold SQLite's write lock."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        yield
        holder.execute("ROLLBACK")


def test_what_cannot_be_stored_is_not_answered(door: Door) -> None:
    """The database is locked: not a byte within 6 seconds; delivered again it is stored."""
    with locked(door.database_url):
        found, lasted = door.raw(CONTENT, seconds=6.0)
        assert (found, lasted > 5.9) == (b"", True)
        health = requests.get(f"http://127.0.0.1:{door.port}/healthz", timeout=9).json()["calls"]
        assert health["not_stored"] == 1
    assert door.post(CONTENT, signed(CONTENT)) == 200
    support.until(lambda: door.rows() == [("untracked", UNTRACKED)])


def test_a_held_call_is_cut_without_an_answer(
    sqlite_url: str, client: ZocdocClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the time is over the connection breaks; there is no 500 of the server's own."""
    monkeypatch.setattr(server, "_STORING", 0.2)
    monkeypatch.setattr(server, "_HOLDING", 0.5)
    with opened(sqlite_url, client) as door, locked(door.database_url):
        found, lasted = door.raw(CONTENT, seconds=25.0)
        assert found == b""
        assert 0.6 < lasted < 20.0


def test_a_database_that_is_gone_is_told_and_outlived(sqlite_url: str, client: ZocdocClient, tmp_path: Path) -> None:
    """A file that is no database any more: health says so, a call is held; when it is back the next one is stored."""
    with opened(sqlite_url, client) as door:
        door.post(CONTENT, signed(CONTENT))
        support.until(lambda: door.rows() == [("untracked", UNTRACKED)])
        file = tmp_path / "appointments.db"
        support.query(sqlite_url, "ALTER TABLE lifecycle_webhook_deliveries RENAME TO away")
        content = body(UNTRACKED, number=1)
        assert door.raw(content, seconds=5.5)[0] == b""
        assert requests.get(f"http://127.0.0.1:{door.port}/healthz", timeout=9).status_code == 503
        support.query(sqlite_url, "ALTER TABLE away RENAME TO lifecycle_webhook_deliveries")
        assert file.exists()
        assert door.post(content, signed(content)) == 200
        support.until(lambda: len(door.rows()) == 2)


def test_recovery_runs_beside_the_door(door: Door, sandbox: Sandbox) -> None:
    """A command whose answer was lost is settled without anybody's doing."""
    appointment_id = support.tracked(door.lifecycle, sandbox, status="pending_booking")
    support.lose_answer(sandbox, "confirm", when="after")
    with pytest.raises(Exception, match="unknown outcome"):
        door.lifecycle.confirm(appointment_id, actor="user:1")
    support.until(lambda: not door.lifecycle.get(appointment_id).in_doubt, seconds=8)


def test_many_at_once_are_all_stored(door: Door) -> None:
    """Fifty callers: each gets its answer, each call has its row."""
    contents = [body(UNTRACKED, number=number) for number in range(50)]
    assert support.together(50, lambda index: door.post(contents[index], signed(contents[index]))) == [200] * 50
    assert len(door.rows()) == 50


def test_silent_connections_are_cut(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends nothing, half a header, or half a body, is let go without an answer."""
    monkeypatch.setattr(serving, "_REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(server, "_READING", 0.3)
    head = f"POST {server.PATH} HTTP/1.1\r\nHost: door\r\n".encode()
    for sent in (b"", head, head + b"Content-Length: 10\r\n\r\nabc"):
        with socket.create_connection(("127.0.0.1", door.port), timeout=20) as connection:
            connection.sendall(sent)
            with suppress(ConnectionResetError):
                assert connection.recv(100) == b""


def _environment(url: str, stand_in: Server, **more: str) -> dict[str, str]:
    settings = {
        "LIFECYCLE_DATABASE_URL": url,
        "LIFECYCLE_ZOCDOC_BASE_URL": stand_in.base_url,
        "LIFECYCLE_ZOCDOC_TOKEN_URL": stand_in.token_url,
        "LIFECYCLE_ZOCDOC_CLIENT_ID": "sandbox-client",
        "LIFECYCLE_ZOCDOC_CLIENT_SECRET": "sandbox-secret",
        "LIFECYCLE_WEBHOOK_KEYS": KEY,
    }
    return dict(support.environment(**(settings | more)))


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_and_stops_in_order(sqlite_url: str, server_: Server, sign: signal.Signals) -> None:
    """`lifecycle serve` tells where it listens, logs codes only, cuts what it holds, and ends with 0 at a signal."""
    command = [sys.executable, "-m", "lifecycle", "serve", "--port", "0", "--sync-every", "1"]
    environ = _environment(sqlite_url, server_)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ)  # noqa: S603 # our own
    try:
        assert process.stderr is not None
        port = int(process.stderr.readline().split(":")[-1].split("/")[0])
        with Lifecycle(sqlite_url, webhook_keys=[KEY]) as lifecycle:
            door = Door(lifecycle, sqlite_url, port, None)
            assert door.post(CONTENT, signed(CONTENT)) == 200
            assert door.post(*BAD["malformed signature"][:2]) == 400
            said = []
            for line in process.stderr:  # a sync that meets the lock would not end
                said.append(line)
                if "synchronised" in line:
                    break
            support.until(lambda: door.rows() == [("untracked", UNTRACKED)])
            with locked(sqlite_url):
                has_left, late = threading.Event(), body(UNTRACKED, number=9)
                with support.in_background(lambda: door.raw(late, seconds=40, has_left=has_left)) as held:
                    assert has_left.wait(20)
                    process.send_signal(sign)
            assert held[0][0] == b""
        assert process.wait(timeout=20) == 0
        told = "".join([*said, process.stderr.read()])
    finally:
        process.kill()
        process.stderr.close()  # type: ignore[union-attr]
    assert "warning webhook_refused reason_code=malformed_signature" in told
    assert "info webhook_received" in told
    assert "synchronised" in told
    assert CANARY not in told
    assert "Traceback" not in told


@pytest.fixture
def server_(server: Server) -> Server:
    """The stand-in, under a name that does not hide the module."""
    return server


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [("", "set LIFECYCLE_WEBHOOK_KEYS"), ("a,b", "key 1 of 2 is not base64"), (f"{KEY},", "key 2 of 2 is empty")],
)
def test_the_command_does_not_start_without_sound_keys(
    sqlite_url: str, server_: Server, keys: str, wanted: str
) -> None:
    """Missing, empty or malformed keys: one line that says what to set, and never what was set."""
    environ = _environment(sqlite_url, server_, LIFECYCLE_WEBHOOK_KEYS=keys)
    done = subprocess.run(
        [sys.executable, "-m", "lifecycle", "serve", "--port", "0"],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert wanted in done.stderr
    assert KEY not in done.stderr
    assert len(done.stderr.splitlines()) == 1
