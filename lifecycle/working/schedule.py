"""Every so many seconds, as cron can say it."""

from __future__ import annotations

from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400

_STEPS: Final = (
    *((number, f"* * * * * */{number}") for number in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)),
    *((number * _MINUTE, f"*/{number} * * * *") for number in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)),
    *((number * _HOUR, f"0 */{number} * * *") for number in (1, 2, 3, 4, 6, 8, 12)),
    (_DAY, "0 0 * * *"),
)
"""Steps that divide a minute, an hour or a day, so that the pauses are even; seconds are cron's sixth field."""


def cron(seconds: float) -> str:
    """Say an interval as a cron line, UTC: the longest even step that is not longer; at least a second. Pure."""
    fitting = [line for step, line in _STEPS if step <= seconds]
    return fitting[-1] if fitting else _STEPS[0][1]
