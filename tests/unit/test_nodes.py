"""What runs on a node: Ray's changes undone, one measurement at a time, nothing left behind."""

import fcntl
import os
from pathlib import Path

import psutil
import pytest

from dabench.run import nodes


class Raylet:
    """What starts Ray's workers."""

    def __init__(self, pid):
        assert pid == 77

    def environ(self):
        return {"OMP_NUM_THREADS": "3", "LD_PRELOAD": "rays-own.so"}

    def nice(self):
        return 0


@pytest.fixture
def node(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_RAYLET_PID", "77")
    monkeypatch.setattr(psutil, "Process", Raylet)
    monkeypatch.setattr(os, "getpriority", lambda which, who: 15)
    monkeypatch.setattr(nodes.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(nodes, "_own", [])
    monkeypatch.setattr(nodes, "_LOCK", tmp_path / "lock")
    set_to = []
    monkeypatch.setattr(os, "setpriority", lambda which, who, value: set_to.append(value))
    return set_to


class Launcher:
    """Answers; says which lock was held and what folders it was given."""

    asked = None

    def __enter__(self):
        return self

    def __exit__(self, *ending):
        pass

    def run(self, request, receive, *, timeout_s):
        type(self).asked = request
        with (
            nodes._LOCK.open() as file,
            pytest.raises(BlockingIOError),
        ):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        receive({"kind": "device", "device": {"threads": 2, "notes": ["a note"]}})
        return {"kind": "done"}


def test_what_ray_changed_is_as_the_node_was_started(node, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("LD_PRELOAD", "users.so")
    assert nodes.as_started() == []
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    # Ray loads an allocator of its own into the raylet alone.
    assert os.environ["LD_PRELOAD"] == "users.so"
    assert node == [0]


def test_a_launch_says_its_node_and_what_could_not_be_undone(node, monkeypatch):
    def refuse(which, who, value):
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    monkeypatch.setattr(nodes, "Launcher", Launcher)
    ran, first, second, last = nodes.launch({"kind": "time", "scratch": "scratch/ab"}, 1.0, "vm 1")
    assert ran["kind"] == "ran"
    assert ran["seconds"] >= 0
    assert first == {"kind": "device", "device": {"node": "vm 1"}}
    assert second["device"]["notes"] == [
        "a note", "priority lowered by 15: start nodes with RAY_worker_niceness=0",
    ]  # fmt: skip
    assert last == {"kind": "done"}
    folder = Path(Launcher.asked["scratch"])
    assert folder.name == "ab"
    assert folder.parent.is_dir()
    nodes.tidy()
    assert not folder.parent.exists()


def test_only_launches_of_cases_say_their_node(node, monkeypatch):
    monkeypatch.setattr(nodes, "Launcher", Launcher)
    (said, _) = nodes.launch({"kind": "count", "items": []}, 1.0, "vm 1")
    assert said["device"] == {"threads": 2, "notes": ["a note"]}


def test_folders_of_processes_that_are_gone_are_removed(node, tmp_path):
    left, used = tmp_path / "dabench-node-left", tmp_path / "dabench-node-used"
    for folder in (left, used):
        folder.mkdir()
        (folder / "compiled").touch()
    lock = os.open(used, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        own = nodes.scratch_folder()
        assert nodes.scratch_folder() == own
        assert sorted(tmp_path.glob("dabench-node-*")) == sorted([own, used])
        nodes.tidy()
        assert list(tmp_path.glob("dabench-node-*")) == [used]
    finally:
        os.close(lock)


def test_another_users_lock_is_locked_too(tmp_path, monkeypatch):
    lock = tmp_path / "lock"
    lock.touch()
    lock.chmod(0o444)
    monkeypatch.setattr(nodes, "_LOCK", lock)
    with nodes._host_alone(), lock.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go with the block


def test_where_there_can_be_no_lock_nobody_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(nodes, "_LOCK", tmp_path / "nowhere" / "lock")
    passed = []
    with nodes._host_alone(), nodes._host_alone():
        passed.append("both")
    assert passed == ["both"]
    assert list(tmp_path.iterdir()) == []
