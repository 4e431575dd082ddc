"""Column types that mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql


class UtcDateTime(sa.TypeDecorator[datetime]):
    """An aware instant, stored as UTC. A naive value is refused: its meaning would depend on the machine."""

    impl = sa.String(27)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[datetime]:
        """Use the database's own type where it has one."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(sa.String(27))  # type: ignore[arg-type] # text stands in for the instant

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | str | None:
        """Store UTC."""
        if value is None:
            return None
        return utc(value) if dialect.name == "postgresql" else utc_text(value)

    def process_result_value(self, value: datetime | str | None, dialect: sa.Dialect) -> datetime | None:
        """Give an aware UTC datetime back."""
        del dialect
        if value is None:
            return None
        return datetime.fromisoformat(value) if isinstance(value, str) else value.astimezone(UTC)


def utc(value: datetime) -> datetime:
    """Give an aware instant in UTC. Raises `ValueError` for a naive one."""
    if value.utcoffset() is None:
        msg = "a datetime without an offset cannot be stored"
        raise ValueError(msg)
    return value.astimezone(UTC)


def utc_text(value: datetime) -> str:
    """Write an aware instant as UTC text of one fixed width. Raises `ValueError` for a naive one."""
    instant = value if value.tzinfo is UTC else utc(value)
    return instant.isoformat(timespec="microseconds")[:26] + "Z"


Json: Final = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
