"""Which sends may be repeated.

urllib3's own retries stay off: those for 429 would also repeat a POST after a 503 with Retry-After.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from lifecycle.zocdoc import timing
from lifecycle.zocdoc.outcomes import Reason
from lifecycle.zocdoc.transport import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.zocdoc.pacing import Pace
    from lifecycle.zocdoc.transport import Answer

_TOO_MANY_REQUESTS = 429
# A gateway's trouble, mostly brief. A plain 500 is an answer of the API itself: repeating rarely helps.
_PASSING = frozenset({502, 503, 504})
_MOST_REPEATS = 2


def persist(send: Callable[[], Answer], *, budget: timing.Budget, pace: Pace, harmless: bool) -> Answer:
    """Send until there is an answer worth returning, the budget is used up, or repeating would not be safe.

    Every send waits for `pace`. A 429 was not processed: always sent again, within the budget. No answer, 502, 503 and
    504: sent again only when `harmless` (a read, a token), at most twice. Raises `NoAnswer`.
    """
    if not pace.wait(budget):
        raise NoAnswer(Reason.RATE_LIMITED, sent=False)
    for attempt in itertools.count():
        repeats = harmless and attempt < _MOST_REPEATS
        try:
            answer = send()
        except NoAnswer:
            if not repeats or not budget.sleep(timing.backoff(attempt)) or not pace.wait(budget):
                raise
            continue
        pause = timing.backoff(attempt, answer.retry_after)
        if answer.http_status == _TOO_MANY_REQUESTS:
            pace.hold(pause)
        elif not (repeats and answer.http_status in _PASSING):
            return answer
        if not budget.sleep(pause) or not pace.wait(budget):
            return answer
    raise AssertionError  # pragma: no cover  the count never ends
