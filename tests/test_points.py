"""Labelled points are inert in shipped code: nothing but a test of this process can arm them."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import lifecycle
from lifecycle import points
from lifecycle.points import Point
from tests import support

SOURCES = sorted(Path(lifecycle.__file__).parent.rglob("*.py"))
CALLS = 100_000
NO_COST = 1e-6
"""Seconds that a point may take: far above one comparison, far below anything that a command does."""


def test_nothing_is_armed_when_the_package_is_imported() -> None:
    """In a fresh process with everything imported there is no hook, whatever the environment says."""
    program = (
        "import lifecycle, lifecycle.cli.main, lifecycle.api, lifecycle.zocdoc.client; from lifecycle import points\n"
        "points.reach(points.Point.REQUEST_SENT)\n"
        "print(points._hook)"
    )
    names = {f"LIFECYCLE_{each}" for each in ("POINTS", "HOOK", "FAULT", "FAULTS", "TEST", "ARM", "CRASH", "DEBUG")}
    names |= {f"LIFECYCLE_{point.upper()}" for point in Point}
    done = subprocess.run(  # noqa: S603 # our own program
        [sys.executable, "-W", "error", "-c", program],
        env=support.environment(**dict.fromkeys(names, "1")),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("None\n", "")


def test_no_setting_can_arm_them() -> None:
    """The module reads neither the environment nor files, and no other shipped module touches its hook."""
    [module] = [path for path in SOURCES if path.name == "points.py"]
    imports = re.findall(r"^\s*(?:from (\S+) )?import (\S+)", module.read_text(), flags=re.MULTILINE)
    assert {each[0] or each[1] for each in imports} == {
        "__future__",
        "contextlib",
        "enum",
        "typing",
        "collections.abc",
    }
    for path in SOURCES:
        if path != module:
            assert not re.search(r"\barmed\(|\b_hook\b|points\._", path.read_text()), path


def test_every_point_is_somewhere_in_the_code_and_every_call_names_one() -> None:
    """No point is left over, and `reach` is called with the names of points alone."""
    text = "\n".join(path.read_text() for path in SOURCES if path.name != "points.py")
    assert set(re.findall(r"\breach\(([^)]*)\)", text)) == {f"Point.{point.name}" for point in Point}


def test_a_point_costs_nothing() -> None:
    """Passing an inert point takes a fraction of a microsecond."""
    assert points._hook is None

    def measured() -> float:
        begun = time.perf_counter()
        for _ in range(CALLS):
            points.reach(Point.BEFORE_COMMIT)
        return (time.perf_counter() - begun) / CALLS

    assert min(measured() for _ in range(5)) < NO_COST


def test_armed_calls_the_hook_and_restores() -> None:
    """Inside the block every point calls the hook; after it, and after an error in it, the one from before is back."""
    seen: list[Point] = []
    with points.armed(seen.append):
        points.reach(Point.BEFORE_INTENT)
    points.reach(Point.INTENT_COMMITTED)
    assert seen == [Point.BEFORE_INTENT]
    assert points._hook is None
    with pytest.raises(KeyError), points.armed(seen.append):
        raise KeyError
    assert points._hook is None


def test_armed_blocks_nest() -> None:
    """An inner hook stands in for the outer one until its block ends."""
    outer: list[Point] = []
    inner: list[Point] = []
    with points.armed(outer.append):
        with points.armed(inner.append):
            points.reach(Point.READ_CLAIMED)
        points.reach(Point.READ_RETURNED)
    assert (outer, inner) == ([Point.READ_RETURNED], [Point.READ_CLAIMED])


def test_a_hook_may_raise_anything() -> None:
    """What a hook raises comes out of the point: a test may end the process there."""

    class Stop(BaseException):
        """No handler of the product catches it."""

    def stop(_: Point) -> None:
        raise Stop

    with points.armed(stop), pytest.raises(Stop):
        points.reach(Point.BEFORE_COMMIT)


def test_points_of_every_thread_are_seen() -> None:
    """One switch for the process: a worker thread meets the hook too."""
    seen: list[str] = []
    with points.armed(lambda point: seen.append(f"{threading.current_thread().name} {point}")):
        thread = threading.Thread(target=points.reach, args=(Point.REQUEST_SENT,), name="worker")
        thread.start()
        thread.join()
    assert seen == ["worker request_sent"]
