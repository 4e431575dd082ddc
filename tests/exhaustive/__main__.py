"""`python -m tests.exhaustive`: prints figures as JSON; exit 1 on a violation or on a legal cell that was not hit."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from tests.exhaustive import soak


def main() -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.exhaustive", description=soak.__doc__)
    parser.add_argument("--pairs", default="0", metavar="N", help="so many fault pairs, drawn by the seed, or `all`")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--no-singles", action="store_true", help="leave the single faults out")
    parser.add_argument("--cell", metavar="LABEL", help="run only the cell that a report names")
    given = parser.parse_args()
    if given.cell:
        figures = soak.replay(given.cell)
    else:
        pairs = None if given.pairs == "all" else int(given.pairs)
        figures = soak.run(singles=not given.no_singles, pairs=pairs, seed=given.seed, processes=given.processes)
    report = {"seed": given.seed, "processes": given.processes, **asdict(figures)}
    report["seconds"] = round(figures.seconds, 1)
    json.dump(report, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 0 if figures.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
