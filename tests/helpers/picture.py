"""Writes reports/page.png: the page of the committed runs, as a browser shows it.

``python tests/helpers/picture.py results reports/page.png``; needs Chromium.
"""

import sys
import tempfile
from pathlib import Path

import browser

from dabench.findings.tables import find_runs
from dabench.page import write_page


def main(results: Path, picture: Path) -> None:
    """Makes the page of all runs below a folder, and a picture of its top."""
    with tempfile.TemporaryDirectory() as folder, browser.started() as started:
        file = write_page(find_runs(results), folder=Path(folder), name="everything measured")
        reader = browser.Reader(started, color_scheme="light")
        page = reader.open(file)
        page.set_viewport_size({"width": 1280, "height": 1700})
        page.locator("#tradeoff").scroll_into_view_if_needed()
        page.wait_for_selector("#tradeoff .chart[data-drawn]")
        page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=picture)
        reader.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
