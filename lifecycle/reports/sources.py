"""What can be exported: the views, and the audit trail itself with its hashes, an archive that can be verified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lifecycle import errors, models, views

if TYPE_CHECKING:
    from collections.abc import Mapping

ARCHIVE: Final = views.View(
    models.audit_events,
    f"SELECT {', '.join(column.name for column in models.audit_events.columns)} FROM {{events}} e",  # noqa: S608 # ours
    ("seq",),
)
"""Every column of the audit events: who keeps this file can recompute each hash without the database."""

EVENTS: Final = frozenset({views.EVENTS, views.event_log.name, views.process_log.name})
"""Those that have one row for each audit event."""

BY_NAME: Final[Mapping[str, views.View]] = {**views.BY_NAME, ARCHIVE.name: ARCHIVE}


def named(name: str) -> views.View:
    """Find one by its name, with or without `lifecycle_`. Raises `InvalidArgument` naming those that there are."""
    found = BY_NAME.get(name) or BY_NAME.get(f"lifecycle_{name}")
    if found is None:
        problem = f"there is no such view; there are {', '.join(BY_NAME)}"
        raise errors.InvalidArgument(argument="view", problem=problem)
    return found
