"""What the tests do in a browser: serve the page, go somewhere, look at it as a person or a checker would."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from lifecycle import Lifecycle, serving
from lifecycle.page import app
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

TOKEN: Final = "0123456789abcdef-0123456789abcdef"
HOSTILE: Final = '"><script>document.title="ran"</script><img src=x onerror=\'document.title="ran"\'>{{7*7}}'

UNFOLD: Final = "for (const each of document.querySelectorAll('details')) each.open = true"

CONTRAST: Final = """
const shown = (element) => {
  const style = getComputedStyle(element), box = element.getBoundingClientRect();
  return style.visibility === 'visible' && style.display !== 'none' && box.width > 1 && box.height > 1
    && style.clipPath === 'none';
};
const numbers = (color) => { const n = color.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3])).concat(1);
const light = (c) => {
  const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element, x, y) => {
  const layers = [];
  const under = document.elementsFromPoint(x, y);
  const stack = under.length && under.some((e) => e === element) ? under : (() => {
    const up = []; for (let e = element; e; e = e.parentElement) up.push(e); return up;
  })();
  for (const each of stack) {
    const style = getComputedStyle(each);
    const isShape = each instanceof SVGGeometryElement;
    if (each instanceof SVGTextContentElement) continue;
    const color = isShape ? style.fill : style.backgroundColor;
    if (!color || color === 'none' || !/^rgb/.test(color)) continue;
    const layer = numbers(color);
    if (isShape) layer[3] *= Number(style.fillOpacity) * Number(style.opacity);
    layers.push(layer);
    if (layer[3] >= 1) break;
  }
  return layers.reverse().reduce((below, top) => over(top, below), numbers(
    getComputedStyle(document.body).backgroundColor));
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, element = node.parentElement;
  if (!node.data.trim() || !shown(element) || element.closest('title, desc, datalist, option')) continue;
  element.scrollIntoView({block: 'center', inline: 'center'});
  const range = document.createRange(); range.selectNodeContents(node);
  const box = range.getClientRects()[0];
  if (!box || box.width < 1) continue;
  const style = getComputedStyle(element);
  const isSvg = element instanceof SVGElement;
  const back = ground(element, box.left + box.width / 2, box.top + box.height / 2);
  const ink = numbers(isSvg ? style.fill : style.color);
  ink[3] *= Number(style.opacity);
  const [a, b] = [light(over(ink, back)), light(back)];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) found.push([node.data.trim().slice(0, 40), ratio.toFixed(2), back.join()]);
}
return found;
"""
"""Gives the texts whose colour is too near to what is behind them, in pictures too: WCAG's ratio under 4.5."""


class Browser:
    """A browser at a running page."""

    def __init__(self, driver: Chrome, origin: str) -> None:
        self.driver = driver
        self.origin = origin

    def open(self, path: str) -> None:
        """Go to a path."""
        self.driver.get(self.origin + path)

    def look(self, *, width: int = 1280, scheme: str = "light") -> None:
        """Have a window of this width, and light or dark preferred."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        preferred = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", preferred)

    def one(self, selector: str) -> WebElement:
        """Find an element by CSS."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """Find elements by CSS."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def link(self, text: str) -> WebElement:
        """Find a link by its text."""
        return self.driver.find_element(By.LINK_TEXT, text)

    def text(self, selector: str = "main") -> str:
        """Give the text that is seen."""
        return self.one(selector).text

    def follow(self, act: Callable[[], object]) -> None:
        """Do what leads to another page, and wait until it is there."""
        self.run("window.isBefore = true")
        act()
        # Between two pages the driver knows neither, and fails in ways of its own.
        arrival = WebDriverWait(self.driver, support.PATIENCE, ignored_exceptions=(WebDriverException,))
        arrival.until(lambda _: self.run("return !window.isBefore && document.readyState === 'complete'"))

    def fill(self, name: str, text: str) -> None:
        """Type into a field, unfolding what hides it."""
        field = self.one(f"[name={name}]")
        if not field.is_displayed():
            self.one("form summary").click()
        field.clear()
        field.send_keys(text)

    def run(self, script: str) -> Any:
        """Run a checker's script in the page."""
        return self.driver.execute_script(script)

    def complaints(self) -> list[str]:
        """Give what the console was told since it was last asked: refused by the policy, not found, failed."""
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]


@contextmanager
def served(url: str, driver: Chrome, **options: Any) -> Iterator[Browser]:
    """Serve the page and give a browser that stands at no page yet, wide and light."""
    with Lifecycle(url) as lifecycle, serving.running(app.create_app(app.Page(lifecycle, **options))) as port:
        browser = Browser(driver, f"http://127.0.0.1:{port}")
        driver.get("about:blank")
        driver.delete_all_cookies()
        browser.look()
        browser.complaints()
        yield browser
