"""A Chromium of the test's own: an empty profile, no background traffic, its console at hand."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from lifecycle import Lifecycle
from lifecycle.database import Database
from lifecycle.samples import bulk
from tests import support
from tests.browser.pages import Browser, served
from tests.conftest import FAST
from tests.test_page import UNTIL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lifecycle import ZocdocClient

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def filled_url(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> str:
    """An SQLite file with 800 sample appointments."""
    path = tmp_path_factory.mktemp("filled") / "filled.db"
    path.write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{path}")
    bulk.generate(database, appointments=800, seed=7, until=UNTIL)
    database.close()
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the browser puts files."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Iterator[webdriver.Chrome]:
    """One browser for the session."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.fail("chromium and chromedriver are needed: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=Service(driver))
    made.set_page_load_timeout(support.PATIENCE)
    yield made
    made.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome, filled_url: str) -> Iterator[Browser]:
    """The browser at a page with samples; whatever the test does, nothing is complained of."""
    with served(filled_url, chromium) as made:
        yield made
        assert made.complaints() == []


@pytest.fixture
def lifecycle_of(sqlite_url: str, client: ZocdocClient) -> Iterator[Lifecycle]:
    """The product on the test's own SQLite file."""
    with Lifecycle(sqlite_url, zocdoc=client, timing=FAST) as made:
        yield made
