"""Who wakes a dispatcher up: a thread of this process, or a distributed engine. None of them owns the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lifecycle import errors

if TYPE_CHECKING:
    from lifecycle.engines.port import Engine
    from lifecycle.resources import Resources

INLINE: Final = "inline"
PROCRASTINATE: Final = "procrastinate"
NAMES: Final = (INLINE, PROCRASTINATE)

_NOT_INSTALLED: Final = "Procrastinate is not installed; pip install 'zocdoc-lifecycle[postgres]'"


def named(name: str, resources: Resources, *, concurrency: int) -> Engine:
    """Make the engine of that name. Raises `ConfigurationError`, `InvalidArgument`."""
    if name == INLINE:
        from lifecycle.engines.inline import InlineEngine  # noqa: PLC0415 # only the one that is asked for

        return InlineEngine(resources, concurrency=concurrency)
    if name == PROCRASTINATE:
        try:
            from lifecycle.engines.postgres import PostgresEngine  # noqa: PLC0415 # as above
        except ModuleNotFoundError:
            raise errors.ConfigurationError(problem=_NOT_INSTALLED) from None
        return PostgresEngine(resources.database)
    raise errors.ConfigurationError(problem=f"there is no engine of that name; use one of {', '.join(NAMES)}")
