"""The port between the queue and whoever wakes dispatchers up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import sqlalchemy as sa


class Engine(Protocol):
    """Wakes dispatchers up. It may fail, lose everything or wake too often: the queue is in the commands' table."""

    def announce(self, connection: sa.Connection) -> None:
        """Be told, in the transaction that queues commands, that they will be there once it is committed."""

    def committed(self, *_session: object) -> None:
        """Be told that such a transaction was committed, or may have been."""

    def ensure(self) -> None:
        """Set up what is missing, and wake somebody up if commands are queued."""

    def close(self) -> None:
        """Stop what this process does for it: nothing more is taken, what was taken is finished."""
