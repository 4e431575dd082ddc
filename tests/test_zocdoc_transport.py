"""The wire: hostile answers, TLS, proxies, kept-alive connections, forks, and nothing taken from the environment."""

from __future__ import annotations

import gzip
import http.client
import json
import logging
import os
import shutil
import socket
import ssl
import subprocess
import time
import traceback
import tracemalloc
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import zocdoc
from lifecycle.zocdoc import Applied, NotSent, ReadFailed, Reason, Unknown, ZocdocClient, payloads, wire
from tests import support
from tests.test_zocdoc_server import Server, answer, drip, hang, raw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lifecycle.zocdoc import Outcome
    from tests.test_zocdoc_server import Peer

ID = "d04b049a-41b1-4aba-9268-d8973cf72cdd"
BODY = {"request_id": "rq-1", "data": {"appointment_id": ID, "appointment_status": "confirmed"}}
CONTENT = json.dumps(BODY).encode()
DONE = Applied("confirmed", 200, "rq-1")


def client_of(server: Server, **arguments: Any) -> ZocdocClient:
    """Return a client with a ready token and short waits."""
    given: dict[str, Any] = {"access_token": "tok", "timeout": 2.0, "deadline": 4.0}
    return ZocdocClient(base_url=server.url, **(given | arguments))


def confirmed_by(*steps: Callable[[Peer], None], **arguments: Any) -> Outcome:
    """Confirm against these steps."""
    with Server(*steps) as server, client_of(server, **arguments) as client:
        outcome = client.confirm(ID)
        assert len(server.requests) == 1
        return outcome


def chunks(*parts: bytes) -> bytes:
    """Return a chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


OK = b"HTTP/1.1 200 OK\r\n"
BOMB = gzip.compress(b" " * 50_000_000)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (answer(200, b" " * (1024 * 1024) + CONTENT), Reason.ANSWER_TOO_LARGE),
        (raw(OK + b"\r\n" + b"x" * 3_000_000), Reason.ANSWER_TOO_LARGE),
        (raw(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks(*[b"x" * 65536] * 20)), Reason.ANSWER_TOO_LARGE),
        (answer(200, BOMB, ("Content-Encoding: gzip",)), Reason.ANSWER_TOO_LARGE),
        (answer(200, gzip.compress(BOMB), ("Content-Encoding: gzip, gzip",)), Reason.ANSWER_UNREADABLE),
        (answer(200, CONTENT, ("Content-Encoding: br",)), Reason.ANSWER_UNREADABLE),
        (answer(200, CONTENT, ("Content-Encoding: gzip",)), Reason.ANSWER_UNREADABLE),
        (answer(200, b"[" * 500_000), Reason.ANSWER_UNREADABLE),
        (answer(200, b'{"data":' * 100_000), Reason.ANSWER_UNREADABLE),
        (answer(200, CONTENT[:-1] + b', "x": NaN}'), Reason.ANSWER_UNREADABLE),
        (answer(200, CONTENT[:-1] + b', "x": -Infinity}'), Reason.ANSWER_UNREADABLE),
        (answer(200, CONTENT[:-1] + b', "x": "\\ud800"}'), Reason.ANSWER_UNREADABLE),
        (answer(200, CONTENT[:-1] + b', "x": "\xff"}'), Reason.ANSWER_UNREADABLE),
        (answer(200, CONTENT[:-1] + b', "data": {}}'), Reason.ANSWER_UNREADABLE),
        (answer(200, CONTENT.replace(b'"appointment_status"', b'"appointment_status": "x", "appointment_status"')),
         Reason.ANSWER_UNREADABLE),
        (answer(200, CONTENT + CONTENT), Reason.ANSWER_UNREADABLE),
        (answer(200, b"\xef\xbb\xbf" + CONTENT), Reason.ANSWER_UNREADABLE),
        (answer(200, json.dumps(BODY).encode("utf-16")), Reason.ANSWER_UNREADABLE),
        (answer(200, b"9" * 100_000), Reason.ANSWER_UNREADABLE),
        (raw(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nnonsense"), Reason.ANSWER_TRUNCATED),
        (raw(OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nnonsense"), Reason.ANSWER_UNREADABLE),
        (raw(OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + b"x" * 9_000_000), Reason.ANSWER_TOO_LARGE),
        (raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 200_000), Reason.ANSWER_TOO_LARGE),
        (raw(OK + (b"X: " + b"y" * 60_000 + b"\r\n") * 90), Reason.ANSWER_TOO_LARGE),
        (raw(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"), Reason.ANSWER_TRUNCATED),
        (raw(OK + b"Content-Length: 5, 7\r\n\r\n" + CONTENT), Reason.ANSWER_UNREADABLE),
        (raw(OK + b"".join(b"X-%d: y\r\n" % number for number in range(200)) + b"\r\n"), Reason.ANSWER_UNREADABLE),
        (raw(OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n"), Reason.ANSWER_UNREADABLE),
        (raw(b"HTTP/1.1 " + b"2" * 100_000), Reason.ANSWER_UNREADABLE),
        (raw(b"HTTP/9.9 200 OK\r\n\r\n"), Reason.ANSWER_UNREADABLE),
    ],
)  # fmt: skip
def test_a_hostile_answer_is_unknown(step: Callable[[Peer], None], reason: str) -> None:
    """Whatever the bytes, a 200 that is not one sound, bounded JSON object is Unknown."""
    outcome = confirmed_by(step)
    assert isinstance(outcome, Unknown)
    assert outcome.reason_code == reason


@pytest.mark.parametrize(
    "step",
    [
        answer(200, CONTENT, ("Content-Type: text/html",)),
        answer(200, gzip.compress(CONTENT), ("Content-Encoding: gzip",)),
        raw(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks(CONTENT[:9], CONTENT[9:])),
        raw(OK + b"\r\n" + CONTENT),
        raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + OK + b"\r\n" + CONTENT),
        raw(b"HTTP/1.0 200 OK\r\n\r\n" + CONTENT),
        answer(200, CONTENT[:-1] + b', "x": ' + b"[" * 100 + b"]" * 100 + b"}"),
    ],
)
def test_an_odd_but_sound_answer_is_applied(step: Callable[[Peer], None]) -> None:
    """Framing, compression and content type do not matter when the content is sound."""
    assert confirmed_by(step) == DONE


def test_a_bomb_takes_little_memory() -> None:
    """The limit counts decoded bytes while they are decoded."""
    with Server(answer(200, BOMB, ("Content-Encoding: gzip",))) as server, client_of(server) as client:
        tracemalloc.start()
        try:
            assert client.confirm(ID) == Unknown(Reason.ANSWER_TOO_LARGE, 200)
            assert tracemalloc.get_traced_memory()[1] < 8_000_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("body", [b"[" * 300 + b"]" * 300, b'{"a":' * 300 + b"1" + b"}" * 300])
def test_nesting_is_bounded_whatever_the_recursion_limit(body: bytes) -> None:
    """Depth is bounded by the parser itself, far below what a stack can take."""
    with pytest.raises(payloads.UnreadableBody) as caught:
        payloads.decode(body)
    assert caught.value.__context__ is None


def test_a_connection_is_kept_and_a_large_answer_closes_it() -> None:
    """Sound answers leave the connection for the next call; an unread one cannot be left in it."""
    with Server(answer(200, BODY), answer(404), answer(200, b"x" * 2_000_000), answer(200, BODY)) as server:
        with client_of(server) as client:
            client.confirm(ID)
            client.confirm(ID)
            client.confirm(ID)
            assert server.connections == 1
            assert client.confirm(ID) == DONE
        assert server.connections == 2


def test_a_request_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers and body leave together: a process that is stopped in between would send the rest when it goes on."""
    writes: list[bytes] = []
    write = http.client.HTTPConnection.send

    def noted(connection: http.client.HTTPConnection, data: bytes) -> None:
        writes.append(data)
        write(connection, data)

    monkeypatch.setattr(http.client.HTTPConnection, "send", noted)
    assert confirmed_by(answer(200, CONTENT)) == DONE
    [whole] = writes
    assert whole.startswith(b"POST /v1/appointments/confirm HTTP/1.1\r\n")
    assert whole.endswith(b'\r\n\r\n{"appointment_id": "%b"}' % ID.encode())


def test_a_connection_closed_while_idle_is_replaced() -> None:
    """A server that closed the kept connection causes no unknown outcome."""
    with Server(raw(OK + b"Content-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT)) as server:
        with client_of(server) as client:
            for number in range(3):
                assert client.confirm(ID) == DONE
                support.until(lambda number=number: server.ended > number)  # type: ignore[misc]
        assert server.connections == 3


def test_an_old_idle_connection_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection idle for longer than the limit is replaced, so that no POST meets its close."""
    with Server(answer(200, BODY)) as server, client_of(server) as client:
        client.confirm(ID)
        monkeypatch.setattr(wire, "IDLE_LIMIT", 0.05)
        time.sleep(0.1)
        assert client.confirm(ID) == DONE
        assert server.connections == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_uses_its_own_connections() -> None:
    """A child never writes into its parent's sockets, and the parent keeps them."""
    with Server(answer(200, BODY)) as server, client_of(server) as client:
        assert client.confirm(ID) == DONE
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer Pythons warn of threads, here the server's
            child = os.fork()
        if child == 0:
            os._exit(0 if client.confirm(ID) == DONE else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert server.connections == 2
        assert client.confirm(ID) == DONE
        assert server.connections == 2


def test_the_environment_and_netrc_are_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Proxies, certificates and credentials come from arguments alone."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login thief password thief\n")
    netrc.chmod(0o600)
    with Server(answer(500)) as proxy, Server(answer(200, BODY)) as server, client_of(server) as client:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
            monkeypatch.setenv(name, str(tmp_path / "missing.pem"))
        monkeypatch.setenv("NETRC", str(netrc))
        assert client.confirm(ID) == DONE
        assert server.requests[0].headers["authorization"] == "Bearer tok"
        assert proxy.connections == 0


def test_a_given_proxy_is_used_and_a_request_to_it_counts_as_sent() -> None:
    """A forwarding proxy gets the whole request, so its silence is an unknown outcome."""
    with Server(answer(500)) as server:
        with Server(answer(200, BODY)) as proxy, client_of(server, proxies={"http": proxy.url}) as client:
            assert client.confirm(ID) == DONE
            assert proxy.requests[0].target == f"{server.url}/v1/appointments/confirm"
        with Server(raw(b"")) as proxy, client_of(server, proxies={"http": proxy.url}) as client:
            assert client.confirm(ID) == Unknown(Reason.CONNECTION_LOST)
        assert server.connections == 0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """Return a self-signed certificate for 127.0.0.1 and the server's context with it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    usage = ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    subprocess.run([openssl, "req", "-x509", *curve, *files, *names, *usage], check=True, capture_output=True)  # noqa: S603
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem", context


Certificate = tuple["Path", ssl.SSLContext]


def test_tls_works_with_a_given_bundle(certificate: Certificate) -> None:
    """A certificate of the given bundle is trusted, and the connection is kept."""
    bundle, context = certificate
    with Server(answer(200, BODY), context=context) as server, client_of(server, ca_bundle=bundle) as client:
        assert client.confirm(ID) == DONE
        assert client.confirm(ID) == DONE
        assert server.connections == 1


def test_an_untrusted_certificate_is_not_sent(certificate: Certificate) -> None:
    """Nothing of the request goes to a host that cannot prove its name."""
    with Server(answer(200, BODY), context=certificate[1]) as server, client_of(server) as client:
        assert client.confirm(ID) == NotSent(Reason.TLS_FAILED)
        assert server.requests == []
    with (
        Server(answer(200, BODY)) as plain,
        ZocdocClient(base_url=plain.url.replace("http:", "https:"), access_token="tok", deadline=0.4) as client,
    ):
        outcome = client.confirm(ID)
        assert isinstance(outcome, NotSent)
        assert plain.requests == []


@pytest.mark.parametrize(
    ("first", "then"),
    [(OK, b"X-Slow: 1\r\n"), (OK + b"Content-Length: 100000\r\n\r\n", b"x"), (OK + b"\r\n", b"x")],
)
def test_the_deadline_holds_over_tls(certificate: Certificate, first: bytes, then: bytes) -> None:
    """A drip over TLS, a record for each byte, ends with the deadline as well."""
    bundle, context = certificate
    step = drip(first, then)
    with Server(step, context=context) as server, client_of(server, ca_bundle=bundle, deadline=2.0) as client:
        started = time.monotonic()
        outcome = client.confirm(ID)
        assert 1.9 < time.monotonic() - started < 20
    assert isinstance(outcome, Unknown)
    assert outcome.reason_code == Reason.TIMED_OUT


def test_a_handshake_that_hangs_is_not_sent(certificate: Certificate) -> None:
    """A server that accepts and says nothing has seen no byte of the request."""
    bundle, context = certificate
    with Server(hang, context=context, greet=hang) as server:
        with client_of(server, ca_bundle=bundle, deadline=0.3) as client:
            assert client.confirm(ID) == NotSent(Reason.TIMED_OUT)
        with client_of(server, ca_bundle=bundle, connect_timeout=0.2) as client:
            assert client.confirm(ID) == NotSent(Reason.CONNECTION_FAILED)


def test_a_claim_that_expires_during_the_handshake_is_not_sent(certificate: Certificate) -> None:
    """The claim is checked after the connection is made, right before the first byte."""

    def linger(_: Peer) -> None:
        time.sleep(0.3)

    bundle, context = certificate
    with Server(answer(200, BODY), context=context, greet=linger) as server:
        with client_of(server, ca_bundle=bundle) as client:
            assert client.confirm(ID, send_before=zocdoc.clock() + 0.15) == NotSent(Reason.CLAIM_EXPIRED)
        assert server.requests == []


def tunnel_to(port: int) -> Callable[[Peer], None]:
    """Return the step of a proxy that opens a tunnel."""

    def step(peer: Peer) -> None:
        with socket.create_connection(("127.0.0.1", port)) as there:
            peer.sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            both = {peer.sock: there, there: peer.sock}
            for sock in both:
                sock.settimeout(0.01)
            while not peer.stopped.is_set():
                for source, target in both.items():
                    try:
                        data = source.recv(65536)
                    except TimeoutError:
                        continue
                    if not data:
                        return
                    target.sendall(data)

    return step


def test_a_tunnel_alone_does_not_count_as_sent(certificate: Certificate) -> None:
    """CONNECT is talk with the proxy: a refused tunnel, or TLS that fails inside it, is not sent."""
    bundle, context = certificate
    with Server(answer(200, BODY), context=context) as server:
        with Server(tunnel_to(server.port)) as proxy:
            with client_of(server, ca_bundle=bundle, proxies={"https": proxy.url}) as client:
                assert client.confirm(ID) == DONE
                assert client.confirm(ID) == DONE
            with client_of(server, proxies={"https": proxy.url}) as client:
                assert client.confirm(ID) == NotSent(Reason.TLS_FAILED)
            assert [each.method for each in proxy.requests] == ["CONNECT", "CONNECT"]
            assert "authorization" not in proxy.requests[0].headers
        assert len(server.requests) == 2
        for refusal in (answer(407), raw(b""), hang):
            with Server(refusal) as proxy:
                arguments = {"ca_bundle": bundle, "proxies": {"https": proxy.url}, "timeout": 0.3}
                with client_of(server, **arguments) as client:
                    assert client.confirm(ID) == NotSent(Reason.CONNECTION_FAILED)
        assert len(server.requests) == 2


def told_by(read: Callable[[], object]) -> list[object]:
    """Return the result of a read, or all that its error tells."""
    try:
        return [read()]
    except zocdoc.ZocdocError as error:
        chain = [error.__cause__, error.__context__]
        return [error, str(error), error.args, "".join(traceback.format_exception(error)), chain]


CANARIES = ("canary-token", "canary-secret", "canary-free-text", "canary-patient", "canary-message", "canary-query")


@pytest.mark.parametrize(
    "step",
    [
        answer(200, CONTENT.replace(b'"rq-1"', b'"rq-1", "x": "canary-patient"')),
        answer(200, b"canary-patient"),
        answer(200, {"data": {"appointment_id": "canary-patient", "appointment_status": []}}),
        answer(400, {"errors": [{"message": "canary-message", "field": "canary-message of a field"}]}),
        answer(302, None, ("Location: http://127.0.0.1/canary-token",)),
        answer(500, b"canary-patient"),
        raw(OK + b"canary-patient no header\r\nX: y\r\n\r\n" + CONTENT),
        raw(OK + b"Content-Length: 5, canary-patient\r\n\r\n"),
        raw(b"canary-patient"),
        raw(b""),
        hang,
    ],
)
def test_no_secret_and_no_patient_data_leaks(step: Callable[[Peer], None], caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, with urllib3's own lines: no log, outcome, error, chain of errors or repr has a canary in it."""
    caplog.set_level(logging.DEBUG)
    told: list[object] = []
    with Server(answer(200, {"access_token": "canary-token", "expires_in": 3600})) as issuer, Server(step) as server:
        with ZocdocClient(
            base_url=server.url,
            token_url=issuer.url,
            client_id="an-id",
            client_secret="canary-secret",
            timeout=1.0 if step is hang else 10.0,
            deadline=2.5 if step is hang else 20.0,
        ) as client:
            told += [client, client.cancel(ID, reason="canary-free-text"), client._calls, client._transport]
            for read in (lambda: client.get(ID), lambda: list(client.list(developer_patient_id=CANARIES[-1]))):
                told += told_by(read)
        assert json.loads(issuer.requests[0].body)["client_secret"] == "canary-secret"
        assert server.requests[0].headers["authorization"] == "Bearer canary-token"
        assert any("canary-query" in each.target for each in server.requests)
    lines = [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    assert any("urllib3" in line for line in lines)
    text = "\n".join([*lines, *map(repr, told)])
    assert [canary for canary in CANARIES if canary in text] == []


def test_one_event_is_logged_for_each_call(caplog: pytest.LogCaptureFixture) -> None:
    """The event has the facts of the call as fields."""
    caplog.set_level(logging.DEBUG, "lifecycle.zocdoc")
    with Server(answer(200, BODY), answer(404)) as server, client_of(server) as client:
        client.confirm(ID)
        with pytest.raises(zocdoc.AppointmentMissing):
            client.get(ID)
    names = ("operation", "appointment_id", "outcome", "http_status", "reason_code", "request_id")
    assert [[getattr(record, name) for name in names] for record in caplog.records] == [
        ["confirm", ID, "Applied", 200, None, "rq-1"],
        ["get", ID, "AppointmentMissing", 404, "not_found", None],
    ]
    assert {record.getMessage() for record in caplog.records} == {"zocdoc_call"}
    assert all(record.duration_ms >= 0 for record in caplog.records)  # type: ignore[attr-defined]


def test_the_deadline_ends_a_read_with_its_repeats() -> None:
    """Repeats and pauses of a read share the deadline of the call."""
    started = time.monotonic()
    with Server(hang) as server, client_of(server, timeout=0.7, deadline=3.0) as client:
        with pytest.raises(ReadFailed, match="timed_out"):
            client.get(ID)
        assert 1 <= len(server.requests) <= 3
    assert time.monotonic() - started < 20
