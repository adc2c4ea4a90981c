"""Pages in headless Chromium, as a reader sees them."""

import os
import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
NEEDED = pytest.mark.skipif(not CHROMIUM, reason="no Chromium; apt install chromium")

MARKS = ".mark-rule line, .mark-symbol path, .mark-rect path, .mark-line path"


@contextmanager
def started():
    """A browser."""
    from playwright.sync_api import sync_playwright

    # Its sandbox refuses the superuser, who runs tests in containers.
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


class Reader:
    """One tab, and what went wrong in it.

    Attributes:
        page: Playwright's.
        said: Errors and warnings of its console.
        asked: Addresses outside of the page that it asked for.
    """

    def __init__(self, browser, **settings):
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **settings)
        self.page = self.context.new_page()
        self.said, self.asked = [], []
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on(
            "console",
            lambda line: self.said.append(line.text) if line.type in ("error", "warning") else None,
        )
        self.page.on("request", self._request)

    def _request(self, request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.asked.append(request.url)

    def open(self, path, address=""):
        """Opens a page's file at an address within it."""
        self.page.goto(f"file://{path}{address}")
        self.page.wait_for_selector("html[data-ready]")
        return self.page

    def wait_for_charts(self):
        """Brings every chart into sight; how many marks each has."""
        self.page.evaluate(
            "document.querySelectorAll('details').forEach((each) => (each.open = true))"
        )
        charts = self.page.locator("main .chart")
        self.page.wait_for_function("() => document.querySelectorAll('main .chart').length > 0")
        for number in range(charts.count()):
            charts.nth(number).scroll_into_view_if_needed()
            self.page.wait_for_function(
                "(n) => document.querySelectorAll('main .chart')[n].dataset.drawn", arg=number
            )
        return charts.evaluate_all(
            "(all, marks) => all.map((each) => each.querySelectorAll(marks).length)", MARKS
        )

    def close(self):
        """The tab."""
        self.context.close()
