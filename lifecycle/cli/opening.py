"""From settings to the library's objects, for as long as a command runs."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import lifecycle
from lifecycle import settings, zocdoc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.telemetry import Telemetry

_NO_ZOCDOC = (
    f"no Zocdoc settings: set {settings.ZOCDOC}ENVIRONMENT (sandbox or production), {settings.ZOCDOC}CLIENT_ID and "
    f"{settings.ZOCDOC}CLIENT_SECRET; `lifecycle sandbox` starts a local stand-in and prints its settings"
)


@contextmanager
def opened(
    database_url: str,
    *,
    needs_zocdoc: bool = True,
    webhook_keys: tuple[str, ...] = (),
    dispatch: str | None = None,
    concurrency: int = 8,
) -> Iterator[lifecycle.Lifecycle]:
    """Open a `Lifecycle` as the environment says, but for `dispatch` if that is given.

    Raises `SettingsError` if Zocdoc's settings are needed and absent.
    """
    # What goes wrong is told once, as an error; without a handler Python would print warnings of the library as well.
    logging.getLogger("lifecycle").addHandler(logging.NullHandler())
    with ExitStack() as stack:
        chosen = settings.zocdoc(os.environ)
        if chosen is None and needs_zocdoc:
            raise settings.SettingsError(_NO_ZOCDOC)
        hook = _telemetry()
        pace = None if chosen is None else _pace(database_url, stack)
        client = None if chosen is None else stack.enter_context(_client(chosen, hook, pace))
        yield stack.enter_context(
            lifecycle.Lifecycle(
                database_url,
                zocdoc=client,
                webhook_keys=webhook_keys,
                source="cli",
                telemetry=hook,
                dispatch=dispatch or settings.dispatch(os.environ),
                concurrency=concurrency,
            )
        )


@contextmanager
def reading(database_url: str) -> Iterator[lifecycle.Lifecycle]:
    """Open a `Lifecycle` that only reads the database; the settings of Zocdoc are not looked at."""
    with lifecycle.Lifecycle(database_url, source="cli") as it:
        yield it


def has_zocdoc() -> bool:
    """Tell whether the environment holds settings of Zocdoc."""
    return settings.zocdoc(os.environ) is not None


def _telemetry() -> Telemetry | None:
    """Make the hook that the environment asks for; its exporters are OpenTelemetry's own settings."""
    if settings.telemetry(os.environ) != settings.OTEL:
        return None
    from lifecycle import otel  # noqa: PLC0415 # an extra

    return otel.OpenTelemetry()


def _pace(database_url: str, stack: ExitStack) -> zocdoc.Pace | None:
    """Open the rate that all processes of the database share, None when there is none. Raises `SettingsError`."""
    rate = settings.rate(os.environ)
    if rate is None:
        return None
    from lifecycle import rates  # noqa: PLC0415 # a tenth of a second that only those pay who have a rate

    return stack.enter_context(closing(rates.shared(database_url, rate)))


def _client(
    chosen: settings.ZocdocSettings, hook: Telemetry | None, pace: zocdoc.Pace | None
) -> lifecycle.ZocdocClient:
    options: dict[str, Any] = {
        "telemetry": hook,
        "pace": pace,
        "client_id": chosen.client_id,
        "client_secret": chosen.client_secret,
        "access_token": chosen.access_token,
        "identity": chosen.identity,
    }
    try:
        if chosen.base_url is None:
            return lifecycle.ZocdocClient.for_environment(chosen.environment or "", **options)
        place: dict[str, Any] = {"token_url": chosen.token_url, "audience": chosen.audience}
        return lifecycle.ZocdocClient(base_url=chosen.base_url, **place, **options)
    except zocdoc.InvalidConfiguration as error:
        raise settings.SettingsError(_by_variable(str(error))) from None


def _by_variable(problem: str) -> str:
    """Name the variable where the client names its argument, which comes first in its texts."""
    first, _, rest = problem.partition(" ")
    known = first in settings.ZocdocSettings.__dataclass_fields__
    return f"{settings.ZOCDOC}{first.upper()} {rest}" if known else f"the settings of Zocdoc: {problem}"
