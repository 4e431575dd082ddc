"""The rows of a view, made of chosen audit events only: what exports, figures and pictures read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import errors, views
from lifecycle.reports import filters as filtering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lifecycle.reports.filters import Filters

ALIAS: Final = "rows_of_view"
"""What the rows are called where their columns are selected."""


def named(name: str) -> views.View:
    """Find a view by its name, with or without `lifecycle_`. Raises `InvalidArgument` naming those that there are."""
    found = views.BY_NAME.get(name) or views.BY_NAME.get(f"lifecycle_{name}")
    if found is None:
        problem = f"there is no such view; there are {', '.join(views.BY_NAME)}"
        raise errors.InvalidArgument(argument="view", problem=problem)
    return found


def rows(view: views.View, filters: Filters, *, dialect: str) -> sa.TextualSelect:
    """Select a view's rows, in its order, from the events that the filters choose; values are bound.

    Before anything is counted: `lifecycle_transitions` of one actor counts the moves of that actor. For
    `lifecycle_current_status` the filters are on the appointment as it stands, for `lifecycle_batch_outcomes` and
    `lifecycle_batch_rows` on the batch and on the row; those that they do not have raise `InvalidArgument`.
    """
    made = statement(view, filters, dialect=dialect)
    return made.columns(*(sa.column(column.name, column.type) for column in view.table.columns))


def statement(view: views.View, filters: Filters, *, dialect: str, cells: Sequence[str] = ("*",)) -> sa.TextClause:
    """Write the same SELECT with other expressions than the columns themselves; they name the rows `ALIAS`."""
    text, bound = _of_events(view, filters, dialect) if view.comparisons is None else _of_rows(view, filters)
    order = ", ".join(f'{ALIAS}."{name}"' for name in view.order)
    made = f"SELECT {', '.join(cells)} FROM ({text}) {ALIAS} ORDER BY {order}"  # noqa: S608 # bound
    return sa.text(made).bindparams(*bound)


def _of_events(view: views.View, filters: Filters, dialect: str) -> tuple[str, list[sa.BindParameter[Any]]]:
    texts, bound = filtering.where(filters)
    if not texts:
        return view.select(dialect), []
    return view.select(dialect, events=f"(SELECT * FROM {views.EVENTS} WHERE {' AND '.join(texts)})"), bound  # noqa: S608 # bound


def _of_rows(view: views.View, filters: Filters) -> tuple[str, list[sa.BindParameter[Any]]]:
    comparisons = view.comparisons or {}
    unknown = sorted(filters.given.keys() - comparisons.keys())
    if unknown:
        problem = f"{view.name} can be filtered by {', '.join(comparisons)} only"
        raise errors.InvalidArgument(argument=unknown[0], problem=problem)
    texts, bound = ["1 = 1"], list[sa.BindParameter[Any]]()
    for name, value in filters.given.items():
        column, operator = comparisons[name]
        texts.append(f"{column} {operator} :{name}")
        bound.append(sa.bindparam(name, value, view.table.c[column].type))
    return f"SELECT * FROM {view.name} WHERE {' AND '.join(texts)}", bound  # noqa: S608 # names of ours
