"""Where Zocdoc's API lives, and which URLs a token may be sent to."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import SplitResult, urlsplit

from lifecycle.zocdoc import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_PORTS = {"http": 80, "https": 443}
# urlsplit drops tabs and newlines, and a backslash or an odd character is read differently by different parsers.
_VISIBLE = re.compile(r"[!-\[\]-~]+")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|[0-9a-f:.]*:[0-9a-f:.]*")
_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")


@dataclass(frozen=True, slots=True)
class Environment:
    """One of Zocdoc's environments. The audience's trailing slash matters."""

    name: str
    base_url: str
    token_url: str
    audience: str


SANDBOX = Environment(
    name="sandbox",
    base_url="https://api-developer-sandbox.zocdoc.com",
    token_url="https://auth-api-developer-sandbox.zocdoc.com/oauth/token",  # noqa: S106  a URL
    audience="https://api-developer-sandbox.zocdoc.com/",
)
PRODUCTION = Environment(
    name="production",
    base_url="https://api-developer.zocdoc.com",
    token_url="https://auth.zocdoc.com/oauth/token",  # noqa: S106  a URL
    audience="https://api-developer.zocdoc.com/",
)
ENVIRONMENTS: Mapping[str, Environment] = {each.name: each for each in (SANDBOX, PRODUCTION)}


class SafeUrl(NamedTuple):
    """A URL rebuilt from checked parts, so that no two parsers can disagree about its host."""

    text: str
    origin: str
    is_loopback: bool


def named(environment: Environment | str) -> Environment:
    """Return the environment of that name; an `Environment` is returned as it is. Raises `InvalidConfiguration`."""
    if isinstance(environment, Environment):
        return environment
    if environment not in ENVIRONMENTS:
        raise errors.InvalidConfiguration(f"environment must be one of {', '.join(ENVIRONMENTS)}")
    return ENVIRONMENTS[environment]


def check_url(argument: str, url: str) -> SafeUrl:
    """Return the URL without a trailing slash, or raise `InvalidConfiguration` naming the argument.

    https is required, since a token or a secret is sent there; plain http is for loopback hosts. User names,
    passwords, queries and fragments are refused.
    """
    parts, port = _parts(argument, url)
    host = (parts.hostname or "").lower()
    if parts.scheme not in _DEFAULT_PORTS or not _HOST.fullmatch(host):
        raise errors.InvalidConfiguration(f"{argument} must be an absolute https URL")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise errors.InvalidConfiguration(f"{argument} must not carry a user name, a query or a fragment")
    is_loopback = _is_loopback(host)
    if parts.scheme != "https" and not is_loopback:
        raise errors.InvalidConfiguration(f"{argument} must use https; plain http is for loopback hosts only")
    origin = _origin(parts.scheme, host, port)
    return SafeUrl(origin + parts.path.rstrip("/"), origin, is_loopback)


def name_of(url: SafeUrl) -> str:
    """Return `sandbox`, `production`, `local` for any loopback host, or else the origin."""
    if url.is_loopback:
        return "local"
    for each in ENVIRONMENTS.values():
        if url.text == each.base_url:
            return each.name
    return url.origin


def _parts(argument: str, url: str) -> tuple[SplitResult, int | None]:
    if not isinstance(url, str) or not _VISIBLE.fullmatch(url):
        raise errors.InvalidConfiguration(f"{argument} must be a URL of visible ASCII characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), None
    return parts, port


def _origin(scheme: str, host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" if port in {None, _DEFAULT_PORTS[scheme]} else f"{scheme}://{shown}:{port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address in _LOOPBACK if address.version == 4 else address == ipaddress.IPv6Address("::1")  # noqa: PLR2004  IP version
