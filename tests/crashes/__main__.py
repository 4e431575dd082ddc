"""Run the crash proof and print its figures as JSON; exits with 1 if anything was violated."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.crashes import cold, crowd, forks, kills, queued, stopped, stops, trouble, wal
from tests.crashes.parts import Orders, Report

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

PARTS: Final[dict[str, Callable[[Orders], Report]]] = {
    "kills": kills.run,
    "kills_postgresql": kills.run_on_postgres,
    "queued": queued.run,
    "cold": cold.run,
    "wal": wal.run,
    "crowd": crowd.run,
    "stops": stops.run,
    "stopped": stopped.run,
    "trouble": trouble.run,
}

WAITING: Final = ("stops", "stopped", "trouble", "crowd")
"""Parts that mostly wait for clocks; they run beside the others, which work."""


def main() -> None:
    """Parse, run each part in a process of its own, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.crashes", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to run; all of them")
    parser.add_argument("--kills", type=int, default=2000, help="forked kills, of commands and of recoveries")
    parser.add_argument("--stops", type=int, default=20, help="immediate stops of PostgreSQL")
    parser.add_argument("--rounds", type=int, default=30, help="rounds of eight processes, on each database")
    parser.add_argument("--cold", type=int, default=10, help="kills of the real command line")
    parser.add_argument("--seconds", type=float, help="run kills, stops and rounds for so long instead of counting")
    parser.add_argument("--workers", type=int, default=2, help="fork servers at once")
    parser.add_argument("--seed", type=int, default=1, help="what the random choices depend on")
    options = vars(parser.parse_args())
    only, started = options.pop("only"), time.monotonic()
    figures = _run([name for name in PARTS if name in only], options)
    violations = sum(figures[name]["violations"] for name in only)
    whole = {"seed": options["seed"], **figures, "seconds": round(time.monotonic() - started, 1)}
    print(json.dumps({**whole, "violations": violations}, indent=2))  # noqa: T201 # what the command is for
    sys.exit(1 if violations else 0)


def _run(names: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """Run the parts in two lanes, and give their figures."""
    lanes = [[name for name in names if name not in WAITING], [name for name in names if name in WAITING]]
    running = [_fork(_lane, lane, options) for lane in lanes]
    figures: dict[str, Any] = {}
    for lane, (process, pipe) in zip(lanes, running, strict=True):
        try:
            figures |= pipe.recv()
        except EOFError:
            figures |= {name: Report(violations=["its lane ended without a report"]).document() for name in lane}
        process.join()
    return {name: figures[name] for name in names}


def _lane(pipe: Connection, names: list[str], options: dict[str, Any]) -> None:
    """Run one part after another, each in a forked process: it may start threads, and the next must have none."""
    forks.die_with_parent()
    figures = {}
    for name in names:
        with tempfile.TemporaryDirectory(prefix="lifecycle-crash-") as folder:
            process, told = _fork(_part, name, Orders(folder=Path(folder), **options))
            try:
                report: Report = told.recv()
            except EOFError:
                report = Report(violations=["it ended without a report"])
            process.join()
            figures[name] = report.document()
    pipe.send(figures)


def _part(pipe: Connection, name: str, orders: Orders) -> None:
    forks.die_with_parent()
    try:
        report = PARTS[name](orders)
    except Exception:  # noqa: BLE001 # told where the figures are, and the other parts go on
        report = Report(violations=[f"it fell: {traceback.format_exc()}"])
    report.figures["seconds"] = round(time.monotonic() - report.started, 1)
    pipe.send(report)


def _fork(act: Callable[..., None], *arguments: object) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    forked = multiprocessing.get_context("fork")
    ours, theirs = forked.Pipe(duplex=False)
    process = forked.Process(target=act, args=(theirs, *arguments))
    process.start()
    theirs.close()
    return process, ours


if __name__ == "__main__":
    main()
