"""Settings, grids, cases and their order."""

import pytest

from dabench.base.errors import UsageError
from dabench.plan.cases import Case, expand, launch_order, schedule
from dabench.plan.devices import resolve_all
from dabench.plan.grids import load_grids, presets
from dabench.plan.settings import Grid, Settings
from dabench.run.session import merged_plan


def cases(settings=None, **axes):
    axes.setdefault("devices", ("cpu",))
    return expand(Grid(**axes), settings or Settings.of(repeat=1))


def test_every_combination_is_a_case():
    planned = cases(
        models=("disc", "dw-disc"),
        batches=(1, 2),
        sizes=((64, 64), (32, 64)),
        modes=("train", "eval"),
        dtypes=("fp32", "bf16"),
        memory_formats=("nchw", "nhwc"),
        threads=(1, 2),
        protocols=("steady", "paper"),
    )
    assert len(planned) == 2**8
    assert len({p.case.case_id for p in planned}) == 2**8


def test_families_bring_their_own_sizes():
    disc, segmenter = cases(models=("disc", "stdc1-bisenet"))
    assert (disc.case.channels, disc.case.height, disc.case.width) == (19, 1024, 512)
    assert (segmenter.case.channels, segmenter.case.height, segmenter.case.width) == (3, 512, 1024)


def test_phases_follow_mode_and_protocol():
    by_mode = {p.case.mode: p.case.phases for p in cases(models=("disc",), modes=("train", "eval"))}
    assert by_mode == {
        "train": ("forward", "backward", "optimizer", "total"),
        "eval": ("forward",),
    }
    (paper,) = cases(models=("disc",), modes=("train",), protocols=("paper",))
    assert paper.case.phases == ("forward",)


def test_a_mode_without_the_phase_asked_for_keeps_a_row():
    train, evaluation = cases(models=("disc",), modes=("train", "eval"), phases=("backward",))
    assert (train.case.phases, train.impossible) == (("backward",), None)
    assert (evaluation.case.mode, evaluation.case.phases) == ("eval", ("backward",))
    assert "only forward" in evaluation.impossible


def test_impossible_cases_are_kept_with_their_reason():
    train, other = cases(models=("stdc1-bisenet",), modes=("train",), batches=(1, 2))
    assert "batch-normalises a 1x1 map" in train.impossible
    assert other.impossible is None
    (tf32,) = cases(models=("disc",), dtypes=("tf32",))
    assert "cuda" in tf32.impossible


def test_aliases_become_names():
    assert cases(models=("depthwise",))[0].case.model == "dw-disc"


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"models": ("nope",)}, "--model: unknown model 'nope'"),
        ({"models": ("disc",), "sizes": ((65, 64),)}, "--size: '65x64'.*multiples of 32"),
        ({"models": ("disc",), "sizes": ((0, 64),)}, "--size: '0x64'"),
        ({"models": ("disc",), "batches": (0,)}, "--batch: '0'"),
        ({"models": ("disc",), "threads": (-1,)}, "--threads: '-1'"),
        ({"models": ("disc",), "modes": ("both",)}, "--mode: 'both'.*train, eval"),
        ({"models": ("disc",), "dtypes": ("fp8",)}, "--dtype: 'fp8'.*bf16"),
        ({"models": ("disc",), "memory_formats": ("x",)}, "--memory-format: 'x'.*nhwc"),
        ({"models": ("disc",), "devices": ("gpu",)}, "--device: 'gpu'.*cuda"),
        ({"models": ("disc",), "protocols": ("fast",)}, "--protocol: 'fast'.*paper"),
        ({"models": ("disc",), "phases": ("warm",)}, "--phase: 'warm'.*backward"),
        ({"models": ("disc",), "phases": ("backward",)}, "--phase: 'backward'.*only forward"),
        ({"models": ()}, "--model: ''"),
    ],
)
def test_bad_axes_name_option_value_and_choices(axes, message):
    with pytest.raises(UsageError, match=message) as error:
        cases(**axes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"repeat": 0}, "--repeat: '0'"),
        ({"launches": 0}, "--launches: '0'"),
        ({"warmup": -1}, "--warmup: '-1'"),
        ({"target_ci": 0.0}, "--target-ci: '0.0'"),
        ({"target_ci": 1.5}, "--target-ci: '1.5'"),
        ({"max_time_s": 0.0}, "--max-time: '0.0'"),
        ({"timeout_s": -1.0}, "--timeout: '-1.0'"),
        ({"order": "sorted"}, "--order: 'sorted'.*interleaved"),
    ],
)
def test_bad_settings_name_option_and_value(given, message):
    with pytest.raises(UsageError, match=message):
        Settings.of(**given)


def test_a_fixed_repeat_has_neither_target_nor_limit_unless_given():
    assert Settings.of(repeat=5).target_ci is None
    assert Settings.of(repeat=5).max_time_s is None
    assert Settings.of(repeat=5, max_time_s=3.0).max_time_s == 3.0
    assert Settings.of().target_ci == 0.05
    assert Settings.of().max_time_s == 30.0


def test_interleaved_launches_alternate_and_blocked_ones_do_not():
    names = ("disc", "dw-disc", "diag-disc")
    interleaved = [p.case.model for _, p in schedule(cases(Settings.of(launches=4), models=names))]
    for start in range(0, 12, 3):
        assert sorted(interleaved[start : start + 3]) == sorted(names)
    blocked = cases(Settings.of(launches=4, order="blocked"), models=names)
    assert [p.case.model for _, p in schedule(blocked)] == [n for n in names for _ in range(4)]


def test_the_order_is_the_seeds():
    planned = cases(models=("disc",), batches=tuple(range(1, 20)))
    orders = [
        launch_order(planned, round_index=i, seed=s) for i, s in ((0, 0), (0, 0), (1, 0), (0, 1))
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != orders[3]


def test_impossible_cases_are_never_launched():
    planned = cases(models=("stdc1-bisenet",), modes=("train",), batches=(1, 2))
    assert {p.case.batch for _, p in schedule(planned)} == {2}


def test_cases_survive_json():
    case = cases(models=("disc",), modes=("train",))[0].case
    assert Case.of(case.to_dict()) == case


@pytest.mark.parametrize("name", presets())
def test_presets_are_grids(name):
    if name == "hub-smp":
        pytest.importorskip("segmentation_models_pytorch")
    for grid, settings in load_grids(name):
        cpu = Grid(models=grid.models, devices=("cpu",), modes=grid.modes, phases=grid.phases)
        assert expand(cpu, settings)


def test_the_papers_presets_have_its_shapes():
    (as_printed, _), (steady, _) = load_grids("paper-cpu")
    assert as_printed.protocols == ("paper",)
    assert as_printed.batches == steady.batches == (8,)
    assert load_grids("paper-gpu")[0][0].batches == (32,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid = 3", "nothing to measure"),
        ("[[grid]]\nbatch = 2", "without 'model'"),
        ('[[grid]]\nmodel = "disc"\ncolour = 3', "unknown key 'colour'; known: model"),
        ('[gird]\nmodel = "disc"', "unknown key 'gird'"),
        ("[[grid]", "not TOML"),
        ("grid = [1]", r"1 is not a \[\[grid\]\] table"),
        ("[[grid]]\nmodel = []", "--model: .* at least one value"),
        ('[[grid]]\nmodel = "disc"\nbatch = []', "--batch: .* at least one value"),
        ('[[grid]]\nmodel = "disc"\nseed = -1', "--seed: '-1'"),
        ('[[grid]]\nmodel = "disc"\nbatch = "many"', "--batch: 'many'.*whole numbers"),
        ('[[grid]]\nmodel = "disc"\nsize = 64', "--size: '64'.*HxW"),
        ('[[grid]]\nmodel = "disc"\nrepeat = 0', "--repeat: '0'"),
    ],
)
def test_bad_grid_files_name_file_and_key(tmp_path, text, message):
    path = tmp_path / "grid.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        load_grids(str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_grid_file_says_what_the_options_say(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(
        '[[grid]]\nmodel = ["disc", "dw-disc"]\nbatch = [1, 2]\nsize = "64x64"\n'
        'target_ci = "2%"\nmax_time = "1min"\nthreads = 2\nseed = 7\n'
    )
    ((grid, settings),) = load_grids(str(path))
    assert grid == Grid(models=("disc", "dw-disc"), batches=(1, 2), sizes=((64, 64),), threads=(2,))
    assert settings == Settings.of(target_ci=0.02, max_time_s=60.0, seed=7)


def test_options_replace_a_files_values_as_if_written_there(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text('[[grid]]\nmodel = "disc"\nbatch = 4\n')
    ((grid, settings),) = load_grids(str(path), {"batch": (2,)}, {"repeat": 50})
    assert grid.batches == (2,)
    assert settings == Settings.of(repeat=50)


def test_grids_that_share_a_case_share_its_phases_or_are_refused():
    def plan(*grids):
        return merged_plan(resolve_all(grids, {"devices": ["cpu"], "gpus": [], "torch": "x"})[0])

    halves = [Grid(models=("disc",), modes=("train",), phases=(p,)) for p in ("total", "forward")]
    settings = Settings.of(repeat=3)
    (planned,) = plan(*((grid, settings) for grid in halves))
    assert planned.case.phases == ("forward", "total")
    backward, forward = (
        Grid(models=("disc",), modes=("train", "eval"), phases=(p,)) for p in ("backward", "total")
    )
    both = plan((backward, settings), (forward, settings), (Grid(models=("disc",)), settings))
    assert [(p.case.phases, p.impossible) for p in both] == [
        (("backward", "total"), None),
        (("forward",), None),
    ]
    with pytest.raises(UsageError, match=r"two grids measure disc/.* with different settings"):
        plan((halves[0], settings), (halves[1], Settings.of(repeat=4)))


def test_unknown_presets_list_the_known():
    with pytest.raises(UsageError, match="paper-cpu, paper-gpu, paper-quick, runtimes, segmenters"):
        load_grids("paper")
    with pytest.raises(UsageError, match=r"cannot read.*none\.toml"):
        load_grids("none.toml")
