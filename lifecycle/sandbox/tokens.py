"""The token endpoint and the bearer tokens that it gave out."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from lifecycle.sandbox.appointments import MACHINE
from lifecycle.sandbox.messages import Json, Outcome
from lifecycle.sandbox.vocabulary import ALL_SCOPES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BEARER: Final = "Bearer "


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token: whose it is (`machine` or `user:ID`), what it may do and until when."""

    text: str
    subject: str
    scopes: frozenset[str]
    expires: datetime


class Tokens:
    """Every live token. Thread-safe; expiry follows the stand-in's clock."""

    def __init__(
        self,
        *,
        clients: Mapping[str, str],
        audience: str | None,
        lifetime: float,
        now: Callable[[], datetime],
    ) -> None:
        self.scopes = ALL_SCOPES
        self.lifetime = lifetime
        self._clients = dict(clients)
        self._audience = audience
        self._now = now
        self._lock = threading.Lock()
        self._live: dict[str, Token] = {}

    def issue(self, subject: str, scopes: frozenset[str] | None = None) -> Token:
        """Return a new token; without `scopes` it gets those that the stand-in gives at present."""
        granted = self.scopes if scopes is None else scopes
        expires = self._now() + timedelta(seconds=self.lifetime)
        token = Token(secrets.token_urlsafe(24), subject, granted, expires)
        with self._lock:
            self._live[token.text] = token
        return token

    def find(self, authorization: str) -> Token | None:
        """Return the live token of an `Authorization` header, or `None`."""
        token = self._live.get(authorization.removeprefix(_BEARER))
        if token is None or not authorization.startswith(_BEARER) or token.expires <= self._now():
            return None
        return token

    def revoke(self) -> None:
        """Forget every token given out so far."""
        with self._lock:
            self._live.clear()

    def grant(self, document: object, base_url: str) -> Outcome:
        """Answer a client credentials request; wrong credentials are a 401, a wrong audience a 403."""
        if not isinstance(document, dict):
            return _denied(400, "invalid_request")
        if document.get("grant_type") != "client_credentials":
            return _denied(400, "unsupported_grant_type")
        if not self._knows(document.get("client_id"), document.get("client_secret")):
            return _denied(401, "access_denied")
        if document.get("audience") != (self._audience or f"{base_url}/"):
            return _denied(403, "access_denied")
        return Outcome(200, self._document(self.issue(MACHINE)))

    def _knows(self, client_id: object, client_secret: object) -> bool:
        known = isinstance(client_id, str) and client_id in self._clients
        return known and self._clients[str(client_id)] == client_secret

    def _document(self, token: Token) -> Json:
        return {
            "access_token": token.text,
            "scope": " ".join(sorted(token.scopes)),
            "expires_in": int(self.lifetime),
            "token_type": "Bearer",
        }


def _denied(status: int, error: str) -> Outcome:
    return Outcome(status, {"error": error, "error_description": "Unauthorized"})
