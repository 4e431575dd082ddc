"""Checks of who we are to Zocdoc: the environment that the database belongs to, and the credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from lifecycle import models, zocdoc
from lifecycle.doctor.checks import Check, Severity, found, unseen, well

if TYPE_CHECKING:
    from lifecycle.doctor.checks import Installation


def environment(installation: Installation, connection: sa.Connection) -> Check:
    """Compare the environment that the database is stamped for with the client's."""
    stamped, client = connection.execute(_STAMP).scalar(), installation.clients.default
    facts = {"database": stamped, "client": None if client is None else client.environment}
    if client is None or stamped in {None, client.environment}:
        return well("environment", **facts)
    problem = f"the database holds appointments of '{stamped}', the client talks to '{client.environment}'"
    remedy = "use the database of that environment, or LIFECYCLE_ZOCDOC_ENVIRONMENT of this one"
    return found("environment", Severity.ERROR, problem, remedy, **facts)


def credentials(installation: Installation, *, online: bool) -> Check:
    """Ask for a token, as a call would; nothing is read with it."""
    client = installation.clients.default
    if client is None:
        remedy = "set LIFECYCLE_ZOCDOC_ENVIRONMENT, LIFECYCLE_ZOCDOC_CLIENT_ID and LIFECYCLE_ZOCDOC_CLIENT_SECRET"
        return unseen("credentials", "there is no Zocdoc client", remedy)
    facts = {"identity": client.identity, "environment": client.environment}
    if not online:
        return unseen("credentials", "not asked for a token: offline", "leave --offline out", **facts)
    try:
        is_vouched_for = client.authorize()
    except zocdoc.ReadFailed as error:
        reason = str(error.reason_code)
        answer = "" if error.http_status is None else f", HTTP {error.http_status}"
        remedy = _REMEDIES.get(reason, "check the network, the proxy and LIFECYCLE_ZOCDOC_TOKEN_URL, then look again")
        return found("credentials", Severity.ERROR, f"no token is to be had ({reason}{answer})", remedy, **facts)
    if is_vouched_for:
        return well("credentials", **facts)
    return unseen("credentials", "a ready access token is judged by calls only", None, **facts)


_STAMP: Final = sa.select(models.installation.c.zocdoc_environment)
_REMEDIES: Final = {
    "token_refused": "check LIFECYCLE_ZOCDOC_CLIENT_ID, LIFECYCLE_ZOCDOC_CLIENT_SECRET and the environment's audience",
    "tls_failed": "check the machine's certificates and its clock",
    "rate_limited": "wait a minute, and keep clients open instead of making new ones: each asks for a token",
}
