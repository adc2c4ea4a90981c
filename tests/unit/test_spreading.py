"""Sweeps over kinds of machines that are not there."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from fakes import make_case
from records import ENVIRONMENT, write_medians

from dabench.base.errors import DabenchError, UsageError
from dabench.data.calibration import Calibration
from dabench.plan import variants
from dabench.plan.places import Place
from dabench.plan.settings import Grid, Settings
from dabench.records.folder import read_run
from dabench.records.timings import read_launches
from dabench.run import calibrating, spreading
from dabench.run.cluster import Found
from dabench.run.pool import Hosts, Kind, LostError, Node, NodePool
from dabench.run.session import NoProgress
from dabench.run.spreading import resume_spread, spread_grids

BIG = {**ENVIRONMENT, "cpu": "Big CPU", "gpus": ["Big GPU"], "devices": ["cuda", "cpu"]}
SMALL = {**ENVIRONMENT, "cpu": "Small CPU"}
ONCE = Settings.of(repeat=2, launches=2)


def answer(request):
    """What a worker says: of each phase two samples."""
    if request["kind"] == "count":
        return [{"kind": "failed", "status": "error", "reason": "nobody counts here"}]
    phase = {
        "kind": "phase", "warmup": [[9.0, None]], "samples": [[1.0, None]] * 2, "steady": True,
        "stop": "repeat", "spent_s": 2.0, "passes": 1, "peak_bytes": 7, "other_cores": 0.0,
        "throttled": None,
    }  # fmt: skip
    phases = [{**phase, "phase": name} for name in request["case"]["phases"]]
    return [*phases, {"kind": "done"}]


class Cluster:
    """Kinds of machines of one node each, unless it is said otherwise."""

    ray_version = "2"

    def __init__(self, *environments, nodes=1, installed=()):
        self._kinds = [
            Kind(
                env["cpu"].lower().replace(" ", "-"),
                tuple(
                    Node(
                        f"{env['cpu']}{n}",
                        f"{env['cpu']} {n}",
                        f"{env['cpu']}{n}",
                        1.0,
                        env,
                        frozenset(installed),
                    )
                    for n in range(nodes)
                ),
            )
            for env in environments
        ]
        self.hosts = Hosts()
        self.launched = []
        self.asked = []
        self.tidied = []
        self.lost = set()
        self.interrupt_at = None

    def found(self, networks):
        return Found(self._kinds, [])

    def pool(self, kind):
        return NodePool(kind, self._start, self.luggage, self.hosts)

    def tidy(self, kinds):
        self.tidied += [kind.name for kind in kinds]

    def _start(self, node, request, timeout_s):
        self.asked.append(request)
        return Launch(self, node, request)


class Launch:
    def __init__(self, cluster, node, request):
        self.cluster, self.node, self.request = cluster, node, request

    def result(self, seconds):
        cluster, request = self.cluster, self.request
        if self.node.name in cluster.lost and request["kind"] == "time":
            raise LostError("it is gone", gone=True)
        if request["kind"] == "time":
            cluster.launched.append((self.node.name, request["case"]["model"]))
            if len(cluster.launched) == cluster.interrupt_at:
                raise KeyboardInterrupt
            return [{"kind": "ran", "seconds": 1.5, "started_at": "then"}, *answer(request)]
        return answer(request)


@pytest.fixture
def spread(tmp_path, monkeypatch):
    def run(cluster, *, machines="all", resume=False, settings=ONCE, grids=1, **axes):
        @contextmanager
        def connected(place, luggage):
            cluster.luggage = luggage
            yield cluster

        monkeypatch.setattr(spreading, "connected", connected)
        if resume:
            return resume_spread(tmp_path / "run", place=Place(), observer=NoProgress())
        grid = Grid(**{"models": ("disc", "dw-disc"), "devices": ("cpu",), **axes})
        return spread_grids(
            [(grid, settings)] * grids,
            place=Place(),
            machines=machines,
            folder=tmp_path / "run",
            observer=NoProgress(),
            command="dabench sweep",
        )

    return run


def test_every_kind_measures_every_case_into_a_run_of_its_own(spread, tmp_path):
    cluster = Cluster(BIG, SMALL)
    sessions = spread(cluster)
    assert [session.environment["cpu"] for session in sessions] == ["Big CPU", "Small CPU"]
    for name, environment in (("big-cpu", BIG), ("small-cpu", SMALL)):
        said = read_run(tmp_path / "run" / name, "timing")
        assert said["environment"] == environment
        assert said["run_id"] == f"run-{name}"
        assert said["cluster"]["parts"] == ["big-cpu", "small-cpu"]
        assert len(read_launches(tmp_path / "run" / name)) == 4
    assert sorted(cluster.launched) == sorted(
        [(f"{cpu} 0", model) for cpu in ("Big CPU", "Small CPU") for model in ("disc", "dw-disc")]
        * 2
    )
    assert cluster.tidied == ["big-cpu", "small-cpu"]


def test_any_kind_measures_into_the_one_run(spread, tmp_path):
    cluster = Cluster(SMALL, BIG, nodes=2)
    (session,) = spread(cluster, machines="any")
    assert session.folder == tmp_path / "run"
    said = read_run(tmp_path / "run", "timing")
    assert (said["run_id"], said["cluster"]["parts"]) == ("run", [])
    launches = read_launches(tmp_path / "run")
    assert len(launches) == 4
    # A round is one machine's: both cases alternate on each.
    assert sorted(cluster.launched) == [
        (f"Small CPU {n}", model) for n in (0, 1) for model in ("disc", "dw-disc")
    ]
    assert sorted(each.round for each in launches) == [0, 0, 1, 1]
    assert sorted(each.launch for each in launches) == [0, 1, 2, 3]
    # How long it took there, waiting apart.
    assert {(each.seconds, each.started_at) for each in launches} == {(1.5, "then")}
    nodes = json.loads((tmp_path / "run" / "nodes.json").read_text())
    assert [each["environment"]["cpu"] for each in nodes] == ["Small CPU"] * 2
    assert all(row.launches == 2 for row in session.outcome.measurements)


def test_what_a_kind_lacks_is_a_row_there(spread):
    big, small = spread(Cluster(BIG, SMALL), devices=("cuda",), dtypes=("bf16?", "fp32"))
    assert [row.status for row in big.outcome.measurements] == ["ok"] * 4
    rows = small.outcome.measurements
    assert [(row.status, row.dtype) for row in rows] == [
        ("unsupported", "bf16"), ("unsupported", "fp32"),
    ] * 2  # fmt: skip
    assert rows[0].reason.startswith("device 'cuda' is not available: torch 2.15.0 sees no GPU")


def test_any_takes_a_kind_that_has_all_that_is_asked_for(spread):
    (session,) = spread(Cluster(SMALL, BIG), machines="any", devices=("cuda", "cpu"))
    assert session.environment["cpu"] == "Big CPU"


def test_a_device_that_no_node_has(spread, tmp_path):
    with pytest.raises(UsageError, match="--on: no node of the cluster has cuda: device 'cuda'"):
        spread(Cluster(SMALL), devices=("cuda",))
    assert not (tmp_path / "run").exists()


def test_a_folder_with_runs_is_left_alone(spread, tmp_path):
    spread(Cluster(SMALL))
    with pytest.raises(UsageError, match=r"--out: .* holds runs already; choose another folder"):
        spread(Cluster(BIG))
    assert [each.name for each in (tmp_path / "run").iterdir()] == ["small-cpu"]


def test_a_kind_that_is_lost_costs_the_others_nothing(spread, tmp_path):
    cluster = Cluster(BIG, SMALL)
    cluster.lost = {"Big CPU 0"}
    with pytest.raises(DabenchError, match="no node of big-cpu is left; what was measured is kept"):
        spread(cluster)
    assert len(read_launches(tmp_path / "run" / "small-cpu")) == 4

    with pytest.raises(UsageError, match=r"no node of the cluster is of the kind that .*big-cpu"):
        spread(Cluster(SMALL), resume=True)
    cluster.lost = set()
    big, small = spread(cluster, resume=True)
    # What is whole needs no machine any more.
    again = spread(Cluster(BIG), resume=True)
    assert [each.outcome.measurements for each in again] == [
        each.outcome.measurements for each in (big, small)
    ]
    assert [row.launches for row in small.outcome.measurements] == [2, 2]
    assert [(row.status, row.launches) for row in big.outcome.measurements] == [("ok", 2)] * 2


def test_ctrl_c_keeps_what_was_measured_and_resume_goes_on(spread, tmp_path):
    cluster = Cluster(SMALL)
    cluster.interrupt_at = 3
    (session,) = spread(cluster)
    assert session.outcome.interrupted
    before = read_launches(tmp_path / "run" / "small-cpu")
    assert len(before) == 2

    (session,) = spread(Cluster(SMALL), resume=True)
    assert not session.outcome.interrupted
    after = read_launches(tmp_path / "run" / "small-cpu")
    assert after[:2] == before
    assert [row.launches for row in session.outcome.measurements] == [2, 2]


def test_nodes_of_a_resumed_run_are_added(spread, tmp_path):
    cluster = Cluster(SMALL)
    cluster.interrupt_at = 3
    spread(cluster)
    spread(Cluster(SMALL, nodes=2), resume=True)
    nodes = json.loads((tmp_path / "run" / "small-cpu" / "nodes.json").read_text())
    assert [each["name"] for each in nodes] == ["Small CPU 0", "Small CPU 1"]


def test_a_run_that_was_begun_at_home_is_not_continued(spread, tmp_path):
    write_medians(tmp_path / "run", {make_case(): [1.0]}, environment=SMALL)
    with pytest.raises(UsageError, match="was not begun on a cluster; leave out --on"):
        spread(Cluster(SMALL), resume=True)


def test_a_case_of_two_grids_is_one_row_where_its_device_lacks(spread):
    _, small = spread(Cluster(BIG, SMALL), devices=("cpu", "cuda"), grids=2, models=("disc",))
    rows = [(row.device, row.status) for row in small.outcome.measurements]
    assert rows == [("cpu", "ok"), ("cuda", "unsupported")]


def test_a_sweep_that_was_cut_off_before_all_its_runs_were_begun(spread, tmp_path):
    spread(Cluster(BIG, SMALL))
    gone = tmp_path / "run" / "big-cpu"
    for file in gone.iterdir():
        file.unlink()
    with pytest.raises(UsageError, match="cut off before anything was measured: big-cpu is"):
        spread(Cluster(BIG, SMALL), resume=True)


def test_what_is_installed_is_the_nodes_affair(spread, monkeypatch):
    monkeypatch.setattr(variants, "find_spec", lambda _: None)
    (session,) = spread(Cluster(SMALL), models=("disc",), runtimes=("onnxruntime",))
    assert "onnxruntime is not installed" in session.outcome.measurements[0].reason


def test_a_runtime_that_only_nodes_have_is_measured_there(spread, monkeypatch):
    monkeypatch.setattr(variants, "find_spec", lambda _: None)
    cluster = Cluster(SMALL, installed=variants.PACKAGES)
    (session,) = spread(cluster, models=("disc",), runtimes=("onnxruntime",))
    assert [row.status for row in session.outcome.measurements] == ["ok"]


def test_what_int8_is_calibrated_on_goes_along(spread, tmp_path, monkeypatch):
    images = [tmp_path / f"{name}.png" for name in "ab"]
    for image in images:
        image.write_bytes(image.name.encode())
    chosen = Calibration("data, train split", False, 0, ("a", "b"), "digest", tuple(images))
    monkeypatch.setattr(calibrating, "calibration_of", lambda *_: chosen)
    monkeypatch.setattr(calibrating, "is_trained", lambda _: True)
    monkeypatch.setattr(calibrating, "trained_at", lambda _: SimpleNamespace(target="data"))
    monkeypatch.setattr(calibrating.Reference, "of", lambda _: SimpleNamespace(factory="run"))
    cluster = Cluster(SMALL, installed=variants.PACKAGES)
    spread(
        cluster, models=("disc",), devices=("auto",), dtypes=("int8?", "fp32"),
        runtimes=("onnxruntime",), calibrations=("2",),
    )  # fmt: skip
    assert list(cluster.luggage.images) == [str(image) for image in images]
    asked = [each["calibration"]["images"] for each in cluster.asked if "calibration" in each]
    assert asked == [["calibration/0.png", "calibration/1.png"]] * 2


def test_networks_go_along_as_they_are(spread, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("class Net: ...")
    spread(Cluster(SMALL), models=("net.py:Net",))
    said = json.loads((tmp_path / "run" / "small-cpu" / "run.json").read_text())
    assert list(said["networks"]) == ["net.py:Net"]
