"""An answer that comes after its submitted command went back into the queue: a yes stops it, whatever became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lifecycle import Lifecycle, Timing, ZocdocClient, claiming, decisions, sending
from tests import support
from tests.support import ACTOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lifecycle.sandbox import Sandbox

TIMING = Timing(send_window=600.0, settle=0.05, spacing=(0.05, 0.05), resend_backoff=600.0)
_LEASE_OVER = "UPDATE lifecycle_commands SET run_at = created_at, lease_until = created_at"
_TIME_OVER = "UPDATE lifecycle_commands SET expires_at = created_at"


@dataclass
class Story:
    """A submitted command whose first sender was stopped for longer than its lease, and is still to wake up."""

    product: Lifecycle
    url: str
    client: ZocdocClient
    appointment_id: str
    command_id: str
    first: decisions.Order

    @property
    def events(self) -> list[str]:
        """Name the events."""
        return [each.event for each in self.product.history(self.appointment_id)]


def claim(product: Lifecycle, command_id: str, client: ZocdocClient | None) -> decisions.Taken:
    """Take the command from the queue, due or not."""
    return claiming.take(product._resources, most=1, clients={"machine": client}, command_id=command_id)


def perform(product: Lifecycle, order: decisions.Order) -> None:
    """Send what was claimed, as a worker does."""
    _, settled = sending.perform(product._resources, order.claim, source=order.source)
    if settled is None:
        sending.follow_late(product._resources, order.claim.client, order.claim.command, source=order.source)


@pytest.fixture
def story(database_url: str, client: ZocdocClient, sandbox: Sandbox) -> Iterator[Story]:
    """The command was claimed; its lease ran out, reading showed no effect, and it is queued again."""
    with support.opened(database_url, client, TIMING) as product, support.opened(database_url, None) as idle:
        appointment_id = support.tracked(product, sandbox)
        command_id = idle.submit("confirm", appointment_id, actor=ACTOR).id
        [order] = claim(product, command_id, client).orders
        support.query(database_url, _LEASE_OVER)
        assert [each.state for each in product.recover(wait=support.PATIENCE, resume=False).settled] == ["queued"]
        yield Story(product, database_url, client, appointment_id, command_id, order)


def _refuse(story: Story) -> None:
    assert claim(story.product, story.command_id, None).ended == 1


def _withdraw(story: Story) -> None:
    assert story.product.submission(story.command_id).withdraw(actor="user:2")


def _expire(story: Story) -> None:
    support.query(story.url, _TIME_OVER)
    assert claim(story.product, story.command_id, story.client).ended == 1


def _claim_again(story: Story) -> None:
    assert len(claim(story.product, story.command_id, story.client).orders) == 1


def _nothing(_story: Story) -> None:
    pass


MEANWHILE: dict[str, tuple[Callable[[Story], None], list[str]]] = {
    "queued": (_nothing, []),
    "sending": (_claim_again, ["command_resent"]),
    "refused": (_refuse, ["command_refused"]),
    "withdrawn": (_withdraw, ["command_withdrawn"]),
    "expired": (_expire, ["command_expired"]),
}


@pytest.mark.parametrize("state", MEANWHILE)
def test_a_late_yes_settles_what_was_to_be_sent_again(story: Story, sandbox: Sandbox, state: str) -> None:
    """It had an effect after all: it is applied, nothing more is sent, and who asks the handle is told."""
    act, events = MEANWHILE[state]
    act(story)
    submitted = story.product.submission(story.command_id)
    assert submitted.state == state
    perform(story.product, story.first)
    expected = ["command_requeued", *events, "late_answer_received", "appointment_observed"]
    assert story.events[-len(expected) :] == expected
    assert story.product.history(story.appointment_id)[-2].details["settled_as"] == state
    done = submitted.result()
    assert (submitted.state, done.to_status, done.reason_code) == ("applied", "confirmed", "answered_late")
    assert support.posts(sandbox, story.appointment_id) == 1
    [row] = support.commands(story.url)
    assert (row["due_at"], row["run_at"], row["lease_until"]) == (None, None, None)
    taken = claim(story.product, story.command_id, story.client)
    assert (taken.orders, taken.ended) == ([], 0)
    assert story.product.verify().is_sound


def test_an_attempt_that_a_late_yes_has_overtaken_changes_nothing(story: Story, sandbox: Sandbox) -> None:
    """Its own answer, a conflict, is one more note in the trail."""
    [second] = claim(story.product, story.command_id, story.client).orders
    perform(story.product, story.first)
    perform(story.product, second)
    assert story.events[-3:] == ["late_answer_received", "appointment_observed", "late_answer_received"]
    assert story.product.submission(story.command_id).result().reason_code == "answered_late"
    assert support.effects(sandbox, story.appointment_id) == 1


def test_a_late_no_ends_what_was_to_be_sent_again(story: Story, sandbox: Sandbox) -> None:
    """Zocdoc has said what it thinks of it: it is not sent once more."""
    support.arm(sandbox, kind="answer", operation="confirm", status=403)
    perform(story.product, story.first)
    assert story.events[-2:] == ["command_requeued", "late_answer_received"]
    submitted = story.product.submission(story.command_id)
    assert submitted.state == "rejected"
    assert not claim(story.product, story.command_id, story.client).orders


def test_a_late_no_leaves_another_attempt_alone(story: Story, sandbox: Sandbox) -> None:
    """What is in the air has its own answer."""
    [second] = claim(story.product, story.command_id, story.client).orders
    support.arm(sandbox, kind="answer", operation="confirm", status=403)
    perform(story.product, story.first)
    assert story.product.submission(story.command_id).state == "sending"
    perform(story.product, second)
    assert story.product.submission(story.command_id).result().to_status == "confirmed"
    assert support.effects(sandbox, story.appointment_id) == 1
