"""Judging the parts of a trail in several processes.

Each is a fresh interpreter that reads a part as a line of JSON and answers with a line: nothing of the calling program
is imported there, and it ends when its standard input does, however the caller came to its end.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from lifecycle import chains, errors, findings
from lifecycle import database as db

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

_PROGRAM: Final = """
import json, sys
sys.path[:] = json.loads(sys.stdin.readline())
from lifecycle import verifiers
verifiers.serve()
"""
"""What a process runs: it finds the modules where its parent does."""


def judge(url: sa.URL, parts: Iterator[chains.Part], *, processes: int) -> Iterator[chains.Tally]:
    """Judge the parts in so many processes, and give the tallies as they come. Raises `DatabaseUnavailable`."""
    lock = threading.Lock()

    def work(child: subprocess.Popen[str]) -> list[chains.Tally]:
        tallies: list[chains.Tally] = []
        while True:
            with lock:
                part = next(parts, None)
            if part is None:
                return tallies
            tallies.append(_asked(child, part))

    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(processes))
        # Entered last, so ended first: threads that wait for a process then go on.
        children = [stack.enter_context(_started(url)) for _ in range(processes)]
        for tallies in pool.map(work, children):
            yield from tallies


def serve() -> None:
    """Be such a process: judge what standard input names, until it ends."""
    gc.disable()  # rows make no cycles; looking for them would take a tenth of the time
    database = db.Database(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        try:
            answer = _as_json(chains.judge(database, chains.Part(**json.loads(line))))
        except errors.DatabaseUnavailable as error:
            answer = {"problem": error.problem}
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()
    database.close()


@contextmanager
def _started(url: sa.URL) -> Iterator[subprocess.Popen[str]]:
    """Start a process. The URL, which may hold a password, goes through the pipe: arguments are seen by everybody."""
    with subprocess.Popen(  # noqa: S603 # this interpreter, our own program
        [sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    ) as child:
        try:
            _write(child, sys.path)
            _write(child, url.render_as_string(hide_password=False))
            yield child
        finally:
            child.kill()


def _asked(child: subprocess.Popen[str], part: chains.Part) -> chains.Tally:
    _write(child, asdict(part))
    line = child.stdout.readline() if child.stdout else ""
    if not line:
        problem = "a process that judges the trail has ended by itself; check the memory, or call with processes=1"
        raise errors.DatabaseUnavailable(problem=problem)
    answer = json.loads(line)
    if "problem" in answer:
        raise errors.DatabaseUnavailable(problem=answer["problem"])
    return _from_json(answer)


def _write(child: subprocess.Popen[str], value: object) -> None:
    try:
        if child.stdin:
            child.stdin.write(f"{json.dumps(value)}\n")
            child.stdin.flush()
    except BrokenPipeError:
        return  # what it would have answered is missed where the answer is read


def _as_json(tally: chains.Tally) -> dict[str, Any]:
    found = tally.findings
    return {
        "events": tally.events,
        "chains": tally.chains,
        "counts": found.counts,
        "findings": [asdict(each) for each in found.first()],
    }


def _from_json(answer: dict[str, Any]) -> chains.Tally:
    tally = chains.Tally(events=answer["events"], chains=answer["chains"])
    counts = Counter({findings.FindingKind(kind): number for kind, number in answer["counts"].items()})
    kept = (findings.Finding(**each | {"kind": findings.FindingKind(each["kind"])}) for each in answer["findings"])
    tally.findings.extend(kept, counts)
    return tally
