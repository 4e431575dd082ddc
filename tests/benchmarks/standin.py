"""How many requests a second the Zocdoc stand-in answers: `python tests/benchmarks/standin.py`.

The stand-in runs in a process of its own, the clients in others, over loopback with raw sockets: half GETs,
half confirms. Prints one JSON object; `p50_ms` and `p99_ms` are the latencies that one client saw.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import statistics
import sys
import time
from typing import TYPE_CHECKING

from lifecycle.sandbox import Sandbox, serve_forever

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SPAWN = multiprocessing.get_context("spawn")
END_OF_HEAD = b"\r\n\r\n"


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1, help="client processes")
    parser.add_argument("--requests", type=int, default=10_000, help="requests of each client")
    chosen = parser.parse_args()
    results = measure(clients=chosen.clients, requests=chosen.requests)
    sys.stdout.write(json.dumps(results) + "\n")


def measure(*, clients: int, requests: int) -> dict[str, float]:
    """Start the stand-in and the clients, and return the figures of the whole run."""
    told, tell = SPAWN.Pipe(duplex=False)
    names = [[f"bench-{client}-{number}" for number in range(requests // 2)] for client in range(clients)]
    server = SPAWN.Process(target=stand_in, args=(tell, names), daemon=True)
    server.start()
    port, token, cpu = told.recv()
    with SPAWN.Pool(clients) as pool:
        runs = pool.starmap(ask, [(port, token, batch) for batch in names])
    server.terminate()
    server.join()
    latencies = sorted(latency for run in runs for latency in run[2])
    wall = max(run[1] for run in runs) - min(run[0] for run in runs)
    return {
        "clients": clients,
        "requests": len(latencies),
        "requests_per_second": round(len(latencies) / wall),
        "p50_ms": round(statistics.median(latencies) * 1000, 3),
        "p99_ms": round(latencies[len(latencies) * 99 // 100] * 1000, 3),
        "start_cpu_s": round(cpu, 3),
    }


def stand_in(tell: Connection, names: list[list[str]]) -> None:
    """Serve until terminated, with one pending appointment for each confirm to come."""
    sandbox = Sandbox()
    for batch in names:
        for name in batch:
            sandbox.add(name, booked_by="user:bench")
    token = sandbox.user_token("bench")
    serve_forever(sandbox, announce=lambda server: tell.send((server.port, token, time.process_time())))


def ask(port: int, token: str, names: list[str]) -> tuple[float, float, list[float]]:
    """Confirm and read each appointment over one kept connection."""
    latencies = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = time.monotonic()
        for name in names:
            body = json.dumps({"appointment_id": name}).encode()
            for message in (
                request("POST /v1/appointments/confirm", token, body),
                request(f"GET /v1/appointments/{name}", token),
            ):
                sent = time.perf_counter()
                exchange(connection, message)
                latencies.append(time.perf_counter() - sent)
        return start, time.monotonic(), latencies


def request(line: str, token: str, body: bytes = b"") -> bytes:
    """Return the bytes of one request, with the headers that a usual client sends."""
    head = (
        f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: benchmark\r\nAccept: application/json\r\n"
        f"Accept-Encoding: gzip\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def exchange(connection: socket.socket, message: bytes) -> None:
    """Send one request and read its whole answer, which must be a 200."""
    connection.sendall(message)
    received = connection.recv(65536)
    head, _, body = received.partition(END_OF_HEAD)
    if not head.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(received.decode())
    missing = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]) - len(body)
    while missing > 0:
        missing -= len(connection.recv(missing))


if __name__ == "__main__":
    main()
