"""The stand-in as a WSGI application, for in-process adapters and any WSGI server.

Faults that need the socket cannot be shown through WSGI: a reset raises `ConnectionResetError`, a close or
a truncated body `ConnectionAbortedError`, each after the request was applied or left as the fault says.
Drips arrive in one piece.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from lifecycle.sandbox.bodies import MAX_BODY
from lifecycle.sandbox.messages import Reply, Request, Wire, phrase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def application(answer: Callable[[Request], Reply]) -> WSGIApplication:
    """Return the WSGI callable around a function from request to reply."""

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        reply = answer(_request(environ))
        _refuse_wire_faults(reply.wire)
        start_response(f"{reply.status} {phrase(reply.status)}", _headers(reply))
        return [reply.body]

    return respond


def _request(environ: WSGIEnvironment) -> Request:
    length = environ.get("CONTENT_LENGTH") or "0"
    host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    return Request(
        method=environ["REQUEST_METHOD"],
        path=quote(environ.get("PATH_INFO", "").encode("latin-1"), safe="/"),
        query=environ.get("QUERY_STRING", ""),
        body=environ["wsgi.input"].read(min(int(length), MAX_BODY)),
        authorization=environ.get("HTTP_AUTHORIZATION", ""),
        content_encoding=environ.get("HTTP_CONTENT_ENCODING", ""),
        accept_encoding=environ.get("HTTP_ACCEPT_ENCODING", ""),
        base_url=f"{environ['wsgi.url_scheme']}://{host}",
    )


def _headers(reply: Reply) -> list[tuple[str, str]]:
    content = [("Content-Type", reply.content_type)] if reply.body else []
    return [*content, ("Content-Length", str(len(reply.body))), *reply.headers]


def _refuse_wire_faults(wire: Wire) -> None:
    if wire is Wire.RESET:
        raise ConnectionResetError("the stand-in resets this connection")
    if wire in (Wire.CLOSE, Wire.TRUNCATED):
        raise ConnectionAbortedError("the stand-in ends this connection")
