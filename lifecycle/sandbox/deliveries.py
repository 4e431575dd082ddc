"""What is known of webhooks: how they are delivered, to whom, and what came of each delivery."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from lifecycle.sandbox import callbacks
from lifecycle.sandbox.callbacks import Target, Trouble

if TYPE_CHECKING:
    from lifecycle.sandbox.messages import Json

_TWO_DAYS: Final = 48 * 3600.0
_MOST_COPIES: Final = 100
_MOST_WORKERS: Final = 64
_LONGEST: Final = 30 * 86400.0  # seconds; it keeps NaN and infinity out


class Ended(StrEnum):
    """How a delivery ended: it was answered, given up, never sent, or the stand-in was closed."""

    ANSWERED = "answered"
    GAVE_UP = "gave_up"
    LOST = "lost"
    STOPPED = "stopped"


class Order(StrEnum):
    """In which order the deliveries leave that were held back."""

    GIVEN = "given"
    REVERSED = "reversed"
    SHUFFLED = "shuffled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """How webhooks are delivered; times are seconds. The defaults are as documented, where Zocdoc documents it.

    - `answer_within`, `give_up_after`: documented, 5 seconds and 48 hours
    - `first_retry`: the first pause, which doubles from retry to retry; the figure is the stand-in's choice
    - `resign`: a retry carries a fresh timestamp and signature; not documented, the stand-in's choice
    - `second_version`: signatures read `v1:...;v2:...`
    - `clock_offset`: added to the time of signing, so that calls look old (negative) or come from the future
    - `copies`: every event is delivered so many times, each copy with retries of its own
    - `delay`, `spread`: a call waits `delay`, and at random up to `spread` more, which reorders
    - `loss`: the share of deliveries that are never sent
    - `hold`: deliveries wait for `Webhooks.release`
    - `workers`: calls at the same time; with 1 the order on the wire is the order of the events

    Raises `ValueError` for a number out of range.
    """

    answer_within: float = 5.0
    first_retry: float = 1.0
    give_up_after: float = _TWO_DAYS
    resign: bool = True
    second_version: bool = False
    clock_offset: float = 0.0
    copies: int = 1
    delay: float = 0.0
    spread: float = 0.0
    loss: float = 0.0
    hold: bool = False
    workers: int = 8

    def __post_init__(self) -> None:
        for name, least, most in _RANGES:
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} may be {least:g} to {most:g}")

    def changed(self, document: object) -> Self:
        """Return these knobs with the members of a JSON object; raises `ValueError` for what does not fit."""
        kinds = {knob.name: type(knob.default) for knob in fields(self)}
        if not isinstance(document, dict) or not set(document) <= set(kinds):
            raise ValueError(f"webhooks have the knobs {', '.join(sorted(kinds))}")
        for name, value in document.items():
            fitting = (int, float) if kinds[name] is float else (kinds[name],)
            if type(value) not in fitting:
                raise ValueError(f"{name} is of the wrong type")
        return replace(self, **document)

    def document(self) -> Json:
        """Return the knobs as the control endpoint shows them."""
        return {knob.name: getattr(self, knob.name) for knob in fields(self)}


_RANGES: Final = (
    ("answer_within", 0.001, _LONGEST),
    ("first_retry", 0.001, _LONGEST),
    ("give_up_after", 0.0, _LONGEST),
    ("clock_offset", -_LONGEST, _LONGEST),
    ("copies", 1, _MOST_COPIES),
    ("delay", 0.0, _LONGEST),
    ("spread", 0.0, _LONGEST),
    ("loss", 0.0, 1.0),
    ("workers", 1, _MOST_WORKERS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Who is called, and the shared key (base64) that signs. Raises `ValueError` for one that will not do."""

    subscription_id: str
    url: str
    key: str = field(repr=False)

    def __post_init__(self) -> None:
        for name, check, value in (("url", Target.parse, self.url), ("key", callbacks.decode_key, self.key)):
            try:
                check(value)
            except ValueError as wrong:
                raise ValueError(f"{name} {wrong}") from None

    def document(self) -> Json:
        """Return the subscription without its key."""
        return {"subscription_id": self.subscription_id, "url": self.url}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call: when it began (monotonic seconds), the Unix second it was signed at, and what it got."""

    at: float
    signed_at: int
    got: int | Trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event on its way to one subscription. `ended` is None while calls may still come."""

    delivery_id: str
    to: Subscription
    appointment_id: str
    update_type: str
    body: bytes
    attempts: tuple[Attempt, ...] = ()
    ended: Ended | None = None

    @property
    def body_digest(self) -> str:
        """SHA-256 of the raw body, in hex."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def got(self) -> list[int | Trouble]:
        """What each call got, in order."""
        return [attempt.got for attempt in self.attempts]

    def document(self) -> Json:
        """Return the delivery as the control endpoint shows it, without key and body."""
        return {
            "delivery_id": self.delivery_id,
            "url": self.to.url,
            "appointment_id": self.appointment_id,
            "update_type": self.update_type,
            "body_digest": self.body_digest,
            "attempts": [
                {"at": attempt.at, "signed_at": attempt.signed_at, "got": attempt.got} for attempt in self.attempts
            ],
            "ended": self.ended,
        }
