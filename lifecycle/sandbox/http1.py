"""HTTP/1.1 over one socket, as little of it as the stand-in needs: read a request, write a reply.

Written by hand because `http.server` parses headers with the `email` package and writes in pieces, which
costs more than everything else that the stand-in does.
"""

from __future__ import annotations

import socket
import struct
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from lifecycle.sandbox.bodies import MAX_BODY
from lifecycle.sandbox.messages import Reply, Request, Wire, phrase

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_HEAD: Final = 1 << 16  # bytes of request line and headers, as common servers allow

_CHUNK: Final = 1 << 16
_END: Final = b"\r\n\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_LINGER: Final = struct.pack("ii", 1, 0)  # makes close() send a reset
_MISSING: Final = 64  # bytes announced but never sent when there is no body to cut


class Malformed(Exception):
    """The peer did not send a request that this server reads; `status` is what it is answered."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Conversation:
    """The requests of one connection, one after the other, and their answers.

    `origin` is the address used for requests without a Host header. Socket errors pass through as `OSError`.
    """

    def __init__(self, connection: socket.socket, origin: str) -> None:
        self._connection = connection
        self._origin = origin
        self._buffer = b""
        self._last = False

    def receive(self) -> Request | None:
        """Return the next request, or `None` when the peer is done; raises `Malformed`."""
        head = self._read_head()
        if head is None:
            return None
        line, *lines = head.decode("latin-1").split("\r\n")
        method, target, version = _request_line(line)
        headers = _headers(lines)
        self._last = version != "HTTP/1.1" or headers.get("connection", "").lower() == "close"
        path, _, query = target.partition("?")
        return Request(
            method=method,
            path=path,
            query=query,
            body=self._read_body(headers),
            authorization=headers.get("authorization", ""),
            content_encoding=headers.get("content-encoding", ""),
            accept_encoding=headers.get("accept-encoding", ""),
            base_url=f"http://{headers['host']}" if "host" in headers else self._origin,
        )

    def send(self, reply: Reply) -> bool:
        """Put a reply on the wire and tell whether the connection goes on."""
        match reply.wire:
            case Wire.PLAIN:
                self._connection.sendall(_head(reply, last=self._last) + reply.body)
                return not self._last
            case Wire.RESET:
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            case Wire.TRUNCATED:
                announced = len(reply.body) or _MISSING
                head = _head(reply, last=True, length=announced)
                self._connection.sendall(head + reply.body[: announced // 2])
            case Wire.DRIP_BODY:
                self._connection.sendall(_head(reply, last=True))
                self._drip(reply.body, reply.pace)
            case Wire.DRIP_HEADERS:
                self._drip(_head(reply, last=True), reply.pace)
                self._connection.sendall(reply.body)
            case Wire.CLOSE:
                pass
        return False

    def refuse(self, status: int) -> None:
        """Answer a request that could not be read, after which the connection ends."""
        self._connection.sendall(_head(Reply(status), last=True))

    def _read_head(self) -> bytes | None:
        while (end := self._buffer.find(_END)) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise Malformed(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            received = self._connection.recv(_CHUNK)
            if not received:
                return None
            self._buffer += received
        head, self._buffer = self._buffer[:end], self._buffer[end + len(_END) :]
        return head

    def _read_body(self, headers: Mapping[str, str]) -> bytes:
        length = _length(headers)
        if len(self._buffer) < length:
            if headers.get("expect", "").lower() == "100-continue":
                self._connection.sendall(_CONTINUE)
            self._fill(length)
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return body

    def _fill(self, length: int) -> None:
        pieces, missing = [self._buffer], length - len(self._buffer)
        while missing > 0:
            received = self._connection.recv(_CHUNK)
            if not received:
                raise ConnectionAbortedError("the peer left in the middle of a body")
            pieces.append(received)
            missing -= len(received)
        self._buffer = b"".join(pieces)

    def _drip(self, content: bytes, pace: float) -> None:
        for index in range(len(content)):
            self._connection.sendall(content[index : index + 1])
            time.sleep(pace)


def _request_line(line: str) -> list[str]:
    parts = line.split(" ")
    if len(parts) != len(("method", "target", "version")) or not parts[2].startswith("HTTP/1."):
        raise Malformed(HTTPStatus.BAD_REQUEST)
    return parts


def _headers(lines: list[str]) -> dict[str, str]:
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return headers


def _length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise Malformed(HTTPStatus.LENGTH_REQUIRED)
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()):
        raise Malformed(HTTPStatus.BAD_REQUEST)
    if len(text) > len(str(MAX_BODY)) or int(text) > MAX_BODY:
        raise Malformed(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return int(text)


def _head(reply: Reply, *, last: bool, length: int | None = None) -> bytes:
    size = len(reply.body) if length is None else length
    lines = [f"HTTP/1.1 {reply.status} {phrase(reply.status)}"]
    if reply.status != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {size}")
    if size:
        lines.append(f"Content-Type: {reply.content_type}")
    if last:
        lines.append("Connection: close")
    lines += [f"{name}: {value}" for name, value in reply.headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
