"""The client's constructor arguments: their types, and the checks that name a bad one without showing its value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import urlsplit

from lifecycle.zocdoc import errors

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from lifecycle.telemetry import Telemetry
    from lifecycle.zocdoc.pacing import Pace

_IDENTITY = re.compile(r"machine|user:[!-~]{1,200}")


class ClientOptions(TypedDict, total=False):
    """What `ZocdocClient.for_environment` takes beside the environment, as the class does."""

    token_url: str | None
    client_id: str | None
    client_secret: str | None
    audience: str | None
    access_token: str | Callable[[], str] | None
    identity: str
    timeout: float
    connect_timeout: float
    deadline: float
    proxies: Mapping[str, str] | None
    ca_bundle: str | os.PathLike[str] | None
    pool_size: int
    telemetry: Telemetry | None
    pace: Pace | None


def check_identity(identity: str) -> str:
    """Return the identity, `machine` or `user:ID`."""
    if not isinstance(identity, str) or not _IDENTITY.fullmatch(identity):
        raise errors.InvalidConfiguration("identity must be `machine`, or `user:` and an id")
    return identity


def need_tls(*urls: str | None) -> bool:
    """Tell whether any of the URLs is an https one."""
    return any(url is not None and url.lower().startswith("https:") for url in urls)


_MOST = 86_400


def check_positive(**numbers: float) -> None:
    """Refuse zero, negative numbers, NaN, infinity, and what no clock of a socket can hold."""
    for name, number in numbers.items():
        if not 0 < number <= _MOST:
            raise errors.InvalidConfiguration(f"{name} must be a positive number of at most {_MOST}")


def check_proxies(proxies: Mapping[str, str] | None) -> dict[str, str]:
    """Return the proxies as `requests` takes them.

    Only http and https: connections through SOCKS are made by other code, which could not tell what was sent.
    """
    for url in (proxies or {}).values():
        if not isinstance(url, str) or urlsplit(url).scheme.lower() not in {"http", "https"}:
            raise errors.InvalidConfiguration("proxies must be http:// or https:// URLs")
    return dict(proxies or {})
