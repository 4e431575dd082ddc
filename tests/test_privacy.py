"""Planted words of patients and secrets appear where they belong and nowhere else."""

from __future__ import annotations

import logging
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from lifecycle import DatabaseUnavailable, Lifecycle, LifecycleError, TransitionRefused, ZocdocClient
from tests import support, trail
from tests.conftest import FAST
from tests.support import ACTOR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.sandbox import Sandbox, Server

REASON = "CANARY-reason"
NOTES = "CANARY-notes"
PATIENT = "CANARY-patient"
SECRET = "CANARY-secret"
MESSAGE = "CANARY-message"
WORD = "CANARY"


@pytest.fixture
def canaries(server: Server, sandbox: Sandbox) -> Iterator[ZocdocClient]:
    """Give a client whose secret and token are canaries too."""
    sandbox.tokens._clients["canary-client"] = SECRET
    with support.client_of(server, client_id="canary-client", client_secret=SECRET) as made:
        yield made


def every_text_of(error: BaseException) -> str:
    """Give all that a log or a crash report could print of an error: text, repr, chain, attributes, pickle."""
    shown = [*traceback.format_exception(error), str(error), repr(error), repr(error.args), str(vars(error))]
    if isinstance(error, LifecycleError):
        shown.append(repr(pickle.dumps(error)))
    return "\n".join(shown)


def every_log_of(caplog: pytest.LogCaptureFixture) -> str:
    """Give every record with its arguments, extra fields and traceback."""
    return "\n".join(f"{record.getMessage()} {vars(record)} {record.exc_text}" for record in caplog.records)


def troubles(product: Lifecycle, sandbox: Sandbox) -> list[BaseException]:
    """Cancel with a canary reason through all kinds of trouble, and collect what was raised."""
    given: dict[str, Any] = {"actor": ACTOR, "reason": REASON, "reason_type": "other_patient_reason"}
    body = f'{{"request_id": "rq", "errors": [{{"message": "{MESSAGE}", "field": "{MESSAGE} is bad"}}]}}'
    faults: list[dict[str, Any]] = [
        {"kind": "answer", "status": 400, "body": body},
        {"kind": "answer", "status": 409, "body": body},
        {"kind": "answer", "status": 500, "body": body},
        {"kind": "answer", "status": 200, "body": MESSAGE},
        {"kind": "answer", "status": 302, "headers": {"Location": f"http://127.0.0.1:9/{MESSAGE}"}},
        {"kind": "answer", "status": 200, "headers": {"X-Odd": MESSAGE}},
        {"kind": "reset"},
        {"kind": "truncate"},
        {"kind": "foreign_id", "value": MESSAGE},
    ]
    caught: list[BaseException] = []
    for fault in faults:
        appointment_id = support.tracked(product, sandbox, notes=NOTES, developer_patient_id=PATIENT)
        support.arm(sandbox, operation="cancel", **fault)
        with pytest.raises(LifecycleError) as error:
            product.cancel(appointment_id, **given)
        caught.append(error.value)
        with pytest.raises(LifecycleError) as error:
            product.cancel(appointment_id, **(given | {"reason_type": REASON}))
        caught.append(error.value)
    support.arm(sandbox, kind="answer", operation="get", status=500, body=body, times=2)
    product.recover(wait=5.0)
    for status, message in ((404, body), (500, body), (200, MESSAGE)):
        support.arm(sandbox, kind="answer", operation="get", status=status, body=message)
        with pytest.raises(LifecycleError) as error:
            product.track(sandbox.add(), actor=ACTOR)
        caught.append(error.value)
    appointment_id = support.tracked(product, sandbox, notes=NOTES, developer_patient_id=PATIENT)
    product.cancel(appointment_id, request_key="k", **given)
    with pytest.raises(LifecycleError) as error:
        product.cancel(appointment_id, request_key="k", **(given | {"reason": REASON + "-2"}))
    caught.append(error.value)
    with pytest.raises(TransitionRefused) as refused:
        product.cancel(appointment_id, **given)
    caught.append(refused.value)
    return caught


def test_nothing_leaks_whatever_goes_wrong(
    canaries: ZocdocClient, sandbox: Sandbox, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No canary is in a log record at DEBUG level, in an exception, or in an audit row; text that ended is gone."""
    caplog.set_level(logging.DEBUG)
    for name in ("lifecycle", "urllib3", "requests", "alembic", "statemachine"):
        caplog.set_level(logging.DEBUG, logger=name)
    # SQLAlchemy's statements with their parameters; its rows are the next test's.
    caplog.set_level(logging.INFO, logger="sqlalchemy")
    with support.opened(database_url, canaries, FAST) as product:
        caught = troubles(product, sandbox)
        tokens = [text for text in sandbox.tokens._live if len(text) > 10]
        assert tokens
        for each in product.appointments():
            assert WORD not in repr(product.history(each.appointment_id))
            assert WORD not in repr(product.explain(each.appointment_id, "cancel"))
            assert WORD not in repr(each)
        assert WORD not in repr(product.recover())
    logged = every_log_of(caplog)
    assert "INSERT INTO lifecycle_commands" in logged
    assert WORD not in logged, [line for line in logged.splitlines() if WORD in line][:3]
    assert not any(token in logged for token in tokens)
    assert WORD not in repr(canaries)
    for error in caught:
        # The caller's own wrong argument may come back to the caller; everything else may not.
        shown = every_text_of(error)
        assert WORD not in shown, shown
        assert not any(token in shown for token in tokens)
    engine = sa.create_engine(database_url)
    with engine.connect() as connection:
        stored = connection.exec_driver_sql("SELECT * FROM lifecycle_commands").all()
    audited = str(trail.rows_of(engine))
    engine.dispose()
    assert WORD not in audited
    assert not any(token in str(stored) + audited for token in tokens)
    assert WORD not in str(stored)


def test_debugging_the_database_shows_no_patients(
    canaries: ZocdocClient, sandbox: Sandbox, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Even with SQLAlchemy's own loggers at DEBUG our engine logs neither parameters nor rows."""
    caplog.set_level(logging.DEBUG, logger="sqlalchemy")
    with support.opened(database_url, canaries, FAST) as product:
        appointment_id = support.tracked(product, sandbox, notes=NOTES, developer_patient_id=PATIENT)
        support.lose_answer(sandbox, "cancel")
        with pytest.raises(LifecycleError):
            product.cancel(appointment_id, actor=ACTOR, reason=REASON)
        product.recover(wait=5.0)
        product.get(appointment_id)
    logged = every_log_of(caplog)
    assert SECRET not in logged
    assert WORD not in logged, [line[:200] for line in logged.splitlines() if WORD in line][:3]


def test_the_words_are_where_they_belong(canaries: ZocdocClient, sandbox: Sandbox, database_url: str) -> None:
    """The reason reached Zocdoc, the patient id is in its own column, and while in doubt the reason is kept."""
    with support.opened(database_url, canaries, FAST) as product:
        appointment_id = support.tracked(product, sandbox, notes=NOTES, developer_patient_id=PATIENT)
        support.lose_answer(sandbox, "cancel")
        with pytest.raises(LifecycleError):
            product.cancel(appointment_id, actor=ACTOR, reason=REASON)
    [row] = support.query(database_url, "SELECT * FROM lifecycle_appointments")
    assert [name for name, value in row.items() if WORD in str(value)] == ["developer_patient_id"]
    [row] = support.commands(database_url)
    assert [name for name, value in row.items() if WORD in str(value)] == ["payload"]
    [sent] = [entry for entry in support.calls(sandbox, appointment_id) if entry.operation == "cancel"]
    assert REASON in str(sent.body)


@pytest.mark.parametrize("whose", ["ours", "the host's"])
def test_a_database_error_does_not_quote_what_was_to_be_stored(
    canaries: ZocdocClient, sandbox: Sandbox, database_url: str, whose: str
) -> None:
    """When the intent cannot be written, neither the error nor its causes show the reason, on a host's engine too."""
    hosts = sa.create_engine(database_url, poolclass=sa.pool.NullPool)
    if hosts.dialect.name == "sqlite":
        sa.event.listen(hosts, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=FULL"))
    with Lifecycle(database_url if whose == "ours" else hosts, zocdoc=canaries, timing=FAST) as product:
        appointment_id = support.tracked(product, sandbox)
        _break(product)
        with pytest.raises(DatabaseUnavailable) as caught:
            product.cancel(appointment_id, actor=ACTOR, reason=REASON)
        _mend(product)
    shown = every_text_of(caught.value)
    assert WORD not in shown, shown
    assert support.posts(sandbox, appointment_id) == 0


def _break(product: Lifecycle) -> None:
    """Let the intent not be written any more, in a way that makes SQLAlchemy quote the statement that failed."""
    with product._resources.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE lifecycle_commands RENAME COLUMN target_status TO renamed")


def _mend(product: Lifecycle) -> None:
    with product._resources.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE lifecycle_commands RENAME COLUMN renamed TO target_status")
