"""Guarded, durable, audited appointment transitions for Zocdoc's developer API.

`Lifecycle` is the one object to begin with. Exports are loaded when first asked for, so that importing the package, and
the command line's `--help`, cost next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lifecycle.api import Lifecycle
    from lifecycle.batches import BatchInfo, BatchRow, Progress
    from lifecycle.chart import CancellationReason, Command, Status
    from lifecycle.checkpoints import Checkpoint
    from lifecycle.doctor.checks import Check
    from lifecycle.doctor.diagnosis import Diagnosis
    from lifecycle.drift import Drift
    from lifecycle.errors import (
        AppointmentNotFound,
        BatchNotFound,
        CheckpointRefused,
        CommandExpired,
        CommandInProgress,
        CommandNotFound,
        CommandRejected,
        CommandWithdrawn,
        ConfigurationError,
        ConstraintViolated,
        CredentialNotAllowed,
        DatabaseUnavailable,
        EnvironmentMismatch,
        InvalidArgument,
        LifecycleError,
        NothingToResolve,
        NothingToRetry,
        NotSent,
        OutcomeUnknown,
        ReadFailed,
        RequestKeyReused,
        SchemaMismatch,
        SyncFailed,
        TransitionRefused,
        WebhookRefused,
    )
    from lifecycle.feed import FeedEvent
    from lifecycle.findings import Finding, FindingKind
    from lifecycle.guards import Explanation
    from lifecycle.handles import Batch, Submission
    from lifecycle.inbox import Delivery, Processed, Receipt
    from lifecycle.operators import Attention, Resolution
    from lifecycle.outcomes import Done
    from lifecycle.previewing import Verdict
    from lifecycle.reconciliation import SyncReport
    from lifecycle.records import Appointment, AuditEvent
    from lifecycle.recovery import Recovered, Recovery
    from lifecycle.reports.dictionary import Described
    from lifecycle.reports.exporting import Exported
    from lifecycle.reports.pages import EventPage
    from lifecycle.reports.past import AsOf
    from lifecycle.reports.rows import (
        BatchOutcomesRow,
        BatchRowsRow,
        CancellationsRow,
        CommandOutcomesRow,
        CurrentStatusRow,
        EventLogRow,
        FunnelRow,
        ProcessLogRow,
        RefusalsRow,
        TimeInStatusRow,
        TransitionsRow,
    )
    from lifecycle.resources import Timing
    from lifecycle.telemetry import Telemetry
    from lifecycle.verification import Verification
    from lifecycle.zocdoc import ZocdocClient

_HOMES = {
    "lifecycle.api": ("Lifecycle",),
    "lifecycle.batches": ("BatchInfo", "BatchRow", "Progress"),
    "lifecycle.chart": ("CancellationReason", "Command", "Status"),
    "lifecycle.checkpoints": ("Checkpoint",),
    "lifecycle.doctor.checks": ("Check",),
    "lifecycle.doctor.diagnosis": ("Diagnosis",),
    "lifecycle.drift": ("Drift",),
    "lifecycle.errors": (
        "AppointmentNotFound",
        "BatchNotFound",
        "CheckpointRefused",
        "CommandExpired",
        "CommandInProgress",
        "CommandNotFound",
        "CommandRejected",
        "CommandWithdrawn",
        "ConfigurationError",
        "ConstraintViolated",
        "CredentialNotAllowed",
        "DatabaseUnavailable",
        "EnvironmentMismatch",
        "InvalidArgument",
        "LifecycleError",
        "NothingToResolve",
        "NothingToRetry",
        "NotSent",
        "OutcomeUnknown",
        "ReadFailed",
        "RequestKeyReused",
        "SchemaMismatch",
        "SyncFailed",
        "TransitionRefused",
        "WebhookRefused",
    ),
    "lifecycle.feed": ("FeedEvent",),
    "lifecycle.findings": ("Finding", "FindingKind"),
    "lifecycle.guards": ("Explanation",),
    "lifecycle.handles": ("Batch", "Submission"),
    "lifecycle.inbox": ("Delivery", "Processed", "Receipt"),
    "lifecycle.operators": ("Attention", "Resolution"),
    "lifecycle.outcomes": ("Done",),
    "lifecycle.previewing": ("Verdict",),
    "lifecycle.reconciliation": ("SyncReport",),
    "lifecycle.records": ("Appointment", "AuditEvent"),
    "lifecycle.recovery": ("Recovered", "Recovery"),
    "lifecycle.reports.dictionary": ("Described",),
    "lifecycle.reports.exporting": ("Exported",),
    "lifecycle.reports.pages": ("EventPage",),
    "lifecycle.reports.past": ("AsOf",),
    "lifecycle.reports.rows": (
        "BatchOutcomesRow",
        "BatchRowsRow",
        "CancellationsRow",
        "CommandOutcomesRow",
        "CurrentStatusRow",
        "EventLogRow",
        "FunnelRow",
        "ProcessLogRow",
        "RefusalsRow",
        "TimeInStatusRow",
        "TransitionsRow",
    ),
    "lifecycle.resources": ("Timing",),
    "lifecycle.telemetry": ("Telemetry",),
    "lifecycle.verification": ("Verification",),
    "lifecycle.zocdoc": ("ZocdocClient",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Appointment",
    "AppointmentNotFound",
    "AsOf",
    "Attention",
    "AuditEvent",
    "Batch",
    "BatchInfo",
    "BatchNotFound",
    "BatchOutcomesRow",
    "BatchRow",
    "BatchRowsRow",
    "CancellationReason",
    "CancellationsRow",
    "Check",
    "Checkpoint",
    "CheckpointRefused",
    "Command",
    "CommandExpired",
    "CommandInProgress",
    "CommandNotFound",
    "CommandOutcomesRow",
    "CommandRejected",
    "CommandWithdrawn",
    "ConfigurationError",
    "ConstraintViolated",
    "CredentialNotAllowed",
    "CurrentStatusRow",
    "DatabaseUnavailable",
    "Delivery",
    "Described",
    "Diagnosis",
    "Done",
    "Drift",
    "EnvironmentMismatch",
    "EventLogRow",
    "EventPage",
    "Explanation",
    "Exported",
    "FeedEvent",
    "Finding",
    "FindingKind",
    "FunnelRow",
    "InvalidArgument",
    "Lifecycle",
    "LifecycleError",
    "NotSent",
    "NothingToResolve",
    "NothingToRetry",
    "OutcomeUnknown",
    "ProcessLogRow",
    "Processed",
    "Progress",
    "ReadFailed",
    "Receipt",
    "Recovered",
    "Recovery",
    "RefusalsRow",
    "RequestKeyReused",
    "Resolution",
    "SchemaMismatch",
    "Status",
    "Submission",
    "SyncFailed",
    "SyncReport",
    "Telemetry",
    "TimeInStatusRow",
    "Timing",
    "TransitionRefused",
    "TransitionsRow",
    "Verdict",
    "Verification",
    "WebhookRefused",
    "ZocdocClient",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOME[name]), name)
    return found
