"""Filters and the views made of what they choose."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from lifecycle import errors, views
from lifecycle.reports import selection
from lifecycle.reports.filters import Filters
from tests import support

if TYPE_CHECKING:
    from lifecycle import Lifecycle
    from lifecycle.sandbox import Sandbox


def rows(url: str, view: views.View, **filters: object) -> list[sa.RowMapping]:
    """Read a view's chosen rows."""
    engine = sa.create_engine(url)
    made = selection.rows(view, Filters(**filters), dialect=engine.dialect.name)  # type: ignore[arg-type]
    with engine.connect() as connection:
        found = connection.execute(made).mappings().all()
    engine.dispose()
    return list(found)


def test_filters_choose_events_before_they_are_counted(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """The transitions of one actor are the moves of that actor, not those of everybody."""
    for actor in ("user:1", "user:1", "user:2"):
        appointment_id = support.tracked(lifecycle, sandbox, status="pending_booking")
        lifecycle.confirm(appointment_id, actor=actor)
    [everybody] = rows(database_url, views.transitions)
    [one] = rows(database_url, views.transitions, actor="user:1")
    assert (everybody["transitions"], one["transitions"]) == (3, 2)
    assert rows(database_url, views.transitions, actor="user:3") == []


@pytest.mark.parametrize("view", views.ALL, ids=lambda view: view.name)
def test_without_filters_a_selection_is_the_view(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, view: views.View
) -> None:
    """The same rows, so that an export and a query agree."""
    appointment_id = support.tracked(lifecycle, sandbox, status="pending_booking")
    lifecycle.confirm(appointment_id, actor="user:1")
    with pytest.raises(errors.TransitionRefused):
        lifecycle.confirm(appointment_id, actor="user:1")
    lifecycle.cancel(appointment_id, actor="user:1", reason_type="provider_not_available")
    batch = lifecycle.submit_many([{"appointment_id": appointment_id}], actor="user:1", command="cancel")
    assert batch.wait(support.PATIENCE)
    engine = sa.create_engine(database_url)
    with engine.connect() as connection:
        plain = connection.execute(sa.select(view.table)).mappings().all()
    engine.dispose()
    chosen = rows(database_url, view)
    assert chosen
    assert sorted(map(repr, chosen)) == sorted(map(repr, plain))


@pytest.mark.parametrize(
    ("filters", "argument"),
    [
        ({"since": datetime(2026, 1, 1)}, "since"),  # noqa: DTZ001 # that is what is refused
        ({"since": datetime(2026, 1, 2, tzinfo=UTC), "until": datetime(2026, 1, 1, tzinfo=UTC)}, "until"),
        ({"actor": ""}, "actor"),
        ({"appointment_id": "a b"}, "appointment_id"),
    ],
)
def test_filters_that_nothing_could_meet_are_refused(filters: dict[str, object], argument: str) -> None:
    """A naive instant, a window that ends before it begins, text that is no name."""
    with pytest.raises(errors.InvalidArgument) as refused:
        Filters(**filters)  # type: ignore[arg-type] # wrong on purpose
    assert refused.value.argument == argument


def test_current_status_refuses_filters_that_only_events_have(database_url: str) -> None:
    """It has one row for each appointment, whoever acted on it."""
    with pytest.raises(errors.InvalidArgument, match="appointment_id, status, provider_location_id"):
        rows(database_url, views.current_status, actor="user:1")


@pytest.mark.parametrize("name", ["batch_outcomes", "batch_rows"])
def test_batches_are_chosen_by_what_they_have(lifecycle: Lifecycle, database_url: str, name: str) -> None:
    """A batch by its command, actor, source and when it began, a row by its appointment and command; else refused."""
    view = selection.named(name)
    wishes = [{"appointment_id": "a-1"}, {"appointment_id": "a-2"}]
    before, after = datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    for command, actor in (("cancel", "user:1"), ("confirm", "user:2")):
        lifecycle.submit_many(wishes, actor=actor, command=command, batch_id=command)
    chosen: dict[str, list[tuple[dict[str, object], list[str]]]] = {
        "batch_outcomes": [
            ({"actor": "user:1", "source": "api"}, ["cancel"]),
            ({"actor": "user:1", "source": "cli"}, []),
            ({"command": "confirm", "since": before, "until": after}, ["confirm"]),
            ({"since": after}, []),
            ({"until": before}, []),
        ],
        "batch_rows": [
            ({"appointment_id": "a-1"}, ["cancel", "confirm"]),
            ({"appointment_id": "a-2", "command": "cancel"}, ["cancel"]),
            ({"appointment_id": "a-3"}, []),
        ],
    }
    for filters, expected in chosen[name]:
        assert [row["batch_id"] for row in rows(database_url, view, **filters)] == expected
    impossible: tuple[dict[str, object], ...] = (
        {"as_of": after},
        {"event": "command_accepted"},
        {"outcome": "applied"},
    )
    for filters in impossible:
        with pytest.raises(errors.InvalidArgument, match=f"lifecycle_{name} can be filtered by"):
            rows(database_url, view, **filters)


def test_a_view_that_there_is_not_is_named_with_those_that_there_are() -> None:
    """A misspelt name is answered with the list."""
    with pytest.raises(errors.InvalidArgument, match="lifecycle_event_log"):
        selection.named("lifecycle_eventlog")
    assert selection.named("event_log") is selection.named("lifecycle_event_log") is views.event_log
