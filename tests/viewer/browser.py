"""The viewer's page in a real headless Chromium: what a reader does, and what stands there then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--force-color-profile=srgb",
    "--hide-scrollbars",
)  # fmt: skip


@contextmanager
def chromium(browser: str, driver: str, profile: Path, size: tuple[int, int] = (1440, 900)) -> Iterator[Chrome]:
    """A browser with an empty profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = Chrome(options=options, service=Service(driver))
    try:
        yield started
    finally:
        started.quit()


class Viewer:
    """The page in a browser."""

    def __init__(self, browser: Chrome, address: str) -> None:
        self.browser, self.address = browser, address

    def open(self, fragment: str = "") -> Viewer:
        """Load the page anew, at an address inside it, and wait until it can be used."""
        self.browser.get("about:blank")
        self.browser.get(self.address + (f"#{fragment}" if fragment else ""))
        self.wait(lambda: self.js("return document.body.dataset.ready === 'true'"))
        return self

    def js(self, code: str, *arguments: Any) -> Any:
        """What a piece of JavaScript returns."""
        return self.browser.execute_script(code, *arguments)

    def wait(self, holds: Callable[[], Any], seconds: float = 20) -> Any:
        """Wait until something holds, and return it."""
        until = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < until, "the page did not come to what was waited for"
            time.sleep(0.02)
        return found

    def find(self, selector: str) -> WebElement:
        """The one element."""
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """What elements hold, as they stand in the page."""
        found: list[str] = self.js("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector)
        return found

    def text(self, selector: str) -> str:
        """What the one element holds."""
        (only,) = self.texts(selector)
        return only

    def choose(self, control: str, value: str) -> None:
        """Choose in a list; the value must be there."""
        found = self.js(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
            "e.dispatchEvent(new Event('change', {bubbles: true})); return e.value", control, value,
        )  # fmt: skip
        assert found == value, f"{control} does not offer {value!r}"

    def type(self, control: str, text: str) -> None:
        """Type into a field that was empty or not."""
        field = self.find(f"#{control}")
        field.clear()
        field.send_keys(text)

    def press(self, *keys: str) -> None:
        """Press keys wherever the focus is."""
        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def listed(self) -> list[int]:
        """Places of the listed trajectories in the run, in the order shown; the window has to be tall enough for all."""
        places: list[int] = self.js(
            "return [...document.querySelectorAll('#list .row')].map((e) => [parseFloat(e.style.top), +e.dataset.row])"
            ".sort((a, b) => a[0] - b[0]).map((e) => e[1])"
        )
        return places

    def searched(self) -> list[int]:
        """As `listed`, once a search has come to its end."""
        time.sleep(0.25)  # the pause after the last letter
        self.wait(lambda: "searching" not in self.text("#count"))
        return self.listed()

    def shades(self, turn: int) -> list[str]:
        """The shade of each token of a turn, from 0."""
        found: list[str] = self.js(
            "return [...document.querySelectorAll(`#turn-${arguments[0]} .tokens > span`)].map((e) => e.className)", turn
        )
        return found

    def hover(self, turn: int, token: int) -> str:
        """Put the pointer on a token, and read what is shown."""
        span = self.browser.find_elements(By.CSS_SELECTOR, f"#turn-{turn} .tokens > span")[token]
        self.js("arguments[0].scrollIntoView({block: 'center'})", span)
        ActionChains(self.browser).move_to_element(self.find("h1")).perform()
        ActionChains(self.browser).move_to_element(span).perform()
        self.wait(lambda: not self.js("return document.getElementById('hover').hidden"))
        return str(self.find("#hover").text)

    def shown(self) -> str:
        """The id of the trajectory that is shown, or an empty string."""
        return str(self.js("return document.querySelector('#detail article .head bdi')?.textContent ?? ''"))

    def errors(self) -> list[str]:
        """What the console was told that is an error."""
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
