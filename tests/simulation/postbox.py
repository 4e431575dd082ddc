"""Zocdoc's webhooks: of what the provider does, lost, late, repeated and out of order; and what forgers send.

Zocdoc tries again, with growing pauses, only for as long as it got no answer. Shares no code with the product.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import hmac
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation import clock as clocks

if TYPE_CHECKING:
    from random import Random

KEY = base64.b64encode(b"the key of a simulated webhook").decode()
FORGED = base64.b64encode(b"the key of somebody else").decode()

_COPIES = (1, 1, 1, 1, 2, 3, 5)
_FIRST_RETRY, _LONGEST_RETRY = 2.0, 60.0


@dataclass(slots=True)
class Letter:
    """One call that Zocdoc, or a forger, wants to make. `number` also breaks ties of time."""

    number: int
    appointment_id: str
    body: bytes
    key: str
    is_late: bool
    tries: int = 0

    @property
    def digest(self) -> str:
        """Give the id that the body must be stored under."""
        return hashlib.sha256(self.body).hexdigest()


@dataclass
class Postbox:
    """The calls that are under way."""

    rng: Random
    clock: clocks.Clock
    letters: list[Letter] = field(default_factory=list)
    _due: list[tuple[float, int]] = field(default_factory=list)

    def tell(self, appointment_id: str, status: str) -> None:
        """Let Zocdoc tell of a change; some of it gets lost for good."""
        if self.rng.random() < 0.12:
            return
        update = "cancelled" if status == "cancelled" else "updated"
        copies, body = self.rng.choice(_COPIES), self._body(appointment_id, update)
        for _ in range(copies):
            self._post(appointment_id, body, KEY, after=self.rng.expovariate(0.2))
        if self.rng.random() < 0.05:
            self._post(appointment_id, self._body(appointment_id, "forged"), FORGED, after=self.rng.random())

    def take(self) -> Letter | None:
        """Take the next call that is due."""
        if not self._due or self._due[0][0] > self.clock.elapsed:
            return None
        return self.letters[heapq.heappop(self._due)[1]]

    def unanswered(self, letter: Letter) -> None:
        """Learn that no answer came: the call is made again, as often as it takes."""
        letter.tries += 1
        pause = min(_FIRST_RETRY * 2.0**letter.tries, _LONGEST_RETRY)
        heapq.heappush(self._due, (self.clock.elapsed + pause, letter.number))

    def next_due(self) -> float | None:
        """Tell when the next call is due; None: nothing is under way."""
        return self._due[0][0] if self._due else None

    def headers(self, letter: Letter) -> dict[str, str]:
        """Sign as documented, at the time of the call, or for a late one as of an hour ago."""
        moment = str(int(self.clock.now().timestamp()) - (3600 if letter.is_late else 0))
        mac = hmac.new(base64.b64decode(letter.key), f"{moment}.".encode() + letter.body, hashlib.sha256)
        signature = base64.b64encode(mac.digest()).decode()
        return {"webhook-timestamp": moment, "webhook-signature": f"v1:{signature}"}

    def _post(self, appointment_id: str, body: bytes, key: str, *, after: float) -> None:
        letter = Letter(len(self.letters), appointment_id, body, key, is_late=self.rng.random() < 0.05)
        self.letters.append(letter)
        heapq.heappush(self._due, (self.clock.elapsed + after, letter.number))

    def _body(self, appointment_id: str, update: str) -> bytes:
        moment = clocks.text(self.clock.now())
        told = {
            "appointment_id": appointment_id,
            "appointment_updated_timestamp": moment,
            "appointment_update_type": update,
        }
        data = {"data_type": "appointment_data", "appointment_data": told}
        event = {"event_type": "appointment_updated", "webhook_timestamp": moment, "data": data}
        return json.dumps(event).encode()
