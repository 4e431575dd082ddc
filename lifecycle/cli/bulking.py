"""What `lifecycle bulk` does: show what would happen, ask, submit, stay until it is carried out, write the results."""

from __future__ import annotations

import os
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict

import click

from lifecycle import errors, files, results
from lifecycle.cli import attending, filtering, opening, output, sources, words
from lifecycle.cli.options import Form
from lifecycle.cli.sources import Source, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lifecycle import Batch, Lifecycle, Progress, Verdict
    from lifecycle.wishlists import Wishlist

DONE: Final = 0
IN_DOUBT: Final = 5
NOT_ALL_APPLIED: Final = 9

_SHOWN: Final = 20
"""Invalid rows that are told one by one before the question."""

_LISTED: Final = 1_000
"""Rows of the table of --dry-run: all of it is laid out in memory."""


class Listed(TypedDict):
    """The options of a bulk command whose appointments a file tells."""

    file: str | None
    input_format: str | None
    time_zone: str
    dry_run: bool
    yes: bool
    again: bool
    name: str | None
    expires_at: str | None
    expires_in: float | None
    wait: bool
    concurrency: int
    settle_for: float
    result: str | None
    actor: str
    form: Form
    database_url: str


class Asked(Listed):
    """The options of a bulk command whose appointments a file tells, or conditions; of these there may be none."""

    where: tuple[str, ...]


def run(command: str, defaults: dict[str, str], asked: Asked) -> int:
    """Carry one command out on many appointments; give the exit code."""
    _check(asked)
    wanted = Wanted(command, defaults, asked)
    needs_zocdoc, concurrency = not asked["dry_run"], asked["concurrency"]
    with opening.opened(asked["database_url"], needs_zocdoc=needs_zocdoc, concurrency=concurrency) as lifecycle:
        if asked["dry_run"]:
            return _preview(lifecycle, wanted)
        with sources.opened(lifecycle, wanted) as source:
            with sources.dropped_if_unwanted(source):
                _agree(lifecycle, wanted, source)
            with attending.interruptible(source.batch_id, began_again=asked["again"]):
                batch = _submitted(lifecycle, wanted, source)
                with output.unread():
                    click.echo(batch.id)
                sources.drop_selection(source)  # from here on the batch has it all
                if asked["wait"]:
                    return _finish(lifecycle, batch, sources.result_of(wanted, batch.id), asked["settle_for"])
    words.say(f"batch {batch.id} is submitted; `lifecycle batch {batch.id} --watch` stays with it")
    return DONE


def _finish(lifecycle: Lifecycle, batch: Batch, result: Path, settle_for: float) -> int:
    """Stay with a batch until it is carried out, and write its results."""
    progress = attending.attend(lifecycle, batch, settle_for=settle_for)
    try:
        rows = results.write(batch.rows(), result)
    except (OSError, errors.LifecycleError) as error:
        error.add_note(f"{attending.told(progress)}; `lifecycle batch {batch.id} --result FILE` writes the results")
        raise
    words.say(f"{attending.told(progress)}; {rows} rows in {result}")
    return ended(progress)


def ended(progress: Progress) -> int:
    """Give the exit code of a batch as it stands."""
    if progress.is_finished and progress.applied == progress.total:
        return DONE
    if not progress.is_submitted:
        words.say("Its submission was cut off: the command that began it, without --again, goes on with it")
    if progress.uncertain or progress.sending or progress.needs_attention:
        words.say("Something is in doubt: `lifecycle recover --wait 60`, then `lifecycle attention`")
    has_ended = progress.is_finished and not progress.needs_attention
    return NOT_ALL_APPLIED if has_ended else IN_DOUBT


def _check(asked: Asked) -> None:
    """Refuse what cannot be meant, before anything is opened."""
    if (asked["file"] is None) == (not asked["where"]):
        raise click.UsageError("name the appointments: --file, or one --where or more")
    if asked["expires_at"] is not None and asked["expires_in"] is not None:
        raise click.UsageError("--expires-at and --expires-in are two ways to say one thing; use one")
    can_ask = sys.stdin is not None and sys.stdin.isatty() and asked["file"] != sources.STDIN
    if not (asked["yes"] or asked["dry_run"] or can_ask):
        raise click.UsageError("nobody is there to be asked; say --yes, or --dry-run to see what would happen")
    result = Path(asked["result"] or ".")
    if asked["file"] not in {None, sources.STDIN} and result.exists() and result.samefile(asked["file"] or ""):
        raise click.UsageError("--result would replace --file; name another file")
    if asked["result"]:
        files.check(result)
    if not os.access(result.parent if asked["result"] else result, os.W_OK):
        raise click.UsageError("the results cannot be written there; name another place with --result")


def _preview(lifecycle: Lifecycle, wanted: Wanted) -> int:
    seen: Counter[str] = Counter()
    form = wanted.asked["form"]
    with sources.previewed(lifecycle, wanted) as wishlist:
        found = lifecycle.preview(wishlist, command=wanted.command, expires_at=_expiry(wanted.asked))
        verdicts = _counted(found, seen)
        output.many(_for_people(verdicts) if form is Form.TABLE else verdicts, kind="Verdict", form=form)
    words.say(f"{wanted.command} of {sum(seen.values())} appointments: {_summary(seen)}")
    if not opening.has_zocdoc():
        words.say("Note: without the settings of Zocdoc there is no credential to judge")
    return DONE if set(seen) == {"pass"} else NOT_ALL_APPLIED


def _for_people(verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
    """Leave out what needs no explanation, and what is too much for a table."""
    told = 0
    for each in verdicts:
        told += bool(each.codes)
        if each.codes and told <= _LISTED:
            yield each
    if told > _LISTED:
        words.say(f"the first {_LISTED} of {told} rows that would not pass; --format csv or jsonl has them all")


def _agree(lifecycle: Lifecycle, wanted: Wanted, source: Source) -> None:
    """Say what would happen, or how far it is already, and ask."""
    if source.batch is not None:
        progress = source.batch.progress()
        words.say(f"batch {source.batch_id} was begun before: {attending.told(progress)}")
        if progress.is_finished:
            words.say("It is carried out; --again does the same once more")
        else:
            _ask(wanted, "Go on with it?")
    elif source.wishlist is not None:
        would_pass = _tell(lifecycle, wanted, source.wishlist)
        _ask(wanted, f"{wanted.command} {would_pass} appointments at Zocdoc?")


def _submitted(lifecycle: Lifecycle, wanted: Wanted, source: Source) -> Batch:
    """Give the batch, submitted as a whole: a new one, or the one that was begun before."""
    if source.wishlist is None or (source.batch is not None and source.batch.progress().is_finished):
        return lifecycle.batch(source.batch_id)
    with attending.counting(source.wishlist.rows, "submitted") as tell:
        submit = partial(
            lifecycle.submit_many,
            source.wishlist,
            actor=wanted.asked["actor"],
            command=wanted.command,
            batch_id=source.batch_id,
            name=wanted.asked["name"],
            expires_at=_expiry(wanted.asked),
            on_progress=tell,
        )
        return attending.patiently(submit)


def _tell(lifecycle: Lifecycle, wanted: Wanted, wishlist: Wishlist) -> int:
    """Say what would happen: the first rows that are invalid, then how many would end how; give how many would pass."""
    seen: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    invalid: list[str] = []
    with attending.counting(wishlist.rows, "checked") as show:
        found = lifecycle.preview(wishlist, command=wanted.command, expires_at=_expiry(wanted.asked))
        for each in _counted(found, seen):
            statuses[each.status or "not known here"] += 1
            if each.verdict == "invalid" and len(invalid) < _SHOWN:
                invalid.append(f"row {each.row}: {each.codes[0]}: {each.rules[0]}")
            show(each.row)
    words.say(*invalid)
    left = sum(number for what, number in seen.items() if what.startswith("invalid")) - len(invalid)
    if left:
        words.say(f"... and {left} more rows that are invalid; --dry-run lists them")
    words.say(f"appointments by status: {_listed(statuses)}", f"{wanted.command} of them: {_summary(seen)}")
    return seen["pass"]


def _counted(verdicts: Iterable[Verdict], seen: Counter[str]) -> Iterator[Verdict]:
    for each in verdicts:
        seen[each.verdict if not each.codes else f"{each.verdict} ({', '.join(each.codes)})"] += 1
        yield each


def _summary(seen: Counter[str]) -> str:
    return f"{seen['pass']} would pass" + "".join(
        f", {number} {what}" for what, number in seen.most_common() if what != "pass"
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.most_common())


def _ask(wanted: Wanted, question: str) -> None:
    if not wanted.asked["yes"]:
        click.confirm(question, abort=True, err=True)


def _expiry(asked: Asked) -> datetime | None:
    if asked["expires_in"] is not None:
        try:
            return datetime.now(UTC) + timedelta(minutes=asked["expires_in"])
        except (ValueError, OverflowError):
            raise click.UsageError("--expires-in is no time that there is; name minutes from now") from None
    return filtering.instant(asked["expires_at"], asked["time_zone"], "--expires-at")
