"""The page in a browser: what a reader sees, and what nobody must."""

import importlib.resources
import json
import shutil
import threading
from contextlib import contextmanager

import browser
import pytest
from choices import write_choice
from records import small_case, write_medians, write_run
from suites import write_suite

from dabench.findings.tables import load
from dabench.page import serve, write_page
from dabench.page.gather import gather
from dabench.page.serve import Renewed, Server

pytestmark = browser.NEEDED

BAD_NAME = "<img src=x onerror=window.stung=1>"
BAD_REASON = "</script><script>window.stung=2</script> \u2028 ${window.stung=3}"


def write_hostile(folder):
    """A run whose names and reasons look like markup."""
    cases = {
        small_case(BAD_NAME): [0.01, 0.0101, 0.0099],
        small_case("plain**x**`y`"): [0.02, 0.021, 0.02],
    }
    failed = small_case("a\"b'c", batch=2)
    changes = {
        small_case(BAD_NAME): {"celsius": 61.5},
        failed: {"status": "error", "reason": BAD_REASON, "phases": ()},
    }
    return write_medians(
        folder, {**cases, failed: [0.01]}, command=f"dabench time --model '{BAD_NAME}'{BAD_REASON}",
        changes=changes,
    )  # fmt: skip


def again(root, day):
    """The first run, measured once more."""
    folder = shutil.copytree(root / "20260102-030405-test", root / f"2026020{day}-030405-again")
    run = json.loads((folder / "run.json").read_text())
    changes = {"run_id": folder.name, "created": f"2026-02-0{day}T03:04:05+00:00"}
    (folder / "run.json").write_text(json.dumps({**run, **changes}))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    choice = root / "choice"
    write_choice(
        choice, {small_case("a"): [0.010, 0.011, 0.010], small_case("b"): [0.02, 0.021, 0.02]},
        scores={small_case("a"): 0.5, small_case("b"): 0.6},
    )  # fmt: skip
    return [
        write_run(root),
        write_run(root, "20260203-040506-other", cpu="Other CPU"),
        again(root, 4),
        again(root, 5),
        write_suite(root),
        choice,
        write_hostile(root / "hostile"),
    ]


@pytest.fixture(scope="module")
def page_file(runs, tmp_path_factory):
    return write_page(runs, folder=tmp_path_factory.mktemp("page"), name="page")


@pytest.fixture(scope="module")
def chromium():
    with browser.started() as started:
        yield started


@pytest.fixture
def reader(chromium):
    found = browser.Reader(chromium)
    yield found
    assert found.said == []
    assert found.asked == []
    found.close()


def shown(page):
    return page.locator("#measurements [aria-live]").inner_text()


def names(page):
    return page.locator("table.explorer tr[data-name]").evaluate_all(
        "(all) => all.map((each) => each.dataset.name)"
    )


def test_every_chart_has_marks_and_a_text(reader, page_file):
    page = reader.open(page_file)
    marks = reader.wait_for_charts()
    assert len(marks) > 5
    assert min(marks) > 0
    for chart in page.locator("main .chart").all():
        assert len(chart.get_attribute("aria-label")) > len("Chart: ")
        assert chart.locator("[role=graphics-document]").get_attribute("aria-label")


def test_every_measurement_is_in_the_table_and_nothing_stings(reader, page_file, runs):
    page = reader.open(page_file)
    timings = [run / "times" if run.name == "choice" else run for run in runs]
    timings = [run for run in timings if (run / "launches.csv").exists()]
    rows = load(timings).measurements
    assert shown(page) == f"{len(rows)} of {len(rows)} measurements, 50 shown"
    page.get_by_role("button", name="Show 50 more").click()
    assert shown(page) == f"{len(rows)} of {len(rows)} measurements"
    assert len(set(names(page))) == len(rows)
    # Failed cases stand where they belong, with their reason.
    assert page.locator("table.explorer tr", has_text="</script><script>").count() == 1
    assert page.locator("table.explorer", has_text=BAD_NAME).count() == 1
    reader.wait_for_charts()
    page.locator(f'table.explorer a:text-is("{BAD_NAME}")').click()
    page.wait_for_selector("dialog[open] .chart[data-drawn]")
    assert BAD_NAME in page.locator("dialog h2").inner_text()
    assert "61.5 °C" in page.locator("dialog dl").inner_text()
    assert page.evaluate("window.stung") is None
    assert page.locator("img[src=x]").count() == 0


def test_a_filter_changes_table_and_charts_together(reader, page_file):
    page = reader.open(page_file)
    reader.wait_for_charts()
    before = page.locator("#measurements .chart .mark-symbol path").count()
    page.locator("[data-chip='family:segmenter']").click()
    page.locator("[data-chip='model:stdc1-bisenet']").click()
    kept = names(page)
    assert kept
    assert all("|stdc1-bisenet/" in name for name in kept)
    page.wait_for_function(
        "(n) => document.querySelectorAll('#measurements .chart .mark-symbol path').length < n",
        arg=before,
    )
    # The choice's dots are of other networks.
    page.wait_for_function("() => !document.querySelector('#tradeoff svg')")
    page.get_by_role("button", name="Clear filters").click()
    page.wait_for_function("() => document.querySelector('#tradeoff svg .mark-symbol path')")


def test_an_answer_leads_to_the_rows_it_rests_on(reader, page_file, runs):
    answers = gather(runs, "page").shown["answers"]
    (keys, *_) = (line["keys"] for one in answers for line in one["lines"] if len(line["keys"]) > 1)
    page = reader.open(page_file)
    page.get_by_role("button", name="its rows").first.click()
    assert sorted(names(page)) == sorted(keys)
    address = page.evaluate("location.hash")
    page.goto("about:blank")
    page = reader.open(page_file, address)
    assert sorted(names(page)) == sorted(keys)
    page.get_by_role("button", name="the rows it rests on").click()
    assert shown(page).startswith("61 of 61 ")


def test_an_address_opens_what_was_looked_at(reader, page_file):
    page = reader.open(page_file)
    page.locator("[data-chip='model:dw-disc']").click()
    page.get_by_label("Search all measurements").fill("steady")
    page.get_by_role("button", name="median", exact=True).first.click()
    page.get_by_role("button", name="Group by machine").click()
    view = names(page)
    page.locator("table.explorer tbody a").nth(2).click()
    page.wait_for_selector("dialog[open]")
    address = page.evaluate("location.hash")
    title = page.locator("dialog dl").inner_text()

    page.goto("about:blank")
    page = reader.open(page_file, address)
    page.wait_for_selector("dialog[open]")
    assert page.locator("dialog dl").inner_text() == title
    page.get_by_role("button", name="Close").click()
    assert names(page) == view
    assert page.locator("[data-chip='model:dw-disc']").get_attribute("aria-pressed") == "true"
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("median")


@pytest.mark.parametrize(
    ("button", "separator"), [("Copy Markdown", " | "), ("Copy CSV", ","), ("Copy LaTeX", " & ")]
)
def test_copy_gives_what_is_shown(reader, page_file, button, separator):
    page = reader.open(page_file)
    page.locator("[data-chip='machine:Other CPU, 4 cores']").click()
    page.get_by_role("button", name="median", exact=True).first.click()
    page.locator("#measurements").get_by_role("button", name=button).click()
    page.wait_for_function("() => window.dabenchCopied")
    lines = page.evaluate("window.dabenchCopied").splitlines()
    rows = page.locator("table.explorer tr[data-name]")
    cells = [row.locator("td").all_inner_texts() for row in rows.all()]
    body = [line for line in lines if separator in line][1:]
    body = [line for line in body if not line.startswith("| :--")]
    assert len(body) == len(cells)
    for line, row in zip(body, cells, strict=True):
        assert f"{row[0]}{separator}{row[1]}" in line
        assert row[2].replace("µ", "$\\mu$" if separator == " & " else "µ") in line


def test_numbers_are_written_as_by_the_command_line(reader, page_file):
    from dabench.base.units import format_bytes, format_interval, format_seconds, significant

    page = reader.open(page_file)
    values = [
        0.0,
        1e-9,
        3.21e-7,
        9.996e-4,
        9.994e-4,
        0.001,
        0.0123,
        0.99951,
        1.0,
        12.34,
        999.6,
        1234.5,
    ]
    for name, ours in (
        ("formatSeconds", [format_seconds(value) for value in values[1:]]),
        ("significant", [significant(value) for value in values[1:]]),
        ("formatBytes", [format_bytes(1e6 * value) for value in values[1:]]),
    ):
        scale = 1e6 if name == "formatBytes" else 1
        theirs = page.evaluate(
            f"(all) => all.map((each) => dabench.{name}({scale} * each))", values[1:]
        )
        assert theirs == ours, name
    pairs = [[0.00061, 0.00103], [1e-7, 2e-6], [0.5, 12.0]]
    theirs = page.evaluate(
        "(all) => all.map(([low, high]) => dabench.formatInterval(low, high))", pairs
    )
    assert theirs == [format_interval(*pair) for pair in pairs]


def test_a_report_table_sorts_by_size_and_searches(reader, page_file):
    page = reader.open(page_file)
    page.get_by_role("link", name="Ratios of the discriminators' times").click()
    table = page.locator("section", has=page.locator("h2", has_text="Ratios of the")).last
    table.get_by_role("button", name="ratio", exact=True).click()
    numbers = [float(text) for text in table.locator("tbody td:nth-child(9)").all_inner_texts()]
    assert len(numbers) > 5
    assert numbers == sorted(numbers)
    table.get_by_role("searchbox").fill("Other CPU")
    rows = table.locator("tbody tr").all_inner_texts()
    assert 0 < len(rows) < len(numbers)
    assert all("Other CPU" in row for row in rows)


@pytest.mark.parametrize(
    ("theme", "rules"), [("light", {}), ("dark", {"runOnly": ["color-contrast"]})]
)
def test_axe_finds_no_violation(chromium, runs, tmp_path, theme, rules):
    reader = browser.Reader(chromium, color_scheme=theme)
    rules = {"resultTypes": ["violations"], "preload": False, **rules}
    # One of each kind of run: it looks at every mark of every chart.
    kinds = [run for run in runs if run.name.endswith(("-other", "-suite", "choice", "hostile"))]
    page = reader.open(write_page(kinds, folder=tmp_path, name="page"))
    reader.wait_for_charts()
    axe = importlib.resources.files("axe_playwright_python") / "axe.min.js"
    # Its policy lets the page run no script but its own; a debugger may.
    page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate("(rules) => axe.run('body', rules)", rules)["violations"]
    page.locator("table.explorer tbody a").first.click()
    page.wait_for_selector("dialog[open] .chart[data-drawn]")
    found += page.evaluate("(rules) => axe.run('dialog', rules)", rules)["violations"]
    said = [(each["id"], [node["html"][:300] for node in each["nodes"]]) for each in found]
    assert said == []
    assert reader.said == []
    reader.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_cut_off_or_moves(chromium, page_file, width):
    reader = browser.Reader(chromium)
    reader.page.set_viewport_size({"width": width, "height": 800})
    reader.page.add_init_script(
        """window.moved = 0;
        new PerformanceObserver((list) => {
          const unasked = list.getEntries().filter((each) => !each.hadRecentInput);
          window.moved += unasked.reduce((sum, each) => sum + each.value, 0);
        }).observe({ type: 'layout-shift', buffered: true });"""
    )
    page = reader.open(page_file)
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for _ in range(6):
        page.mouse.wheel(0, 700)
        page.wait_for_timeout(60)
    # Nor where somebody jumps: a chart has its place before it is drawn.
    page.locator("table.explorer").scroll_into_view_if_needed()
    top = "document.querySelector('table.explorer').getBoundingClientRect().top + scrollY"
    before = page.evaluate(top)
    page.wait_for_selector("#measurements .chart[data-drawn]", state="attached")
    assert page.evaluate(top) == before
    assert page.evaluate("window.moved") == 0
    assert reader.said == []
    reader.close()


@pytest.mark.parametrize(
    "address",
    [
        "#filter=constructor:1", "#filter=nosuch:1", "#filter=model:gone", "#section=status",
        "#section=nowhere", "#case=nothing", "#filter=%E0%A4%A;:,;", "#main",
    ],
)  # fmt: skip
def test_an_address_of_what_is_not_there_shows_the_page(reader, page_file, address):
    page = reader.open(page_file, address)
    assert shown(page).startswith("61 of 61 ")
    page.locator("#tradeoff .chart").scroll_into_view_if_needed()
    page.wait_for_selector("#tradeoff svg .mark-symbol path", state="attached")


def test_back_leaves_a_case_whose_address_was_written_by_hand(reader, page_file):
    page = reader.open(page_file)
    name = names(page)[0]
    page.evaluate("(name) => { location.hash = `case=${name}`; }", name)
    page.wait_for_selector("dialog[open]")
    page.go_back()
    page.wait_for_selector("dialog[open]", state="detached")
    assert "case=" not in page.url
    assert page.locator("dialog[open]").count() == 0
    assert names(page)[0] == name


def test_everything_is_reached_by_the_keyboard(reader, page_file):
    page = reader.open(page_file)
    page.locator("[data-chip='model:dw-disc']").focus()
    page.keyboard.press("Enter")
    # What was pressed keeps the focus, though the filters were drawn anew.
    assert page.evaluate("document.activeElement.dataset.chip") == "model:dw-disc"
    page.locator("table.explorer tbody a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    page.locator("details.section > summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details.section[open]").count() == 1


def test_on_paper_every_section_is_open(reader, page_file):
    page = reader.open(page_file)
    page.get_by_role("button", name="Dark").click()
    page.evaluate("async () => { window.restore = await dabench.prepareForPaper(); }")
    page.emulate_media(media="print")
    closed = page.locator("details.section:not([open])")
    assert closed.count() == 0
    assert page.locator("main .chart:not([data-drawn])").count() == 0
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert page.locator(".filters").is_hidden()
    assert page.pdf().startswith(b"%PDF")
    # And afterwards it is as it was.
    page.evaluate("window.restore()")
    assert closed.count() == page.locator("details.section").count()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_printed_figures_stay_but_where_they_say_otherwise(reader, page_file):
    def dots(address):
        page = reader.open(page_file, address)
        page.locator("#tradeoff").scroll_into_view_if_needed()
        page.wait_for_selector("#tradeoff svg .mark-symbol path", state="attached")
        return page.locator("#tradeoff .mark-symbol path").count()

    every, fp32, small = dots(""), dots("#filter=dtype:fp32"), dots("#filter=size:3x64x64")
    assert every > fp32 > small > 0


def test_the_key_for_printing_waits_for_charts(reader, page_file):
    page = reader.open(page_file)
    left = "document.querySelectorAll('main .chart:not([data-drawn])').length"
    page.evaluate(f"window.print = () => {{ window.printed = {left}; }}")
    page.keyboard.press("Control+p")
    page.wait_for_function("() => window.printed !== undefined")
    assert page.evaluate("window.printed") == 0


@contextmanager
def served(root, **settings):
    server = Server("127.0.0.1", 0, Renewed([root], "dabench"), settings.get("token", ""))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_served_page_is_renewed_as_runs_come_in(chromium, tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "REST", 0)
    write_run(tmp_path)
    reader = browser.Reader(chromium)
    with served(tmp_path, token="abc") as server:
        page = reader.page
        page.goto(server.url)
        page.wait_for_selector("html[data-ready]")
        assert "abc" not in page.url
        page.locator("[data-chip='model:dw-disc']").click()
        page.locator("details.section > summary").first.click()
        page.get_by_label("Search all measurements").fill("forward")
        before = shown(page)
        write_run(tmp_path, "20260203-040506-other", cpu="Other CPU")
        page.wait_for_function(
            "(text) => document.querySelector('#measurements [aria-live]').textContent !== text",
            arg=before,
        )
        assert int(shown(page).split()[0]) == 2 * int(before.split()[0])
        assert reader.said == []
        # What was looked at stays, and whoever types goes on.
        assert page.locator("details.section[open]").count() == 1
        assert page.evaluate("document.activeElement.id") == "search"
        assert page.locator("[data-chip='model:dw-disc']").get_attribute("aria-pressed") == "true"
        assert all(
            url.startswith(f"http://127.0.0.1:{server.server_address[1]}/") for url in reader.asked
        )
    reader.close()


def test_the_page_says_where_each_number_comes_from(reader, page_file, runs):
    page = reader.open(page_file)
    page.locator("table.explorer tbody a").first.click()
    page.wait_for_selector("dialog[open]")
    page.locator("dialog").get_by_role("button", name="Where").click()
    run = json.loads((runs[0] / "run.json").read_text())
    opened = page.locator("#provenance details[open]")
    assert run["command"] in opened.inner_text()
    assert run["environment"]["cpu"] in opened.inner_text()


@pytest.mark.parametrize(
    ("section", "run"), [("Accuracy: ", "20260102-030405-suite"), ("Which to deploy", "choice")]
)
def test_a_table_leads_to_the_run_it_was_made_from(reader, page_file, section, run):
    page = reader.open(page_file)
    page.locator("nav.contents").get_by_role("link", name=section).first.click()
    table = page.locator("details.section[open] .table").first
    table.get_by_role("button", name="Where these numbers come from").click()
    opened = page.locator("#provenance details[open]")
    assert opened.get_attribute("data-run") == run


def test_a_table_of_several_runs_names_them(reader, page_file):
    page = reader.open(page_file)
    page.get_by_role("link", name="Ratios of the discriminators' times").click()
    section = page.locator("section", has=page.locator("h2", has_text="Ratios of the")).last
    section.locator("summary", has_text="Where these numbers come from: 6 runs").click()
    section.get_by_role("button", name="20260203-040506-other").click()
    opened = page.locator("#provenance details[open]")
    assert opened.get_attribute("data-run") == "20260203-040506-other"
