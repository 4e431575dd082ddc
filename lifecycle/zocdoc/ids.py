"""The form of Zocdoc's appointment ids."""

import re

from lifecycle.zocdoc import errors

# The published webhook example has an id that is no UUID; a dot or a slash would change the path of the URL.
_APPOINTMENT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_appointment_id(appointment_id: object) -> str:
    """Return the id if it may go into a URL or a body, or raise `MalformedAppointmentId`."""
    if not isinstance(appointment_id, str) or not _APPOINTMENT_ID.fullmatch(appointment_id):
        raise errors.MalformedAppointmentId
    return appointment_id
