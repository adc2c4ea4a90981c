"""Launches on nodes of a cluster that is not there: whose turn it is, what is lost, who stops."""

import signal
import sys
import threading
import time
from concurrent.futures import Future
from types import ModuleType, SimpleNamespace

import pytest

from dabench.base.errors import DabenchError, UsageError
from dabench.plan.places import Place
from dabench.run import cluster, pool
from dabench.run.luggage import Luggage
from dabench.run.pool import TRIES, FaultError, Hosts, Kind, LostError, Node, NodePool

NOTHING = Luggage(None, {})
DONE = {"kind": "done"}


def node(name, host, installed=(), **facts):
    return Node(name, name, host, 1.0, {"cpu": "A", **facts}, frozenset(installed))


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(pool, "AGAIN_S", 0.0)


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
        self.hosts = Hosts()

    def start(self, node, request, timeout_s):
        self.started.append(node.name)
        self.running.append(node)
        self.together.append([each.host for each in self.running])
        return Launch(self, node)

    def pool(self, *nodes):
        return NodePool(Kind("kind", tuple(nodes)), self.start, NOTHING, self.hosts)


class Launch:
    def __init__(self, nodes, node):
        self.nodes, self.node = nodes, node

    def result(self, seconds):
        if not self.nodes.hold.wait(0.01):
            return None
        self.nodes.running.remove(self.node)
        if self.node.name in self.nodes.lost:
            raise LostError("it is gone", gone=self.nodes.gone)
        return [{"kind": "ran"}, {"kind": "device", "device": {"node": self.node.name}}, DONE]

    def cancel(self):
        self.nodes.cancelled.append(self.node.name)


def launch(pool, lane=None):
    said = []
    request = {"kind": "time"} if lane is None else {"kind": "time", "lane": lane}
    last = pool.run(request, said.append, timeout_s=1)
    return last, [each["device"]["node"] for each in said if each["kind"] == "device"]


def lane_of(pool, lane):
    said = []
    pool.run({"kind": "time", "lane": lane}, said.append, timeout_s=1)
    return said[0]["lane"]


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


def test_a_lane_whose_machine_loses_everything_is_left():
    nodes = Nodes("a")
    pool = nodes.pool(node("a", "one"), node("b", "two"), node("c", "three"))
    assert launch(pool, 0)[0] == DONE
    assert nodes.started[0] == "a"
    assert len(nodes.started) == 2


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


def test_nodes_of_other_kinds_on_the_same_host_take_turns_too():
    nodes = Nodes(hold=True)
    one, other = nodes.pool(node("a", "one")), nodes.pool(node("b", "one", cpu="B"))
    threads = [threading.Thread(target=launch, args=[each]) for each in (one, other)]
    for thread in threads:
        thread.start()
    while not nodes.started:
        time.sleep(0.001)
    time.sleep(0.05)
    assert len(nodes.started) == 1
    nodes.hold.set()
    for thread in threads:
        thread.join()
    assert sorted(nodes.started) == ["a", "b"]


def test_a_lane_is_a_machine_as_long_as_it_is_there():
    nodes = Nodes("b", gone=True)
    pool = nodes.pool(node("a", "one"), node("b", "two"), node("c", "three"))
    assert [launch(pool, lane)[1] for lane in (2, 0, 0)] == [["c"], ["a"], ["a"]]
    assert lane_of(pool, 2) == 2
    # What ran elsewhere says so: it belongs to no round.
    assert lane_of(pool, 1) in (0, 2)


def test_a_cluster_that_is_gone_ends_the_run_and_keeps_no_machine():
    nodes = Nodes()

    def start(node, request, timeout_s):
        raise DabenchError("the cluster is gone")

    pool = NodePool(Kind("kind", (node("a", "one"),)), start, NOTHING, nodes.hosts)
    with pytest.raises(DabenchError, match="the cluster is gone"):
        launch(pool)
    assert nodes.hosts.busy == set()


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
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(UsageError, match=r"Ray is missing; pip install 'dabench\[ray\]'"),
        cluster.connected(Place(), NOTHING),
    ):
        pass


def test_versions_and_networks_of_nodes():
    here = cluster.version_of("dabench")
    cluster.check_version("a 1", here)
    for there, said in (("0.0.1", "dabench 0.0.1"), (None, "no dabench")):
        with pytest.raises(UsageError, match=f"--on: a 1 has {said}, here it is {here}"):
            cluster.check_version("a 1", there)
    cluster.check_sources("a 1", cluster.source_digest())
    with pytest.raises(UsageError, match="a 1 has another dabench of the same version"):
        cluster.check_sources("a 1", "0")
    known = {"net.py:Net": {"sha256": "1", "commit": "a"}}
    cluster.check_networks("a 1", known, {"net.py:Net": {"sha256": "1", "commit": None}})
    for there in ({"net.py:Net": {"sha256": "2", "commit": "a"}}, {}):
        with pytest.raises(UsageError, match=r"--on: net\.py:Net is another network on a 1"):
            cluster.check_networks("a 1", known, there)


def test_kinds_differ_in_what_decides_times():
    nodes = [
        node("a", "1"), node("b", "2", governor="powersave"), node("c", "3"),
        node("d", "4", threads=2), node("e", "5", load_1min=0.5),
    ]  # fmt: skip
    kinds = cluster.by_kind([*nodes, node("f", "6", installed=["onnxruntime"])])
    assert [[each.name for each in kind.nodes] for kind in kinds] == [
        ["a", "c", "e"], ["b"], ["d"], ["f"],
    ]  # fmt: skip
    # Of the same hardware, told apart by a number.
    stem = kinds[0].name
    assert [kind.name for kind in kinds] == [stem, f"{stem}-2", f"{stem}-3", f"{stem}-4"]


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class NodeDiedError(RayError):
    pass


ERRORS = SimpleNamespace(
    RayError=RayError,
    NodeDiedError=NodeDiedError,
    TaskUnschedulableError=NodeDiedError,
    RayTaskError=RayTaskError,
)


def a_launch(*, error=None, messages=None):
    future = Future()
    if error is not None:
        future.set_exception(error)
    elif messages is not None:
        future.set_result(messages)
    return cluster.Launch(
        SimpleNamespace(exceptions=ERRORS), SimpleNamespace(future=lambda: future)
    )


def test_what_comes_of_a_task_of_rays():
    assert a_launch().result(0.001) is None
    assert a_launch(messages=[DONE]).result(1.0) == [DONE]
    for error, gone in ((RayError("a\n\nb"), False), (NodeDiedError("a b"), True)):
        with pytest.raises(LostError, match="a b") as raised:
            a_launch(error=error).result(1.0)
        assert raised.value.gone is gone
        assert not isinstance(raised.value, FaultError)
    with pytest.raises(FaultError, match="of its own") as raised:
        a_launch(error=RayTaskError("of its own")).result(1.0)
    assert raised.value.gone is False
    for error in (ConnectionError("Client is shutting down."), TimeoutError("late")):
        with pytest.raises(DabenchError, match=r"the cluster is gone .*--resume goes on") as raised:
            a_launch(error=error).result(1.0)
        assert not isinstance(raised.value, LostError)
    # Nothing runs on a cluster that is gone.
    a_launch().cancel()


@pytest.fixture
def fake_ray(monkeypatch):
    """Ray, as far as connecting needs it."""
    ray = ModuleType("ray")
    ray.shutdown = lambda: None
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


def test_why_a_cluster_cannot_be_used_is_said_whole(fake_ray):
    def init(*_, **__):
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.1\n")

    fake_ray.init = init
    with (
        pytest.raises(UsageError, match=r"was started with: Ray: 2\.1$"),
        cluster.connected(Place(), NOTHING),
    ):
        pass


NOT_SERVED = """Initialization failure from server:
Traceback (most recent call last):
  File "proxier.py", line 765, in Datapath
    if not self.proxy_manager.start_specific_server(
RuntimeError: Starting Ray client server failed. See x
"""


@pytest.mark.parametrize(("failures", "connects"), [(1, True), (2, True), (3, False)])
def test_a_head_that_could_not_serve_us_is_asked_again(fake_ray, monkeypatch, failures, connects):
    asked, slept = [], []
    monkeypatch.setattr(cluster.time, "sleep", slept.append)

    def init(*_, **__):
        asked.append(1)
        if len(asked) <= failures:
            raise ConnectionAbortedError(NOT_SERVED)

    fake_ray.init = init
    monkeypatch.setattr(cluster, "Cluster", lambda ray, luggage: "connected")
    if connects:
        with cluster.connected(Place(), NOTHING) as found:
            assert found == "connected"
    else:
        with (
            pytest.raises(
                UsageError,
                match="cannot use this machine's Ray cluster: Initialization failure from server: "
                "RuntimeError: Starting Ray client server failed",
            ),
            cluster.connected(Place(), NOTHING),
        ):
            pass
    assert len(asked) == min(failures + 1, 3)
    assert slept == [0.0, 2.0, 5.0][: len(asked)]


def test_rays_handler_of_sigterm_is_taken_back(fake_ray, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    fake_ray.init = lambda *_, **__: signal.signal(signal.SIGTERM, lambda *_: None)
    monkeypatch.setattr(cluster, "Cluster", lambda ray, luggage: "connected")
    with cluster.connected(Place(), NOTHING) as found:
        assert found == "connected"
        assert signal.getsignal(signal.SIGTERM) == before


def test_a_port_that_nobody_listens_on_is_said_at_once(fake_ray):
    with (
        pytest.raises(UsageError, match=r"cannot reach ray://127\.0\.0\.1:1: Connection refused"),
        cluster.connected(Place("127.0.0.1", 1), NOTHING),
    ):
        pass
