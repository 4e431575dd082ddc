"""The command line as a whole: help at once, one line for every error, exit codes, no secrets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner, Result

import lifecycle
from lifecycle import errors
from lifecycle.cli import words
from lifecycle.cli.main import root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lifecycle.sandbox import Server

GUIDE = "d04b049a-41b1-4aba-9268-d8973cf72cdd"
SECRET = "sandbox-secret"
HEAVY = ("sqlalchemy", "alembic", "requests", "rich", "statemachine", "pydantic")


def invoke(*arguments: str, **environ: str | None) -> Result:
    """Run the command line in this process, with no other settings than these."""
    blank: dict[str, str | None] = {name: None for name in os.environ if name.startswith("LIFECYCLE_")}
    return CliRunner().invoke(root, arguments, env=blank | environ, prog_name="lifecycle")


def settings_for(server: Server, url: str) -> dict[str, str]:
    """Give the variables that reach a stand-in and a database."""
    return {
        "LIFECYCLE_DATABASE_URL": url,
        "LIFECYCLE_ZOCDOC_BASE_URL": server.base_url,
        "LIFECYCLE_ZOCDOC_TOKEN_URL": server.token_url,
        "LIFECYCLE_ZOCDOC_CLIENT_ID": "sandbox-client",
        "LIFECYCLE_ZOCDOC_CLIENT_SECRET": SECRET,
    }


def assert_error(result: Result, code: int, *needed: str, lines: int = 1) -> None:
    """Check for an exit code and one line on stderr that has these words; nothing on stdout, no secret anywhere."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    found = result.stderr.splitlines()
    assert len(found) == lines, result.stderr
    assert found[0].startswith("Error: ")
    for part in needed:
        assert part in found[0]
    assert SECRET not in result.output
    assert "Traceback" not in result.output


def _commands(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*names, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, *names, name)


ALL = dict(_commands(root))


def test_help_loads_nothing_heavy() -> None:
    """Help of the whole and of each command answers before databases, HTTP and tables are imported."""
    program = (
        "import sys; from lifecycle.cli.main import root\n"
        f"for words in {[[], *map(list, ALL)]!r}:\n"
        "    root([*words, '--help'], standalone_mode=False)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603 # fixed
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("names", ALL, ids=" ".join)
def test_every_option_shows_its_variable(names: tuple[str, ...]) -> None:
    """And none of them takes a secret."""
    shown = " ".join(invoke(*names, "--help").stdout.split())
    own = [each for each in ALL[names].params if isinstance(each, click.Option)]
    assert shown.count("[env var: LIFECYCLE_") == len(own)
    assert not {"client_secret", "access_token", "password"} & {each.name for each in own}


def test_the_database_option_is_the_variable_of_the_settings(sqlite_url: str) -> None:
    """The option wins over the variable, and over the file that it may come from."""
    assert "[env var: LIFECYCLE_DATABASE_URL;" in " ".join(invoke("list", "--help").stdout.split())
    for environ in ({"LIFECYCLE_DATABASE_URL": "x"}, {"LIFECYCLE_DATABASE_URL_FILE": "/nowhere"}):
        assert invoke("db", "current", "--database-url", sqlite_url, **environ).exit_code == 0
        assert_error(invoke("db", "current", **environ), 2)


def test_the_module_is_the_command(sqlite_url: str) -> None:
    """`python -m lifecycle` is `lifecycle`."""
    command = [sys.executable, "-m", "lifecycle", "db", "current", "--database-url", sqlite_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 # fixed
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{_revision(sqlite_url)}\n", "")


def test_a_new_database_is_made_told_and_found_sound(tmp_path: Path) -> None:
    """Before: no revision, and a check that says what to do. After: the revision, and a check that passes."""
    url = f"sqlite:///{tmp_path}/new.db"
    environ = {"LIFECYCLE_DATABASE_URL": url}
    before = invoke("db", "current", **environ)
    assert (before.exit_code, before.stdout) == (0, "")
    assert "run `lifecycle db upgrade`" in before.stderr
    assert_error(invoke("db", "check", **environ), 1, "run `lifecycle db upgrade`")
    made = invoke("db", "upgrade", **environ)
    assert (made.exit_code, made.stdout) == (0, f"{_revision(url)}\n")
    assert invoke("db", "current", **environ).stdout == made.stdout
    assert invoke("db", "check", **environ).exit_code == 0


def test_a_changed_database_fails_the_check(tmp_path: Path) -> None:
    """Each difference is a line on stdout."""
    import sqlite3  # noqa: PLC0415 # only here

    environ = {"LIFECYCLE_DATABASE_URL": f"sqlite:///{tmp_path}/changed.db"}
    invoke("db", "upgrade", **environ)
    connection = sqlite3.connect(tmp_path / "changed.db")
    connection.execute("DROP TRIGGER lifecycle_audit_no_delete")
    connection.close()
    found = invoke("db", "check", **environ)
    assert (found.exit_code, found.stdout) == (1, "missing trigger lifecycle_audit_no_delete\n")


@pytest.mark.parametrize("arguments", [("list",), ("show", GUIDE), ("history", GUIDE), ("explain", GUIDE, "confirm")])
def test_a_database_without_tables_is_told_what_to_run(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Readers need the schema."""
    assert_error(
        invoke(*arguments, LIFECYCLE_DATABASE_URL=f"sqlite:///{tmp_path}/x.db"), 1, "run `lifecycle db upgrade`"
    )


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    """An older program says that the package is to be upgraded, whatever it is asked."""
    import sqlite3  # noqa: PLC0415 # only here

    environ = {"LIFECYCLE_DATABASE_URL": f"sqlite:///{tmp_path}/newer.db"}
    invoke("db", "upgrade", **environ)
    connection = sqlite3.connect(tmp_path / "newer.db", isolation_level=None)
    connection.execute("UPDATE lifecycle_alembic_version SET version_num = '9999'")
    connection.close()
    for arguments in (("list",), ("db", "upgrade"), ("db", "check")):
        assert_error(invoke(*arguments, **environ), 1, "revision 9999", "upgrade the package")


@pytest.mark.parametrize(
    ("url", "code", "needed"),
    [
        ("sqlite:////nowhere/at/all.db", 1, "check that the folder exists and may be written to"),
        ("sqlite://", 2, "name a file"),
        ("mysql://h/n", 2, ""),
        ("nonsense", 2, "the database URL cannot be read"),
        ("postgresql://nobody@127.0.0.1:1/none", 1, "PostgreSQL cannot be reached"),
    ],
)
def test_an_unusable_database_is_one_line(url: str, code: int, needed: str) -> None:
    """Files that cannot be made, servers that are not there, URLs that are none."""
    assert_error(invoke("list", LIFECYCLE_DATABASE_URL=url), code, needed)
    assert_error(invoke("db", "upgrade", LIFECYCLE_DATABASE_URL=url), code, needed)


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    """Not every file is ours."""
    (tmp_path / "text.db").write_text("no database at all, but long enough to be read as one" * 20, encoding="utf-8")
    assert_error(invoke("list", LIFECYCLE_DATABASE_URL=f"sqlite:///{tmp_path}/text.db"), 1, "not an SQLite database")


def test_a_password_is_not_taken_from_the_command_line() -> None:
    """Command lines are seen by every user of a machine; the variable and the file are not."""
    result = invoke("list", "--database-url", f"postgresql://me:{SECRET}@127.0.0.1:1/x")
    assert_error(result, 2, "LIFECYCLE_DATABASE_URL_FILE")


@pytest.mark.parametrize("names", ["", "LIFECYCLE_ZOCDOC_BASE_URL", "LIFECYCLE_ZOCDOC_CLIENT_SECRET"])
def test_missing_settings_are_told(server: Server, sqlite_url: str, names: str) -> None:
    """What needs Zocdoc says which variables to set."""
    environ: dict[str, str | None] = dict(settings_for(server, sqlite_url))
    for name in list(environ):
        if name.startswith("LIFECYCLE_ZOCDOC_") and names in ("", name):
            environ[name] = None
    for arguments in (("track", GUIDE), ("confirm", GUIDE), ("recover",)):
        assert_error(invoke(*arguments, **environ), 2, names or "LIFECYCLE_ZOCDOC_ENVIRONMENT")


def test_an_insecure_address_is_named_by_its_variable(server: Server, sqlite_url: str) -> None:
    """The client's own complaint, in words of the environment."""
    environ = settings_for(server, sqlite_url) | {"LIFECYCLE_ZOCDOC_BASE_URL": "http://example.com"}
    assert_error(invoke("track", GUIDE, **environ), 2, "LIFECYCLE_ZOCDOC_BASE_URL must use https")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.EnvironmentMismatch(database="sandbox", client="production"), 1),
        (errors.RequestKeyReused(request_key="k", command_id="c"), 3),
        (errors.DatabaseUnavailable(problem="p"), 1),
        (OSError(28, "No space left on device"), 1),
        (ValueError("Jane Doe, born 1970"), 1),
    ],
)
def test_whatever_goes_wrong_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception, code: int) -> None:
    """Also what nobody expected, whose text may quote a patient and is therefore not shown."""
    monkeypatch.setattr(lifecycle.Lifecycle, "get", _raising(error))
    result = invoke("show", GUIDE)
    assert_error(result, code)
    assert "Jane" not in result.output
    assert ("LIFECYCLE_DEBUG=1" in result.stderr) == isinstance(error, ValueError)


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """On request only; the exit code stays."""
    monkeypatch.setattr(lifecycle.Lifecycle, "get", _raising(ValueError("inside")))
    result = invoke("show", GUIDE, LIFECYCLE_DEBUG="1")
    assert result.exit_code == 1
    assert "ValueError: inside" in result.stderr


def test_ctrl_c_in_a_reader_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is in doubt, so nothing is said about it."""
    monkeypatch.setattr(lifecycle.Lifecycle, "get", _raising(KeyboardInterrupt()))
    result = invoke("show", GUIDE)
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def test_words_stay_on_their_line() -> None:
    """Control characters in data reach no terminal."""
    assert words.printable("a\nb\x1b[31m\u2028é") == "a\\nb\\x1b[31m\\u2028é"


def test_the_stand_in_announces_settings_that_work(tmp_path: Path) -> None:
    """Its output, read by a shell, is all that the other commands need; Ctrl-C ends it."""
    command = [sys.executable, "-m", "lifecycle", "sandbox"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 # fixed
        assert process.stdout is not None
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        exports = {}
        for line in process.stdout:
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").strip().partition("=")
                exports[name] = value
            if len(exports) == 4:
                break
        environ = exports | {"LIFECYCLE_DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
        invoke("db", "upgrade", **environ)
        tracked = invoke("track", GUIDE, "--format", "json", **environ)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
        watchdog.cancel()
    assert tracked.exit_code == 0, tracked.output
    assert json.loads(tracked.stdout)["status"] == "pending_booking"


def test_the_stand_in_serves_this_machine_only(server: Server) -> None:
    """Another address is refused, and so is a port that is taken."""
    assert_error(invoke("sandbox", "--host", "192.0.2.1"), 2, "not a loopback address")
    assert_error(invoke("sandbox", "--port", str(server.port)), 1, f"cannot listen on 127.0.0.1 port {server.port}")


def _raising(error: BaseException) -> Any:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    return fail


def _revision(url: str) -> str:
    from lifecycle import database, models  # noqa: PLC0415 # only here

    database.Database(url).close()
    return models.REVISION
