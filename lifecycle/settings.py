"""Settings from the environment: where the database and Zocdoc are, and whose credential is used.

| variable | meaning |
|---|---|
| `LIFECYCLE_DATABASE_URL` | SQLAlchemy URL, by default `sqlite:///appointments.db` |
| `LIFECYCLE_ZOCDOC_ENVIRONMENT` | `sandbox` or `production`; or instead of it: |
| `LIFECYCLE_ZOCDOC_BASE_URL`, `_TOKEN_URL`, `_AUDIENCE` | another address, such as the local stand-in's |
| `LIFECYCLE_ZOCDOC_CLIENT_ID`, `_CLIENT_SECRET` | machine-to-machine credentials; or instead of them: |
| `LIFECYCLE_ZOCDOC_ACCESS_TOKEN` | a ready access token |
| `LIFECYCLE_ZOCDOC_IDENTITY` | whose credential that is: `machine` (default) or `user:ID` |
| `LIFECYCLE_ZOCDOC_RATE` | requests that all processes of the database send together: `20/s`, `600/min`, `10000/h` |
| `LIFECYCLE_CHECKPOINT_KEY` | the key that signs checkpoints: 64 hex digits or more, as `openssl rand -hex 32` makes |
| `LIFECYCLE_DISPATCH` | who carries submitted commands out: `inline` (default), or workers by `procrastinate` |
| `LIFECYCLE_WEBHOOK_KEYS` | Zocdoc's base64 keys of webhooks, separated by commas; in a file also by lines |
| `LIFECYCLE_TELEMETRY` | who is told of commands and calls: `log` (default), or `otel`: OpenTelemetry |
| `LIFECYCLE_PAGE_TOKEN` | what opens the page of `lifecycle serve` to others than this machine |

The database URL, the client secret, the access token, the webhook keys, the checkpoint key and the page's token may
come from a file, which `..._FILE` names. An empty variable counts as not set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lifecycle.quota import Quota

if TYPE_CHECKING:
    from collections.abc import Mapping

DATABASE_URL: Final = "LIFECYCLE_DATABASE_URL"
DEFAULT_DATABASE_URL: Final = "sqlite:///appointments.db"
ZOCDOC: Final = "LIFECYCLE_ZOCDOC_"
"""Each field of `ZocdocSettings`, in capitals, comes after it."""

WEBHOOK_KEYS: Final = "LIFECYCLE_WEBHOOK_KEYS"
PAGE_TOKEN: Final = "LIFECYCLE_PAGE_TOKEN"  # noqa: S105 # a name

DISPATCH: Final = "LIFECYCLE_DISPATCH"
INLINE: Final = "inline"
PROCRASTINATE: Final = "procrastinate"
DISPATCHES: Final = (INLINE, PROCRASTINATE)

TELEMETRY: Final = "LIFECYCLE_TELEMETRY"
LOG: Final = "log"
OTEL: Final = "otel"

CHECKPOINT_KEY: Final = "LIFECYCLE_CHECKPOINT_KEY"

ENVIRONMENTS: Final = ("sandbox", "production")

_TOKEN: Final = re.compile(r"[!-~]{32,512}")
_MACHINE: Final = "machine"
_BASE64: Final = re.compile(r"(?!$)(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}){32,}")
_IDENTITY: Final = re.compile(r"machine|user:[!-~]{1,200}")


class SettingsError(Exception):
    """A setting is missing, cannot be read, or contradicts another; the text says what to set and holds no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZocdocSettings:
    """Which Zocdoc to talk to, and as whom. `environment` or `base_url`; a client id with its secret, or a token."""

    environment: str | None = None
    base_url: str | None = None
    token_url: str | None = None
    audience: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    access_token: str | None = field(default=None, repr=False)
    identity: str = _MACHINE


def database_url(environ: Mapping[str, str]) -> str:
    """Tell the database's URL, which may hold a password. Raises `SettingsError`."""
    return _secret(environ, DATABASE_URL) or DEFAULT_DATABASE_URL


def zocdoc(environ: Mapping[str, str]) -> ZocdocSettings | None:
    """Read and check the settings of Zocdoc; None when there are none at all. Raises `SettingsError`."""
    place = {name: environ.get(ZOCDOC + name.upper()) or None for name in _PLACE}
    credential = {
        "client_id": environ.get(f"{ZOCDOC}CLIENT_ID") or None,
        "client_secret": _secret(environ, f"{ZOCDOC}CLIENT_SECRET"),
        "access_token": _secret(environ, f"{ZOCDOC}ACCESS_TOKEN"),
    }
    if not any((place | credential).values()):
        return None
    found = ZocdocSettings(**place, **credential, identity=environ.get(f"{ZOCDOC}IDENTITY") or _MACHINE)
    for problem in (_place_problem(found), _credential_problem(found), _identity_problem(found)):
        if problem is not None:
            raise SettingsError(problem)
    return found


def rate(environ: Mapping[str, str]) -> Quota | None:
    """Read how many requests may be sent to Zocdoc; None: as many as there are. Raises `SettingsError`."""
    given = environ.get(f"{ZOCDOC}RATE")
    if not given:
        return None
    try:
        return Quota.parse(given)
    except ValueError as error:
        raise SettingsError(f"{ZOCDOC}RATE cannot be read: {error}") from None


def webhook_keys(environ: Mapping[str, str]) -> tuple[str, ...]:
    """List the webhook keys in base64; none when the variable is not set. Raises `SettingsError`."""
    given = _secret(environ, WEBHOOK_KEYS)
    if given is None:
        return ()
    keys = tuple(key.strip() for key in re.split(r"[,\n]", given))
    for number, key in enumerate(keys, start=1):
        if not _BASE64.fullmatch(key):
            problem = "is empty" if not key else "is not base64"
            raise SettingsError(
                f"{WEBHOOK_KEYS}: key {number} of {len(keys)} {problem}; set the keys as Zocdoc gave them"
            )
    return keys


def checkpoint_key(environ: Mapping[str, str]) -> bytes:
    """Read the key that signs checkpoints, 32 bytes or more. Raises `SettingsError`."""
    given = _secret(environ, CHECKPOINT_KEY)
    hint = "64 hex digits or more, such as `openssl rand -hex 32` makes, and keep them away from the database"
    if given is None:
        raise SettingsError(f"{CHECKPOINT_KEY} is not set; set {hint}")
    if not _HEX.fullmatch(given.strip()):
        raise SettingsError(f"{CHECKPOINT_KEY} is too short or not hex; set {hint}")
    return bytes.fromhex(given.strip())


def page_token(environ: Mapping[str, str]) -> str | None:
    """Give the token of the page, None when there is none. Raises `SettingsError`."""
    given = _secret(environ, PAGE_TOKEN)
    if given is not None and not _TOKEN.fullmatch(given):
        raise SettingsError(f"{PAGE_TOKEN} needs 32 to 512 visible ASCII characters, such as of `openssl rand -hex 32`")
    return given


def dispatch(environ: Mapping[str, str]) -> str:
    """Tell who carries submitted commands out: `inline` or `procrastinate`. Raises `SettingsError`."""
    given = environ.get(DISPATCH) or INLINE
    if given not in DISPATCHES:
        raise SettingsError(f"{DISPATCH} is neither inline nor procrastinate; set one of them")
    return given


def telemetry(environ: Mapping[str, str]) -> str:
    """Tell who is told of commands and calls: `log` or `otel`. Raises `SettingsError`."""
    given = environ.get(TELEMETRY) or LOG
    if given not in {LOG, OTEL}:
        raise SettingsError(f"{TELEMETRY} is neither {LOG} nor {OTEL}; set one of them")
    return given


def _secret(environ: Mapping[str, str], name: str) -> str | None:
    """Give a variable's value, or the content of the file that `NAME_FILE` names."""
    value, path = environ.get(name), environ.get(f"{name}_FILE")
    if not path:
        return value or None
    if value:
        raise SettingsError(f"{name} and {name}_FILE are both set; keep one of them")
    try:
        content = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"{name}_FILE names {path}, which cannot be read: {error.strerror}") from None
    except ValueError:
        raise SettingsError(f"{name}_FILE names {path}, which is not a text in UTF-8") from None
    if not content:
        raise SettingsError(f"{name}_FILE names {path}, which is empty")
    return content


def _place_problem(found: ZocdocSettings) -> str | None:
    if found.environment is None and found.base_url is None:
        return f"set {ZOCDOC}ENVIRONMENT to sandbox or production, or {ZOCDOC}BASE_URL to another address"
    if found.environment is None:
        return None
    if found.environment not in ENVIRONMENTS:
        return f"{ZOCDOC}ENVIRONMENT is neither sandbox nor production; set one of them, or {ZOCDOC}BASE_URL"
    for name in ("base_url", "token_url", "audience"):
        if getattr(found, name) is not None:
            variable = ZOCDOC + name.upper()
            return f"{ZOCDOC}ENVIRONMENT and {variable} contradict each other; unset one of them"
    return None


def _credential_problem(found: ZocdocSettings) -> str | None:
    has_pair = found.client_id is not None or found.client_secret is not None
    if found.access_token is not None:
        both = f"set {ZOCDOC}ACCESS_TOKEN or {ZOCDOC}CLIENT_ID with {ZOCDOC}CLIENT_SECRET, not both"
        return both if has_pair else None
    if not has_pair:
        return f"set {ZOCDOC}CLIENT_ID and {ZOCDOC}CLIENT_SECRET (or ..._FILE), or {ZOCDOC}ACCESS_TOKEN (or ..._FILE)"
    if found.client_id is None:
        return f"{ZOCDOC}CLIENT_SECRET is set without {ZOCDOC}CLIENT_ID; set both"
    if found.client_secret is None:
        return f"{ZOCDOC}CLIENT_ID is set without {ZOCDOC}CLIENT_SECRET; set both (the secret also by ..._FILE)"
    needs_token_url = found.base_url is not None and found.token_url is None
    return f"set {ZOCDOC}TOKEN_URL too: {ZOCDOC}BASE_URL does not tell who gives tokens" if needs_token_url else None


def _identity_problem(found: ZocdocSettings) -> str | None:
    if not _IDENTITY.fullmatch(found.identity):
        return f"{ZOCDOC}IDENTITY must be machine, or user: and the user's id"
    if found.identity != _MACHINE and found.access_token is None:
        return f"{ZOCDOC}IDENTITY names a user: set that user's {ZOCDOC}ACCESS_TOKEN instead of a client id and secret"
    return None


_PLACE: Final = ("environment", "base_url", "token_url", "audience")
