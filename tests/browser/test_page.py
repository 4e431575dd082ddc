"""The page in a real Chromium: what people do with it, by mouse and by keyboard, on a phone, in the dark."""

from __future__ import annotations

import csv
import re
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver import ActionChains, Keys

from lifecycle import errors
from tests import support
from tests.browser.pages import CONTRAST, HOSTILE, TOKEN, UNFOLD, Browser, served

if TYPE_CHECKING:
    from pathlib import Path

    from selenium.webdriver import Chrome

    from lifecycle import Lifecycle
    from lifecycle.sandbox import Sandbox

SINCE = "?since=2026-10-01&until=2026-11-01"


@pytest.fixture
def places(browser: Browser) -> list[str]:
    """Each kind of page that there is."""
    browser.open(f"/events{SINCE}&event=outcome_lost")
    story = browser.one("tbody a").get_attribute("href") or ""
    more = "&status=cancelled&time_zone=America/New_York"
    return [
        f"/{SINCE}",
        f"/{SINCE}{more}",
        f"/events{SINCE}",
        f"/events{SINCE}{more}",
        story.removeprefix(browser.origin),
    ]


def test_filters_are_typed_and_clicked(browser: Browser) -> None:
    """What is typed and chosen is what is shown, it stays in the form, and it goes along to the other page."""
    browser.open(f"/events{SINCE}")
    browser.fill("since", "2026-10-05")
    browser.fill("actor", "user:17")
    browser.fill("status", "confirmed")
    browser.one("[name=event] option[value=command_applied]").click()
    browser.follow(browser.one("main form button").click)
    rows = [row.text for row in browser.all("tbody tr")]
    assert rows
    assert all("user:17" in row and "applied" in row and "confirmed" in row for row in rows)
    assert browser.one("[name=actor]").get_attribute("value") == "user:17"
    browser.follow(browser.link("Overview").click)
    assert browser.text("h1") == "Overview"
    assert browser.one("[name=actor]").get_attribute("value") == "user:17"
    browser.follow(browser.link("Clear all").click)
    assert browser.one("[name=actor]").get_attribute("value") == ""
    browser.follow(browser.link("7 days").click)
    assert re.match(r"20\d\d-\d\d-\d\dT", browser.one("[name=since]").get_attribute("value") or "")


def test_pages_are_turned(browser: Browser) -> None:
    """Older, and newer again: the same rows; the filters stay."""
    browser.open(f"/events{SINCE}&source=api")
    first = browser.text("tbody")
    browser.follow(browser.link("Older").click)
    second = browser.text("tbody")
    assert second != first
    assert browser.one("[name=source]").get_attribute("value") == "api"
    browser.follow(browser.link("Newer").click)
    assert browser.text("tbody") == first


def test_a_story_is_a_click_away(browser: Browser) -> None:
    """From a row to its appointment: how it stands, and its steps in order."""
    browser.open(f"/events{SINCE}&event=outcome_lost")
    browser.follow(browser.one("tbody a").click)
    assert browser.text("h1").startswith("Appointment ")
    steps = [step.text for step in browser.all(".timeline > li h3")]
    assert steps[0].startswith("First read from Zocdoc")
    assert any("was lost: in doubt" in step for step in steps)
    times = [each.get_attribute("datetime") or "" for each in browser.all(".timeline .when time")]
    assert times == sorted(times)


def test_csv_is_downloaded(browser: Browser, downloads: Path) -> None:
    """A click saves the events that match, all of them."""
    browser.open(f"/events{SINCE}&status=cancelled")
    browser.link("Download as CSV").click()
    file = downloads / "events.csv"
    support.until(lambda: file.exists() and not list(downloads.glob("*.crdownload")))
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    file.unlink()
    assert len(rows) > 20
    assert {row["to_status"] for row in rows} == {"cancelled"}


def test_a_mistake_is_told_beside_the_form(chromium: Chrome, filled_url: str) -> None:
    """The field is marked, the words stay."""
    with served(filled_url, chromium) as browser:
        browser.open("/events?since=yesterday&actor=user:17")
        assert "since: use ISO 8601" in browser.text("[role=alert]")
        assert browser.one("[aria-invalid]").get_attribute("name") == "since"
        assert browser.one("[name=actor]").get_attribute("value") == "user:17"
        told = browser.complaints()
    assert [entry for entry in told if "status of 400" not in entry] == []


def test_signing_in_with_the_token(chromium: Chrome, filled_url: str) -> None:
    """A wrong token is told, the right one leads to where one wanted to go; signing out shuts the page."""
    with served(filled_url, chromium, token=TOKEN) as browser:
        browser.open(f"/events{SINCE}&source=cli")
        assert browser.text("h1") == "Sign in"
        assert browser.driver.switch_to.active_element.get_attribute("name") == "token"
        browser.fill("token", "wrong")
        browser.follow(browser.one("main button").click)
        assert "not the token" in browser.text("[role=alert]")
        browser.fill("token", TOKEN)
        browser.follow(browser.one("main button").click)
        assert browser.text("h1") == "Events"
        assert browser.one("[name=source]").get_attribute("value") == "cli"
        assert TOKEN not in browser.driver.current_url + str(browser.driver.get_cookies())
        assert browser.run("return document.cookie") == ""
        browser.follow(browser.link("Overview").click)
        assert browser.text("h1") == "Overview"
        browser.follow(browser.one("header button").click)
        browser.open("/")
        assert browser.text("h1") == "Sign in"
        assert [entry for entry in browser.complaints() if "status of 403" not in entry] == []


def test_the_keyboard_is_enough(browser: Browser) -> None:
    """The skip link comes first, the focus is seen, filters unfold and are sent without a mouse."""
    browser.open(f"/events{SINCE}")
    focused = browser.driver.switch_to
    _press(browser, Keys.TAB)
    assert focused.active_element.text == "Skip to the content"
    assert focused.active_element.rect["x"] >= 0
    _press(browser, Keys.ENTER)
    assert browser.run("return document.activeElement.id") == "content"
    seen = list[str]()
    while "More filters" not in seen:
        _press(browser, Keys.TAB)
        seen.append(focused.active_element.text or focused.active_element.get_attribute("name") or "")
        assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") != "none"
        assert len(seen) < 40
    assert seen[-5:] == ["since", "until", "provider_location_id", "actor", "More filters"]
    _press(browser, Keys.ENTER)
    _press(browser, Keys.TAB, Keys.TAB, "cancelled")
    browser.follow(lambda: _press(browser, Keys.ENTER))
    assert browser.one("[name=status]").get_attribute("value") == "cancelled"
    assert {cell.text for cell in browser.all("tbody .status")} == {"cancelled"}


def test_hostile_texts_run_nothing(
    chromium: Chrome, sqlite_url: str, lifecycle_of: Lifecycle, sandbox: Sandbox
) -> None:
    """Markup in actors, locations and statuses is shown as it was written; no script runs, nothing is fetched."""
    odd = support.tracked(lifecycle_of, sandbox, status="<b>new</b>", provider_location_id=HOSTILE)
    with pytest.raises(errors.TransitionRefused):
        lifecycle_of.confirm(odd, actor=HOSTILE)
    with served(sqlite_url, chromium) as browser:
        for path in ("/", "/events", f"/appointments/{odd}", f"/events?appointment_id={odd}"):
            browser.open(path)
            assert "ran" not in browser.driver.title
            assert browser.all("script, img, main b") == []
            with pytest.raises(NoAlertPresentException):
                _ = browser.driver.switch_to.alert.text
            if path != "/":
                assert HOSTILE in browser.text()
        assert browser.complaints() == []


@pytest.mark.parametrize("width", [360, 390, 768, 1920])
def test_nothing_sticks_out(browser: Browser, places: list[str], width: int) -> None:
    """From a small phone to a wide screen no page scrolls sideways."""
    browser.look(width=width)
    for place in places:
        browser.open(place)
        assert browser.run("return document.documentElement.scrollWidth") <= width, place


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_text_can_be_read(browser: Browser, places: list[str], scheme: str, width: int) -> None:
    """The ratio of each text to what is behind it is 4.5 at least, pictures included."""
    browser.look(width=width, scheme=scheme)
    for place in [*places, "/events?until=2000-01-01", "/login"]:
        browser.open(place)
        browser.run(UNFOLD)
        assert browser.run(CONTRAST) == [], place
    browser.complaints()  # /login is not there without a token


def test_the_structure_can_be_heard(browser: Browser, places: list[str]) -> None:
    """Titles differ, headings go down by one, each field and picture has a name, each head of a table a scope."""
    titles = set[str]()
    for place in places:
        browser.open(place)
        titles.add(browser.driver.title)
        browser.run(UNFOLD)
        levels = [int(each.tag_name[1]) for each in browser.all("h1, h2, h3, h4, h5, h6")]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(later - earlier <= 1 for earlier, later in pairwise(levels)), (place, levels)
        assert browser.all("main") != []
        assert browser.all("table th:not([scope])") == []
        assert browser.all("table:not(:has(caption))") == []
        for field in browser.all("main input, main select"):
            assert field.accessible_name != ""
        for picture in browser.all("svg"):
            assert picture.get_attribute("role") in {"img", "presentation"} or picture.get_attribute("aria-hidden")
            assert picture.get_attribute("role") != "img" or picture.accessible_name != ""
        ids = browser.run("return Array.from(document.querySelectorAll('[id]'), (each) => each.id)")
        assert len(ids) == len(set(ids))
    assert len(titles) >= 3


def test_it_needs_no_script(browser: Browser, places: list[str]) -> None:
    """There is none, of any kind."""
    for place in places:
        browser.open(place)
        assert browser.all("script, [onclick], [onload], [style], a[href^='javascript:']") == []


def _press(browser: Browser, *keys: str) -> None:
    for key in keys:
        ActionChains(browser.driver).send_keys(key).perform()
