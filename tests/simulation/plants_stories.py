"""Planted bugs of the story of a command: what is sent, when, and what it is taken to have come to."""

from __future__ import annotations

import hmac
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from lifecycle import (
    attempts,
    audit,
    chart,
    commands,
    errors,
    guards,
    models,
    observations,
    outcomes,
    pending,
    recording,
    recovery,
    resources,
    sending,
    settlement,
    wishes,
    zocdoc,
)
from tests.simulation import faults
from tests.simulation.planting import Patch, Plant

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.resources import Timing


def _outcome(change: Callable[[Any, pending.Pending], Any]) -> Callable[[], list[Patch]]:
    """Change what a call is taken to have come to."""

    def patches() -> list[Patch]:
        original = attempts.make

        def make(client: Any, command: pending.Pending, **given: Any) -> attempts.Attempt:
            attempt = original(client, command, **given)
            return replace(attempt, outcome=change(attempt.outcome, command))

        return [(attempts, "make", make)]

    return patches


def _again(condition: Callable[[Any], bool]) -> Callable[[], list[Patch]]:
    """Call once more when the outcome is so."""

    def patches() -> list[Patch]:
        original = attempts._call

        def call(client: Any, command: pending.Pending, send_before: float) -> zocdoc.Outcome:
            outcome = original(client, command, send_before)
            return original(client, command, send_before) if condition(outcome) else outcome

        return [(attempts, "_call", call)]

    return patches


def _intent_after_call() -> list[Patch]:
    accept, settle = commands.accept, sending._settle
    waiting: dict[str, Callable[[Any, Any], None]] = {}

    def later(connection: Any, locked: Any, command: pending.Pending, wish: Any, **facts: Any) -> None:
        del connection, locked
        waiting[command.command_id] = lambda c, row: accept(c, row, command, wish, **facts)

    def both(place: Any, command: pending.Pending, attempt: Any, source: str) -> Any:
        if write := waiting.pop(command.command_id, None):
            with place.database.write() as connection:
                write(connection, audit.hold(place.database, connection, command.appointment_id))
        return settle(place, command, attempt, source)

    return [(commands, "accept", later), (sending, "_settle", both)]


def _call_inside_transaction() -> list[Patch]:
    original = observations.follow

    def follow(place: Any, client: Any, appointment_id: str, **facts: Any) -> Any:
        with place.database.write():
            client.world.hold()
            observations.read(client, appointment_id)
        client.world.release()
        return original(place, client, appointment_id, **facts)

    return [(observations, "follow", follow)]


def _proved_by_one_read() -> list[Patch]:
    original = recovery._note_unchanged

    def note(place: Any, row: Any, command: Any, reading: Any) -> Any:
        return original(place, {**row, "unchanged_reads": 99}, command, reading)

    return [(recovery, "_note_unchanged", note)]


def _compared_as_text() -> list[Patch]:
    def same(one: Any, other: Any) -> bool:
        return one is not None and other is not None and one.isoformat() == other.isoformat()

    def judge(command: pending.Pending, remote: Any) -> pending.Finding:
        if command.target_status is not None and remote.appointment_status == command.target_status:
            return pending.Finding.REACHED
        if same(remote.start_time, command.target_start_time):
            return pending.Finding.REACHED
        unmoved = same(remote.start_time, command.baseline_start_time)
        if unmoved and remote.appointment_status == command.baseline_status:
            return pending.Finding.UNCHANGED
        return pending.Finding.UNTELLABLE

    return [(recovery, "judge", judge)]


def _finding(change: Callable[[Any, pending.Pending], Any]) -> Callable[[], list[Patch]]:
    """Change what a read is taken to show."""

    def patches() -> list[Patch]:
        original = pending.judge
        return [(recovery, "judge", lambda command, remote: change(original(command, remote), command))]

    return patches


def _wrong_target() -> list[Patch]:
    return [(commands, "TARGET_STATUS", {**pending.TARGET_STATUS, chart.Command.CANCEL: chart.Status.NO_SHOW})]


def _no_claim_age() -> list[Patch]:
    original = attempts.make
    return [(attempts, "make", lambda client, command, **_: original(client, command, send_before=1e12))]


def _any_state(*, of_attempt: bool) -> sa.Update:
    table = models.commands
    limit: Any = sa.bindparam("of_attempt") if of_attempt else sa.bindparam("of_attempt") - 1000
    return sa.update(table).where(table.c.command_id == sa.bindparam("of_command"), table.c.attempt >= limit)


def _no_state_fence() -> list[Patch]:
    return [(settlement, "WHILE_UNSETTLED", _any_state(of_attempt=True))]


def _checks_without(name: str) -> tuple[guards.Check, ...]:
    return tuple(check for check in guards.CHECKS if check.name != name)


def _credential_ignored() -> list[Patch]:
    return [
        (guards, "CHECKS", _checks_without("credential")),
        (resources.Clients, "of", lambda self, _identity: self.default),
    ]


def _conflict_believed() -> list[Patch]:
    original = attempts._followed

    def followed(client: Any, command: pending.Pending, rejected: Any, duration_ms: int) -> attempts.Attempt:
        if rejected.http_status != 409:
            return original(client, command, rejected, duration_ms)
        status = command.target_status or command.baseline_status
        applied = zocdoc.Applied(str(status), 409, rejected.request_id)
        return attempts.Attempt(outcome=applied, duration_ms=duration_ms, note=attempts.ALREADY_SO)

    return [(attempts, "_followed", followed)]


def _digest_ignored() -> list[Patch]:
    trusting = SimpleNamespace(compare_digest=lambda _one, _other: True, new=hmac.new)
    return [(outcomes, "hmac", trusting)]


def _attention_blocks() -> list[Patch]:
    original = wishes.situation

    def situation(locked: audit.Locked, wish: Any, *, credential: str | None) -> guards.Situation:
        found = original(locked, wish, credential=credential)
        return replace(found, active_command="needs_attention") if locked.row["in_doubt"] else found

    return [(wishes, "situation", situation)]


def _recovery_sends() -> list[Patch]:
    original = recovery._note_unchanged

    def note(place: Any, row: Any, command: Any, reading: Any) -> Any:
        attempts.make(place.clients.default, command, send_before=1e12)
        return original(place, row, command, reading)

    return [(recovery, "_note_unchanged", note)]


def _read_at_once() -> list[Patch]:
    original = recording.settle

    def settle(*arguments: Any, timing: Timing, **facts: Any) -> Any:
        return original(*arguments, timing=replace(timing, settle=0.0), **facts)

    return [(recording, "settle", settle)]


def _failed_read_proves() -> list[Patch]:
    def note(place: Any, row: Any, command: Any, reason_code: str) -> Any:
        del row, reason_code
        outcome = zocdoc.NotSent(recovery.PROVED_NOT_APPLIED)
        return recovery._settle(place, command, attempts.Attempt(outcome=outcome))

    return [(recovery, "_note_failure", note)]


def _start_rewritten() -> list[Patch]:
    original = attempts._call

    def call(client: Any, command: pending.Pending, send_before: float) -> zocdoc.Outcome:
        if command.target_start_time is not None:
            text = command.target_start_time.replace(tzinfo=None).isoformat() + "+00:00"
            command = replace(command, payload={**command.payload, "start_time": text})
        return original(client, command, send_before)

    return [(attempts, "_call", call)]


def _no_read_in_doubt() -> list[Patch]:
    original = commands._claim

    def claim(*arguments: Any, resolved: bool, is_read: bool) -> Any:
        del is_read
        return original(*arguments, resolved=resolved, is_read=True)

    return [(commands, "_claim", claim)]


def _sent_again_unrecorded() -> list[Patch]:
    original = recording.settle

    def settle(database: Any, command: pending.Pending, attempt: Any, **facts: Any) -> Any:
        try:
            return original(database, command, attempt, **facts)
        except errors.DatabaseUnavailable:
            client = _clients[-1]
            again = attempts.make(client, command, send_before=1e12)
            return original(database, command, again, **facts)

    _clients: list[Any] = []
    make = attempts.make

    def remembered(client: Any, command: pending.Pending, **given: Any) -> attempts.Attempt:
        _clients.append(client)
        return make(client, command, **given)

    return [(recording, "settle", settle), (attempts, "make", remembered)]


def _is_unknown(outcome: Any) -> bool:
    return isinstance(outcome, zocdoc.Unknown)


def _as_applied(outcome: Any, command: pending.Pending) -> Any:
    status = str(command.target_status or command.baseline_status)
    return zocdoc.Applied(status, 200) if isinstance(outcome, zocdoc.NotSent) else outcome


def _as_rejected(outcome: Any, _command: pending.Pending) -> Any:
    return zocdoc.Rejected(500, "server_error") if _is_unknown(outcome) else outcome


def _as_not_sent(outcome: Any, _command: pending.Pending) -> Any:
    return zocdoc.NotSent("timed_out") if _is_unknown(outcome) else outcome


def _status_guessed(outcome: Any, command: pending.Pending) -> Any:
    if not isinstance(outcome, zocdoc.Applied):
        return outcome
    return replace(outcome, status=str(command.target_status or command.baseline_status))


def _known_only(outcome: Any, command: pending.Pending) -> Any:
    if not isinstance(outcome, zocdoc.Applied) or outcome.status in chart.STATUSES:
        return outcome
    return replace(outcome, status=command.baseline_status)


_REACHED, _UNCHANGED = pending.Finding.REACHED, pending.Finding.UNCHANGED
_MANY_STALLS = faults.Rates(stall=0.03)
_DROP_ACTIVE = "DROP INDEX uq_lifecycle_commands_active;"
_DROP_KEYS = "DROP INDEX uq_lifecycle_commands_request_key;"

PLANTS = (
    Plant("intent_after_call", "the intent is written after the call", _intent_after_call),
    Plant("call_in_transaction", "a transaction is open while HTTP is in the air", _call_inside_transaction),
    Plant("repost_on_unknown", "an unknown outcome is sent again at once", _again(_is_unknown)),
    Plant(
        "repost_on_5xx",
        "a server error is sent again at once",
        _again(lambda outcome: _is_unknown(outcome) and outcome.http_status == 500),
    ),
    Plant("repost_unrecorded", "an outcome that could not be recorded is sent again", _sent_again_unrecorded),
    Plant("recovery_sends", "recovery sends the command again", _recovery_sends),
    Plant("no_reconcile", "recovery never looks", lambda: [(recovery, "_look", lambda *_a: None)]),
    Plant("lease_never_expires", "nobody takes over", lambda: [(recovery, "_expire_leases", lambda *_a: None)]),
    Plant("proved_by_one_read", "one unchanged read counts as proof", _proved_by_one_read),
    Plant("failed_read_proves", "a failed read counts as proof", _failed_read_proves),
    Plant("read_at_once", "the settle time is ignored", _read_at_once),
    Plant("compared_as_text", "starts are compared as strings", _compared_as_text),
    Plant("wrong_target", "a cancel is looked for as a no-show", _wrong_target),
    Plant(
        "change_unexplained",
        "a change that the command does not explain counts as unchanged",
        _finding(lambda found, _command: _UNCHANGED if found == "untellable" else found),
    ),
    Plant(
        "arrival_recovered",
        "recovery takes an arrival for applied",
        _finding(lambda found, command: _REACHED if command.command == "mark_arrived" else found),
    ),
    Plant("no_claim_age", "a process that was stopped sends all the same", _no_claim_age, rates=_MANY_STALLS),
    Plant("no_state_fence", "a late answer overwrites what was settled", _no_state_fence, rates=_MANY_STALLS),
    Plant(
        "two_active",
        "two commands on one appointment at once, index dropped",
        lambda: [(guards, "CHECKS", _checks_without("active_command"))],
        tamper=_DROP_ACTIVE,
    ),
    Plant(
        "active_unchecked",
        "only the index prevents a second active command",
        lambda: [(guards, "CHECKS", _checks_without("active_command"))],
    ),
    Plant("credential_ignored", "the machine acts on a user's appointment", _credential_ignored),
    Plant("attention_blocks", "a command that needs attention blocks the next one", _attention_blocks),
    Plant("no_read_in_doubt", "a command in doubt is followed by another without a read", _no_read_in_doubt),
    Plant("not_sent_is_applied", "what was not sent counts as applied", _outcome(_as_applied)),
    Plant("unknown_is_rejected", "a lost answer counts as a no", _outcome(_as_rejected)),
    Plant("unknown_is_not_sent", "a lost answer counts as not sent", _outcome(_as_not_sent)),
    Plant("conflict_believed", "a 409 counts as applied without a read", _conflict_believed),
    Plant("status_guessed", "the status is the expected one, not the answered", _outcome(_status_guessed)),
    Plant("unknown_status_dropped", "a status of the future is dropped", _outcome(_known_only)),
    Plant("start_rewritten", "the start is not sent word for word", _start_rewritten),
    Plant(
        "key_ignored",
        "a request key acts twice, index dropped",
        lambda: [(outcomes, "first", lambda *_a: None)],
        tamper=_DROP_KEYS,
    ),
    Plant("digest_ignored", "a request key answers for other arguments", _digest_ignored),
)
