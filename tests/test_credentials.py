"""Zocdoc's credential rule: who booked decides who may act, and no other credential is ever tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lifecycle import CredentialNotAllowed, Lifecycle, TransitionRefused, ZocdocClient
from tests import support
from tests.conftest import FAST
from tests.support import ACTOR, COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.sandbox import Sandbox, Server


@pytest.fixture
def user(server: Server) -> Iterator[ZocdocClient]:
    """Give the client of the user 7."""
    with support.user_client(server, "7") as made:
        yield made


@pytest.fixture
def product(database_url: str, client: ZocdocClient, user: ZocdocClient) -> Iterator[Lifecycle]:
    """Give the machine's client, and a resolver that knows the user 7."""
    with Lifecycle(database_url, zocdoc=client, user_client={"7": user}.get, timing=FAST) as made:
        yield made


def code(lifecycle: Lifecycle, appointment_id: str) -> str | None:
    """Give the code of the credential check."""
    [found] = [each for each in lifecycle.explain(appointment_id, "confirm") if each.check == "credential"]
    return found.code


@pytest.mark.parametrize("command", COMMANDS)
def test_a_users_booking_is_changed_with_the_users_client(product: Lifecycle, sandbox: Sandbox, command: str) -> None:
    """Read and command both go out with the token of the user who booked."""
    status = "pending_booking"
    appointment_id = support.tracked(product, sandbox, booked_by="user:7", status=status, start_time=_an_hour_ago())
    assert product.get(appointment_id).booked_with == "user:7"
    assert code(product, appointment_id) is None
    support.send(product, command, appointment_id)
    assert {entry.subject for entry in support.calls(sandbox, appointment_id)} == {"user:7"}
    assert support.effects(sandbox, appointment_id) == 1


def _an_hour_ago() -> str:
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415 # for one line

    return (datetime.now(UTC) - timedelta(hours=1)).isoformat()


def test_a_machines_booking_is_changed_with_the_machines_client(product: Lifecycle, sandbox: Sandbox) -> None:
    """The resolver is not asked for what the machine booked."""
    appointment_id = support.tracked(product, sandbox)
    product.confirm(appointment_id, actor=ACTOR)
    assert {entry.subject for entry in support.calls(sandbox, appointment_id)} == {"machine"}


@pytest.mark.parametrize("command", COMMANDS)
def test_without_the_users_client_the_command_is_refused(
    product: Lifecycle, lifecycle: Lifecycle, sandbox: Sandbox, command: str
) -> None:
    """A process that has the machine's client only is refused by the rule, without a call, and `explain` says so."""
    appointment_id = support.tracked(product, sandbox, booked_by="user:7", start_time=_an_hour_ago())
    before = len(sandbox.ledger.entries())
    assert code(lifecycle, appointment_id) == "credential_not_allowed"
    with pytest.raises(TransitionRefused) as caught:
        support.send(lifecycle, command, appointment_id)
    assert caught.value.reasons == ("credential_not_allowed",)
    assert len(sandbox.ledger.entries()) == before
    assert lifecycle.history(appointment_id)[-1].reason_code == "credential_not_allowed"


def test_another_users_client_is_not_tried(
    product: Lifecycle, sandbox: Sandbox, server: Server, database_url: str
) -> None:
    """A resolver that gives somebody else's client is as good as none: identities are compared, not trusted."""
    appointment_id = support.tracked(product, sandbox, booked_by="user:7")
    before = len(sandbox.ledger.entries())
    with (
        support.user_client(server, "8") as other,
        support.opened(database_url, other, user_client=lambda _: other) as foreign,
    ):
        assert code(foreign, appointment_id) == "credential_not_allowed"
        with pytest.raises(TransitionRefused) as caught:
            foreign.confirm(appointment_id, actor=ACTOR)
        assert caught.value.reasons == ("credential_not_allowed",)
        with pytest.raises(CredentialNotAllowed):
            foreign.track(appointment_id, actor=ACTOR, booked_with="user:7")
    assert len(sandbox.ledger.entries()) == before


def test_a_user_may_not_change_what_the_machine_booked(
    lifecycle: Lifecycle, sandbox: Sandbox, user: ZocdocClient, database_url: str
) -> None:
    """A user's client at hand does not act for the machine."""
    appointment_id = support.tracked(lifecycle, sandbox)
    with support.opened(database_url, user) as foreign:
        assert code(foreign, appointment_id) == "credential_not_allowed"
        with pytest.raises(TransitionRefused):
            foreign.confirm(appointment_id, actor=ACTOR)
        with pytest.raises(CredentialNotAllowed):
            foreign.track(appointment_id, actor=ACTOR)


def test_a_users_client_at_hand_needs_no_resolver(sandbox: Sandbox, user: ZocdocClient, database_url: str) -> None:
    """The client at hand may be the user's own."""
    with support.opened(database_url, user) as own:
        appointment_id = support.tracked(own, sandbox, booked_by="user:7")
        assert own.confirm(appointment_id, actor="user:7").to_status == "confirmed"
        assert own.recover().settled == []


def test_users_alone_need_no_machine(sandbox: Sandbox, user: ZocdocClient, database_url: str) -> None:
    """With a resolver and no machine client, what users booked can be tracked and changed."""
    with support.opened(database_url, None, user_client={"7": user}.get) as own:
        appointment_id = support.tracked(own, sandbox, booked_by="user:7")
        assert own.confirm(appointment_id, actor="user:7").to_status == "confirmed"


def test_tracking_without_the_users_client_is_refused(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """No credential at hand may read it, so nothing is read."""
    appointment_id = sandbox.add(booked_by="user:7")
    with pytest.raises(CredentialNotAllowed) as caught:
        lifecycle.track(appointment_id, actor=ACTOR, booked_with="user:7")
    assert (caught.value.appointment_id, caught.value.booked_with) == (appointment_id, "user:7")
    assert sandbox.ledger.entries() == []


def test_zocdocs_own_no_is_a_rejection_too(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """If the caller told us the wrong booker, Zocdoc's 403 comes out as what it is."""
    appointment_id = support.tracked(lifecycle, sandbox)
    sandbox.change(appointment_id, booked_by="user:7")
    with pytest.raises(Exception, match="forbidden, HTTP 403"):
        lifecycle.confirm(appointment_id, actor=ACTOR)
    assert support.effects(sandbox, appointment_id) == 0
