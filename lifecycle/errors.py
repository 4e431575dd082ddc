"""Every error that this package raises, each with its facts as attributes.

All of them are `LifecycleError`, can be pickled, and carry neither patient data nor secrets. The docstring's first
line says what happened; `str(error)` adds the facts and what to do next. Zocdoc's `request_id`, the only handle its
support accepts, is part of the text whenever Zocdoc gave one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(eq=False, kw_only=True)
class LifecycleError(Exception):
    """Something that the lifecycle engine could not or would not do."""

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from the attributes: exceptions with keyword-only facts do not pickle by themselves."""
        facts = {fact.name: getattr(self, fact.name) for fact in fields(self)}
        return _rebuild, (type(self), facts), dict(vars(self))


def _rebuild(kind: type[LifecycleError], facts: dict[str, object]) -> LifecycleError:
    return kind(**facts)


@dataclass(eq=False, kw_only=True)
class InvalidArgument(LifecycleError, ValueError):
    """An argument cannot be used; nothing was written and nothing was sent."""

    argument: str
    problem: str

    def __str__(self) -> str:
        return f"{self.argument}: {self.problem}"


@dataclass(eq=False, kw_only=True)
class ConfigurationError(LifecycleError):
    """A setting is missing or contradicts another."""

    problem: str

    def __str__(self) -> str:
        return self.problem


@dataclass(eq=False, kw_only=True)
class AppointmentNotFound(LifecycleError, LookupError):
    """The appointment is not tracked here, or, when tracking it, Zocdoc does not know it."""

    appointment_id: str
    at_zocdoc: bool = False
    zocdoc_request_id: str | None = None

    def __str__(self) -> str:
        if self.at_zocdoc:
            text = f"Zocdoc does not know appointment {self.appointment_id} in this environment; check the id"
            return text + _support(self.zocdoc_request_id)
        return f"appointment {self.appointment_id} is not tracked here; track it first"


@dataclass(eq=False, kw_only=True)
class TransitionRefused(LifecycleError):
    """A check refused the command before any call to Zocdoc; the refusal is in the audit trail.

    `reasons` are the codes of the checks that failed, `status` is the local status they were judged by.
    """

    appointment_id: str
    command: str
    status: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.command} of appointment {self.appointment_id} was refused in status {self.status}: "
            f"{', '.join(self.reasons)}; `explain` tells the rule behind each reason"
        )


@dataclass(eq=False, kw_only=True)
class CommandInProgress(TransitionRefused):
    """Another command on this appointment has not ended yet; at most one may be active.

    `active_state` is `queued` (withdraw it, or wait for it), `sending` (wait for it) or `uncertain` (its outcome is in
    doubt: run `recover`).
    """

    active_command_id: str
    active_state: str

    def __str__(self) -> str:
        remedies = {
            "queued": "withdraw it, or wait for it to end, then call again",
            "uncertain": "its outcome is in doubt, run `recover` to settle it by reading from Zocdoc",
        }
        remedy = remedies.get(self.active_state, "wait for it to end, then call again")
        return (
            f"{self.command} of appointment {self.appointment_id} was refused: command "
            f"{self.active_command_id} is {self.active_state}; {remedy}"
        )


@dataclass(eq=False, kw_only=True)
class CredentialNotAllowed(LifecycleError):
    """No credential at hand may read or change this appointment.

    Zocdoc: an appointment booked with a user credential is open to that user only; one booked with a
    machine-to-machine credential is open to any of the developer's machine-to-machine credentials.
    """

    appointment_id: str
    booked_with: str

    def __str__(self) -> str:
        return (
            f"appointment {self.appointment_id} was booked with the credential '{self.booked_with}' and none at hand "
            f"has that identity; pass a client of that identity"
        )


@dataclass(eq=False, kw_only=True)
class CommandEnded(LifecycleError):
    """Common facts of a command that was accepted but not applied."""

    appointment_id: str
    command: str
    command_id: str
    reason_code: str
    http_status: int | None = None
    zocdoc_request_id: str | None = None

    def _text(self, what: str) -> str:
        status = f", HTTP {self.http_status}" if self.http_status is not None else ""
        return (
            f"{self.command} of appointment {self.appointment_id} {what} ({self.reason_code}{status}; command "
            f"{self.command_id}{_support(self.zocdoc_request_id)})"
        )


@dataclass(eq=False, kw_only=True)
class CommandRejected(CommandEnded):
    """Zocdoc said no; nothing was changed by this command. `fields` are the body fields it complained about."""

    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        about = f" because of {', '.join(self.fields)}" if self.fields else ""
        return self._text(f"was rejected by Zocdoc{about}")


@dataclass(eq=False, kw_only=True)
class NotSent(CommandEnded):
    """Zocdoc was never reached, or was proved not to have acted; it is safe to call again."""

    def __str__(self) -> str:
        return self._text("had no effect at Zocdoc and may be called again")


@dataclass(eq=False, kw_only=True)
class CommandWithdrawn(NotSent):
    """A submitted command was withdrawn before it was sent."""

    def __str__(self) -> str:
        return self._text("was withdrawn before it was sent")


@dataclass(eq=False, kw_only=True)
class CommandExpired(NotSent):
    """A submitted command could not be sent before its `expires_at`; it had no effect."""

    def __str__(self) -> str:
        return self._text("expired before it could be sent")


@dataclass(eq=False, kw_only=True)
class BatchNotFound(LifecycleError, LookupError):
    """There is no batch with that id here."""

    batch_id: str

    def __str__(self) -> str:
        return f"there is no batch {self.batch_id}; `batches` lists those that there are"


@dataclass(eq=False, kw_only=True)
class CommandNotFound(LifecycleError, LookupError):
    """There is no command with that id here."""

    command_id: str

    def __str__(self) -> str:
        return f"there is no command {self.command_id}; `submit` gives the id of a command"


@dataclass(eq=False, kw_only=True)
class OutcomeUnknown(CommandEnded):
    """The command may or may not have been applied; the appointment is in doubt until it is settled.

    `state` is `uncertain` (`recover` will settle it by reading), `sending` (the answer came but could not be recorded;
    `recover` will settle it once the lease has run out), or `needs_attention` (reading could not tell; a human must).
    """

    state: str = "uncertain"

    def __str__(self) -> str:
        if self.state == "needs_attention":
            return self._text("has an outcome that reading could not settle; look it up at Zocdoc")
        return self._text("has an unknown outcome; do not repeat it, run `recover` to settle it")


@dataclass(eq=False, kw_only=True)
class RequestKeyReused(LifecycleError):
    """The request key belongs to an earlier command with other arguments; nothing was sent."""

    request_key: str
    command_id: str

    def __str__(self) -> str:
        return (
            f"request key {self.request_key!r} was already used for command {self.command_id} with other arguments; "
            f"use a new key for a new wish"
        )


@dataclass(eq=False, kw_only=True)
class NothingToResolve(LifecycleError, LookupError):
    """The command is not one that needs attention: unknown, still active, or ended. `state` is None if unknown."""

    command_id: str
    state: str | None

    def __str__(self) -> str:
        if self.state is None:
            return f"there is no command {self.command_id}; `attention` lists those that need a human"
        return f"command {self.command_id} is {self.state}; only one that needs attention can be resolved"


@dataclass(eq=False, kw_only=True)
class WebhookRefused(LifecycleError):
    """A webhook call is not Zocdoc's, or cannot be shown to be; nothing was stored.

    `reason_code`: missing_signature, malformed_signature, unknown_version, bad_signature, missing_timestamp or
    malformed_timestamp.
    """

    reason_code: str

    def __str__(self) -> str:
        return (
            f"the webhook call was refused ({self.reason_code}); pass the raw body as it came, all headers, and the "
            f"keys that Zocdoc gave for this address"
        )


@dataclass(eq=False, kw_only=True)
class NothingToRetry(LifecycleError, LookupError):
    """The delivery is not one that failed or was untracked: unknown, waiting, or ended. `state` None: unknown."""

    delivery_id: str
    state: str | None

    def __str__(self) -> str:
        if self.state is None:
            return f"there is no delivery {self.delivery_id}; `inbox list` shows them"
        return f"delivery {self.delivery_id} is {self.state}; only one that failed or was untracked can be retried"


@dataclass(eq=False, kw_only=True)
class ReadFailed(LifecycleError):
    """The appointment could not be read from Zocdoc; nothing was changed."""

    appointment_id: str
    reason_code: str
    http_status: int | None = None
    zocdoc_request_id: str | None = None

    def __str__(self) -> str:
        status = f", HTTP {self.http_status}" if self.http_status is not None else ""
        return (
            f"appointment {self.appointment_id} could not be read from Zocdoc "
            f"({self.reason_code}{status}{_support(self.zocdoc_request_id)}); {_REMEDIES.get(self.reason_code, _RETRY)}"
        )


@dataclass(eq=False, kw_only=True)
class SyncFailed(LifecycleError):
    """Zocdoc's list of appointments could not be read to its end; what was read is stored, the next sync goes on.

    `instant` (ISO 8601, UTC) is where Zocdoc modified more appointments at once than it lists: those are left out.
    """

    reason_code: str
    http_status: int | None = None
    zocdoc_request_id: str | None = None
    instant: str | None = None

    def __str__(self) -> str:
        status = f", HTTP {self.http_status}" if self.http_status is not None else ""
        where = f" at {self.instant}" if self.instant is not None else ""
        remedy = _LIST_REMEDIES.get(self.reason_code) or _REMEDIES.get(self.reason_code, _RETRY)
        return (
            f"the list of appointments could not be read from Zocdoc to its end{where} "
            f"({self.reason_code}{status}{_support(self.zocdoc_request_id)}); {remedy}"
        )


@dataclass(eq=False, kw_only=True)
class CheckpointRefused(LifecycleError):
    """A checkpoint file cannot be relied on, or is of another database; nothing was verified.

    `reason_code`: not_a_checkpoint, bad_signature, unknown_version or another_environment.
    """

    path: str
    reason_code: str

    def __str__(self) -> str:
        remedy = _CHECKPOINTS.get(self.reason_code, "take the file as it was written")
        return f"the checkpoint {self.path} was refused ({self.reason_code}): {remedy}"


@dataclass(eq=False, kw_only=True)
class DatabaseUnavailable(LifecycleError):
    """The database could not be opened, read or written; what was in progress is rolled back, or settled by `recover`.

    Zocdoc was not called by a command that raises this. `is_transient`: the same may succeed later without anybody's
    doing, because it was a lock, a restart, a lost connection, or a disk or a pool that was full.
    """

    problem: str
    is_transient: bool = False

    def __str__(self) -> str:
        return f"the database cannot be used: {self.problem}"


@dataclass(eq=False, kw_only=True)
class ConstraintViolated(DatabaseUnavailable):
    """The database refused a row that contradicts its rules; the transaction was rolled back."""


@dataclass(eq=False, kw_only=True)
class SchemaMismatch(LifecycleError):
    """The database's schema is not the one that this version of lifecycle works with."""

    found: str | None
    expected: str

    def __str__(self) -> str:
        if self.found is None:
            return "the database has no lifecycle tables yet; run `lifecycle db upgrade`"
        return (
            f"the database's schema is at revision {self.found}, this version needs {self.expected}; "
            f"run `lifecycle db upgrade`, or upgrade the package if the database is newer"
        )


@dataclass(eq=False, kw_only=True)
class EnvironmentMismatch(LifecycleError):
    """The database belongs to another Zocdoc environment than the client."""

    database: str
    client: str

    def __str__(self) -> str:
        return (
            f"this database holds appointments of Zocdoc's environment '{self.database}', the client talks to "
            f"'{self.client}'; use one database for each environment"
        )


_CHECKPOINTS = {
    "not_a_checkpoint": "it is none, or not the whole of one; take the file as it was written",
    "bad_signature": "it was changed, or signed with another key; use the key and the file of that day",
    "unknown_version": "a newer version of this package wrote it; upgrade the package",
    "another_environment": "it is of a database of another Zocdoc environment; check which database is meant",
}

_RETRY = "check the connection and call again"
_REMEDIES = {
    "token_refused": "check the client id, the secret and the audience",
    "unauthorized": "check that the credentials belong to this environment",
    "forbidden": "check the credential's scopes and who booked the appointment",
    "malformed_token": "check the access token",
}

_LIST_REMEDIES = {
    "instant_too_crowded": "Zocdoc modified more appointments at that instant than it lists, and no filter tells them "
    "apart; the rest was read and sync goes on, so `track` those of that instant by their ids",
    "list_not_steady": "the list kept changing while it was read; call again",
    "list_not_in_order": "Zocdoc's answers were not in the order that was asked for; tell its support the request id",
}


def _support(request_id: str | None) -> str:
    return f"; Zocdoc request id {request_id}" if request_id else ""
