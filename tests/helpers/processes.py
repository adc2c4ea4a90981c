"""Processes that tests end or see ending, and ports for them to meet at."""

import socket
import time

import psutil


def is_alive(pid):
    """Whether a process runs: one that ended and was not asked for yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def left(pids, timeout_s=30):
    """Those of some processes that still run when all had so long to end."""
    deadline = time.monotonic() + timeout_s
    while (found := list(filter(is_alive, pids))) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def free_port():
    """A port that nobody listens at, so far."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]
