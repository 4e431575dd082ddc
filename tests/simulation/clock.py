"""One clock for everything that happens in a simulated world."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

BEGINNING = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)


class Clock:
    """Simulated seconds since the beginning; only the scheduler moves them."""

    def __init__(self) -> None:
        self.elapsed = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass, in whole microseconds as the database stores them."""
        self.elapsed = round(self.elapsed + max(seconds, 0.0), 6)

    def reach(self, elapsed: float) -> None:
        """Let time pass until a moment, if it is ahead."""
        self.elapsed = max(self.elapsed, elapsed)

    def now(self) -> datetime:
        """Tell the wall clock's time, UTC."""
        return at(self.elapsed)

    def monotonic(self) -> float:
        """Tell the boot clock's time: the same seconds, another origin."""
        return self.elapsed + 5_000.0


def at(elapsed: float) -> datetime:
    """Turn simulated seconds into an instant."""
    return BEGINNING + timedelta(seconds=elapsed)


def text(moment: datetime) -> str:
    """Write an instant as the database does."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def since(moment: datetime) -> float:
    """Tell an instant in simulated seconds."""
    return (moment - BEGINNING).total_seconds()


def seconds(stored: str) -> float:
    """Read an instant of the database as simulated seconds."""
    return since(datetime.fromisoformat(stored))
