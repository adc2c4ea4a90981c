"""The page of 10,000 measurements: how long a reader waits for it, and for a filter.

Beside it a bare page with the same Vega scripts, which draws one chart of ten marks: what any page
by Vega takes. A reader waits in seconds, so these are bounded, too; they are of two cores.
"""

import time
from pathlib import Path
from statistics import median

import browser
import pytest
from large import write_large

from dabench.findings.tables import find_runs
from dabench.page import write_page
from dabench.page.bundle import vega

pytestmark = browser.NEEDED

MEASUREMENTS = 10_000
ROUNDS = 5

BARE = """<!DOCTYPE html><html><body><div id="chart"></div><script type="module">{vega}</script>
<script type="module">
const values = Array.from({{ length: 10 }}, (_, x) => ({{ x, y: x * x }}));
await vegaEmbed("#chart", {{
  data: {{ values }}, mark: "point", encoding: {{ x: {{ field: "x" }}, y: {{ field: "y" }} }},
}}, {{ actions: false, ast: true, renderer: "svg" }});
document.documentElement.dataset.ready = "yes";
</script></body></html>"""

# From the click until the table is the filtered one, and both charts, which follow it.
FILTER = """async (chip) => {
  const press = (name) => [...document.querySelectorAll("[data-chip]")]
    .find((each) => each.dataset.chip === name).click();
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const begin = performance.now();
  press(chip);
  await painted();
  const taken = performance.now() - begin;
  press(chip);
  await painted();
  return taken / 1000;
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    run = write_large(root / "run", MEASUREMENTS, launches=2, samples=3)
    bare = root / "bare.html"
    bare.write_text(BARE.format(vega=vega()))
    return write_page([run], folder=root, name="page"), bare


def opened(started, path):
    """Seconds until a page is ready, and the tab."""
    reader = browser.Reader(started)
    begin = time.perf_counter()
    reader.open(path)
    return time.perf_counter() - begin, reader


def test_the_page_of_the_committed_runs_is_small(compare, tmp_path):
    root = Path(__file__).parents[2] / "results"
    page = compare.benchmark.pedantic(
        write_page, args=(find_runs(root),), kwargs={"folder": tmp_path, "name": "page"},
        rounds=1, iterations=1,
    )  # fmt: skip
    compare.check("megabytes", page.stat().st_size / 1e6, at_most=6.0)


def test_it_opens_and_filters_without_a_wait(compare, pages):
    page, bare = pages
    loads, bares, filters = [], [], []

    def look(started):
        for path, taken in ((page, loads), (bare, bares)):
            seconds, reader = opened(started, path)
            taken.append(seconds)
            if path == page:
                reader.page.locator("#measurements").scroll_into_view_if_needed()
                reader.page.wait_for_selector("#measurements .chart[data-drawn]")
                filters.append(reader.page.evaluate(FILTER, "model:dw-disc"))
            reader.close()

    with browser.started() as started:
        for _ in range(ROUNDS):
            look(started)
        compare.benchmark.pedantic(look, args=(started,), rounds=1, iterations=1)
    compare.check("seconds to open", median(loads), at_most=3.0)
    compare.check("seconds of a filter", median(filters), at_most=0.2)
    compare.check("opening, of a bare page's", median(loads) / median(bares), at_most=4.0)
    compare.check("a filter, of opening a bare page", median(filters) / median(bares), at_most=0.7)
