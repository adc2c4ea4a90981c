"""Which to deploy: ways by name, limits, the join of times and accuracies, and what is taken."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from choices import planned, steady, write_choice
from command import dabench
from fakes import FakeClock, make_case, make_launch
from trained import new_state, write_run

from dabench.base.errors import ResultsError, UsageError
from dabench.base.units import parse_bytes
from dabench.data.labels import CAMVID, CITYSCAPES
from dabench.findings.choices import COLUMNS, choice_of
from dabench.plan.axes import DTYPES
from dabench.plan.trained import EARLIER
from dabench.plan.ways import USUAL, parse_way, usual_ways, way_name
from dabench.records.choices import TIMES, Limits, limits_of
from dabench.records.measurements import COLUMNS as MEASURED
from dabench.records.timings import MEASUREMENTS, SUMMARY, read_launches
from dabench.report.write import write_report
from dabench.run.choosing import Asked, asked_for, check_data, data_for
from dabench.run.deciding import Halver
from dabench.timing.halving import RUNGS

LAST = RUNGS[-1]
PLAIN = make_case(model="a", batch=1)
NHWC = replace(PLAIN, memory_format="nhwc")
ORT = replace(PLAIN, runtime="onnxruntime")
OTHER = replace(PLAIN, model="b")


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("plain", {}),
        ("nhwc+fuse", {"memory_format": "nhwc", "fuse": "on"}),
        ("compile", {"compile": "default"}),
        ("compile=freeze+nhwc", {"compile": "freeze", "memory_format": "nhwc"}),
        ("openvino+bf16", {"runtime": "openvino", "dtype": "bf16"}),
        ("nhwc+fuse+keep", {"memory_format": "nhwc", "fuse": "on", "allocator": "keep"}),
    ],
)
def test_a_way_by_name_and_the_name_of_a_way(name, axes):
    assert parse_way(name) == axes
    assert way_name(replace(PLAIN, **axes)) == name


def test_the_usual_ways_are_ways():
    for ways in USUAL.values():
        for way in ways:
            dtype = parse_way(way).get("dtype", "fp32")
            assert dtype.removesuffix("?") in DTYPES


def test_memory_is_kept_where_it_can_be():
    assert "nhwc+fuse+keep" in usual_ways("cpu", keeps=True)
    assert usual_ways("cpu", keeps=False) == tuple(w for w in USUAL["cpu"] if "keep" not in w)
    assert usual_ways("cuda", keeps=False) == USUAL["cuda"]


@pytest.mark.parametrize("name", ["", "nhcw", "nhwc+nchw", "plain+nhwc", "compile=", "fuse+", "b?"])
def test_what_is_no_way(name):
    with pytest.raises(UsageError, match=r"--ways: .* is not allowed; it takes plain, or words"):
        parse_way(name)


def test_limits_are_read_as_typed_or_as_numbers():
    typed = {"deadline": "33ms", "percentile": "99", "miou": "70%", "memory": "1.5G"}
    found = limits_of({**typed, "energy": "2J", "max_time": "1min"})
    assert found == Limits(
        deadline_s=0.033, percentile="p99", miou=0.7, memory_bytes=1.5 * 2**30, joules=2.0,
        max_time_s=60.0,
    )  # fmt: skip
    assert limits_of({"deadline": 0.5, "miou": 0.7, "memory": 1024}).memory_bytes == 1024
    assert limits_of({}) == Limits()
    assert Limits.of(found.to_dict()) == found


@pytest.mark.parametrize(("text", "found"), [("4096", 4096), ("2 KiB", 2048), ("1mb", 2**20)])
def test_bytes(text, found):
    assert parse_bytes(text) == found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"deadline": "soon"}, "--deadline: 'soon' is not allowed; it takes a time above 0"),
        ({"deadline": "0ms"}, "--deadline: '0ms' is not allowed"),
        ({"deadline": "1s", "percentile": "98"}, "--percentile: 'p98' is not allowed"),
        ({"percentile": "99"}, "--percentile: '99' is not allowed; it is of a --deadline"),
        ({"miou": "70"}, "--miou: '70' is not allowed; it takes a share of up to 100%"),
        ({"memory": "much"}, "--memory: 'much' is not allowed; it takes bytes"),
        ({"energy": "-2J"}, "--energy: '-2J' is not allowed"),
        ({"energy": "nan"}, "--energy: 'nan' is not allowed"),
    ],
)
def test_what_is_no_limit(given, message):
    with pytest.raises(UsageError, match=message):
        limits_of(given)


def test_accuracy_needs_trained_networks_and_data():
    with pytest.raises(UsageError, match="--miou: accuracy is of trained networks"):
        check_data(["disc"], Limits(miou=0.5), None)
    with pytest.raises(UsageError, match="--data: needed to score trained:x"):
        check_data(["trained:x"], Limits(), None)
    with pytest.raises(UsageError, match="--data: it is what trained networks are scored on"):
        check_data(["disc"], Limits(), "gta5")


def test_what_is_asked_is_read_back():
    asked = Asked(models=("disc",), ways=("nhwc",), limits=Limits(deadline_s=1.0), size=(64, 64))
    assert Asked.of(asked.to_dict()) == asked
    ((grid, settings),) = asked.grids(asked.ways)
    assert (grid.memory_formats, settings.launches) == (("nhwc",), 1)
    tail = replace(asked, limits=Limits(deadline_s=1.0, percentile="p99"))
    assert tail.grids(asked.ways)[0][1].repeat == 368


def test_one_value_of_each_axis():
    several = {"models": ["disc"], "checkpoints": [], "ways": [], "limits": Limits(), "seed": 0}
    with pytest.raises(UsageError, match="--batch: '1,8' is not allowed; choose takes one value"):
        asked_for(**several, shape={"batch": [1, 8]})


def launches(times):
    """As the runner has them."""

    return {
        case.case_id: [make_launch(case, [t] * 3) for t in each] for case, each in times.items()
    }


def test_further_launches_go_to_what_may_be_chosen():
    clock = FakeClock()
    halver = Halver(Limits(deadline_s=1.0), planned(PLAIN, NHWC, ORT, OTHER), clock=clock)
    seconds = {PLAIN: [0.3], NHWC: [0.2], ORT: [0.1], OTHER: [2.0]}
    assert halver(launches(seconds)) == {ORT.case_id}
    seconds[ORT] = [0.1, 0.1]
    assert halver(launches(seconds)) == {ORT.case_id}
    seconds[ORT] = [0.1] * LAST
    assert halver(launches(seconds)) == set()


def test_no_launch_is_begun_when_time_is_up():
    clock = FakeClock()
    halver = Halver(Limits(max_time_s=10.0), planned(PLAIN, NHWC), clock=clock)
    seconds = launches({PLAIN: [0.1], NHWC: [0.1]})
    assert halver(seconds) == {PLAIN.case_id, NHWC.case_id}
    clock.now = 6.0
    assert halver(seconds) == set()


@pytest.mark.parametrize(
    "once",
    [
        {"compile_s": 6.0},
        {"compile_s": 2.0, "tried_s": 4.0},
        # Another case exported for it.
        {"compile_s": 9.0, "exported_before_s": 3.0},
    ],
)
def test_what_a_first_launch_compiled_is_not_expected_again(once):
    clock = FakeClock()
    halver = Halver(Limits(max_time_s=10.0), planned(PLAIN, ORT), clock=clock)
    known = {
        PLAIN.case_id: [replace(make_launch(PLAIN, [0.1] * 3), seconds=1.0)],
        ORT.case_id: [
            replace(make_launch(ORT, [0.1] * 3), seconds=7.0, device=once, launch=1),
        ],
    }
    clock.now = 8.0
    # As long as these took would be too long; without compiling two more seconds are enough.
    assert halver(known) == {PLAIN.case_id, ORT.case_id}
    clock.now = 8.1
    assert halver(known) == set()


def test_without_accuracies_the_fastest_that_keeps_its_limits(tmp_path):
    choice = choice_of(
        write_choice(
            tmp_path / "run",
            {PLAIN: steady(0.3, 1), NHWC: steady(0.2, 1), ORT: steady(0.1), OTHER: steady(0.05)},
            Limits(deadline_s=0.25),
        )
    )
    assert choice.chosen.case == OTHER
    assert choice.finished
    assert [each.name for each in choice.candidates] == [
        "b plain", "a onnxruntime", "a nhwc", "a plain",
    ]  # fmt: skip
    assert [each.admissible for each in choice.candidates] == ["met", "met", *["undecided"] * 2]
    assert choice.candidates[2].why == "left alone after 1"
    assert choice.front == ("b plain",)
    assert choice.says[0].startswith("Take b plain: 50")
    assert "No accuracy is known" in choice.says[-1]
    assert choice.command == "dabench time --model b --device cpu --size 64x64"


def test_the_most_accurate_within_the_deadline(tmp_path):
    times = {PLAIN: steady(0.1), OTHER: steady(0.2)}
    scores = {PLAIN: 0.6, OTHER: 0.7}
    choice = choice_of(write_choice(tmp_path / "a", times, Limits(deadline_s=0.5), scores))
    assert choice.chosen.case == OTHER
    assert choice.front == ("a plain", "b plain")
    assert choice.chosen.accuracy.miou.estimate == pytest.approx(0.7 / 1.3)
    # In less time than that, the other one; and the fastest where only accuracy has a limit.
    choice = choice_of(write_choice(tmp_path / "b", times, Limits(deadline_s=0.15), scores))
    assert choice.chosen.case == PLAIN
    choice = choice_of(write_choice(tmp_path / "c", times, Limits(miou=0.4), scores))
    assert choice.chosen.case == PLAIN
    choice = choice_of(write_choice(tmp_path / "d", times, Limits(miou=0.5), scores))
    assert choice.chosen.case == OTHER


def test_of_what_is_as_accurate_the_fastest_and_what_is_not_surely_slower(tmp_path):
    times = {PLAIN: steady(0.2), NHWC: steady(0.1), ORT: [0.1 + 0.001 * n for n in range(LAST)]}
    choice = choice_of(write_choice(tmp_path / "run", times, scores=dict.fromkeys(times, 0.7)))
    assert choice.chosen.case == NHWC
    assert choice.open == ("a onnxruntime",)
    assert "Not surely slower, and as good otherwise: a onnxruntime." in choice.says


@pytest.mark.parametrize(
    "differs",
    [
        {"graph": "h"}, {"weights": "v"}, {"graph": ""},
        {"processing": {"after": "the largest of small logits"}},
        {"processing": {"before": "cropped"}},
    ],
)  # fmt: skip
def test_a_time_and_an_accuracy_of_two_graphs_are_not_joined(tmp_path, differs):
    folder = write_choice(tmp_path / "run", {PLAIN: steady(0.1)}, scores={PLAIN: 0.7}, **differs)
    (each,) = choice_of(folder).candidates
    assert each.accuracy is None


def test_records_from_before_processing_was_said_are_joined_with_newer_ones(tmp_path):
    folder = write_choice(
        tmp_path / "run", {PLAIN: steady(0.1)}, scores={PLAIN: 0.7}, processing=EARLIER
    )
    (each,) = choice_of(folder).candidates
    assert each.accuracy is not None


def test_rows_that_are_gone_are_named(tmp_path):
    folder = write_choice(tmp_path / "run", {PLAIN: steady(0.1)})
    launches = len(read_launches(folder / TIMES))
    (folder / TIMES / SUMMARY).write_text(json.dumps({"launches": launches}))
    (folder / TIMES / MEASUREMENTS).write_text(",".join(MEASURED) + "\n")
    with pytest.raises(ResultsError, match=r"measurements\.csv: no row of a/"):
        choice_of(folder)


def test_times_that_are_others_on_real_images_are_said(tmp_path):
    times, scores = {PLAIN: steady(0.1)}, {PLAIN: 0.7}
    for ratio, said in ((1.5, True), (1.01, False)):
        real = {"real_ratio": ratio, "real_low": ratio - 0.005, "real_high": ratio + 0.005}
        choice = choice_of(write_choice(tmp_path / f"{ratio}", times, scores=scores, real=real))
        assert said == any(
            "a plain takes 1.500 [1.495 to 1.505] times as long on real images" in each
            for each in choice.says
        )


def test_what_is_not_surely_slower_is_so_by_the_percentile_that_was_asked_for(tmp_path):
    """Two ways of the same median, one of which is twice as slow in one pass of ten."""
    limits = Limits(deadline_s=1.0, percentile="p90")
    steady_passes, jumpy = [0.1] * 50, [0.1] * 40 + [0.2] * 10
    times = {PLAIN: [steady_passes] * LAST, OTHER: [jumpy] * LAST}
    choice = choice_of(write_choice(tmp_path / "run", times, limits))
    assert choice.chosen.case == PLAIN
    assert choice.open == ()
    assert "p90 100 ms" in choice.says[0]


def test_a_limit_that_nothing_keeps(tmp_path):
    times = {PLAIN: steady(0.3, 1), NHWC: steady(0.2, 1)}
    choice = choice_of(write_choice(tmp_path / "run", times, Limits(deadline_s=0.01)))
    assert choice.chosen is None
    assert choice.says[0].startswith("Nothing keeps every limit. The fastest there is: a nhwc, 200")
    assert [each.why for each in choice.candidates] == ["deadline", "deadline"]


def test_what_was_left_alone_and_never_judged_is_named(tmp_path):
    times, scores = {NHWC: steady(0.1), PLAIN: steady(0.2, 1)}, {NHWC: 0.5}
    choice = choice_of(write_choice(tmp_path / "run", times, Limits(miou=0.9), scores))
    assert choice.chosen is None
    assert "Nothing that was measured to the end keeps every limit" in choice.says[0]
    assert "Left alone for a faster one, and not judged: a plain" in choice.says[0]
    assert choice.front == ()


def test_of_a_single_launch_a_deadline_is_undecided_unless_it_is_hopeless(tmp_path):
    for seconds, said in ((0.1, "undecided"), (0.11, "undecided"), (0.2, "missed")):
        folder = tmp_path / f"{seconds}"
        choice = choice_of(write_choice(folder, {PLAIN: [seconds]}, Limits(deadline_s=0.105)))
        assert choice.candidates[0].limits == {"deadline": said}
        assert choice.chosen is None
    assert "Undecided: a plain (deadline: one launch)." in choice_of(tmp_path / "0.1").says


def test_what_was_left_alone_is_not_on_the_front(tmp_path):
    # What would have won by the launches it had is called back; this one would not have.
    times = {ORT: [0.1] * LAST, PLAIN: [0.12]}
    unknown = {ORT: {"peak_bytes": None}}
    choice = choice_of(write_choice(tmp_path / "run", times, changes=unknown))
    assert choice.front == ("a onnxruntime",)


def test_ways_in_a_precision_that_is_not_native_are_rows(tmp_path):
    note = "bf16 is only emulated on cpu here and left out; --dtype bf16 measures it"
    folder = write_choice(
        tmp_path / "run", {PLAIN: steady(0.1)}, ways=["plain", "nhwc+bf16?"], left_out=[note]
    )
    plain, left_out = choice_of(folder).candidates
    assert (plain.status, left_out.name) == ("ok", "a nhwc+bf16")
    assert (left_out.status, left_out.reason) == ("unsupported", note)


TRAINED = replace(PLAIN, model="trained:a")


def test_what_is_still_to_be_scored_is_said_and_nothing_is_chosen(tmp_path):
    data = {"asked": "gta5", "split": "val"}
    times = {TRAINED: steady(0.1), replace(TRAINED, memory_format="nhwc"): steady(0.2, 1)}
    choice = choice_of(write_choice(tmp_path / "run", times, data=data))
    assert (choice.chosen, choice.finished) == (None, False)
    assert choice.says == ("Not scored yet: trained:a plain; 'dabench choose --resume' goes on.",)


def test_a_score_that_failed_says_why(tmp_path):
    data = {"asked": "gta5", "split": "val"}
    folder = write_choice(
        tmp_path / "run", {TRAINED: steady(0.1)}, Limits(miou=0.1), {TRAINED: None}, data=data
    )
    choice = choice_of(folder)
    assert choice.finished
    assert choice.candidates[0].why == "accuracy not known: oom: out of memory"
    assert "Not scored: trained:a plain: oom: out of memory." in choice.says
    assert choice.to_frame()["unscored"].tolist() == ["oom: out of memory"]


def test_what_has_no_figure_for_a_limit_does_not_drive_out_what_has_one():
    plan = planned(PLAIN, NHWC, ORT)
    known = launches({PLAIN: [0.3], NHWC: [0.2]})
    unknown = {ORT.case_id: [make_launch(ORT, [0.1] * 3, peak_bytes=None)]}
    wanted = Halver(Limits(memory_bytes=1e9), plan)({**known, **unknown})
    assert wanted == {ORT.case_id, NHWC.case_id}
    # What is over it gets no further launch, however fast.
    large = {ORT.case_id: [make_launch(ORT, [0.1] * 3, peak_bytes=1 << 40)]}
    assert Halver(Limits(memory_bytes=1e9), plan)({**known, **large}) == {NHWC.case_id}


def test_accuracies_of_other_classes_are_not_compared(tmp_path):
    for name, classes in (("city", CITYSCAPES.names), ("cam", CAMVID.names)):
        write_run(tmp_path / name, new_state(classes), "weights.pt")
    names = [f"trained:{tmp_path / name}" for name in ("city", "cam")]
    for models in (names, names[::-1]):
        with pytest.raises(UsageError, match=r"--checkpoints: .* classes and .*, not the same"):
            data_for("gta5", None, models, {})


def test_a_checkpoint_that_is_named_twice_is_one(tmp_path):
    write_run(tmp_path / "run", new_state(CITYSCAPES.names), "weights.pt")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    checkpoints = [str(tmp_path / name) for name in ("run", "link")]
    shape = {"models": [], "ways": [], "shape": {}, "limits": Limits(), "seed": 0}
    asked = asked_for(checkpoints=checkpoints, **shape)
    assert asked.models == (f"trained:{tmp_path / 'run'}",)


def test_a_limit_at_the_edge_and_a_memory_that_nobody_knows_are_undecided(tmp_path):
    wide = [0.09, 0.11] * (LAST // 2)
    choice = choice_of(write_choice(tmp_path / "a", {PLAIN: wide}, Limits(deadline_s=0.1)))
    assert choice.chosen is None
    assert choice.says[0].startswith("Nothing is sure to keep every limit. The fastest there is: a")
    assert choice.says[1] == "Undecided: a plain (deadline: the interval spans it)."
    limits, unknown = Limits(memory_bytes=1e9), {ORT: {"peak_bytes": None}}
    folder = write_choice(tmp_path / "b", {ORT: steady(0.1)}, limits, changes=unknown)
    assert choice_of(folder).candidates[0].limits == {"memory": "unknown"}
    folder = write_choice(tmp_path / "c", {ORT: steady(0.1)}, Limits(memory_bytes=1e3))
    assert choice_of(folder).candidates[0].limits == {"memory": "missed"}


def test_what_failed_is_a_row_with_its_reason(tmp_path):
    failed = {NHWC: {"status": "oom", "reason": "out of memory", "phases": ()}}
    times = {PLAIN: steady(0.1), NHWC: steady(0.1, 1)}
    choice = choice_of(write_choice(tmp_path / "run", times, changes=failed))
    assert choice.chosen.case == PLAIN
    frame = choice.to_frame()
    assert tuple(frame.columns) == COLUMNS
    assert frame.iloc[-1][["status", "reason"]].tolist() == ["oom", "out of memory"]


def test_a_race_that_was_cut_off_says_so(tmp_path):
    choice = choice_of(write_choice(tmp_path / "run", {PLAIN: steady(0.1, 2)}))
    assert not choice.finished
    assert choice.says[0].startswith("The race was not run to its end")


def test_a_report_with_its_picture(tmp_path):
    times = {PLAIN: steady(0.1), NHWC: steady(0.2, 1), OTHER: steady(0.2)}
    scores = {PLAIN: 0.6, OTHER: 0.7}
    folder = write_choice(
        tmp_path / "run", times, Limits(deadline_s=0.5, miou=0.1), scores, synthetic=True
    )
    document, table = write_report([folder], folder=tmp_path, name="deploy")
    text = document.read_text(encoding="utf-8")
    assert "## Which to deploy on Test CPU, 4 cores, cpu, batch 1" in text
    assert "Limits: p50 of a pass within 500 ms, mIoU of at least 10%." in text
    assert "| a | nhwc | 200 ms | - | 1 | 1 MiB | - | left alone after 1 |" in text
    assert "mIoU on streets, val split, 64 frames" in text
    assert "**Synthetic data.**" in text
    assert (tmp_path / "deploy-choice.png").stat().st_size > 5000
    rows = pd.read_csv(table)
    assert rows["chosen"].sum() == 1
    assert rows["run_id"].tolist() == ["run"] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ways", "fast"), "--ways: 'fast' is not allowed"),
        (("--models", "nope"), "--models: unknown model 'nope'"),
        (("--checkpoints", "gone", "--data", "gta5"), "gone holds no weights of a training"),
        (("--size", "64x64,32x32"), "--size: '64x64,32x32' is not allowed; choose takes one value"),
        (("--deadline", "-1"), "--deadline: '-1' is not allowed"),
        (("--device", "cuda:99"), "device 'cuda:99' is not available"),
        (("--resume", "gone"), "gone holds no run"),
        (("--resume", "gone", "--ways", "nhwc"), "leave out '--ways'"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path):
    shown = dabench("choose", *arguments, cwd=tmp_path)
    assert shown.returncode == 2
    assert len(shown.stderr.splitlines()) == 1
    assert message in shown.stderr
    assert not list(tmp_path.iterdir())
