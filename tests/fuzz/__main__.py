"""`python -m tests.fuzz`: prints figures as JSON; exit 1 when something was found."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from dataclasses import asdict

from tests.fuzz import pure, sockets


def main() -> int:
    """Run what the arguments say; one case in a hundred goes over a socket unless told otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=main.__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="for the pure functions")
    parser.add_argument("--sockets", type=int, default=None, help="over sockets")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.getLogger("lifecycle").addHandler(logging.NullHandler())
    begun = time.monotonic()
    in_process = pure.run(given.cases, given.seed)
    over_sockets = sockets.run(given.cases // 100 if given.sockets is None else given.sockets, given.seed)
    report = {"seed": given.seed, "pure": asdict(in_process), "sockets": asdict(over_sockets)}
    json.dump(report | {"seconds": round(time.monotonic() - begun, 1)}, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 1 if in_process.findings or over_sockets.findings else 0


if __name__ == "__main__":
    sys.exit(main())
