"""One token for all threads, renewed before its end or once after a 401, and never shown."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import zocdoc
from lifecycle.zocdoc import Applied, NotSent, ReadFailed, Reason, Rejected, ZocdocClient, timing, tokens
from tests import support
from tests.test_zocdoc_server import Server, answer, hang, raw, reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.zocdoc import Outcome
    from tests.test_zocdoc_server import Peer

ID = "d04b049a-41b1-4aba-9268-d8973cf72cdd"
BODY = {"request_id": "rq-1", "data": {"appointment_id": ID, "appointment_status": "confirmed"}}
DONE = Applied("confirmed", 200, "rq-1")


def token(text: object = "t-1", expires_in: object = 3600) -> Callable[[Peer], None]:
    """Return the step that answers with a token."""
    return answer(200, {"access_token": text, "expires_in": expires_in, "token_type": "Bearer"})


def client_of(server: Server, issuer: Server, **arguments: Any) -> ZocdocClient:
    """Return a client with client credentials and short waits."""
    given: dict[str, Any] = {"timeout": 2.0, "deadline": 4.0, "client_id": "an-id", "client_secret": "a-secret"}
    return ZocdocClient(base_url=server.url, token_url=f"{issuer.url}/oauth/token", **(given | arguments))


def bearers(server: Server) -> list[str]:
    """Return the tokens of the requests that arrived."""
    return [each.headers["authorization"].removeprefix("Bearer ") for each in server.requests]


def test_a_token_is_asked_for_once_as_documented() -> None:
    """The token call is a JSON POST with the four documented names; its token serves until it ages."""
    with Server(token()) as issuer, Server(answer(200, BODY)) as server, client_of(server, issuer) as client:
        assert [client.confirm(ID) for _ in range(3)] == [DONE] * 3
        assert bearers(server) == ["t-1"] * 3
        (asked,) = issuer.requests
    assert (asked.method, asked.target, asked.headers["content-type"]) == ("POST", "/oauth/token", "application/json")
    assert asked.pairs() == [
        ("grant_type", "client_credentials"),
        ("client_id", "an-id"),
        ("client_secret", "a-secret"),
        ("audience", f"{server.url}/"),
    ]


def test_32_threads_make_one_token_call() -> None:
    """One thread fetches while the others wait for it."""

    def slowly(peer: Peer) -> None:
        time.sleep(0.1)
        token()(peer)

    outcomes: list[Outcome] = []
    with Server(slowly) as issuer, Server(answer(200, BODY)) as server, client_of(server, issuer) as client:
        threads = [threading.Thread(target=lambda: outcomes.append(client.confirm(ID))) for _ in range(32)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(issuer.requests) == 1
    assert outcomes == [DONE] * 32


class Turnstile:
    """A lock that counts who has come to it."""

    def __init__(self) -> None:
        self.came: list[None] = []
        self._lock = threading.Lock()

    def acquire(self, *, timeout: float) -> bool:
        """Count, and wait."""
        self.came.append(None)
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        """Let the next one in."""
        self._lock.release()


def test_threads_that_waited_share_a_failure() -> None:
    """A failed token call is not made again by every thread that waited for it."""
    turnstile: Any = Turnstile()

    def slowly(peer: Peer) -> None:
        support.until(lambda: len(turnstile.came) == 8)
        answer(403)(peer)

    outcomes: list[Outcome] = []
    with Server(slowly) as issuer, Server(answer(200, BODY)) as server, client_of(server, issuer) as client:
        source: Any = client._calls._tokens
        source._lock = turnstile
        threads = [threading.Thread(target=lambda: outcomes.append(client.confirm(ID))) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(issuer.requests) == 1
        assert server.connections == 0
    assert outcomes == [NotSent(Reason.TOKEN_REFUSED, 403)] * 8


def test_a_token_is_renewed_before_its_end() -> None:
    """A token is used until 60 seconds, or a tenth of its life if that is less, before its end."""
    assert tokens._fresh_for(3600) == 3540
    assert tokens._fresh_for(100) == 90
    with Server(token(), token("t-2")) as issuer, Server(answer(200, BODY)) as server:
        source = tokens.ClientCredentials(
            client_of(server, issuer)._transport, token_url=issuer.url, client_id="a", client_secret="b", audience="c"
        )
        budget = timing.Budget(zocdoc.clock() + 5)
        first = source.current(budget)
        held = source._held
        assert held is not None
        source._held = tokens._Held(first, zocdoc.clock() + 60)
        assert source.current(budget) == first
        source._held = tokens._Held(first, zocdoc.clock())
        assert source.current(budget) != first
        assert len(issuer.requests) == 2


@pytest.mark.parametrize("odd", [None, "3600", True, -5, 0, 1e999, [], {}])
def test_an_odd_lifetime_counts_as_a_short_one(odd: object) -> None:
    """A token whose lifetime is not told is used, but not for long."""
    assert tokens._fresh_for(odd) == 54


def test_a_401_renews_the_token_once() -> None:
    """A refused token is replaced once, and the request is sent once more."""
    with Server(token(), token("t-2")) as issuer, Server(answer(401), answer(200, BODY)) as server:
        with client_of(server, issuer) as client:
            assert client.confirm(ID) == DONE
        assert bearers(server) == ["t-1", "t-2"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_second_401_is_a_rejection(status: int) -> None:
    """There is no third send."""
    with Server(token(), token("t-2")) as issuer, Server(answer(401), answer(status)) as server:
        with client_of(server, issuer) as client:
            outcome = client.confirm(ID)
        assert isinstance(outcome, Rejected)
        assert outcome.http_status == status
        assert len(server.requests) == len(issuer.requests) == 2


def test_a_403_renews_nothing() -> None:
    """A missing scope is not a matter of age."""
    with Server(token()) as issuer, Server(answer(403)) as server, client_of(server, issuer) as client:
        assert client.confirm(ID) == Rejected(403, Reason.FORBIDDEN)
        assert len(issuer.requests) == 1


def test_many_401s_at_once_renew_once() -> None:
    """A thread whose token was refused takes the one that another thread has fetched since."""
    with Server(token(), token("t-2")) as issuer, Server(answer(401)) as server, client_of(server, issuer) as client:
        source = client._calls._tokens
        budget = timing.Budget(zocdoc.clock() + 5)
        refused = source.current(budget)
        found: list[object] = []
        threads = [threading.Thread(target=lambda: found.append(source.renewed(refused, budget))) for _ in range(16)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert set(found) == {tokens.Bearer("t-2")}
        assert len(issuer.requests) == 2


def test_a_renewal_that_fails_is_not_sent() -> None:
    """The 401 was answered before processing, and there is no other token."""
    with Server(token(), answer(401)) as issuer, Server(answer(401)) as server, client_of(server, issuer) as client:
        assert client.confirm(ID) == NotSent(Reason.TOKEN_REFUSED, 401)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        (answer(400), NotSent(Reason.TOKEN_REFUSED, 400)),
        (answer(401), NotSent(Reason.TOKEN_REFUSED, 401)),
        (answer(403), NotSent(Reason.TOKEN_REFUSED, 403)),
        (answer(404), NotSent(Reason.TOKEN_UNAVAILABLE, 404)),
        (answer(500), NotSent(Reason.TOKEN_UNAVAILABLE, 500)),
        (answer(429, None, ("Retry-After: 60",)), NotSent(Reason.RATE_LIMITED, 429)),
        (answer(200), NotSent(Reason.TOKEN_UNAVAILABLE, 200)),
        (answer(200, b"{"), NotSent(Reason.TOKEN_UNAVAILABLE, 200)),
        (token(None), NotSent(Reason.TOKEN_UNAVAILABLE, 200)),
        (token(""), NotSent(Reason.TOKEN_UNAVAILABLE, 200)),
        (token("a\r\nX-Evil: 1"), NotSent(Reason.TOKEN_UNAVAILABLE, 200)),
        (token("tökén"), NotSent(Reason.TOKEN_UNAVAILABLE, 200)),
        (token("x" * 20_000), NotSent(Reason.TOKEN_UNAVAILABLE, 200)),
        (reset, NotSent(Reason.TOKEN_UNAVAILABLE)),
        (raw(b""), NotSent(Reason.TOKEN_UNAVAILABLE)),
        (hang, NotSent(Reason.TOKEN_UNAVAILABLE)),
    ],
)
def test_without_a_token_nothing_is_sent(step: Callable[[Peer], None], outcome: Outcome) -> None:
    """Every failure of the token endpoint is NotSent for a command and ReadFailed for a read."""
    with Server(step) as issuer, Server(answer(200, BODY)) as server:
        with client_of(server, issuer, timeout=0.7, deadline=2.0) as client:
            assert client.confirm(ID) == outcome
            with pytest.raises(ReadFailed, match=r"token_|rate_limited"):
                client.get(ID)
        assert server.connections == 0


@pytest.mark.parametrize("step", [answer(429), answer(503), reset])
def test_a_token_call_is_repeated_after_passing_trouble(step: Callable[[Peer], None]) -> None:
    """A second token harms nobody."""
    with Server(step, token()) as issuer, Server(answer(200, BODY)) as server, client_of(server, issuer) as client:
        assert client.confirm(ID) == DONE
        assert len(issuer.requests) == 2


def test_a_token_call_is_not_redirected() -> None:
    """The client's secret goes to the configured host only."""
    with Server(token()) as target, Server(answer(307, None, (f"Location: {target.url}",))) as issuer:
        with Server(answer(200, BODY)) as server, client_of(server, issuer) as client:
            assert client.confirm(ID) == NotSent(Reason.TOKEN_UNAVAILABLE, 307)
        assert target.connections == 0


def test_a_callable_is_asked_for_every_request() -> None:
    """A user's token is the caller's to keep fresh; after a 401 the callable is asked once more."""
    given = iter(["u-1", "u-2", "u-3"])
    steps = (answer(200, BODY), answer(401), answer(200, BODY))
    with Server(*steps) as server:
        with ZocdocClient(base_url=server.url, access_token=lambda: next(given), identity="user:7") as client:
            assert client.confirm(ID) == DONE
            assert client.confirm(ID) == DONE
        assert bearers(server) == ["u-1", "u-2", "u-3"]


def test_a_callable_with_the_same_token_again_is_not_worth_a_second_send() -> None:
    """After a 401 only another token is worth sending."""
    with Server(answer(401)) as server, ZocdocClient(base_url=server.url, access_token=lambda: "u-1") as client:
        assert client.confirm(ID) == Rejected(401, Reason.UNAUTHORIZED)
        assert len(server.requests) == 1


@pytest.mark.parametrize("bad", ["", "a b", "a\r\nb", None, b"bytes", 7])
def test_a_callable_that_gives_no_token_sends_nothing(bad: Any) -> None:
    """What could break a header line is no token."""
    with Server(answer(200, BODY)) as server, ZocdocClient(base_url=server.url, access_token=lambda: bad) as client:
        assert client.confirm(ID) == NotSent(Reason.TOKEN_UNAVAILABLE)
        assert server.connections == 0


def test_a_callable_that_raises_sends_nothing_and_leaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The error of a callable may hold a token: its type alone is logged."""
    caplog.set_level(logging.DEBUG)

    def fail() -> str:
        raise RuntimeError("canary-token")

    with Server(answer(200, BODY)) as server, ZocdocClient(base_url=server.url, access_token=fail) as client:
        assert client.confirm(ID) == NotSent(Reason.TOKEN_UNAVAILABLE)
        with pytest.raises(ReadFailed) as caught:
            client.get(ID)
    assert caught.value.__context__ is None
    assert "canary" not in f"{caught.value!r} {[record.__dict__ for record in caplog.records]}"
    assert "RuntimeError" in {getattr(record, "error", None) for record in caplog.records}


def test_a_token_does_not_show() -> None:
    """A bearer has no telling repr and is not pickled."""
    bearer = tokens.Bearer("canary")
    assert "canary" not in f"{bearer!r} {tokens.FixedToken('canary')!r}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(bearer)
