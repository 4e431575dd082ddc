"""CloudEvents 1.0 (structured mode, JSON, one event a line): the audit trail for an event bus or an archive.

`id` is the event's seq and `source` names this database, so that both together are the same in every export and no
other event's. `time` is when it was recorded, `data` the row of the view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import sqlalchemy as sa

from lifecycle import errors, models, views
from lifecycle.reports import jsonl
from lifecycle.reports.chunks import Chunk

if TYPE_CHECKING:
    from collections.abc import Generator

    from lifecycle.database import Database
    from lifecycle.reports.filters import Filters
    from lifecycle.views import View

_TYPE: Final = "lifecycle.appointment."
_VIEWS: Final = (views.event_log.name, views.EVENTS)


def check(view: View) -> None:
    """Raise `InvalidArgument` for a view whose rows are no events."""
    if view.name not in _VIEWS:
        problem = f"the rows of {view.name} are no events; export {' or '.join(_VIEWS)}"
        raise errors.InvalidArgument(argument="format", problem=problem)


def chunks(database: Database, view: View, filters: Filters) -> Generator[Chunk, None, None]:
    """Iterate over the events as pieces of JSON lines. The read ends with the iterator: exhaust or close it."""
    source = _source(database)
    for block in jsonl.objects(database, view, filters):
        yield Chunk(jsonl.lines([_event(source, row) for row in block]), len(block))


def _event(source: str, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": str(row["seq"]),
        "source": source,
        "type": f"{_TYPE}{row['event']}",
        "subject": row["appointment_id"],
        "time": row["recorded_at"],
        "datacontenttype": "application/json",
        "data": row,
    }


def _source(database: Database) -> str:
    """Name this database: two that hold the same environment were not made in the same microsecond."""
    with database.read() as connection:
        made = connection.execute(_INSTALLATION).one_or_none()
    if made is None:  # nobody has tracked anything yet, so there are no events
        return "urn:zocdoc-lifecycle"
    environment = quote(made.zocdoc_environment, safe="")
    return f"urn:zocdoc-lifecycle:{environment}:{made.created_at:%Y%m%dT%H%M%S.%fZ}"


_INSTALLATION: Final = sa.select(models.installation.c.zocdoc_environment, models.installation.c.created_at)
