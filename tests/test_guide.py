"""The README's ten questions are answered by its queries as it says, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime

from lifecycle import database
from lifecycle.samples import bulk
from tests import guide


def test_there_are_ten_questions() -> None:
    """A query that the pattern does not find would not be tested."""
    assert len(guide.questions()) == guide.README.read_text(encoding="utf-8").count("<!-- guide -->") == 10


def test_each_query_gives_the_answer_in_the_readme(database_url: str) -> None:
    """Word for word: the same practice, the same rows, whatever the database."""
    own = database.Database(database_url)
    guide.fill(own)
    with own.read() as connection:
        for query, expected in guide.questions():
            assert guide.answer(connection, query) == expected
    own.close()


def test_an_answer_can_differ(sqlite_url: str) -> None:
    """The comparison sees a single digit: the practice of another seed has other answers."""
    own = database.Database(sqlite_url)
    bulk.generate(own, appointments=50, seed=8, until=datetime(2026, 11, 20, tzinfo=UTC), days=42)
    with own.read() as connection:
        assert any(guide.answer(connection, query) != expected for query, expected in guide.questions())
    own.close()
