"""What the page is made of, without a browser."""

import base64
import gzip
import json
import re
import shlex
import shutil
from dataclasses import replace

import pytest
from choices import write_choice
from fakes import make_launch
from records import small_case, write_medians, write_run

from dabench.base.errors import ResultsError, UsageError
from dabench.findings.proofs import UNPROVEN
from dabench.findings.standings import answers, standings
from dabench.findings.tables import load
from dabench.page import gather as gathering
from dabench.page.bundle import bundled, packed
from dabench.page.gather import Page, gather
from dabench.page.known import Known
from dabench.page.measured import measured_columns, name_of, sampled
from dabench.page.serve import version_of
from dabench.plan.cases import PlannedCase
from dabench.plan.settings import Settings
from dabench.timing.engine import Sample


def key(run, of):
    return run, of.case_id, "forward"


A, B, C = small_case("a"), small_case("b"), small_case("c")
LATER = "2026-02-03T03:04:05+00:00"
STEADY = [1.0, 1.001, 0.999, 1.0, 1.001, 0.999]


def times(factor, launches=6):
    return [factor * each for each in STEADY[:launches]]


def test_the_fastest_is_faster_than_all_others(tmp_path):
    run = write_medians(tmp_path / "run", {A: times(1), B: times(2), C: times(3)})
    found = standings(load([run]))
    assert found[key("run", A)].rank == "fastest"
    assert [found[key("run", each)].rank for each in (B, C)] == ["slower", "slower"]
    assert found[key("run", C)].reason.startswith("3 (")


def test_who_may_be_beaten_is_not_called_the_fastest(tmp_path):
    run = write_medians(tmp_path / "run", {A: times(1), B: [1.0, 1.3, 0.9, 1.1, 1.0, 1.2]})
    found = standings(load([run]))
    assert found[key("run", A)].rank == "undecided"
    assert "maybe not faster than b" in found[key("run", A)].reason
    (answer,) = answers(load([run]))
    assert answer.text.startswith("Nobody can tell `a`")


def test_who_is_as_fast_is_called_so(tmp_path):
    run = write_medians(tmp_path / "run", {A: times(1), B: times(1.0001), C: times(2)})
    found = standings(load([run]))
    assert [found[key("run", each)].rank for each in (A, B, C)] == ["same", "same", "slower"]
    assert "as fast: b" in found[key("run", A)].reason


def test_one_launch_decides_nothing_and_three_need_a_wider_margin(tmp_path):
    one = write_medians(tmp_path / "one", {A: [1.0], B: [5.0]})
    found = standings(load([one]))
    assert {each.rank for each in found.values()} == {"undecided"}
    assert "one launch" in found[key("one", B)].reason
    few = write_medians(tmp_path / "few", {A: times(1, 3), B: times(1.1, 3), C: times(1.9, 3)})
    found = standings(load([few]))
    assert [found[key("few", each)].rank for each in (B, C)] == ["undecided", "slower"]


def test_under_the_papers_protocol_counts_when_the_work_was_done(tmp_path):
    first, second = small_case("a", protocol="paper"), small_case("b", protocol="paper")
    changes = {}
    for each, done in ((first, 4.0), (second, 2.0)):
        launch = make_launch(each, [1.0])
        phase = launch.phases[0]
        taken = replace(phase.samples, samples=[Sample(1.0 if each is first else 1.5, done)])
        changes[each] = {"phases": (replace(phase, samples=taken),)}
    run = write_medians(tmp_path / "run", {first: [1.0] * 6, second: [1.5] * 6}, changes=changes)
    found = standings(load([run]))
    assert found[key("run", second)].rank == "fastest"
    assert "by when the work was done" in found[key("run", first)].reason
    (answer,) = answers(load([run]))
    assert "2 s" in answer.text
    assert "until the work was done: 1" in answer.task
    launches = sampled(load([run])).launches[name_of(*key("run", first))]
    assert launches[0]["done"][0] * launches[0]["unit_s"] == pytest.approx(4.0)
    assert launches[0]["sample"][0] * launches[0]["unit_s"] == pytest.approx(1.0)


def test_answers_name_their_run_their_threads_and_paths_without_proof(tmp_path):
    shown = small_case("a", device="mps"), small_case("b", device="mps")
    run = write_medians(tmp_path / "run", {shown[0]: times(1), shown[1]: times(2)})
    again = write_medians(tmp_path / "again", {A: times(1), B: times(2)})
    unproven, plain = sorted(answers(load([run, again])), key=lambda each: "again" in each.task)
    assert "`run`" in unproven.task
    assert UNPROVEN in unproven.text
    assert UNPROVEN not in plain.text
    assert "2 threads" in plain.text


def test_of_one_network_the_ways_are_compared(tmp_path):
    ways = small_case("a"), small_case("a", memory_format="nhwc")
    run = write_medians(tmp_path / "run", {ways[0]: times(2), ways[1]: times(1)})
    (answer,) = answers(load([run]))
    assert "nhwc" in answer.text.partition("fastest")[0]
    assert answer.keys == (key("run", ways[1]), key("run", ways[0]))


@pytest.mark.parametrize(
    "axes",
    [
        {"protocol": "stream", "rate": 30.0},
        {"protocol": "paper", "mode": "train"},
        {"protocol": "throughput", "concurrency": 2, "input": "host"},
        {"dtype": "bf16", "memory_format": "nhwc", "fuse": "on", "threads": 2, "batch": 4},
    ],
)
def test_the_line_that_repeats_a_case_asks_for_that_case(tmp_path, axes):
    from dabench.plan.axes import AXES

    measured = small_case("disc", **axes)
    plan = [PlannedCase(case=measured, settings=Settings.of(launches=3, repeat=7)).to_dict()]
    run = write_medians(tmp_path / "run", {measured: [1.0]})
    loaded = load([run])
    loaded.runs[0]["plan"] = plan
    columns = measured_columns(loaded, {})
    words = shlex.split(columns["command"]["words"][0])
    asked = dict(zip(words[2::2], words[3::2], strict=True))
    for name, value in axes.items():
        assert AXES[name].read(asked[AXES[name].option]) == value
    assert (asked["--launches"], asked["--repeat"]) == ("3", "7")


def test_samples_keep_their_digits_and_are_thinned_where_there_are_too_many(tmp_path):
    run = write_medians(tmp_path / "run", {A: [[0.00123456, 0.0012, 0.0013]] * 2})
    loaded = load([run])
    whole = sampled(loaded)
    launches = whole.launches[name_of(*key("run", A))]
    assert whole.step == 1
    # Of a warm-up that takes seconds they keep theirs.
    assert launches[0]["warmup"][0] * launches[0]["unit_s"] == pytest.approx(9.0)
    assert launches[0]["sample"][0] * launches[0]["unit_s"] == pytest.approx(0.00123456, rel=1e-4)
    thinned = sampled(loaded, most=4)
    assert thinned.step == 2
    assert len(thinned.launches[name_of(*key("run", A))][0]["sample"]) == 2


def test_a_folder_that_is_named_twice_is_shown_once(tmp_path, monkeypatch):
    run = write_medians(tmp_path / "run", {A: times(1), B: times(2)})
    monkeypatch.chdir(tmp_path)
    page = gather([run, run.relative_to(tmp_path), tmp_path / "." / "run"], "page")
    assert [each["run_id"] for each in page.shown["runs"]] == ["run"]


def test_runs_of_one_name_are_kept_apart(tmp_path):
    for name in ("one", "two"):
        write_choice(
            tmp_path / name / "choice", {A: times(0.01), B: times(0.02)},
            scores={A: 0.5, B: 0.6}, data={"name": "streets", "split": "val"},
        )  # fmt: skip
    page = gather([tmp_path / name / "choice" for name in ("one", "two")], "page")
    names = [each["run_id"] for each in page.shown["runs"]]
    assert len(set(names)) == len(names) == 4
    dots = [each for each in page.shown["tradeoff"] if each["tier"] == "measured here"]
    assert {each["key"].partition("|")[0] for each in dots} == {
        "choice/times", "choice/times (2)"
    }  # fmt: skip
    # Equal machines and data share one front; printed figures are on none.
    assert {each["model"] for each in dots if each["front"]} == {"a", "b"}
    assert not any(each["front"] for each in page.shown["tradeoff"] if each not in dots)


def test_times_and_accuracies_of_one_graph_are_joined(tmp_path):
    choice = tmp_path / "choice"
    write_choice(choice, {A: times(0.01), B: times(0.02)}, scores={A: 0.5, B: 0.6})
    # The same records as runs of their own, and times of other weights.
    shutil.copytree(choice / "times", tmp_path / "times")
    shutil.copytree(choice / "scores-1", tmp_path / "scores")
    write_choice(tmp_path / "other", {A: times(0.01), B: times(0.02)}, identity="other")
    runs = [tmp_path / "times", tmp_path / "scores", tmp_path / "other" / "times"]
    dots = gather(runs, "page").shown["tradeoff"]
    measured = [each for each in dots if each["tier"] == "measured here"]
    assert {(each["model"], each["key"].partition("|")[0]) for each in measured} == {
        ("a", "times"), ("b", "times")
    }  # fmt: skip
    assert {each["y"] for each in measured} == {33.3333, 42.8571}  # 1 in 3, 3 in 7


def again(folder, day, factor=1.0):
    made = {"created": f"2026-02-0{day}T03:04:05+00:00"}
    return write_medians(folder, {A: times(factor), B: times(2)}, **made)


def test_runs_of_a_machine_are_compared_and_followed(tmp_path):
    runs = [again(tmp_path / f"run{day}", day, 1.5 if day > 4 else 1.0) for day in range(1, 10)]
    sections = {each["title"]: each for each in gather(runs, "page").shown["sections"]}
    pairs = [title for title in sections if title.startswith("Two runs: ")]
    # The newest first, those that follow one another, and as many as anybody reads.
    assert pairs[0] == "Two runs: run8 and run9"
    assert "Two runs: run7 and run9" not in pairs
    assert len(pairs) == 6
    (left,) = (b["text"] for s in sections.values() for b in s["blocks"] if "older pairs" in str(b))
    assert left.startswith("2 older pairs")
    (table,) = (
        each for each in sections["Two runs: run4 and run5"]["blocks"] if each["kind"] == "table"
    )
    # What changed most, and most surely, comes first.
    assert table["rows"][0][0].startswith("a/")
    assert "slower" in table["rows"][0]
    charts = [each for each in sections["Cases over time"]["blocks"] if each["kind"] == "chart"]
    assert len(charts) == 2
    assert "1 change" in charts[0]["caption"]


def test_nothing_measured_is_a_page_too(tmp_path):
    run = write_medians(tmp_path / "run", {A: []})
    page = gather([run], "page")
    assert page.shown["answers"] == []
    with pytest.raises(UsageError, match="holds no run"):
        gather([tmp_path / "none"], "page")
    (run / "samples.csv").write_text("no, samples\n1,2\n3,4\n")
    with pytest.raises(ResultsError, match=r"samples\.csv"):
        gather([run], "page")


def test_the_file_asks_for_nothing_and_holds_what_it_is_given():
    shown = {
        "made": "<now>",
        "text": "</script><!-- \u2028 {{vega}} {{title}}",
        "number": float("nan"),
    }
    page = Page("<b>&{{shown}}", shown, {})
    text = bundled(page)
    assert text == bundled(page)
    assert "<title>&lt;b&gt;&amp;{{shown}}</title>" in text
    assert "https://" not in text.partition('<script type="module">')[0]
    assert "connect-src 'none'" in text
    assert "connect-src 'self'" in bundled(page, version="1")
    (data,) = re.findall(r'id="shown">([^<]*)</script>', text)
    found = json.loads(gzip.decompress(base64.b64decode(data)))
    assert found == {**shown, "number": None}
    assert packed(shown) == packed(shown)


def test_charts_are_pictures_in_either_format(tmp_path):
    from dabench.report import write_report

    run = write_run(tmp_path)
    document, _ = write_report([run], folder=tmp_path / "r", name="r", pictures="svg")
    pictures = sorted((tmp_path / "r").glob("*.svg"))
    assert len(pictures) == 2
    assert all(each.read_text().startswith("<svg") for each in pictures)
    assert all(f"]({each.name})" in document.read_text() for each in pictures)


def test_sections_are_made_again_when_their_runs_changed(tmp_path):
    versions = {tmp_path / "a": "1", tmp_path / "b": "1"}
    made = []

    def write(name):
        def make(out):
            made.append(name)
            out.heading(name)
            out.paragraph(f"text {len(made)}")

        return make

    known = Known(versions.__getitem__)

    def page():
        known.begin(versions)
        found = [
            known.sections("part", [tmp_path / name], [name], write(name)) for name in ("a", "b")
        ]
        known.forget()
        return [each["blocks"][0]["text"] for sections in found for each in sections]

    first = page()
    assert page() == first
    assert made == ["a", "b"]
    versions[tmp_path / "b"] = "2"
    assert page() == [first[0], "text 3"]
    # What nobody asked for is forgotten.
    versions[tmp_path / "b"] = "1"
    assert page() == [first[0], "text 4"]


def test_what_is_written_while_a_page_is_made_is_on_the_next(tmp_path, monkeypatch):
    run = write_medians(tmp_path / "run", {A: times(1), B: times(2)})
    other = write_medians(tmp_path / "other", {A: times(1), B: times(3)}, created=LATER)
    known, read = Known(version_of), gathering.load

    def read_and_written(runs):
        loaded = read(runs)
        # Meanwhile the newer one is measured again.
        shutil.rmtree(other)
        write_medians(other, {A: times(1), B: times(9)}, created=LATER)
        return loaded

    monkeypatch.setattr(gathering, "load", read_and_written)
    gather([run, other], "page", known)
    monkeypatch.setattr(gathering, "load", read)
    whole = gather([run, other], "page").shown["sections"]
    assert gather([run, other], "page", known).shown["sections"] == whole


def test_without_versions_nothing_is_known_again(tmp_path):
    known = Known()
    for text in ("one", "two"):

        def make(out, text=text):
            out.paragraph(text)

        (section,) = known.sections("part", [tmp_path], ["a"], make)
        assert section["blocks"][0]["text"] == text


def test_sections_without_blocks_are_left_out(tmp_path):
    assert Known().sections("part", [tmp_path], ["a"], lambda out: out.heading("empty")) == []
