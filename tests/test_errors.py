"""Every error has its facts as attributes, one line of text, and survives the way to another process."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any, get_args, get_type_hints

import pytest

import lifecycle
from lifecycle import errors

FACTS: dict[str, Any] = {
    "argument": "actor",
    "path": "checkpoint.jsonl",
    "problem": "a printable text is needed",
    "appointment_id": "a-1",
    "at_zocdoc": True,
    "zocdoc_request_id": "rq-1",
    "command": "confirm",
    "status": "confirmed",
    "reasons": ("status_not_allowed", "credential_not_allowed"),
    "active_command_id": "c-1",
    "active_state": "uncertain",
    "booked_with": "user:7",
    "batch_id": "b-1",
    "command_id": "c-2",
    "delivery_id": "d0",
    "reason_code": "server_error",
    "http_status": 500,
    "instant": "2026-12-01T14:00:00.000000Z",
    "fields": ("start_time",),
    "state": "uncertain",
    "request_key": "k\n1",
    "found": "0000",
    "expected": "0001",
    "database": "sandbox",
    "client": "production",
    "is_transient": True,
}


def kinds(root: type[errors.LifecycleError] = errors.LifecycleError) -> list[type[errors.LifecycleError]]:
    """Give every class below the root."""
    found = []
    for kind in root.__subclasses__():
        found += [kind, *kinds(kind)]
    return found


KINDS = [kind for kind in kinds() if kind.__module__ == "lifecycle.errors"]


def full(kind: type[errors.LifecycleError]) -> errors.LifecycleError:
    """Make one with every fact given."""
    names = [each.name for each in dataclasses.fields(kind)]
    return kind(**{name: FACTS[name] for name in names if name in FACTS})


def bare(kind: type[errors.LifecycleError]) -> errors.LifecycleError:
    """Make one with the facts that it cannot do without; what may be None is None."""
    hints = get_type_hints(kind)
    facts: dict[str, Any] = {}
    for each in dataclasses.fields(kind):
        if type(None) in get_args(hints[each.name]):
            facts[each.name] = None
        elif each.default is dataclasses.MISSING:
            facts[each.name] = FACTS[each.name]
    return kind(**facts)


def test_every_error_is_known_and_exported() -> None:
    """The facts above are those of all classes, and each class that is raised can be imported from the package."""
    assert {each.name for kind in KINDS for each in dataclasses.fields(kind)} <= set(FACTS)
    assert {kind.__name__ for kind in KINDS} - set(lifecycle.__all__) <= {"CommandEnded"}
    assert issubclass(errors.LifecycleError, Exception)
    assert issubclass(errors.CommandInProgress, errors.TransitionRefused)
    assert issubclass(errors.AppointmentNotFound, LookupError)
    assert issubclass(errors.InvalidArgument, ValueError)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [full, bare])
def test_an_error_survives_pickling_with_equal_facts(kind: type[errors.LifecycleError], make: Any) -> None:
    """What a worker raises arrives at its caller as the same class, with the same attributes and the same text."""
    error = make(kind)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 # our own bytes
        assert type(again) is kind
        assert vars(again) == vars(error)
        assert (str(again), repr(again)) == (str(error), repr(error))
    assert vars(copy.copy(error)) == vars(copy.deepcopy(error)) == vars(error)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_with_a_note_survives_pickling(kind: type[errors.LifecycleError]) -> None:
    """Callers may add notes (PEP 678); they do not stop the error on its way."""
    error = full(kind)
    error.add_note("while confirming the batch")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 # our own bytes
    assert again.__notes__ == ["while confirming the batch"]
    assert str(again) == str(error)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [full, bare])
def test_an_error_is_one_line(kind: type[errors.LifecycleError], make: Any) -> None:
    """The text fits into a log line, is not empty, and has no trailing dot or None in it."""
    text = str(make(kind))
    if kind is errors.CommandEnded:
        return
    assert text
    assert text.splitlines() == [text]
    assert "None" not in text
    assert not text.endswith(".")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "zocdoc_request_id" in get_type_hints(kind)])
def test_zocdocs_request_id_is_part_of_the_text(kind: type[errors.LifecycleError]) -> None:
    """It is the only handle that Zocdoc's support accepts."""
    if kind is not errors.CommandEnded:
        assert "Zocdoc request id rq-1" in str(full(kind))
        assert "request id" not in str(bare(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_told_by_its_docstring(kind: type[errors.LifecycleError]) -> None:
    """The first line of the docstring is a sentence that says what happened."""
    first = (kind.__doc__ or "").splitlines()[0]
    assert first.endswith(".")
    assert not first.startswith(kind.__name__)


def test_errors_are_equal_to_themselves_only() -> None:
    """Two errors with equal facts are two events; both can be put into a set."""
    one, two = full(errors.NotSent), full(errors.NotSent)
    assert one != two
    assert len({one, two}) == 2


def test_the_text_tells_what_to_do() -> None:
    """Each remedy fits its case."""

    def text(kind: type[errors.LifecycleError], **facts: Any) -> str:
        names = {each.name for each in dataclasses.fields(kind)}
        return str(kind(**{name: (FACTS | facts)[name] for name in names}))

    assert "track it first" in text(errors.AppointmentNotFound, at_zocdoc=False)
    assert "check the id" in text(errors.AppointmentNotFound)
    assert "recover" in text(errors.CommandInProgress)
    assert "wait" in text(errors.CommandInProgress, active_state="sending")
    assert "may be called again" in text(errors.NotSent)
    assert "do not repeat" in text(errors.OutcomeUnknown)
    assert "look it up at Zocdoc" in text(errors.OutcomeUnknown, state="needs_attention")
    assert "check the client id" in text(errors.ReadFailed, reason_code="token_refused")
    assert "lifecycle db upgrade" in text(errors.SchemaMismatch)
    assert "start_time" in text(errors.CommandRejected)
    assert "explain" in text(errors.TransitionRefused)
