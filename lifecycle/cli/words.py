"""Words for people, on stderr: always one line each, whatever the data in them."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lifecycle.doctor.diagnosis import Diagnosis
    from lifecycle.outcomes import Done
    from lifecycle.reconciliation import SyncReport
    from lifecycle.recovery import Recovery
    from lifecycle.verification import Verification

_ADVICE = {
    "start_time_in_past": "the new start lies in the past; usually a visit is moved to a time ahead",
    "reason_type_missing": "no --reason-type was given; Zocdoc recommends one",
    "reason_text_without_other_type": "Zocdoc's reference wants a reason text with the two other_* types only",
}


def say(*lines: str) -> None:
    """Print lines to stderr. Nobody reads it any more: nothing is said, and what is being done goes on."""
    try:
        for line in lines:
            click.echo(printable(line), err=True)
    except BrokenPipeError:
        drop(sys.stderr)


def drop(stream: IO[str]) -> None:
    """Send what is still buffered nowhere: whoever read the stream has gone, and the interpreter flushes at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def printable(text: str) -> str:
    """Show control characters as escapes, so that data can neither break the line nor speak to the terminal."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def done(outcome: Done) -> list[str]:
    """Tell in a sentence what a command did, and give its advice as notes."""
    how = f" ({outcome.reason_code})" if outcome.reason_code else ""
    request = f"; Zocdoc request id {outcome.zocdoc_request_id}" if outcome.zocdoc_request_id else ""
    sentence = (
        f"{outcome.command} of appointment {outcome.appointment_id} was applied{how}: "
        f"{outcome.from_status} -> {outcome.to_status}{request}"
    )
    odd = [] if outcome.conforming else [f"Note: {outcome.to_status} is not an answer that the chart expects"]
    return [sentence, *odd, *(f"Note: {_ADVICE.get(code, code)}" for code in outcome.advice)]


def recovered(recovery: Recovery) -> str:
    """Tell in a sentence what a recovery run came to."""
    text = f"{len(recovery.settled)} settled, {recovery.waiting} waiting"
    if recovery.next_at is None:
        return text
    return f"{text}; the next read is due at {recovery.next_at:%Y-%m-%dT%H:%M:%SZ}, `lifecycle recover --wait 60` waits"


def synced(report: SyncReport) -> list[str]:
    """Tell in a sentence what a sync came to, and give what is left to do as notes."""
    resumed = "; a killed run was gone on with" if report.resumed else ""
    counts = f"{report.rows} rows, {report.tracked} tracked, {report.changed} changed, {report.unchanged} unchanged"
    notes = {
        f"{report.missed} of them no webhook call had told of": report.missed,
        f"{report.busy} are busy or could not be read; the next sync looks again": report.busy,
        f"{report.foreign} were booked with a user's credential that is not at hand": report.foreign,
        f"{report.unreadable} were not readable and are left out": report.unreadable,
    }
    sentence = f"{counts} in {report.seconds:.1f} s{resumed}"
    return [sentence, *(f"Note: {note}" for note, number in notes.items() if number)]


def verified(found: Verification) -> list[str]:
    """Tell in a sentence what a verification came to, and name the first bad row."""
    size = f"{found.events} events in {found.chains} chains"
    if found.first is None:
        return [f"{size} are sound ({found.seconds:.1f} s)"]
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(found.counts.items()))
    total = sum(found.counts.values())
    shown = f"; the first {len(found.findings)} are shown" if total > len(found.findings) else ""
    return [f"{size} are NOT sound: {counts}{shown}", _first_bad_row(found)]


def diagnosed(found: Diagnosis) -> str:
    """Tell in a sentence what a diagnosis came to."""
    counts = {
        "wrong": sum(check.is_failure for check in found.checks),
        "to look at": sum(check.ok is False and check.severity == "warning" for check in found.checks),
        "to consider": sum(check.ok is False and check.severity == "advice" for check in found.checks),
        "not looked at": sum(check.ok is None for check in found.checks),
    }
    told = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
    return f"{len(found.checks)} checks: {told or 'all is well'}"


def _first_bad_row(found: Verification) -> str:
    first = found.first
    if first is None or first.seq is None:
        return "No row of the trail is named: what is wrong is beside it"
    return f"The first bad row is seq {first.seq}: event {first.appointment_seq} of appointment {first.appointment_id}"
