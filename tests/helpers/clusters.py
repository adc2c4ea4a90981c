"""A Ray cluster of this machine's own: a head, and nodes that may be measured on."""

import gc
import os
import socket
import warnings
from contextlib import contextmanager

NODE = {"num_cpus": 2, "resources": {"dabench": 1}}
"""Of a node: Ray keeps as many idle processes as it has processors, and a launch needs one."""


@contextmanager
def started(nodes):
    """Starts a cluster; Ray's own handle, by which nodes are added, and where clients connect."""
    from ray.cluster_utils import Cluster

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    before = dict(os.environ)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # A test's own threads are no part of how a node is started.
    os.environ.pop("OMP_NUM_THREADS", None)
    try:
        with warnings.catch_warnings():
            # Ray leaves files of what it started open.
            warnings.simplefilter("ignore", ResourceWarning)
            cluster = Cluster(
                initialize_head=True,
                head_node_args={
                    "num_cpus": 2, "include_dashboard": False, "ray_client_server_port": port,
                },
            )  # fmt: skip
            cluster.for_clients = f"ray://127.0.0.1:{port}"
            for _ in range(nodes):
                cluster.add_node(**NODE)
            cluster.wait_for_nodes()
            gc.collect()
    finally:
        os.environ.clear()
        os.environ.update(before)
    try:
        yield cluster
    finally:
        cluster.shutdown()


@contextmanager
def other_cores(cores):
    """What is started meanwhile runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
