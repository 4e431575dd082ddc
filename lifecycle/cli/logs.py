"""What a command that runs for long tells on stderr, line by line: event words and facts, nothing that came in."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Final

from lifecycle.cli import words


def to_stderr(*, also: tuple[str, ...] = (), quiet: tuple[str, ...] = ()) -> None:
    """Print the package's log from INFO on, that of the libraries `also` from WARNING on, and of `quiet` nothing."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line())
    for name, level in (("lifecycle", logging.INFO), *((each, logging.WARNING) for each in also)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
    for name in quiet:
        # Without any handler Python would print their warnings, whose texts may quote anything.
        logging.getLogger(name).addHandler(logging.NullHandler())


class _Line(logging.Formatter):
    """Time, level, event word, and the facts as name=value: codes, numbers and names of types, nothing that came in."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        facts = [f"{name}={value}" for name, value in vars(record).items() if name not in _OF_EVERY_RECORD]
        return words.printable(" ".join([at, record.levelname.lower(), record.getMessage(), *facts]))


_OF_EVERY_RECORD: Final = {*vars(logging.makeLogRecord({})), "message", "color_message", "taskName"}
