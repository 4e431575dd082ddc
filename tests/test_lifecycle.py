"""`Lifecycle` as an integrator meets it: one object, opened late, closed cleanly, reading without calls."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import lifecycle as package
from lifecycle import (
    ConfigurationError,
    InvalidArgument,
    Lifecycle,
    LifecycleError,
    NotSent,
    ZocdocClient,
    models,
)
from tests import support
from tests.support import ACTOR

if TYPE_CHECKING:
    from pathlib import Path

    from lifecycle.sandbox import Sandbox


def test_the_whole_story_of_an_appointment(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Track, confirm, reschedule, arrive, cancel: every step is in the trail and the status is its fold."""
    appointment_id = support.tracked(lifecycle, sandbox)
    for command in ("confirm", "reschedule", "mark_arrived", "cancel"):
        support.send(lifecycle, command, appointment_id)
    with pytest.raises(LifecycleError):
        lifecycle.confirm(appointment_id, actor=ACTOR)
    p, c, r, x = "pending_booking", "confirmed", "rescheduled", "cancelled"
    support.assert_history(
        lifecycle,
        appointment_id,
        [
            ("command_accepted", "confirm", p, p, None, None),
            ("command_applied", "confirm", p, c, "applied", None),
            ("command_accepted", "reschedule", c, c, None, None),
            ("command_applied", "reschedule", c, r, "applied", None),
            ("command_accepted", "mark_arrived", r, r, None, None),
            ("arrival_marked", "mark_arrived", r, r, "applied", None),
            ("command_accepted", "cancel", r, r, None, None),
            ("command_applied", "cancel", r, x, "applied", None),
            ("command_refused", "confirm", x, x, "refused", "status_not_allowed"),
        ],
    )
    events = lifecycle.history(appointment_id)
    assert {each.chart_version for each in events} == {"1.177-1"}
    assert [each.recorded_at for each in events] == sorted(each.recorded_at for each in events)
    assert lifecycle.get(appointment_id).arrived_at == events[6].recorded_at
    assert lifecycle.get(appointment_id).status == events[-1].to_status


def test_reading_never_calls_zocdoc(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """get, history, appointments and explain work without any client."""
    appointment_id = support.tracked(lifecycle, sandbox)
    before = len(sandbox.ledger.entries())
    with Lifecycle(database_url) as reader:
        assert reader.get(appointment_id) == lifecycle.get(appointment_id)
        assert reader.history(appointment_id) == lifecycle.history(appointment_id)
        assert [each.appointment_id for each in reader.appointments()] == [appointment_id]
        assert reader.explain(appointment_id, "confirm")
    assert len(sandbox.ledger.entries()) == before


def test_appointments_are_filtered_and_paged(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Filters narrow, and the pages make one list by id, each appointment once."""
    ids = [support.tracked(lifecycle, sandbox, status=status) for status in support.STATUSES]
    support.lose_answer(sandbox, "confirm")
    with pytest.raises(LifecycleError):
        lifecycle.confirm(ids[0], actor=ACTOR)
    assert [each.appointment_id for each in lifecycle.appointments()] == sorted(ids)
    for appointment_id, status in zip(ids, support.STATUSES, strict=True):
        assert [each.appointment_id for each in lifecycle.appointments(status=status)] == [appointment_id]
    assert [each.appointment_id for each in lifecycle.appointments(in_doubt=True)] == [ids[0]]
    assert len(list(lifecycle.appointments(in_doubt=False))) == 7
    assert list(lifecycle.appointments(status="confirmed", in_doubt=True)) == []


def test_more_appointments_than_a_page_are_all_listed(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """A list of 1,101 crosses two pages and misses none."""
    appointment_id = support.tracked(lifecycle, sandbox)
    others = ", ".join(name for name in models.appointments.c.keys() if name != "appointment_id")  # noqa: SIM118 # columns
    copies = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100)"
    copied = f"SELECT 'copy_' || i, {others} FROM lifecycle_appointments, n"  # noqa: S608 # our own columns
    support.query(database_url, f"{copies} INSERT INTO lifecycle_appointments (appointment_id, {others}) {copied}")
    found = [each.appointment_id for each in lifecycle.appointments()]
    assert len(found) == len(set(found)) == 1101
    assert appointment_id in found
    # The copies have no trail, which would be a fault of the database this test ends with.
    support.query(database_url, "DELETE FROM lifecycle_appointments WHERE appointment_id LIKE 'copy%'")


def test_nothing_is_opened_before_it_is_used(tmp_path: Path) -> None:
    """Making the object touches neither the disk nor the network."""
    client = ZocdocClient(base_url="http://127.0.0.1:9", access_token="t")
    Lifecycle(f"sqlite:///{tmp_path / 'none.db'}", zocdoc=client).close()
    Lifecycle("postgresql://nobody@127.0.0.1:9/none").close()
    assert list(tmp_path.iterdir()) == []


def test_a_command_without_a_client_is_an_error_of_the_setting(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """Who only reads cannot send: `ConfigurationError`, without a row."""
    appointment_id = support.tracked(lifecycle, sandbox)
    with Lifecycle(database_url) as reader, pytest.raises(ConfigurationError):
        reader.confirm(appointment_id, actor=ACTOR)
    assert len(lifecycle.history(appointment_id)) == 1


def test_the_source_is_on_every_row(sandbox: Sandbox, client: ZocdocClient, database_url: str) -> None:
    """Who opens the object says how its calls come in."""
    with support.opened(database_url, client, source="cli") as product:
        appointment_id = support.tracked(product, sandbox)
        product.confirm(appointment_id, actor=ACTOR)
        with pytest.raises(LifecycleError):
            product.confirm(appointment_id, actor=ACTOR)
        assert {each.source for each in product.history(appointment_id)} == {"cli"}
    assert {row["source"] for row in support.commands(database_url)} == {"cli"}


def test_a_reason_type_is_one_of_zocdocs(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """An unknown type is an error of the caller: nothing is sent."""
    appointment_id = support.tracked(lifecycle, sandbox)
    for reason_type in ("", "because", "OTHER_PATIENT_REASON"):
        with pytest.raises(InvalidArgument) as caught:
            lifecycle.cancel(appointment_id, actor=ACTOR, reason_type=reason_type)
        assert caught.value.argument == "reason_type"
    assert support.posts(sandbox, appointment_id) == 0


@pytest.mark.parametrize("reason", ["a\0b", "\ud800", 7])
def test_a_reason_is_text_that_can_be_stored(lifecycle: Lifecycle, sandbox: Sandbox, reason: object) -> None:
    """Text that a database or a JSON reader cannot hold is refused beforehand, and not repeated in the error."""
    appointment_id = support.tracked(lifecycle, sandbox)
    with pytest.raises(InvalidArgument) as caught:
        lifecycle.cancel(appointment_id, actor=ACTOR, reason=reason)  # type: ignore[arg-type] # the point of the test
    assert caught.value.argument == "reason"
    assert str(reason) not in str(caught.value)


def test_a_reason_may_hold_any_other_letter(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Quotes, line feeds, emoji and right-to-left text arrive at Zocdoc letter by letter."""
    appointment_id = support.tracked(lifecycle, sandbox)
    text = "Zoë said: \"no\" \\ 'x'; DROP TABLE\n\t🩺 שלום %s {} \u2028"
    lifecycle.cancel(appointment_id, actor=ACTOR, reason=text, reason_type="other_patient_reason")
    assert sandbox.appointment(appointment_id).cancellation_reason == text


def test_the_public_names_are_there_and_load_late() -> None:
    """Every exported name exists; importing the package loads neither SQLAlchemy nor requests."""
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError):
        package.nothing_of_the_kind  # noqa: B018 # the access is the test
    heavy = "import sys, lifecycle; print(sorted({'sqlalchemy', 'requests', 'pydantic', 'alembic'} & set(sys.modules)))"
    shown = subprocess.run(  # noqa: S603 # our own program
        [sys.executable, "-c", heavy], check=True, capture_output=True, text=True, env=support.environment()
    )
    assert shown.stdout.strip() == "[]"


def test_closing_leaves_the_clients_to_the_caller(sandbox: Sandbox, client: ZocdocClient, database_url: str) -> None:
    """The Zocdoc client outlives the object, and a closed object can be closed again."""
    product = Lifecycle(database_url, zocdoc=client)
    appointment_id = support.tracked(product, sandbox)
    product.close()
    product.close()
    assert client.get(appointment_id).appointment.appointment_id == appointment_id


def test_a_finished_attempt_may_be_called_again_at_once(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """`NotSent` leaves nothing active and nothing in doubt."""
    appointment_id = support.tracked(lifecycle, sandbox)
    sandbox.revoke_tokens()
    support.arm(sandbox, kind="answer", operation="token", status=403)
    with pytest.raises(NotSent):
        lifecycle.confirm(appointment_id, actor=ACTOR)
    assert lifecycle.get(appointment_id).in_doubt is False
    assert lifecycle.confirm(appointment_id, actor=ACTOR).to_status == "confirmed"


FORKS = """
import os, sys
from lifecycle import Lifecycle
with Lifecycle(sys.argv[1]) as product:
    product.get(sys.argv[2])
    child = os.fork()
    for _ in range(50):
        assert product.get(sys.argv[2]).appointment_id == sys.argv[2]
    if child == 0:
        os._exit(0)
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_opens_connections_of_its_own(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """Parent and child go on reading the same database at once, and neither gets the other's answers."""
    appointment_id = support.tracked(lifecycle, sandbox)
    command = [sys.executable, "-c", FORKS, database_url, appointment_id]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 # ours
    assert done.returncode == 0, done.stderr
