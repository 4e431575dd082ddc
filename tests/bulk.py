"""`python -m tests.bulk`: the bulk command line under faults and kills, its result file held against the ledger.

The stand-in's ledger is the witness: what the file says of each row must be what reached the stand-in and what it did.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lifecycle import Lifecycle, database, schema
from lifecycle.sandbox import Fault, Sandbox, serve
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lifecycle.sandbox import Entry, Server

UNKNOWN: Final = "unknown-to-everybody"

FAULTS: Final[tuple[dict[str, object], ...]] = (
    {"kind": "reset", "when": "before"},
    {"kind": "reset", "when": "after"},
    {"kind": "close", "when": "after"},
    {"kind": "truncate"},
    {"kind": "answer", "status": 500},
    {"kind": "answer", "status": 500, "when": "after"},
    {"kind": "answer", "status": 504, "when": "after"},
    {"kind": "answer", "status": 404},
    {"kind": "answer", "status": 400},
    {"kind": "answer", "status": 429},
    {"kind": "delay", "seconds": 0.3},
    {"kind": "foreign_id"},
    {"kind": "unknown_status", "value": "waitlisted"},
)
"""What may befall a cancel, once for each appointment that is struck."""

QUICK: Final = """
import functools
import lifecycle
from lifecycle import Timing
timing = Timing(send_window=0.5, lease_margin=0.2, settle=0.05, spacing=(0.05, 0.1), read_backoff=0.02, failed_reads=50,
                resend_backoff=0.05)
lifecycle.Lifecycle = functools.partial(lifecycle.Lifecycle, timing=timing)
lifecycle.ZocdocClient = functools.partial(lifecycle.ZocdocClient, deadline=1.0, timeout=1.0)
"""
"""The product's intervals, shortened, before the command line runs."""

RUN: Final = """
from lifecycle.cli.main import run
run()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a run came to; `findings` is empty if the file and the ledger agree."""

    appointments: int
    struck: int
    kills: int
    seconds: float
    exit_codes: list[int]
    states: dict[str, int]
    requests: int
    findings: list[str] = field(default_factory=list)


def prove(
    url: str, folder: Path, *, appointments: int, faults: float, seed: int = 1, kills: int = 0, is_quick: bool = False
) -> Figures:
    """Cancel so many appointments, a share of which is struck by a fault, and compare row by row."""
    chance = random.Random(seed)  # noqa: S311 # samples
    sandbox = Sandbox()
    with serve(sandbox) as server:
        ids = _world(sandbox, server, url, appointments)
        path, expected = _file(folder / "ids.csv", ids, chance)
        struck = _arm(sandbox, ids, faults, chance)
        result = folder / "results.csv"
        begun = time.monotonic()
        codes = _run(server, url, path, result, kills=kills, chance=chance, is_quick=is_quick)
        seconds = time.monotonic() - begun
        rows = read(result)
        findings = compare(sandbox, rows, expected)
    return Figures(
        appointments=appointments,
        struck=struck,
        kills=kills,
        seconds=round(seconds, 1),
        exit_codes=codes,
        states=dict(Counter(row["state"] for row in rows)),
        requests=len(sandbox.ledger.entries()),
        findings=findings,
    )


def command_line(server: Server, url: str, *arguments: str, is_quick: bool = True) -> subprocess.Popen[str]:
    """Start the command line as a process of its own, with its intervals shortened if it is to be quick."""
    settings = {
        "LIFECYCLE_DATABASE_URL": url,
        "LIFECYCLE_ZOCDOC_BASE_URL": server.base_url,
        "LIFECYCLE_ZOCDOC_TOKEN_URL": server.token_url,
        "LIFECYCLE_ZOCDOC_AUDIENCE": server.audience,
        "LIFECYCLE_ZOCDOC_CLIENT_ID": "sandbox-client",
        "LIFECYCLE_ZOCDOC_CLIENT_SECRET": "sandbox-secret",
    }
    return subprocess.Popen(  # noqa: S603 # our own program
        [sys.executable, "-c", (QUICK if is_quick else "") + RUN, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=support.environment(**settings),
    )


def _world(sandbox: Sandbox, server: Server, url: str, appointments: int) -> list[str]:
    """Track confirmed appointments; then one in 50 is cancelled and one in 100 missed, which only Zocdoc knows yet."""
    ids = sandbox.add_many(appointments, prefix="bulk-", status="confirmed")
    for appointment_id in ids[7::50]:
        sandbox.change(appointment_id, status="cancelled", webhook=False)
    with support.client_of(server) as client, Lifecycle(url, zocdoc=client) as lifecycle:
        lifecycle.sync()
    for appointment_id in ids[11::100]:
        sandbox.change(appointment_id, status="cancelled", webhook=False)
    for appointment_id in ids[13::100]:
        sandbox.change(appointment_id, status="no_show", webhook=False)
    return ids


def _file(path: Path, ids: Sequence[str], chance: random.Random) -> tuple[Path, list[str | None]]:
    """Write the input: every appointment once, in any order, and among them rows that nothing can become of."""
    wanted: list[tuple[str, str | None]] = [(f"{each},", each) for each in ids]
    chance.shuffle(wanted)
    middle = len(wanted) // 2
    wanted[middle:middle] = [
        (f"{UNKNOWN},", UNKNOWN),
        ("not/an/id,", None),
        (f"{wanted[0][1]},", wanted[0][1]),
        (f"{ids[0]},x,y", ids[0]),
        (f"{UNKNOWN}-2,bored", f"{UNKNOWN}-2"),
    ]
    path.write_text("\n".join(["appointment_id,reason_type", *(text for text, _ in wanted), ""]), encoding="utf-8")
    return path, [appointment_id for _, appointment_id in wanted]


def _arm(sandbox: Sandbox, ids: Sequence[str], faults: float, chance: random.Random) -> int:
    chosen = chance.sample(list(ids), round(len(ids) * faults))
    for number, appointment_id in enumerate(chosen):
        fault = {"operation": "cancel", "appointment_id": appointment_id, **FAULTS[number % len(FAULTS)]}
        sandbox.faults.add(Fault.parse(fault))
    return len(chosen)


def _run(
    server: Server, url: str, path: Path, result: Path, *, kills: int, chance: random.Random, is_quick: bool
) -> list[int]:
    """Run the same command until it is through; the first few times it is killed in the middle."""
    arguments = ("bulk", "cancel", "--file", str(path), "--yes", "--result", str(result), "--settle-for", "90")
    codes = []
    for _ in range(kills):
        before = len(server.sandbox.ledger.entries())
        process = command_line(server, url, *arguments, "--reason-type", "provider_not_available", is_quick=is_quick)
        wanted = before + chance.randrange(5, 60)
        _until(lambda wanted=wanted: len(server.sandbox.ledger.entries()) >= wanted, process)
        process.kill()
        process.communicate()
        codes.append(process.returncode)
    process = command_line(server, url, *arguments, "--reason-type", "provider_not_available", is_quick=is_quick)
    _, told = process.communicate(timeout=3600)
    sys.stderr.write(told)
    return [*codes, process.returncode]


def _until(condition: object, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not condition() and process.poll() is None and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.002)


def read(result: Path) -> list[dict[str, str]]:
    """Read a result file."""
    with result.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def compare(sandbox: Sandbox, rows: Sequence[Mapping[str, str]], expected: Sequence[str | None]) -> list[str]:
    """Hold the rows against the input, and each of them against the ledger and the appointment as it stands."""
    findings = []
    if [int(row["row"]) for row in rows] != list(range(1, len(expected) + 1)):
        findings.append("the rows of the result are not those of the input, in order")
    entries: dict[str | None, list[Entry]] = defaultdict(list)
    for entry in sandbox.ledger.entries():
        entries[entry.appointment_id].append(entry)
    for row, appointment_id in zip(rows, expected, strict=False):
        about = f"row {row['row']} ({row['state']}, {row['reason_code']}) of {appointment_id}"
        findings += [f"{about}: {problem}" for problem in _problems(sandbox, row, appointment_id, entries)]
    return findings


def _problems(
    sandbox: Sandbox, row: Mapping[str, str], appointment_id: str | None, entries: Mapping[str | None, list[Entry]]
) -> Iterator[str]:
    told = row["appointment_id"] or None
    if told not in {appointment_id, None} or (told is None and row["state"] != "invalid"):
        yield f"it names {told}"
    if row["state"] == "invalid":
        return
    seen = entries.get(appointment_id, [])
    cancels = [entry for entry in seen if entry.operation == "cancel"]
    yield from _blind_repeats(seen)
    match row["state"]:
        case "applied":
            yield from _applied(row, cancels, sandbox.appointment(appointment_id or "").status)
            yield from _request(row, seen)
        case "rejected":
            yield from _rejected(row, cancels)
            yield from _request(row, seen)
        case "refused":
            yield from ["refused, but it was sent"] if cancels else []
        case "needs_attention":
            # A lost answer, and a provider's change in between: no read can tell what became of the cancel.
            yield from [] if sandbox.appointment(appointment_id or "").status == "no_show" else ["a read could tell"]
        case _:
            yield "it has not ended"


def _applied(row: Mapping[str, str], cancels: Sequence[Entry], status: str) -> Iterator[str]:
    effects = sum(entry.effect for entry in cancels)
    if status != "cancelled":
        yield f"it is {status}"
    # What was cancelled by the provider before is found so, at once or by reading after a lost answer.
    least = 0 if row["reason_code"] in {"already_so", "recovered"} else 1
    if not least <= effects <= 1:
        yield f"{effects} effects"


def _rejected(row: Mapping[str, str], cancels: Sequence[Entry]) -> Iterator[str]:
    if any(entry.effect for entry in cancels):
        yield "it had an effect"
    if not any(str(entry.answered) == row["http_status"] for entry in cancels):
        yield f"no cancel was answered {row['http_status']}"


def _request(row: Mapping[str, str], seen: Sequence[Entry]) -> Iterator[str]:
    wanted = row["zocdoc_request_id"]
    if wanted and wanted not in {entry.request_id for entry in seen}:
        yield "its request id is none of the ledger's"


def _blind_repeats(seen: Sequence[Entry]) -> Iterator[str]:
    """Find a cancel that was sent again after a lost answer, with fewer than three reads in between."""
    reads, is_lost = 0, False
    for entry in seen:
        if entry.operation == "get":
            reads += 1
        if entry.operation == "cancel":
            if is_lost and reads < 3:
                yield f"sent again after {reads} reads"
            is_lost = not isinstance(entry.answered, int) or entry.answered >= 500
            reads = 0


def main() -> int:
    """Print the figures as JSON; exit 1 when the file and the ledger disagree."""
    parser = argparse.ArgumentParser(prog="python -m tests.bulk", description=main.__doc__)
    parser.add_argument("--appointments", type=int, default=10_000)
    parser.add_argument("--faults", type=float, default=0.03, help="share of the appointments")
    parser.add_argument("--kills", type=int, default=0, help="so often is the command killed and run again")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="shorten the intervals of recovery")
    parser.add_argument("--database-url", help="an empty database; by default a new SQLite file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = given.database_url or f"sqlite:///{folder}/proof.db"
        made = database.Database(url)
        schema.upgrade(made)
        made.close()
        figures = prove(
            url,
            folder,
            appointments=given.appointments,
            faults=given.faults,
            seed=given.seed,
            kills=given.kills,
            is_quick=given.quick,
        )
    json.dump(asdict(figures), sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 1 if figures.findings else 0


if __name__ == "__main__":
    sys.exit(main())
