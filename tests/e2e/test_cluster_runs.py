"""Sweeps on a real Ray cluster: nodes of this machine, and a head that is not measured on."""

import contextlib
import json
import os
import time

import clusters
import command
import psutil
import pytest
import torch
from slim import EVERYWHERE

import dabench
from dabench.data.standin import write_standin
from dabench.network import checkpoint
from dabench.records.folder import read_run
from dabench.records.timings import read_launches
from dabench.records.trainings import read_epochs

pytestmark = [pytest.mark.extras, pytest.mark.usefixtures("slim")]

NET = """
import torch
from parts.block import block


class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(block(), torch.nn.Conv2d(4, 2, 1))
"""
BLOCK = "import torch\n\n\ndef block():\n    return torch.nn.Conv2d(3, 4, 3)\n"


@pytest.fixture(scope="module")
def cluster():
    """A head, and a node that may be measured on; yields Ray's own handle."""
    pytest.importorskip("ray")
    with clusters.started(1, EVERYWHERE) as found:
        yield found


@pytest.fixture
def sweep(cluster, tmp_path, monkeypatch):
    """Runs a sweep on the cluster, from a folder of the test's own."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)

    def run(*arguments, start=False, on="ray"):
        call = command.start if start else command.dabench
        return call("sweep", *arguments, "--on", on, cwd=tmp_path, **EVERYWHERE)

    return run


def raylets(cluster):
    nodes = cluster.worker_nodes
    return {node: node.all_processes["raylet"][0].process.pid for node in nodes}


def working(cluster, task):
    """Each node and Ray's processes on it that do such a task."""
    for node, raylet in raylets(cluster).items():
        for child in psutil.Process(raylet).children():
            # It may end, or have ended, while it is asked.
            with contextlib.suppress(psutil.Error):
                # Ray names its processes after what they do.
                if child.cmdline()[:1] == [f"ray::{task}"]:
                    yield node, child


def busy(cluster):
    """The node on which a launch runs, and Ray's process that runs it."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        for node, child in working(cluster, "launch"):
            with contextlib.suppress(psutil.Error):
                if child.children():
                    return node, child
        time.sleep(0.01)
    raise AssertionError("no launch ran")


def wait_for_launches(folder, least, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        path = folder / "launches.csv"
        if path.exists() and len(path.read_text().splitlines()) > least:
            return
        time.sleep(0.01)
    raise AssertionError(f"{least} launches never came")


def test_kill_9_of_a_worker_a_node_and_the_driver_loses_nothing(cluster, sweep, tmp_path):
    arguments = ["--model", "disc,dw-disc", "--size", "128x128", "--repeat", "60"]
    folder = tmp_path / "run"
    clusters.add_node(cluster)
    process = sweep(
        *arguments, "--launches", "5", "--machines", "any", "--out", "run", "-q", start=True
    )
    wait_for_launches(folder, 1, process)
    _, worker = busy(cluster)
    worker.kill()
    wait_for_launches(folder, 3, process)
    node, _ = busy(cluster)
    cluster.remove_node(node, allow_graceful=False)
    wait_for_launches(folder, 5, process)
    process.kill()
    process.communicate()
    before = read_launches(folder)
    assert len(before) < 10

    # From anywhere else.
    again = sweep("--resume", "run", "-q", on=cluster.for_clients)
    assert again.returncode == 0, again.stderr
    after = read_launches(folder)
    assert after[: len(before)] == before
    assert [each.status for each in after] == ["ok"] * 10
    rows = dabench.load_results(folder).measurements
    assert rows["launches"].tolist() == [5, 5]
    assert rows["n"].tolist() == [300, 300]
    nodes = {each["name"] for each in json.loads((folder / "nodes.json").read_text())}
    assert {each.device["node"] for each in after} <= nodes
    assert len(nodes) == 2
    # Nodes that are one host take turns: it is as if there were one.
    assert sorted(each.round for each in after) == sorted([*range(5)] * 2)


@pytest.fixture
def pinned(cluster):
    """Another kind of machine: a node that may use one core."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores, and to choose among them")
    node = clusters.add_node(cluster, {min(os.sched_getaffinity(0))})
    yield
    cluster.remove_node(node)


def test_each_kind_of_machine_has_a_run_with_its_own_environment(pinned, cluster, sweep, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").touch()
    (tmp_path / "parts" / "block.py").write_text(BLOCK)
    (tmp_path / "net.py").write_text(NET)
    done = sweep(
        "--model", "net.py:Net,dw-disc", "--size", "32x32", "--repeat", "2", "--launches", "1",
        "--device", "cpu", "--out", "run", "--json", on=cluster.for_clients,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    machines = json.loads(done.stdout)["machines"]
    cores = sorted(each["environment"]["usable_cores"] for each in machines)
    assert cores == [1, len(os.sched_getaffinity(0))]
    parts = sorted((tmp_path / "run").iterdir())
    assert len(parts) == 2
    for part in parts:
        said = read_run(part, "timing")
        assert said["run_id"] == f"run-{part.name}"
        assert sorted(said["cluster"]["parts"]) == [each.name for each in parts]
        # What Ray sets for its workers is not what the node was started with.
        assert "OMP_NUM_THREADS" not in said["environment"]["variables"]
        assert said["environment"]["threads"] == said["environment"]["usable_cores"]
        assert set(said["networks"]) == {"net.py:Net"}
        names = {each["name"] for each in json.loads((part / "nodes.json").read_text())}
        launches = read_launches(part)
        assert [each.status for each in launches] == ["ok"] * 2
        assert {each.device["node"] for each in launches} <= names
        assert {each.device["threads"] for each in launches} == {said["environment"]["threads"]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "cuda"], "--on: no node of the cluster has cuda"),
        (["--resume", "nothing"], "nothing holds no run"),
    ],
)
def test_what_a_cluster_cannot_do_is_one_line(sweep, arguments, said):
    model = [] if "--resume" in arguments else ["--model", "dw-disc"]
    done = sweep(*model, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_head_is_one_line(tmp_path):
    done = command.dabench("sweep", "--model", "disc", "--on", "ray://127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("dabench: --on: cannot reach ray://127.0.0.1:1: ")
    assert list(tmp_path.iterdir()) == []


def wait_until(condition, process):
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_training_goes_on_elsewhere_and_ends_with_the_same_weights(cluster, tmp_path):
    write_standin(tmp_path / "drawn", scale=0.03)
    roots = {
        **EVERYWHERE,
        "DABENCH_CACHE": tmp_path / "cache",
        "DABENCH_GTA5_ROOT": tmp_path / "drawn" / "gta5",
        "DABENCH_CITYSCAPES_ROOT": tmp_path / "drawn" / "cityscapes",
    }
    words = (
        "train gta2city --disc dw-disc --size 32x64 --batch 2 --limit 6 --dtype fp32 --threads 1 "
        "--epochs 7 -q --out"
    )
    alone = command.dabench(*words.split(), "home", cwd=tmp_path, **roots)
    assert alone.returncode == 0, alone.stderr
    clusters.add_node(cluster)
    store = tmp_path / "store"
    on = ["--on", cluster.for_clients, "--storage", store]
    # So long Ray waits for a driver that is gone before it ends what that began.
    patience = {"RAY_CLIENT_RECONNECT_GRACE_PERIOD": 1}
    process = command.start(*words.split(), "away", *on, cwd=tmp_path, **roots, **patience)

    furthest = []

    def steps():
        found = store.glob("*/*/checkpoints/step-*.pt")
        furthest.append(max((int(path.name.split("-")[1]) for path in found), default=0))
        # A run that was begun anew would replace its checkpoints by earlier ones.
        assert furthest == sorted(furthest)
        return furthest[-1]

    wait_until(lambda: steps() >= 3, process)
    node, trains = next(working(cluster, "train"))
    cluster.remove_node(node, allow_graceful=False)
    # A node that loses its power does not train on until Ray has noticed.
    with contextlib.suppress(psutil.NoSuchProcess):
        trains.kill()
    at = steps()
    wait_until(lambda: steps() > at + 3, process)
    process.kill()
    process.communicate()
    name = "adversarial-dw-disc-seed0"
    assert not (tmp_path / "away" / name).exists()

    again = command.dabench("train", "--resume", "away", "--on", cluster.for_clients, "-q",
                            cwd=tmp_path, **roots)  # fmt: skip
    assert again.returncode == 0, again.stderr
    ours, theirs = (tmp_path / run / name for run in ("away", "home"))
    weights = [
        checkpoint.load(run / "weights.pt")["segmenter"]["network"] for run in (ours, theirs)
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])
    assert [row.loss for row in read_epochs(ours)] == [row.loss for row in read_epochs(theirs)]
    there = {node.node_id[:8] for node in cluster.worker_nodes}
    assert read_run(ours)["node"].split()[-1] in there | {node.node_id[:8]}
    # What was kept for going on is gone.
    assert not any(store.iterdir())
    refused = command.dabench("train", "--resume", "away", cwd=tmp_path, **roots)
    assert refused.returncode == 2
    assert "away was begun on a cluster; name it by --on" in refused.stderr
