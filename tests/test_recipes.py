"""The README's recipes for web frameworks, run word for word: real servers, real HTTP, a database that fails."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import pytest
import requests

from lifecycle import Lifecycle
from tests import support
from tests.test_inbox import KEY, OTHER, body, signed

if TYPE_CHECKING:
    from collections.abc import Iterator

README: Final = Path(__file__).parent.parent / "README.md"
PATH: Final = "/webhooks/zocdoc"
APPOINTMENT: Final = "0b9c3f4e-1111-4222-8333-000000000001"
CONTENT: Final = body(APPOINTMENT)

SERVED_BY: Final = {
    "flask": """
from werkzeug.serving import make_server
served = make_server("127.0.0.1", 0, app, threaded=True)
print(served.port, flush=True)
served.serve_forever()
""",
    "django": """
import django, sys
from socketserver import ThreadingMixIn
from wsgiref import simple_server
from django.conf import settings
from django.core.wsgi import get_wsgi_application
class Threaded(ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True
settings.configure(ROOT_URLCONF="__main__", ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="only here")
served = simple_server.make_server("127.0.0.1", 0, get_wsgi_application(), server_class=Threaded)
print(served.server_port, flush=True)
served.serve_forever()
""",
    "fastapi": """
import socket, uvicorn
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[listener])
""",
}


def recipe(framework: str) -> str:
    """Give the block of code under its mark in the README."""
    mark = rf"^<!-- recipe: {framework} -->\n```py\n(.*?)^```$"
    (code,) = re.findall(mark, README.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return str(code)


@pytest.fixture(params=sorted(SERVED_BY))
def url(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[str]:
    """A recipe served by a process of its own; gives the route's address."""
    framework = request.param
    program = recipe(framework) + SERVED_BY[framework]
    environ = support.environment(LIFECYCLE_DATABASE_URL=sqlite_url, LIFECYCLE_WEBHOOK_KEYS=f"{OTHER},{KEY}")
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(  # noqa: S603 # the README's own program
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ
    )
    with process:
        assert process.stdout is not None
        try:
            address = f"http://127.0.0.1:{int(process.stdout.readline())}{PATH}"
            support.until(lambda: _answers(address), seconds=20)
            yield address
        finally:
            process.kill()


@pytest.fixture
def inbox(sqlite_url: str) -> Iterator[Lifecycle]:
    """A look at what was stored."""
    with Lifecycle(sqlite_url) as reader:
        yield reader


def _answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).status_code == 405
    except requests.ConnectionError:
        return False


def test_what_is_sound_is_stored_and_what_is_not_is_refused(url: str, inbox: Lifecycle) -> None:
    """200 once it is stored, copies are counted; 401 for what is not Zocdoc's, 413 for what is too large."""
    for key in (KEY, OTHER, KEY):
        assert requests.post(url, CONTENT, headers=signed(CONTENT, key=key), timeout=9).status_code == 200
    assert [(each.appointment_id, each.copies) for each in inbox.deliveries()] == [(APPOINTMENT, 3)]

    other = body(APPOINTMENT, number=1)
    assert requests.post(url, other, headers=signed(CONTENT), timeout=9).status_code == 401
    assert requests.post(url, other, timeout=9).status_code == 401
    large = other + b" " * 65536
    assert requests.post(url, large, headers=signed(large), timeout=9).status_code == 413
    assert len(list(inbox.deliveries())) == 1


def test_what_cannot_be_stored_is_not_answered_in_time(url: str, inbox: Lifecycle, sqlite_url: str) -> None:
    """Not a byte within Zocdoc's 5 seconds; delivered again when the database is back, it is stored."""
    support.query(sqlite_url, "ALTER TABLE lifecycle_webhook_deliveries RENAME TO away")
    assert _first_bytes(url, seconds=5.5) == b""
    support.query(sqlite_url, "ALTER TABLE away RENAME TO lifecycle_webhook_deliveries")
    assert _first_bytes(url, seconds=5.5).startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 "))
    assert [each.copies for each in inbox.deliveries()] == [1]


def _first_bytes(url: str, *, seconds: float) -> bytes:
    """Deliver over a bare socket; give what came first within the time."""
    port = urlsplit(url).port
    head = "".join(f"{name}: {value}\r\n" for name, value in signed(CONTENT).items())
    sent = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(CONTENT)}\r\n{head}\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(sent + CONTENT)
        try:
            return connection.recv(100) or b"the connection was closed"
        except TimeoutError:
            return b""
