"""Who may see the page: on loopback whoever calls it by a name of loopback, elsewhere whoever knows the token. Pure.

Without a token the Host header is checked, because a hostile site can give its own name the address 127.0.0.1 and would
then read the page in a visitor's browser. With a token, a browser shows it once and gets a cookie that is not the
token: an expiry and an HMAC of it, so that nothing is kept here and another token ends all sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import TYPE_CHECKING, Final

from lifecycle import errors

if TYPE_CHECKING:
    from collections.abc import Callable

SESSION: Final = 12 * 3600
"""Seconds for which a cookie is good: a working day."""

LEAST: Final = 32
"""Characters of a token; nobody guesses one of them that was drawn at random."""

_TOKEN: Final = re.compile(rf"[!-~]{{{LEAST},512}}")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,253})(?::([0-9]{1,5}))?")
_COOKIE: Final = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})")
_BEARER: Final = re.compile(r"bearer +([!-~]{1,512})", re.IGNORECASE)
_PATH: Final = re.compile(r"/(?![/\\])[!-\[\]-~]{0,2000}")
_PORTS: Final = {False: 80, True: 443}

_BURST: Final = 5
_REFILL: Final = 1.0
"""Wrong tokens that an address may show at once, and how many more each second."""

_ADDRESSES: Final = 1024
"""How many addresses are remembered; the one that was wrong longest ago is forgotten first."""

_NETWORK: Final = 64
"""Bits of an IPv6 address that its owner cannot choose freely."""


class Verdict(StrEnum):
    """What becomes of a request."""

    ALLOWED = auto()
    WRONG_HOST = auto()  # called by a name that is not loopback's
    FORWARDED = auto()  # a proxy asks for somebody who may be anywhere
    FOREIGN = auto()  # another site's page asks, not a person
    UNKNOWN = auto()  # no token, a wrong one, or a session that is over
    TOO_MANY = auto()  # wrong tokens too often: not even looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What a request tells of itself. `port` is ours; `address` is the peer's, as the server says, not a header."""

    address: str
    port: int
    is_tls: bool
    host: str = ""
    cookie: str = ""
    authorization: str = ""
    is_forwarded: bool = False
    fetch_site: str = ""
    fetch_dest: str = ""

    @property
    def is_foreign(self) -> bool:
        """Tell whether another site's page asks for it; browsers say so, nobody else does."""
        return self.fetch_site in {"cross-site", "same-site"}

    @property
    def is_embedded(self) -> bool:
        """Tell whether another site's page asks for it as a part of itself: a link that a person follows is none."""
        return self.is_foreign and self.fetch_dest != "document"


class Local:
    """Access on loopback without a token: for everybody on this machine, and for nobody's web site."""

    def judge(self, caller: Caller) -> Verdict:
        """Judge a request by the name it was called with."""
        if not is_own_name(caller.host, port=caller.port, is_tls=caller.is_tls):
            return Verdict.WRONG_HOST
        if caller.is_forwarded:
            return Verdict.FORWARDED
        return Verdict.FOREIGN if caller.is_embedded else Verdict.ALLOWED


class Guarded:
    """Access by a token, shown as `Authorization: Bearer` or once in a form, which gives a cookie.

    `now` gives seconds since 1970; it is replaced in tests. Raises `ConfigurationError` for a token under 32 visible
    ASCII characters. Thread-safe enough for one event loop, which is where it is used.
    """

    def __init__(self, token: str, *, now: Callable[[], float]) -> None:
        if not _TOKEN.fullmatch(token):
            raise errors.ConfigurationError(problem=f"the page's token needs {LEAST} to 512 visible ASCII characters")
        self._token = hashlib.sha256(token.encode()).digest()
        self._key = hmac.digest(token.encode(), b"lifecycle-page-cookie-1", "sha256")
        self._now = now
        self._attempts = Attempts()

    def judge(self, caller: Caller) -> Verdict:
        """Judge a request by its cookie or its bearer token."""
        if caller.is_embedded:
            return Verdict.FOREIGN
        if self._is_session(caller.cookie):
            return Verdict.ALLOWED
        shown = _BEARER.fullmatch(caller.authorization)
        return Verdict.UNKNOWN if shown is None else self.check(shown[1], address=caller.address)

    def check(self, token: str, *, address: str) -> Verdict:
        """Check a token that was shown from an address; wrong ones are counted against the address."""
        now = self._now()
        if not self._attempts.may_try(address, now=now):
            return Verdict.TOO_MANY
        shown = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        if hmac.compare_digest(shown, self._token):
            return Verdict.ALLOWED
        self._attempts.failed(address, now=now)
        return Verdict.UNKNOWN

    def session(self) -> str:
        """Make the value of a cookie that is good from now on."""
        expires = str(int(self._now()) + SESSION)
        return f"{expires}.{self._sign(expires)}"

    def _is_session(self, cookie: str) -> bool:
        parts = _COOKIE.fullmatch(cookie)
        if parts is None:
            return False
        is_ours = hmac.compare_digest(self._sign(parts[1]).encode(), parts[2].encode())
        return is_ours and self._now() < int(parts[1])

    def _sign(self, expires: str) -> str:
        return hmac.new(self._key, expires.encode(), "sha256").hexdigest()


Access = Local | Guarded


class Attempts:
    """Wrong tokens by address: five at once, then one a second. Bounded in memory."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def may_try(self, address: str, *, now: float) -> bool:
        """Tell whether a token from there is looked at now."""
        return self._left_at(_network(address), now) >= 1

    def failed(self, address: str, *, now: float) -> None:
        """Count a wrong one."""
        network = _network(address)
        self._left[network] = (self._left_at(network, now) - 1, now)
        self._left.move_to_end(network)
        if len(self._left) > _ADDRESSES:
            self._left.popitem(last=False)

    def _left_at(self, network: str, now: float) -> float:
        left, since = self._left.get(network, (float(_BURST), now))
        return min(_BURST, left + max(0.0, now - since) * _REFILL)


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen on can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_own_name(host: str, *, port: int, is_tls: bool) -> bool:
    """Tell whether a Host header names loopback and the port that was listened on."""
    parts = _HOST.fullmatch(host)
    if parts is None or int(parts[2] or _PORTS[is_tls]) != port:
        return False
    return is_loopback(parts[1].strip("[]"))


def own_path(wanted: str) -> str:
    """Give a path of this server to go on to, `/` for whatever a browser could take for another server's."""
    return wanted if _PATH.fullmatch(wanted) else "/"


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:  # noqa: PLR2004 # named by IP
        return str(found)
    mapped = found.ipv4_mapped
    return str(mapped or ipaddress.ip_network((found, _NETWORK), strict=False))
