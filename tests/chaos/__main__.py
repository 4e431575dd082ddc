"""Run the proof of the workers and print its figures as JSON; exits with 1 if anything was violated."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tests.chaos import rounds
from tests.chaos.judging import Verdict
from tests.chaos.rounds import Round
from tests.crashes.grounds import PostgresGround

if TYPE_CHECKING:
    from collections.abc import Callable

TRIES: Final = 3
"""For a round that came too late."""


def main() -> None:
    """Parse, run one kind of round after the other, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--commands", type=int, default=1000, help="commands of each round")
    parser.add_argument("--kills", type=int, default=10, help="rounds with a kill -9, with short intervals")
    parser.add_argument(
        "--default-kills", type=int, default=1, help="the same by the command line, as in use: 2 minutes"
    )
    parser.add_argument("--storms", type=int, default=2, help="rounds in which one worker after the other is killed")
    parser.add_argument(
        "--freezes", type=int, default=2, help="rounds with SIGSTOP for longer than the lease, then SIGCONT"
    )
    parser.add_argument("--stops", type=int, default=3, help="rounds with SIGTERM")
    parser.add_argument("--drops", type=int, default=1, help="rounds in which the engine's tables are dropped")
    parser.add_argument("--crashes", type=int, default=3, help="rounds in which PostgreSQL crashes")
    parser.add_argument("--seed", type=int, default=1, help="what the random moments depend on")
    options = parser.parse_args()
    kinds: dict[str, tuple[int, Callable[..., Round], str]] = {
        "kills": (options.kills, partial(rounds.kill, is_quick=True), "seconds_to_recovery"),
        "default_kills": (options.default_kills, partial(rounds.kill, is_quick=False), "seconds_to_recovery"),
        "storms": (options.storms, rounds.storm, "seconds_to_recovery"),
        "freezes": (options.freezes, rounds.freeze, "seconds_to_the_end"),
        "stops": (options.stops, rounds.stop, "seconds_to_stop"),
        "drops": (options.drops, rounds.drop, "seconds_to_the_end"),
        "crashes": (options.crashes, rounds.crash, "seconds_to_the_end"),
    }
    started, figures = time.monotonic(), dict[str, Any]()
    with PostgresGround() as ground:
        for name, (count, act, measured) in kinds.items():
            run = partial(act, ground, commands=options.commands)
            found = [_run(name, partial(run, seed=f"{options.seed}/{name}/{number}")) for number in range(count)]
            if found:
                figures[name] = rounds.document(found, measured)
    violations = sum(each["violations"] for each in figures.values())
    whole = {"seed": options.seed, **figures, "seconds": round(time.monotonic() - started, 1)}
    print(json.dumps({**whole, "violations": violations}, indent=2))  # noqa: T201 # what the command is for
    sys.exit(1 if violations else 0)


def _run(name: str, act: Callable[[], Round]) -> Round:
    """Go through a round, and tell on stderr that it is over: all of them take minutes."""
    for left in reversed(range(TRIES)):
        found = _go_through(act)
        if found.violations or not found.came_too_late:
            break
        found.faults += ["it came too late: nothing was done to the workers in the middle of the batch"] * (not left)
    words = f"{name}: {found.seconds:.1f} s, {found.verdict.cut_off} cut off, {len(found.violations)} violations"
    print(words, *found.violations[:5], sep="\n  ", file=sys.stderr)  # noqa: T201 # as above
    return found


def _go_through(act: Callable[[], Round]) -> Round:
    try:
        return act()
    except Exception:  # noqa: BLE001 # told where the figures are, and the other rounds go on
        return Round(Verdict(), 0.0, [f"it fell: {traceback.format_exc()}"])


if __name__ == "__main__":
    main()
