"""`python -m tests.fuzz`: prints figures as JSON; exit 1 when something was found."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from dataclasses import asdict

from tests.fuzz import pure, sockets, webhooks


def main() -> int:
    """Run what the arguments say; one case in a hundred goes over a socket unless told otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=main.__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="for the pure functions")
    parser.add_argument("--sockets", type=int, default=None, help="over sockets")
    parser.add_argument("--webhooks", type=int, default=None, help="webhook calls, and nothing else")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.getLogger("lifecycle").addHandler(logging.NullHandler())
    begun = time.monotonic()
    if given.webhooks is not None:
        parts: dict[str, pure.Figures | webhooks.Figures] = {"webhooks": webhooks.run(given.webhooks, given.seed)}
    else:
        over_sockets = given.cases // 100 if given.sockets is None else given.sockets
        parts = {"pure": pure.run(given.cases, given.seed), "sockets": sockets.run(over_sockets, given.seed)}
    seconds = round(time.monotonic() - begun, 1)
    report = {"seed": given.seed} | {name: asdict(figures) for name, figures in parts.items()} | {"seconds": seconds}
    json.dump(report, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 1 if any(figures.findings for figures in parts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
