"""A worker with short intervals: what a killed one left is taken over after 6.5 seconds instead of 70.

python -m tests.chaos.quick DATABASE_URL BASE_URL TOKEN_URL AUDIENCE CONCURRENCY
"""

from __future__ import annotations

import signal
import sys
import threading

from lifecycle import Lifecycle, Timing, ZocdocClient
from lifecycle.cli import logs
from lifecycle.working import worker

TIMING = Timing(
    send_window=2.0,
    lease_margin=0.5,
    settle=0.3,
    spacing=(0.3, 0.6),
    read_backoff=0.3,
    failed_reads=20,
    resend_backoff=0.3,
)
DEADLINE = 2.0


def main() -> None:
    """Work until SIGTERM."""
    url, base_url, token_url, audience, concurrency = sys.argv[1:]
    logs.to_stderr(quiet=("procrastinate", "psycopg", "asyncio"))
    stop = threading.Event()
    # Not set by the signal's handler itself: it may strike inside of the event's own lock.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop.set).start())
    client = ZocdocClient(
        base_url=base_url,
        token_url=token_url,
        audience=audience,
        client_id="sandbox-client",
        client_secret="sandbox-secret",
        deadline=DEADLINE,
    )
    with client, Lifecycle(url, zocdoc=client, timing=TIMING, dispatch="procrastinate") as lifecycle:
        all_ended = worker.run(lifecycle, stop=stop, concurrency=int(concurrency), recover_every=1.0)
    sys.exit(not all_ended)


if __name__ == "__main__":
    main()
