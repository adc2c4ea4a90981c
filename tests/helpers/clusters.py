"""A Ray cluster of this machine's own: a head, and nodes that may be measured on."""

import gc
import os
import warnings
from contextlib import contextmanager, nullcontext
from unittest import mock

from processes import free_port

NODE = {"num_cpus": 2, "resources": {"dabench": 1}}
"""Of a node: Ray keeps as many idle processes as it has processors, and a launch needs one."""


@contextmanager
def started(nodes, variables=None):
    """Starts a cluster; Ray's own handle, and where clients connect.

    Args:
        nodes: That may be measured on.
        variables: Of the environment, for all its processes.
    """
    from ray.cluster_utils import Cluster

    port = free_port()
    with _of_its_own(variables or {}):
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 2, "include_dashboard": False, "ray_client_server_port": port,
            },
        )  # fmt: skip
    cluster.variables = variables or {}
    cluster.for_clients = f"ray://127.0.0.1:{port}"
    try:
        for _ in range(nodes):
            add_node(cluster)
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster, cores=None):
    """Adds a node, on cores of its own if any are named."""
    with _of_its_own(cluster.variables), _on(cores) if cores else nullcontext():
        node = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    return node


@contextmanager
def _on(cores):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _of_its_own(variables):
    """How a node is started: a test's own threads and what Ray leaves open are no part of it."""
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with (
        mock.patch.dict(
            os.environ, {**kept, **variables, "RAY_USAGE_STATS_ENABLED": "0"}, clear=True
        ),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
