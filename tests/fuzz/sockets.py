"""The whole client against a server that answers with any bytes at all, at any pace, over loopback."""

from __future__ import annotations

import gzip
import random
import re
import socket
import struct
import threading
import time
import zlib
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from lifecycle.zocdoc import Applied, NotSent, Reading, Rejected, Unknown, ZocdocClient, errors, timing
from tests.fuzz.mutations import OWN, mutated
from tests.fuzz.pure import Figures
from tests.fuzz.reference import is_success

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

DEADLINE: Final = 0.4
GRACE: Final = 1.5
"""Seconds over the deadline that a busy machine may take."""

_CALLS: Final[dict[str, Callable[[ZocdocClient], object]]] = {
    "confirm": lambda client: client.confirm(OWN),
    "reschedule": lambda client: client.reschedule(OWN, start_time="2031-03-01T09:00:00-05:00"),
    "get": lambda client: client.get(OWN),
}
_NO_LINGER: Final = struct.pack("ii", 1, 0)
_GZIP: Final = 31


@dataclass(frozen=True, slots=True)
class Script:
    """What the server does with the next request: which bytes, in which pieces, how far apart, and how it ends."""

    raw: bytes
    pieces: int = 1
    pause: float = 0.0
    ends: str = "close"


class Server:
    """Answers every request with the script that is set; with nothing when it was played already."""

    def __init__(self) -> None:
        self.script = Script(b"")
        self.requests = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, ValueError):
            while _receive(connection):
                self.requests += 1
                script, self.script = self.script, Script(b"")
                self._play(connection, script)
                if script.ends == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                if script.ends != "keep":
                    return

    def _play(self, connection: socket.socket, script: Script) -> None:
        size = max(1, -(-len(script.raw) // script.pieces))
        for begin in range(0, len(script.raw), size):
            connection.sendall(script.raw[begin : begin + size])
            time.sleep(script.pause)
        if script.ends == "stall":
            time.sleep(2 * DEADLINE)


def run(cases: int, seed: int) -> Figures:
    """Make so many calls; the same seed scripts the same answers."""
    draw, figures = random.Random(f"sockets {seed}"), Figures()  # noqa: S311 # repeatable is the point
    with ExitStack() as stack:
        server, client = _pair(stack)
        for number in range(cases):
            script, call = _script(draw), draw.choice(tuple(_CALLS))
            found = _call(client, server, script, call, figures)
            if found and _again(script, call):
                figures.note(f"{seed}/{number} {call} {script!r:.1500}", found)
    return figures


def _pair(stack: ExitStack) -> tuple[Server, ZocdocClient]:
    server = stack.enter_context(Server())
    client = ZocdocClient(
        base_url=server.url,
        access_token="token",
        timeout=DEADLINE / 2,
        connect_timeout=DEADLINE / 2,
        deadline=DEADLINE,
    )
    return server, stack.enter_context(client)


def _again(script: Script, call: str) -> bool:
    """Tell whether a finding comes again with a server of its own: an earlier request may have come late to a busy one.

    Every finding is of that kind or repeats: the client has no memory of the answers before.
    """
    for _ in range(3):
        with ExitStack() as stack:
            server, client = _pair(stack)
            if not _call(client, server, script, call, Figures()):
                return False
    return True


def may_count(raw: bytes, appointment_id: str, *, may_list_errors: bool) -> bool:
    """Tell whether these bytes can be read as a whole success by any fair reading of HTTP."""
    status, head, rest = _answer(raw)
    return status == b"200" and any(
        is_success(200, body, appointment_id, may_list_errors=may_list_errors) for body in _bodies(head, rest)
    )


def _answer(raw: bytes) -> tuple[bytes, bytes, bytes]:
    """Give the status, the head and the rest of the answer that follows any preliminary ones."""
    status, head, rest = b"1", b"", raw
    while status.startswith(b"1"):
        head, _, rest = _divided(rest)
        found = re.match(rb"\s*HTTP/1\.\S*[\s\xa0]+(\d{3})", head)
        status = found[1] if found else b""
    return status, head, rest


def _divided(raw: bytes) -> tuple[bytes, bytes, bytes]:
    """Divide at the first empty line, of either kind."""
    end = re.search(rb"\r?\n\r?\n", raw)
    return (raw[: end.start()], end[0], raw[end.end() :]) if end else (raw, b"", b"")


def _bodies(head: bytes, rest: bytes) -> list[bytes]:
    """Give every body that the rest may be: by length, by chunks, to the end; packed or not."""
    lengths = re.findall(rb"(?im)^content-length[ \t]*:[ \t]*([^\r\n]*)", head)
    sizes = [int(text) for text in lengths if re.fullmatch(rb"[+]?\d+\s*", text)]
    found = [rest[:size] for size in sizes if len(rest) >= size]
    if len(sizes) < max(1, len(lengths)):
        found.append(rest)
    chunked = _unchunked(rest)
    if b"chunked" in head.lower() and chunked is not None:
        found.append(chunked)
    for body in list(found):
        with suppress(zlib.error):
            found.append(zlib.decompressobj(_GZIP).decompress(body, 1 << 21))
    return found


def _unchunked(rest: bytes) -> bytes | None:
    body = b""
    while True:
        line, found, rest = rest.partition(b"\n")
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError:
            return None
        if size == 0 and found:
            return body
        if size < 0 or len(rest) < size or not found:
            return None
        # Python's own client skips two bytes after a chunk, whatever they are; nothing of the body is lost by it.
        ending = 1 if rest[size : size + 1] == b"\n" else 2
        body, rest = body + rest[:size], rest[size + ending :]


def _receive(connection: socket.socket) -> bytes:
    """Read one request; empty when the peer is gone."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        piece = connection.recv(65536)
        if not piece:
            return b""
        raw += piece
    head, _, body = raw.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while length and len(body) < int(length[1]):
        body += connection.recv(65536)
    return head


def _call(client: ZocdocClient, server: Server, script: Script, call: str, figures: Figures) -> str:
    """Make one call; give what is wrong with how it ended, or nothing."""
    figures.cases += 1
    server.script, before = script, server.requests
    client._calls._pace = timing.Pauses()  # the pause that an earlier 429 imposes would keep the next answers away
    begun = time.monotonic()
    try:
        result = _CALLS[call](client)
    except (errors.ReadFailed, errors.ReadRefused) as error:
        result = error
    except Exception as error:  # noqa: BLE001 # that is what the fuzzer looks for
        return f"raised {error!r}"
    took = time.monotonic() - begun
    figures.applied += isinstance(result, Applied)
    figures.readings += isinstance(result, Reading)
    return _judge(result, script, server.requests - before, took)


def _judge(result: object, script: Script, requests: int, took: float) -> str:
    is_command = isinstance(result, (Applied, Rejected, NotSent, Unknown))
    limited = _answer(script.raw)[0] == b"429"
    if took > DEADLINE + GRACE:
        return f"took {took:.1f} s"
    if isinstance(result, (Applied, Reading)):
        lenient = isinstance(result, Reading)
        return "" if may_count(script.raw, OWN, may_list_errors=lenient) else f"a success of {result!r}"
    if isinstance(result, NotSent) and requests and not limited:
        return f"sent, and yet {result!r}"
    return f"sent {requests} times" if is_command and requests > 1 and not limited else ""


def _script(draw: random.Random) -> Script:
    body = mutated(draw) if draw.random() < 0.5 else _plain(draw)
    raw = _framed(draw, body)
    for _ in range(draw.choice((0, 0, 0, 1, 1, 3))):
        raw = draw.choice(_WIRE)(draw, raw)
    kind = draw.random()
    if kind < 0.03:
        return Script(raw, pieces=len(raw) or 1, pause=0.02)
    if kind < 0.05:
        return Script(raw[: draw.randrange(len(raw) + 1)], ends="stall")
    pieces = draw.choice((1, 1, 1, 2, 5, 40))
    return Script(raw, pieces=pieces, pause=0.0005, ends=draw.choice(("close", "close", "keep", "keep", "reset")))


def _plain(draw: random.Random) -> bytes:
    status = draw.choice((b"confirmed", b"cancelled"))
    data = b'"appointment_id": "%b", "appointment_status": "%b", "start_time": "2026-12-01T09:00:00Z"'
    return b'{"request_id": "rq", "data": {' + data % (OWN.encode(), status) + b"}}"


def _framed(draw: random.Random, body: bytes) -> bytes:
    """Put a body into an answer, as one of the ways that HTTP has."""
    headers = [b"Content-Type: application/json"]
    if draw.random() < 0.2:
        body = gzip.compress(body)
        headers.append(b"Content-Encoding: gzip")
    framing = draw.random()
    if framing < 0.6:
        headers.append(b"Content-Length: %d" % len(body))
    elif framing < 0.9:
        headers.append(b"Transfer-Encoding: chunked")
        body = _chunked(draw, body)
    status = draw.choice((b"200 OK",) * 12 + (b"500 Oops", b"429 Slow", b"302 Found", b"204 None", b"401 No", b"200"))
    draw.shuffle(headers)
    return b"\r\n".join([b"HTTP/1.1 " + status, *headers, b"", b""]) + body


def _chunked(draw: random.Random, body: bytes) -> bytes:
    pieces, size = [], draw.choice((1, 7, 64, 4096))
    for begin in range(0, len(body), size):
        piece = body[begin : begin + size]
        pieces.append(b"%x%b\r\n%b\r\n" % (len(piece), draw.choice((b"", b"", b";a=b")), piece))
    return b"".join(pieces) + b"0\r\n\r\n"


def _flip(draw: random.Random, raw: bytes) -> bytes:
    where = draw.randrange(min(len(raw), draw.choice((20, 150, 10**6))) or 1)
    return raw[:where] + bytes([raw[where] ^ (1 << draw.randrange(8))]) + raw[where + 1 :] if raw else raw


def _cut(draw: random.Random, raw: bytes) -> bytes:
    return raw[: draw.randrange(len(raw) + 1)]


def _header(draw: random.Random, raw: bytes) -> bytes:
    """Put one more header behind the status line."""
    line = draw.choice(
        (
            b"Content-Length: 5",
            b"Content-Length: -1",
            b"Content-Length: 99999999999999999999",
            b"Content-Length: 1e2",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: identity",
            b"Content-Encoding: gzip",
            b"Content-Encoding: br",
            b"Content-Encoding: gzip, gzip",
            b"Content-Encoding: deflate",
            b"Location: http://127.0.0.1:9/",
            b"Retry-After: 99999",
            b"Set-Cookie: a=b",
            b"Connection: close",
            b"X-Long: " + b"x" * 70_000,
            b"X: y\r\n" * 150 + b"X: y",
            b" folded",
            b"no colon",
            b": empty",
            b"X\x00: y",
        )
    )
    first, found, rest = raw.partition(b"\r\n")
    return first + b"\r\n" + line + b"\r\n" + rest if found else raw


def _before(draw: random.Random, raw: bytes) -> bytes:
    """Say something before the answer."""
    other = draw.choice(
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n", b"\r\n", b"\x00", b"HTTP/0.9 ")
    )
    return other * draw.choice((1, 1, 30)) + raw


def _after(draw: random.Random, raw: bytes) -> bytes:
    """Say more after the answer: a second one, that nobody asked for."""
    return raw + draw.choice((_framed(draw, _plain(draw)), b"\r\n\r\n", b"x" * 100))


def _line(draw: random.Random, raw: bytes) -> bytes:
    """Write another status line."""
    _, found, rest = raw.partition(b"\r\n")
    lines = (
        b"HTTP/1.0 200 OK",
        b"HTTP/2 200",
        b"http/1.1 200 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 99 x",
        b"ICY 200 OK",
        b"",
    )
    return draw.choice(lines) + found + rest


def _newlines(_: random.Random, raw: bytes) -> bytes:
    return raw.replace(b"\r\n", b"\n")


_WIRE: Final[tuple[Callable[[random.Random, bytes], bytes], ...]] = (
    _flip,
    _flip,
    _cut,
    _header,
    _header,
    _before,
    _after,
    _line,
    _newlines,
)
