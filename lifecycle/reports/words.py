"""Numbers, shares, lengths of time and instants as people read them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import date, datetime, tzinfo

_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
_PRECISE_BELOW: Final = 10.0
_MANY_TIMES: Final = 10
"""Beyond this a change is no percentage that says anything."""

_NONE: Final = "–"  # noqa: RUF001 # the dash that stands for no number


def number(value: int | None) -> str:
    """Write a count: 1,234,567."""
    return _NONE if value is None else f"{value:,}"


def share(value: float | None) -> str:
    """Write a part of one as per cent: 12.3%."""
    return _NONE if value is None else f"{value:.1%}"


def change(now: int, before: int) -> str:
    """Tell how a count differs from that of the window before."""
    if now == before:
        return "as before"
    if not before:
        return "none before"
    if now / before > _MANY_TIMES:
        return f"{number(before)} before"
    return f"{now / before - 1:+.0%} ({number(before)} before)".replace("-", "\N{MINUS SIGN}")


def length(seconds: float | None) -> str:
    """Write a length of time in its largest fitting unit: 45 s, 12 min, 3.5 h, 2.1 d."""
    if seconds is None:
        return _NONE
    for size, unit in _UNITS:
        if seconds >= size:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < _PRECISE_BELOW else f"{value:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < _PRECISE_BELOW else f"{seconds:.0f} s"


def milliseconds(value: float | None) -> str:
    """Write the length of a call: 340 ms."""
    return _NONE if value is None else f"{value:,.0f} ms"


def instant(value: datetime, zone: tzinfo) -> str:
    """Write an instant in a time zone, with its offset: 2026-12-01 14:00 +00:00."""
    local = value.astimezone(zone)
    offset = local.strftime("%z")
    return f"{local:%Y-%m-%d %H:%M} {offset[:3]}:{offset[3:5]}"


def day(value: date) -> str:
    """Write a day as 1 Dec."""
    return f"{value.day} {value:%b}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Write a count with its noun: 1 command, 2 commands."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"
