"""Launches on nodes of a cluster that is not there: whose turn it is, what is lost, who stops."""

import threading
import time

import pytest

from dabench.base.errors import DabenchError, UsageError
from dabench.plan.places import Place
from dabench.run import cluster
from dabench.run.cluster import TRIES, Kind, LostError, Node, NodePool
from dabench.run.luggage import Luggage

NOTHING = Luggage(None, {})
DONE = {"kind": "done"}


def node(name, host):
    return Node(name, name, host, 1.0, {"cpu": "A"})


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(cluster, "AGAIN_S", 0.0)


class Nodes:
    """Nodes that answer at once, or not at all; says which launches ran when another began."""

    def __init__(self, *lost, gone=False, hold=False):
        self.lost = lost
        self.gone = gone
        self.hold = threading.Event()
        if not hold:
            self.hold.set()
        self.started = []
        self.cancelled = []
        self.running = []
        self.together = []

    def start(self, node, request, timeout_s):
        self.started.append(node.name)
        self.running.append(node)
        self.together.append([each.host for each in self.running])
        return node

    def result(self, node):
        if not self.hold.wait(0.01):
            return None
        self.running.remove(node)
        if node.name in self.lost:
            raise LostError("it is gone", gone=self.gone)
        return [{"kind": "device", "device": {"node": node.name}}, DONE]

    def cancel(self, node):
        self.cancelled.append(node.name)

    def pool(self, *nodes):
        kind = Kind("kind", tuple(nodes))
        return NodePool(kind, self.start, self.result, self.cancel, NOTHING)


def launch(pool):
    said = []
    last = pool.run({"kind": "time"}, said.append, timeout_s=1)
    return last, [each["device"]["node"] for each in said]


def test_a_launch_says_where_it_ran():
    nodes = Nodes()
    assert launch(nodes.pool(node("a", "one"))) == (DONE, ["a"])


def test_what_is_lost_is_begun_again_on_another_node():
    nodes = Nodes("a")
    pool = nodes.pool(node("a", "one"), node("b", "two"))
    assert launch(pool) == (DONE, ["b"])
    assert nodes.started == ["a", "b"]
    # Whoever lost something comes last.
    launch(pool)
    assert nodes.started == ["a", "b", "b"]


def test_what_is_lost_again_and_again_is_a_row_with_the_reason():
    nodes = Nodes("a", "b")
    last, said = launch(nodes.pool(node("a", "one"), node("b", "two")))
    assert (last["kind"], last["status"], said) == ("failed", "crashed", [])
    assert last["reason"] == f"lost on a: it is gone, {TRIES} times"
    assert nodes.started == ["a", "b", "a"]


def test_without_nodes_a_run_ends_and_blames_no_case():
    nodes = Nodes("a", "b", gone=True)
    pool = nodes.pool(node("a", "one"), node("b", "two"))
    with pytest.raises(DabenchError, match="no node of kind is left; what was measured is kept"):
        launch(pool)
    assert nodes.started == ["a", "b"]


def test_nodes_of_one_host_take_turns():
    nodes = Nodes(hold=True)
    pool = nodes.pool(node("a", "one"), node("b", "one"), node("c", "two"))
    assert pool.at_once == 2
    threads = [threading.Thread(target=launch, args=[pool]) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(nodes.started) < 2:
        time.sleep(0.001)
    assert sorted(nodes.started) == ["a", "c"]
    nodes.hold.set()
    for thread in threads:
        thread.join()
    assert all(len(set(hosts)) == len(hosts) for hosts in nodes.together)


def test_stopping_ends_what_runs_and_what_waits():
    nodes = Nodes(hold=True)
    pool = nodes.pool(node("a", "one"))
    endings = []

    def wait():
        try:
            launch(pool)
        except KeyboardInterrupt:
            endings.append("interrupted")

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    while not nodes.started:
        time.sleep(0.001)
    pool.stop()
    for thread in threads:
        thread.join()
    assert endings == ["interrupted"] * 2
    assert nodes.cancelled == ["a"]


def test_images_are_named_as_they_lie_on_the_node():
    luggage = Luggage(None, {"/home/me/1.png": "calibration/0.png"})
    asked = {"kind": "time", "calibration": {"images": ["/home/me/1.png"], "digest": "d"}}
    there = luggage.repacked(asked)
    assert there["calibration"] == {"images": ["calibration/0.png"], "digest": "d"}
    assert luggage.repacked({"kind": "count"}) == {"kind": "count"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ray", "auto"),
        ("ray://head", "ray://head:10001"),
        ("ray://10.0.0.1:9000", "ray://10.0.0.1:9000"),
        ("ray://[::1]:9000", "ray://[::1]:9000"),
    ],
)
def test_places(text, address):
    assert Place.of(text).address == address


@pytest.mark.parametrize("text", ["", "rays", "ray://", "ray://:1", "ray://a:b", "http://a:1"])
def test_what_is_no_place(text):
    with pytest.raises(UsageError, match=r"--on: .* it takes 'ray' or 'ray://HOST:PORT'"):
        Place.of(text)


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(cluster.sys.modules, "ray", None)
    with (
        pytest.raises(UsageError, match=r"Ray is missing; pip install 'dabench\[ray\]'"),
        cluster.connected(Place(), NOTHING),
    ):
        pass


def test_versions_and_networks_of_nodes():
    here = cluster.version_of("dabench")
    cluster._check_versions({"1": here}, {"1": "a 1"})
    for there, said in (("0.0.1", "dabench 0.0.1"), (None, "no dabench")):
        with pytest.raises(UsageError, match=f"--on: a 1 has {said}, here it is {here}"):
            cluster._check_versions({"1": there}, {"1": "a 1"})
    known = {"net.py:Net": {"sha256": "1", "commit": "a"}}
    cluster._check_networks("a 1", known, {"net.py:Net": {"sha256": "1", "commit": None}})
    with pytest.raises(UsageError, match=r"--on: net\.py:Net is another network on a 1"):
        cluster._check_networks("a 1", known, {"net.py:Net": {"sha256": "2", "commit": "a"}})


def test_a_port_that_nobody_listens_on_is_said_at_once():
    with (
        pytest.raises(UsageError, match=r"cannot reach ray://127\.0\.0\.1:1: Connection refused"),
        cluster.connected(Place("127.0.0.1", 1), NOTHING),
    ):
        pass
