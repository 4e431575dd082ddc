"""The README's ten questions: their queries, run on a small sample practice, and their answers as text.

python -m tests.guide        writes the answers anew into README.md
"""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifecycle import database, schema
from lifecycle.samples import bulk

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"(?<=^<!-- guide -->\n```sql\n)(.*?)(?<=^)```\n\n```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def fill(own: database.Database) -> None:
    """Fill an empty database with the practice that the README's answers are about."""
    bulk.generate(own, appointments=6000, seed=7, until=datetime(2026, 11, 20, tzinfo=UTC), days=42)


def questions() -> list[tuple[str, str]]:
    """Give each query of the README with the answer that is printed below it."""
    return BLOCK.findall(README.read_text(encoding="utf-8"))


def answer(connection: sa.Connection, query: str) -> str:
    """Run a query and write its rows as a table of text, the same for the same rows on every database."""
    result = connection.exec_driver_sql(query.strip().removesuffix(";"))
    rows = [tuple(result.keys()), *(tuple(map(_shown, row)) for row in result)]
    return _aligned(rows)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and INSTANT.fullmatch(value):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return value.isoformat() if isinstance(value, date) else str(value)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def main() -> None:
    """Write the answers into the README."""
    with tempfile.TemporaryDirectory() as folder:
        own = database.Database(f"sqlite:///{folder}/guide.db")
        schema.upgrade(own)
        fill(own)
        with own.read() as connection:
            text = BLOCK.sub(
                lambda found: f"{found[1]}```\n\n```text\n{answer(connection, found[1])}```",
                README.read_text(encoding="utf-8"),
            )
        own.close()
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
