"""The independent checker: Zocdoc's log, the callers' memories and raw rows in, violations out.

Shares no code with the product. Every finding names the appointment, so that its story can be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation import (
    check_appointments,
    check_callers,
    check_commands,
    check_deliveries,
    check_queue,
    check_requests,
    check_trail,
)
from tests.simulation.case import Case, Verdict

if TYPE_CHECKING:
    from tests.simulation.evidence import Evidence

CHECKS = (check_trail, check_requests, check_commands, check_appointments, check_callers, check_deliveries, check_queue)


def check(evidence: Evidence) -> Verdict:
    """Check everything."""
    case = Case(evidence)
    case.verdict.violations += evidence.surprises
    if evidence.integrity != "ok":
        case.verdict.violations.append(f"-: I14: integrity_check says {evidence.integrity}")
    for part in CHECKS:
        case.verdict.violations += part.check(case)
    return case.verdict
