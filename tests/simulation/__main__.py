"""Run the simulator: `python -m tests.simulation --commands 100000 --seed 1 --processes 2`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.simulation import running

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    summed = running.summary(_logged(results, given.log), began)
    sys.stdout.write(json.dumps(summed, indent=2) + "\n")
    return 1 if summed["violations"] else 0


def _logged(results: Iterator[running.Result], file: Path | None) -> Iterator[running.Result]:
    """Write each world's log as it comes, so that memory stays flat."""
    if file is None:
        yield from results
        return
    with file.open("w", encoding="utf-8") as log:
        for result in results:
            log.writelines(f"{line}\n" for line in result.log)
            yield result


if __name__ == "__main__":
    sys.exit(main())
