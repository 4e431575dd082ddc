"""The probe of a worker: two questions, two answers, and nothing of the caller's is said or logged."""

from __future__ import annotations

import json
import socket
import time
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle.working.health import Health, probe
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator

FACTS: dict[str, Any] = {
    "engine": "up",
    "beat_seconds": 0.5,
    "in_flight": 3,
    "oldest_due_seconds": None,
}


def ask(port: int, path: str, method: str = "GET") -> tuple[int, Any]:
    """Call the probe; give the status and what the JSON says."""
    connection = HTTPConnection("127.0.0.1", port, timeout=support.PATIENCE)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        content = response.read()
        return response.status, json.loads(content) if response.status != 501 else None
    finally:
        connection.close()


@pytest.fixture
def state() -> list[Health]:
    """How the worker is at the moment; the last one counts."""
    return [Health(is_alive=True, is_ready=True, **FACTS)]


@pytest.fixture
def port(state: list[Health]) -> Iterator[int]:
    """The probe's port."""
    with probe(lambda: state[-1], host="127.0.0.1", port=0) as taken:
        yield taken


def test_a_worker_that_is_well(port: int) -> None:
    """Both questions get 200, and all facts."""
    expected = {"is_alive": True, "is_ready": True, **FACTS}
    assert ask(port, "/healthz") == ask(port, "/livez") == (200, expected)


def test_a_worker_whose_database_is_away(port: int, state: list[Health]) -> None:
    """It is not ready, but a restart would not help."""
    state.append(Health(is_alive=True, is_ready=False, **FACTS))
    assert (ask(port, "/healthz")[0], ask(port, "/livez")[0]) == (503, 200)


def test_a_worker_that_hangs(port: int, state: list[Health]) -> None:
    """It is neither."""
    state.append(Health(is_alive=False, is_ready=False, **FACTS))
    assert (ask(port, "/healthz")[0], ask(port, "/livez")[0]) == (503, 503)


def test_anything_else_is_not_there(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Other paths and methods get an error, and nobody is told of them."""
    assert ask(port, "/healthz?x=Canary") == (404, {})
    assert ask(port, "/healthz", "POST")[0] == 501
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"Canary\r\n\r\n")
        connection.recv(1000)
    assert capsys.readouterr() == ("", "")


def test_answers_come_at_once(port: int) -> None:
    """Of a hundred probes over one connection many are answered before a delayed acknowledgement, which takes 40 ms."""
    times = []
    with closing(HTTPConnection("127.0.0.1", port, timeout=support.PATIENCE)) as connection:
        for _ in range(100):
            begun = time.monotonic()
            connection.request("GET", "/livez")
            connection.getresponse().read()
            times.append(time.monotonic() - begun)
    assert sorted(times)[20] < 0.03
