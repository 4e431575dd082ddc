"""I9: each webhook call that was accepted has one row and one end, and its appointment was read after it came."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.simulation import clock
from tests.simulation.postbox import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.case import Case
    from tests.simulation.evidence import Row

ENDS = {"followed", "untracked", "failed"}


def check(case: Case) -> Iterator[str]:
    """Go through every call and every row of the inbox."""
    rows = case.evidence.deliveries
    sent = Counter(letter.digest for letter in case.remote.webhooks.letters if letter.key == KEY)
    answered = [call for call in case.evidence.calls if call.kind == "deliver" and call.result == "Done"]
    taken = Counter(call.told["delivery_id"] for call in answered)
    for letter in case.remote.webhooks.letters:
        if letter.key != KEY and letter.digest in rows:
            yield f"{letter.appointment_id}: a forged call was stored"
    for delivery_id, count in taken.items():
        row = rows.get(delivery_id)
        if row is None or row["copies"] < count:
            yield f"-: I9: delivery {delivery_id} was accepted {count} times, stored {row and row['copies']}"
    for delivery_id, row in rows.items():
        where = f"{row['appointment_id']}: delivery {delivery_id[:8]}"
        if delivery_id not in sent:
            yield f"{where}: nobody sent it"
        if row["state"] not in ENDS or row["processed_at"] is None:
            yield f"{where}: I9: it is {row['state']} at the end"
        elif row["state"] == "followed":
            yield from _followed(case, where, row)
        elif row["state"] == "untracked" and row["appointment_id"] in case.evidence.appointments:
            yield f"{where}: left as untracked, but it is tracked"


def _followed(case: Case, where: str, row: Row) -> Iterator[str]:
    since, until = clock.seconds(row["received_at"]), clock.seconds(row["processed_at"])
    reads = case.reads_of(row["appointment_id"], since, until)
    if not reads:
        yield f"{where}: I9: followed without a read between {since:.3f} and {until:.3f}"
