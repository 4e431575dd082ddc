"""Run the simulator: `python -m tests.simulation --commands 100000 --seed 1 --processes 2`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.simulation import running


def main() -> int:
    """Run what the command line says; print a summary as JSON; 1 if anything was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--commands", type=int, default=10_000, help="commands to be accepted in all [10000]")
    parser.add_argument("--seed", type=int, default=1, help="what everything is drawn from [1]")
    parser.add_argument("--processes", type=int, default=1, help="worlds at the same time [1]")
    parser.add_argument("--log", type=Path, help="write the whole event log to this file")
    given = parser.parse_args()
    began = time.monotonic()
    results = running.run(given.commands, given.seed, processes=given.processes, keep_log=given.log is not None)
    if given.log is not None:
        results = list(results)
        given.log.write_text("\n".join(line for result in results for line in result.log), encoding="utf-8")
    summed = running.summary(results, began)
    sys.stdout.write(json.dumps(summed, indent=2) + "\n")
    return 1 if summed["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
