"""Suites on machines that are not there: whose turn it is, what is lost, what comes home."""

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from records import ENVIRONMENT
from suites import write_suite

from dabench.base.errors import DabenchError, UsageError
from dabench.cli.clusters import check_spread
from dabench.data.roots import PAIRS, Places
from dabench.plan.places import Place
from dabench.plan.trained import CHECKPOINTS
from dabench.records.folder import read_run
from dabench.run.cluster import Found
from dabench.run.pool import FaultError, Kind, LostError, Node
from dabench.training import spread
from dabench.training.config import TrainConfig
from dabench.training.deciding import parse_claim
from dabench.training.remote import prepare
from dabench.training.spread import Asked, resume_spread_suite, spread_suite
from dabench.training.storage import Mirror, Storage
from dabench.training.suite import plan_decision, plan_suite

CPU = {**ENVIRONMENT, "usable_cores": 4, "gpus": [], "devices": ["cpu"]}
GPU = {**CPU, "cpu": "Host of GPUs", "gpus": ["GPU", "GPU"], "devices": ["cuda", "cpu"]}
DATA = {"asked": "gta2city", "title": "a -> b", "synthetic": False, "pair": "gta2city",
        "evaluated_split": "val"}  # fmt: skip
ASKED = Asked("gta2city", DATA, Places({}, PAIRS), {}, None)
BASE = TrainConfig(
    pair="gta2city", method="augment", steps=2, threads=2, segmenter_dtype="fp32", disc_dtype="fp32"
)


def nodes(environment, *names, slots=1.0):
    return tuple(Node(name, name, name, slots, environment, frozenset()) for name in names)


class Seen:
    """An observer that keeps what it hears."""

    def __init__(self):
        self.notes, self.ended, self.epochs = [], [], 0

    def run(self, name, number, of, batch):
        self.begun = name

    def done(self, name, result):
        assert name == self.begun
        self.ended.append(name)

    def epoch(self, row):
        self.epochs += 1

    def note(self, text):
        self.notes.append(text)


class Launch:
    def __init__(self, result):
        self._result = result

    def result(self, seconds):
        if isinstance(self._result, Exception):
            raise self._result
        return self._result

    def cancel(self):
        pass


class Cluster:
    """A cluster whose machines train by a function: (node, name, before) -> answer or error."""

    ray_version = "2"
    data = DATA

    def __init__(self, train, *kinds, files):
        self._train, self._kinds, self._files = train, kinds, files
        self.trained, self.claims, self.requests = [], set(), []
        self._lock = threading.Lock()

    def found(self, networks):
        return Found(list(self._kinds), ["far away is busy"])

    def sent(self, content):
        return content

    def begin(self, function, node, slots, gpus, request, before=None):
        self.claims.add((slots, gpus))
        if function is prepare:
            self.requests.append(request)
            return Launch({"runs": request["runs"], "data": self.data, "notes": ["settled"]})
        name = request["name"]
        with self._lock:
            self.trained.append((name, node.name))
        answer = self._train(node.name, name, before)
        return Launch(answer or self.good(name, request["suite"]))

    def good(self, name, suite, digest="same", miou=0.3):
        config = suite["runs"][name]
        miou += (config["method"] == "adabn") * (0.1 + 0.001 * config["seed"])
        result = {"status": "ok", "miou": miou, "accuracy": 0.5, "disc_loss": None}
        data = {"digests": {"training": "t", "target": None, "evaluation": digest}}
        run = {**json.loads(self._files["run.json"]), "data": data}
        files = {**self._files, "run.json": json.dumps(run).encode(),
                 "result.json": json.dumps(result).encode(), "weights.pt": b"weights"}  # fmt: skip
        return {"result": result, "files": files, "notes": []}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Makes clusters of this module's kind the ones that are connected to."""
    written = write_suite(tmp_path, "home", seeds=(0,)) / "augment-seed0"
    files = {path.name: path.read_bytes() for path in written.iterdir() if path.name != ".lock"}

    def use(train, *kinds):
        cluster = Cluster(train, *kinds, files=files)

        @contextmanager
        def connected(where, luggage):
            yield cluster

        monkeypatch.setattr(spread, "connected", connected)
        return cluster

    return use


def begun(plan, folder, observer=None, question=None, storage=None):
    return spread_suite(
        plan, ASKED, place=Place(), folder=folder, command="dabench train", storage=storage,
        observer=observer or Seen(), question=question,
    )  # fmt: skip


def fine(node, name, before):
    return None


def test_runs_share_the_cores_of_machines_and_come_home(place, tmp_path):
    cluster = place(fine, Kind("k", nodes(CPU, "a", "b")))
    plan, seen = plan_suite(BASE, ("augment", "minent"), ("disc",), (0, 1)), Seen()
    results = begun(plan, tmp_path / "run", seen)
    assert list(results) == [planned.name for planned in plan]
    assert {name for name, _ in cluster.trained} == set(results)
    # Two cores of four: half a machine each.
    assert cluster.claims == {(0.5, 0)}
    document = read_run(tmp_path / "run", "suite")
    assert document["environment"]["cpu"] == CPU["cpu"]
    assert document["cluster"] == {
        "ray": "2", "left_out": ["far away is busy"], "storage": None, "nodes": ["a", "b"],
        "at_once_on_each": 2,
    }  # fmt: skip
    assert {config["threads"] for config in document["runs"].values()} == {2}
    for name in results:
        assert (tmp_path / "run" / name / "weights.pt").read_bytes() == b"weights"
        assert json.loads((tmp_path / "run" / name / "result.json").read_text())["status"] == "ok"
    assert json.loads((tmp_path / "run" / "released.json").read_text())["augment"]
    assert sorted(seen.ended) == sorted(results)
    assert seen.epochs == 2 * len(results)
    assert {"left out: far away is busy", "settled"} <= set(seen.notes)


def test_on_gpus_each_run_has_one(place, tmp_path):
    cluster = place(fine, Kind("k", nodes(CPU, "a")), Kind("g", nodes(GPU, "b")))
    begun(plan_suite(BASE, ("augment",), ("disc",), (0,)), tmp_path / "cpu")
    assert {node for _, node in cluster.trained} == {"a"}
    cluster.claims.clear()
    begun(plan_suite(replace(BASE, device="cuda"), ("augment",), ("disc",), (0,)), tmp_path / "gpu")
    assert cluster.trained[-1][1] == "b"
    assert cluster.claims == {(0.5, 1)}
    assert {each["device"] for each in cluster.requests[-1]["runs"].values()} == {"cuda"}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(spread, "AGAIN_S", 0.0)


def test_what_is_lost_is_begun_again_on_another_machine(place, tmp_path):
    both = threading.Barrier(2)
    lost = []

    def train(node, name, before):
        if len(lost) < 1:
            both.wait(60)
        if node == "b" and not lost:
            lost.append(name)
            return LostError("worker died")
        return None

    cluster = place(train, Kind("k", nodes({**CPU, "usable_cores": 2}, "a", "b")))
    seen = Seen()
    plan = plan_suite(BASE, ("augment", "minent"), ("disc",), (0,))
    assert len(begun(plan, tmp_path / "run", seen)) == 2
    assert [node for name, node in cluster.trained if name == lost[0]] == ["b", "a"]
    assert any("lost on b (worker died)" in note for note in seen.notes)


def test_nothing_is_begun_on_a_machine_that_is_gone(place, tmp_path):
    both = threading.Barrier(2)
    begun_on = []

    def train(node, name, before):
        begun_on.append(node)
        if len(begun_on) <= 2:
            both.wait(60)
        return LostError("node died", gone=True) if node == "b" else None

    place(train, Kind("k", nodes({**CPU, "usable_cores": 2}, "a", "b")))
    plan = plan_suite(BASE, ("augment", "minent", "fda"), ("disc",), (0,))
    assert len(begun(plan, tmp_path / "run")) == 3
    assert begun_on.count("b") == 1


def test_nodes_of_one_host_have_its_cores_together(place, tmp_path):
    several = tuple(Node(name, name, "one host", 1.0, CPU, frozenset()) for name in ("a", "b", "c"))
    at_once, most = [], []

    def train(node, name, before):
        at_once.append(name)
        most.append(len(at_once))
        time.sleep(0.05)
        at_once.remove(name)

    place(train, Kind("k", several))
    begun(plan_suite(BASE, ("augment",), ("disc",), range(9)), tmp_path / "run")
    assert max(most) <= 3


def test_other_data_than_the_users_are_refused_before_anything_is_trained(place, tmp_path):
    cluster = place(fine, Kind("k", nodes(CPU, "a")))
    cluster.data = {**DATA, "title": "synthetic a -> b", "synthetic": True}
    with pytest.raises(
        UsageError, match="gta2city is synthetic a -> b on the cluster's machines and a -> b here"
    ):
        begun(plan_suite(BASE, ("augment",), ("disc",), (0,)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_fault_is_not_tried_again_and_the_others_end(place, tmp_path, monkeypatch):
    both, known = threading.Barrier(2), threading.Event()
    failed = spread._Suite._failed

    def noted(self, error):
        failed(self, error)
        known.set()

    monkeypatch.setattr(spread._Suite, "_failed", noted)

    def train(node, name, before):
        both.wait(60)
        if name == "augment-seed0":
            return FaultError("CUDA out of memory")
        assert known.wait(60)
        return None

    cluster = place(train, Kind("k", nodes({**CPU, "usable_cores": 2}, "a", "b")))
    plan = plan_suite(BASE, ("augment", "minent", "fda"), ("disc",), (0,))
    with pytest.raises(DabenchError, match=r"augment-seed0 on .: CUDA out of memory"):
        begun(plan, tmp_path / "run")
    assert len(cluster.trained) == 2
    assert (tmp_path / "run" / "minent-seed0" / "result.json").exists()


def test_results_of_other_frames_are_refused_after_a_resume_too(place, tmp_path):
    def train(node, name, before):
        return LostError("gone", gone=True) if name == "minent-seed0" else None

    one = Kind("k", nodes({**CPU, "usable_cores": 2}, "a"))
    place(train, one)
    plan = plan_suite(BASE, ("augment", "minent"), ("disc",), (0,))
    with pytest.raises(DabenchError, match="no node"):
        begun(plan, tmp_path / "run")

    def other(node, name, before):
        return cluster.good(name, {"runs": {name: {"method": "minent", "seed": 0}}}, "another")

    cluster = place(other, one)
    with pytest.raises(UsageError, match="a has other evaluation frames"):
        resume_spread_suite(tmp_path / "run", ASKED, place=Place(), observer=Seen())


def test_without_a_machine_what_was_trained_is_kept_and_goes_on(place, tmp_path):
    def train(node, name, before):
        return LostError("gone", gone=True) if name == "minent-seed0" else None

    one = Kind("k", nodes({**CPU, "usable_cores": 2}, "a"))
    place(train, one)
    plan = plan_suite(BASE, ("augment", "minent"), ("disc",), (0,))
    with pytest.raises(DabenchError, match="no node of k is left; what was trained is kept"):
        begun(plan, tmp_path / "run")
    again = place(fine, one)
    results = resume_spread_suite(tmp_path / "run", ASKED, place=Place(), observer=Seen())
    assert list(results) == ["augment-seed0", "minent-seed0"]
    assert again.trained == [("minent-seed0", "a")]
    place(fine, Kind("g", nodes(GPU, "b")))
    with pytest.raises(
        UsageError, match=r"no machine here is of the kind that .* needs: g: cpu was"
    ):
        resume_spread_suite(tmp_path / "run", ASKED, place=Place(), observer=Seen())
    with pytest.raises(UsageError, match="was not begun on a cluster"):
        resume_spread_suite(tmp_path / "home", ASKED, place=Place(), observer=Seen())


def test_what_is_lost_again_and_again_ends_the_suite(place, tmp_path):
    cluster = place(lambda *_: LostError("out of memory"), Kind("k", nodes(CPU, "a")))
    with pytest.raises(DabenchError, match="augment-seed0 was lost 3 times: out of memory"):
        begun(plan_suite(BASE, ("augment",), ("disc",), (0,)), tmp_path / "run")
    assert len(cluster.trained) == 3


def test_what_recomputes_goes_on_from_the_weights_that_came_home(place, tmp_path):
    given = {}

    def train(node, name, before):
        given[name] = before

    cluster = place(train, Kind("k", nodes(CPU, "a", "b")))
    begun(plan_suite(BASE, ("adabn", "augment"), ("disc",), (0,)), tmp_path / "run")
    assert [name for name, _ in cluster.trained] == ["augment-seed0", "adabn-seed0"]
    assert given["augment-seed0"] == {}
    assert given["adabn-seed0"]["augment-seed0"]["weights.pt"] == b"weights"


def test_a_claim_gets_no_more_seeds_than_decide_it(place, tmp_path):
    cluster = place(fine, Kind("k", nodes(CPU, "a", "b")))
    claim = parse_claim("adabn > augment by 1", "disc")
    plan, question = plan_decision(BASE, claim, (), ("disc",), (0, 1, 2), 6)
    results = begun(plan, tmp_path / "run", question=question)
    assert sorted(results) == sorted(f"{m}-seed{s}" for m in ("adabn", "augment") for s in range(3))
    assert len(cluster.trained) == 6


@pytest.mark.parametrize("what", ["frames", "error"])
def test_a_machine_with_other_data_ends_the_suite(what, place, tmp_path):
    def train(node, name, before):
        if name == "augment-seed0":
            return None
        if what == "error":
            return {"error": "--camvid-root: '/x' is no folder"}
        return cluster.good(name, {"runs": {name: {"method": "augment", "seed": 1}}}, "another")

    cluster = place(train, Kind("k", nodes({**CPU, "usable_cores": 2}, "a")))
    words = "a has other evaluation frames" if what == "frames" else "--on: a: --camvid-root"
    with pytest.raises(UsageError, match=words):
        begun(plan_suite(BASE, ("augment",), ("disc",), (0, 1)), tmp_path / "run")
    assert (tmp_path / "run" / "augment-seed0" / "result.json").exists()
    assert not (tmp_path / "run" / "augment-seed1").exists()


def test_no_machine_is_large_enough(place, tmp_path):
    place(fine, Kind("k", nodes({**CPU, "usable_cores": 1}, "a")))
    plan = plan_suite(BASE, ("augment",), ("disc",), (0,))
    with pytest.raises(UsageError, match="--threads: '2' is not allowed; machines have 1 cores"):
        begun(plan, tmp_path / "run")
    # Another kind has enough.
    small = {**CPU, "cpu": "small", "usable_cores": 1}
    cluster = place(fine, Kind("s", nodes(small, "a", "b")), Kind("k", nodes(CPU, "c")))
    begun(plan, tmp_path / "other")
    assert cluster.trained == [("augment-seed0", "c")]
    assert not (tmp_path / "run").exists()


@pytest.fixture
def run(tmp_path):
    """A run's folder in the middle of a training, and its storage."""
    folder = tmp_path / "run"
    (folder / CHECKPOINTS).mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / ".lock").touch()
    return folder, Storage(str(tmp_path / "store" / "run"))


def test_a_storage_has_what_a_run_goes_on_from(run, tmp_path):
    folder, storage = run
    mirror = Mirror(storage, folder)
    for step in range(3):
        (folder / "epochs.csv").write_text(f"{step}")
        (folder / CHECKPOINTS / f"step-{step}.pt").write_text(f"{step}")
        if step == 2:
            (folder / CHECKPOINTS / "step-0.pt").unlink()
        mirror.epoch_done()
    expected = ["checkpoints/step-1.pt", "checkpoints/step-2.pt", "epochs.csv", "run.json"]
    assert storage.names() == expected
    # Cut off while it was written.
    (tmp_path / "store" / "run" / "epochs.csv.part").write_text("half")
    Mirror(storage, tmp_path / "elsewhere").restore()
    assert (tmp_path / "elsewhere" / "epochs.csv").read_text() == "2"
    assert not (tmp_path / "elsewhere" / "epochs.csv.part").exists()
    storage.remove()
    assert storage.names() == []
    storage.remove()


def test_rows_are_there_before_the_checkpoint_that_follows_them(run, monkeypatch):
    folder, storage = run
    (folder / "epochs.csv").touch()
    (folder / CHECKPOINTS / "step-1.pt").touch()
    order = []
    monkeypatch.setattr(storage, "put", lambda path, name: order.append(name))
    Mirror(storage, folder).epoch_done()
    assert order == ["epochs.csv", "run.json", "checkpoints/step-1.pt"]


def test_what_says_that_a_run_is_over_is_stored_last(run, monkeypatch):
    folder, storage = run
    for name in ("result.json", "weights.pt", "epochs.csv"):
        (folder / name).touch()
    order = []
    monkeypatch.setattr(storage, "put", lambda path, name: order.append(name))
    Mirror(storage, folder).epoch_done()
    assert order == ["epochs.csv", "run.json", "weights.pt", "result.json"]


def test_a_storage_is_tried_as_it_is_used(tmp_path):
    storage = Storage(f"file://{tmp_path}/store")
    storage.check()
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("here", "it takes a URL, or a path from the root"),
        ("nothing://x", "Protocol not known: nothing"),
        ("memory://x", "what is there ends with the process"),
    ],
)
def test_a_storage_that_is_none_is_one_line(url, words):
    with pytest.raises(UsageError, match=f"--storage: '{url}' is not allowed; {words}"):
        check_spread("ray", url, 1)


def test_a_password_does_not_go_into_records():
    with pytest.raises(UsageError, match="a URL with a password is not allowed") as refused:
        check_spread("ray", "ftp://me:hunter2@host/x", 1)
    assert "hunter2" not in str(refused.value)


def test_a_storage_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="it cannot be written: Not a directory"):
        Storage(str(tmp_path / "file" / "folder")).check()
    with pytest.raises(UsageError, match="it cannot be written"):
        Storage(str(tmp_path / "file" / "folder")).put(tmp_path / "file", "x")


def test_a_busy_machine_is_not_waited_for_without_end(place, tmp_path, monkeypatch):
    cluster = place(fine, Kind("k", nodes(CPU, "a", "b")))
    begin, ended = cluster.begin, []

    def busy(function, node, *arguments):
        if node.name == "b":
            return begin(function, node, *arguments)
        launch = Launch(None)
        launch.cancel = lambda: ended.append(node.name)
        return launch

    monkeypatch.setattr(cluster, "begin", busy)
    seats = spread._Seats(cluster, cluster.found({}).kinds[0], "cpu", 2)
    assert seats.ask(prepare, {"runs": {}})["notes"] == ["settled"]
    assert ended == ["a"]
    monkeypatch.setattr(cluster, "begin", lambda *_: Launch(LostError("gone")))
    with pytest.raises(UsageError, match="no node says what it would train: a: gone; b: gone"):
        seats.ask(prepare, {"runs": {}})


def test_what_only_a_cluster_has_or_has_not():
    check_spread(None, None, 8)
    check_spread("ray", None, 1)
    with pytest.raises(UsageError, match="--storage: it is of a cluster; name that by --on"):
        check_spread(None, "/x", 1)
    with pytest.raises(UsageError, match="--nproc: '2' is not allowed; a run on a cluster is one"):
        check_spread("ray", None, 2)
    with pytest.raises(UsageError, match="--on: 'x' is not allowed"):
        check_spread("x", None, 1)
