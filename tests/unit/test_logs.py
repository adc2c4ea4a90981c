"""Logs of trainings, anyone's: CSV files, event files, runs of dabench, and what is none."""

import pytest
from suites import write_suite

from dabench.base.errors import UsageError
from dabench.findings.logs import METRICS, published_logs, read_all, read_logs

CSV = """run,metric,epoch,value,seconds_since_start
one,miou_val,0,0.2,10.5
one,miou_val,1,0.3,21.0
one,mine,0,1.5,
two,miou_val,0,0.25,11
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "scalars.csv"
    path.write_text(CSV)
    return path


def test_a_csv_file_holds_runs(table):
    one, two = read_logs(table, {})
    assert (one.name, one.source, one.unknown) == ("one", str(table), ("mine",))
    assert one.curves["miou"].points == (0, 1)
    assert one.curves["miou"].values == (0.2, 0.3)
    assert one.curves["miou"].seconds == (10.5, 21.0)
    assert two.unknown == ()
    mapped, _ = read_logs(table, {"mine": "loss"})
    assert mapped.curves["loss"].values == (1.5,)
    assert mapped.curves["loss"].seconds[0] != mapped.curves["loss"].seconds[0]
    assert mapped.unknown == ()


def test_columns_that_need_not_be(tmp_path):
    path = tmp_path / "plain.csv"
    path.write_text("metric,step,value\nloss,5,1.25\n")
    (log,) = read_logs(path, {})
    assert (log.name, log.curves["loss"].points) == ("plain", (5,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metric,value\nloss,1\n", "no column 'epoch'; it takes metric, epoch or step, and value"),
        ("", "no column 'metric'"),
        ("metric,epoch,value,value\nloss,0,1,2\n", "two columns of one name"),
        ("metric,epoch,value\nloss,0,much\n", "line 2: value 'much' is no number"),
        ("metric,epoch,value\n\nloss,0,much\n", "line 3: value 'much' is no number"),
        ("metric,epoch,value\nloss,0.5,1\n", "line 2: epoch '0.5' is no whole number"),
        ("metric,epoch,value\nloss,1e400,1\n", "line 2: epoch '1e400' is no whole number"),
        ("metric,epoch,value\nloss,nan,1\n", "line 2: epoch 'nan' is no whole number"),
        ("metric,epoch,value\nloss,0,1,0.3\n", "line 2: not 3 fields"),
        ("metric,epoch,value\nloss,0\n", "line 2: not 3 fields"),
        ("metric,epoch,value\nloss,0,1\nloss,0,2\n", "a scalar has two values at 0"),
        ("metric,epoch,value\nmiou,0,250\n", "miou: 250 is not allowed; a share of 0 to 1, or"),
        ("metric,epoch,value\nmiou,0,-0.5\n", "miou: -0.5 is not allowed"),
        ("\x00\x01,\x02", "no column 'metric'|not a CSV file of scalars"),
        ("metric,epoch,value\nloss,0,1\nloss,,2\n", "line 3: epoch '' is no number"),
        (CSV.replace("11\n", "soon\n"), "line 5: seconds_since_start 'soon' is no number"),
        ("metric,epoch,value\nmine,0,1\n", r"no scalar has a known name \(mine\); .*--map"),
        ("metric,epoch,value\n", "no scalar in it"),
    ],
)
def test_files_that_are_none(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_logs(path, {})


def test_what_is_said_of_scalars_is_checked(table):
    with pytest.raises(UsageError, match="--map: 'x=colour' is not allowed; metrics: loss"):
        read_all([table], {"x": "colour"})
    with pytest.raises(UsageError, match=r"--map: 'x=loss' .*; scalars: miou_val, mine"):
        read_all([table], {"x": "loss"})
    with pytest.raises(UsageError, match=r"--map: 'x=miou' .*; scalars: miou_val, mine"):
        read_all([table], {"x": "miou"})


def test_points_are_put_in_order_and_percentages_are_shares(tmp_path):
    path = tmp_path / "mixed.csv"
    path.write_text("metric,epoch,value\nmiou,2,50\nmiou,0,20\nmiou,1,nan\n")
    (log,) = read_logs(path, {})
    assert log.curves["miou"].points == (0, 1, 2)
    assert log.curves["miou"].values[::2] == (0.2, 0.5)


def test_seeds_have_one_label_and_files_of_one_run_two_names(tmp_path):
    text = "run,metric,epoch,value\n" + "".join(
        f"{run},miou,0,0.3\n" for run in ("adv-seed0", "adv-seed1", "b")
    )
    paths = [tmp_path / name for name in ("x.csv", "y.csv")]
    for path in paths:
        path.write_text(text)
    logs = read_all([*paths, paths[0]], {})
    assert len(logs) == 6
    assert [log.label for log in logs[:3]] == ["adv", "adv", "b"]
    assert [log.name for log in logs][2::3] == [f"{path}: b" for path in paths]


def test_the_published_curves_come_with_the_facts():
    logs = {log.name: log for log in published_logs()}
    assert list(logs) == ["2_A", "2_B", "2_C_2", "3", "4_A", "4_B"]
    assert (logs["3"].label, logs["3"].group) == ("adversarial disc", "gta5 -> cityscapes")
    assert (logs["3"].adversarial_weight, logs["3"].steps) == (0.001, 50 * 196)
    assert logs["2_C_2"].adversarial_weight is None
    assert logs["2_C_2"].steps == 50 * 312
    assert all(not log.unknown for log in logs.values())


def test_runs_of_dabench(tmp_path):
    suite = write_suite(tmp_path)
    logs = {log.name: log for log in read_logs(suite, {})}
    fooling = logs["adversarial-disc-seed0"]
    assert fooling.curves["adversarial_loss"].values == (0.7, 0.7)
    assert (fooling.label, fooling.adversarial_weight) == ("adversarial disc", 1.0)
    assert fooling.steps == 20
    assert "adversarial_loss" not in logs["augment-seed0"].curves
    assert logs["augment-seed0"].curves["data_s"].values == (0.5, 0.5)
    (one,) = read_logs(suite / "augment-seed0", {})
    assert (one.name, one.source) == ("augment-seed0", str(suite / "augment-seed0"))
    assert set(one.curves) <= set(METRICS)


def write_events(folder, steps):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    with tensorboard.SummaryWriter(str(folder)) as writer:
        for step in range(steps):
            writer.add_scalar("loss_step", 1 / (step + 1), step, walltime=100 + step)
        writer.add_scalar("epoch/miou_val", 0.3, 0, walltime=103.5)
        writer.add_scalar("own", 1.0, 0, walltime=104)
    return folder


@pytest.mark.extras
def test_event_files(tmp_path):
    for name in ("a", "b"):
        write_events(tmp_path / "logs" / name, 3)
    a, b = read_logs(tmp_path / "logs", {})
    assert (a.name, b.name, b.source) == ("a", "b", str(tmp_path / "logs" / "b"))
    assert b.curves["miou"].values == pytest.approx((0.3,))
    assert b.curves["loss_step"].points == (0, 1, 2)
    lasted = b.curves["miou"].seconds[0] - b.curves["loss_step"].seconds[0]
    assert lasted == pytest.approx(3.5)
    assert b.unknown == ("own",)
    (file,) = (tmp_path / "logs" / "b").iterdir()
    (alone,) = read_logs(file, {"own": "loss"})
    assert (alone.name, alone.unknown) == ("b", ())


@pytest.mark.extras
def test_no_event_is_left_out(tmp_path):
    """TensorBoard keeps a sample of 10,000 by default."""
    (log,) = read_logs(write_events(tmp_path, 10_001), {})
    assert len(log.curves["loss_step"].points) == 10_001


@pytest.mark.extras
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[: len(data) - 5], "damaged or cut off after 5 whole events"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "damaged or cut off after 5 whole events"),
        (lambda data: data[:10], "cut off after 0 whole events"),
        (lambda data: b"", "empty event file"),
        (lambda data: b"no event file, whatever its name says", "cut off after 0 whole events"),
    ],
)
def test_event_files_that_are_not_whole(tmp_path, change, message):
    (file,) = write_events(tmp_path, 3).iterdir()
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(UsageError, match=message):
        read_logs(tmp_path, {})


@pytest.mark.extras
def test_a_run_that_went_on_from_an_earlier_step_counts_once(tmp_path):
    for number, steps in enumerate((range(12), range(8, 16))):
        tensorboard = pytest.importorskip("torch.utils.tensorboard")
        with tensorboard.SummaryWriter(str(tmp_path), filename_suffix=f".{number}") as writer:
            for step in steps:
                writer.add_scalar("loss", number, step, walltime=1000 * number + step)
    (log,) = read_logs(tmp_path, {})
    assert log.curves["loss"].points == tuple(range(16))
    assert log.curves["loss"].values == (0.0,) * 8 + (1.0,) * 8


@pytest.mark.extras
def test_scalars_that_are_kept_as_tensors(tmp_path):
    """As TensorFlow 2 writes them."""
    pytest.importorskip("tensorboard")
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from torch.utils.tensorboard import FileWriter

    writer = FileWriter(str(tmp_path))
    for epoch in range(3):
        writer.add_summary(scalar_pb("miou", 0.25 * epoch), epoch)
    writer.close()
    (log,) = read_logs(tmp_path, {})
    assert log.curves["miou"].values == (0.0, 0.25, 0.5)


def test_folders_without_a_log(tmp_path):
    with pytest.raises(UsageError, match="holds no training that can be read: a run of dabench"):
        read_logs(tmp_path, {})
