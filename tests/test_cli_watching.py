"""`--watch`: a command that is done again and again outlives what fails, from its first round on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from tests.test_cli import settings_for

if TYPE_CHECKING:
    from lifecycle.sandbox import Server

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


@pytest.mark.parametrize("command", [("recover",), ("inbox", "process"), ("sync",)], ids=" ".join)
def test_a_database_that_is_away_is_waited_for(server: Server, command: tuple[str, ...]) -> None:
    """It says so each time, tries again, and ends with Ctrl-C only."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("LIFECYCLE_")}
    child = subprocess.Popen(  # noqa: S603 # our own program
        [sys.executable, "-m", "lifecycle", *command, "--watch", "0.1"],
        env=base | settings_for(server, NOWHERE),
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(60, child.kill)
    watchdog.start()
    assert child.stderr is not None
    told = list(islice(child.stderr, 3))
    child.send_signal(signal.SIGINT)
    child.communicate()
    watchdog.cancel()
    assert all("cannot be reached" in line and "trying again in 0.1 s" in line for line in told)
    assert (len(told), child.returncode) == (3, 130)
