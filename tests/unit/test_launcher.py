"""Worker processes that answer, fail, die and hang."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from fakes import make_case
from processes import is_alive, left

from dabench.base.cores import usable_cores
from dabench.base.errors import DabenchError
from dabench.run import forkserver
from dabench.run import launcher as launching
from dabench.run.launcher import Launcher


@pytest.fixture(scope="module")
def launcher():
    with Launcher() as made:
        yield made


LIGHT = (
    "-c", "from dabench.run import forkserver; forkserver._ALWAYS = (); forkserver.main()",
)  # fmt: skip
"""A server that imports torch when it is asked for something: three seconds less each."""


@pytest.fixture
def light(monkeypatch):
    """Where it matters which server there is, and not what it is asked."""
    monkeypatch.setattr(launching, "SERVE", LIGHT)
    yield
    launching._end_idle()


def ask(launcher, request, timeout_s=60):
    messages = []
    last = launcher.run(request, messages.append, timeout_s=timeout_s)
    return messages, last


def timing(case, **rule):
    rule = {"warmup": 1, "repeat": 2, "target_ci": None, "max_time_s": None, **rule}
    return {"kind": "time", "case": case.to_dict(), "seed": 0, "rule": rule}


NEVER_ASKS = """
import importlib
import torch

asked = []

def answer(*_):
    asked.append(1)
    return 1

# Without CUDA in it, torch has no way to ask below these two.
if hasattr(torch._C, "_cuda_getDeviceCount"):
    torch._C._cuda_getDeviceCount = torch._C._cuda_init = answer
else:
    torch.cuda.is_available = torch.cuda.device_count = answer
from dabench.run import forkserver
for module in forkserver._ALWAYS:
    importlib.import_module(module)
for kind in (*forkserver._MODULES, "time", "probe"):
    for case in ({"phases": ["total"]}, {"compile": "default"}, {"runtime": "openvino"}):
        forkserver._preload({"kind": kind, "case": case})
before = len(asked)
torch.cuda.is_available()
print(before, len(asked))
"""


def test_the_server_never_asks_for_gpus():
    """CUDA does not start in a fork of a process that has asked how many there are."""
    settled = {k: v for k, v in os.environ.items() if k != "PYTORCH_NVML_BASED_CUDA_CHECK"}
    done = subprocess.run(
        [sys.executable, "-c", NEVER_ASKS], capture_output=True, text=True, env=settled
    )
    # Our own question in the end shows that asking is noticed.
    assert done.stdout == "0 1\n", done.stderr


def test_a_case_comes_back_as_messages(launcher):
    messages, last = ask(launcher, timing(make_case()))
    assert last == {"kind": "done"}
    device, phase = messages
    assert device["device"]["threads"] >= 1
    assert phase["phase"] == "forward"
    assert len(phase["samples"]) == 2
    assert all(wall > 0 and on_device is None for wall, on_device in phase["samples"])
    assert phase["peak_bytes"] > 0


def test_every_phase_of_training_has_its_own_samples(launcher):
    phases = ("forward", "backward", "optimizer", "total")
    messages, last = ask(launcher, timing(make_case(mode="train", phases=phases)))
    assert last == {"kind": "done"}
    assert [m["phase"] for m in messages[1:]] == list(phases)
    assert "BCE" in messages[0]["device"]["loss"]


def test_threads_are_the_cases_own(launcher):
    for threads in (1, 2, 1):
        messages, _ = ask(launcher, timing(make_case(threads=threads)))
        assert messages[0]["device"]["threads"] == threads


def test_the_papers_protocol_is_one_cold_sample(launcher):
    messages, _ = ask(launcher, timing(make_case(protocol="paper")))
    assert messages[1]["warmup"] == []
    assert len(messages[1]["samples"]) == messages[1]["passes"] == 1


def test_an_error_is_a_message_with_its_reason(launcher):
    _, last = ask(launcher, timing(make_case(model="nope")))
    assert last["status"] == "error"
    assert "unknown model 'nope'" in last["reason"]
    assert "Traceback" in last["traceback"]


def test_what_a_network_refuses_is_unsupported(launcher):
    case = make_case(model="stdc1-bisenet", channels=3, batch=1, mode="train")
    _, last = ask(launcher, timing(case))
    assert last["status"] == "unsupported"
    assert "more than 1 value per channel" in last["reason"]


def test_too_large_a_case_is_out_of_memory(launcher):
    _, last = ask(launcher, timing(make_case(batch=10**9)))
    assert last["status"] == "oom"


def test_a_missing_device_is_an_error_of_its_case(launcher):
    _, last = ask(launcher, timing(make_case(device="xla")))
    assert last["kind"] == "failed"
    assert "torch_xla is not installed" in last["reason"]


def test_a_worker_that_hangs_is_ended_and_the_next_one_works(launcher):
    ask(launcher, {"kind": "probe"})
    begin = time.monotonic()
    _, last = ask(launcher, timing(make_case(), repeat=10**9, max_time_s=None), timeout_s=1.0)
    assert last["status"] == "timeout"
    assert "limit of 1 s" in last["reason"]
    assert time.monotonic() - begin < 30
    assert ask(launcher, timing(make_case()))[1] == {"kind": "done"}


def children(pid):
    import psutil

    return [child.pid for child in psutil.Process(pid).children()]


def test_a_worker_killed_from_outside_is_a_crash_with_its_signal(launcher):
    server = launcher._server.process.pid

    def kill():
        while not children(server):
            time.sleep(0.01)
        os.kill(children(server)[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    _, last = ask(launcher, timing(make_case(), repeat=10**9))
    killer.join()
    assert last["status"] == "crashed"
    assert "SIGKILL" in last["reason"]
    assert ask(launcher, timing(make_case()))[1] == {"kind": "done"}


def test_an_exception_while_listening_ends_the_worker(launcher):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launcher.run(timing(make_case(), repeat=10**9), interrupt, timeout_s=60)
    assert children(launcher._server.process.pid) == []
    assert ask(launcher, timing(make_case()))[1] == {"kind": "done"}


@pytest.mark.usefixtures("light")
def test_a_server_that_is_gone_is_one_clear_error():
    with Launcher() as launcher:
        launcher._server.process.kill()
        with pytest.raises(DabenchError, match="the process that starts workers ended"):
            ask(launcher, {"kind": "probe"})


@pytest.mark.parametrize("ends", ["", "os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_server_ends_with_its_client_however_that_ends(ends):
    code = (
        "import os, signal; from dabench.run import launcher as launching\n"
        f"launching.SERVE = {LIGHT}\n"
        "with launching.Launcher() as launcher: pass\n"
        f"print(launcher._server.process.pid, flush=True); {ends}"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert left([int(shown.stdout)]) == []


def test_the_next_launcher_goes_on_with_the_same_server(monkeypatch):
    with Launcher() as first:
        ask(first, {"kind": "probe"})
    with Launcher() as second:
        assert second._server is first._server
        assert ask(second, {"kind": "probe"})[1] == {"kind": "done"}
        with Launcher() as third:  # in use
            assert third._server is not second._server
    # What libraries read when they are loaded cannot be changed later.
    others = 2 if os.environ.get("OMP_NUM_THREADS") == "1" else 1
    monkeypatch.setenv("OMP_NUM_THREADS", str(others))
    with Launcher() as fourth:
        assert fourth._server not in (first._server, third._server)
        messages, _ = ask(fourth, {"kind": "probe"})
    assert messages[0]["environment"]["threads"] == min(others, os.cpu_count())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
@pytest.mark.skipif(usable_cores() < 2, reason="there are no other cores than the one")
def test_other_cores_ask_for_another_server():
    """Threads are of the cores that torch saw when it was loaded."""
    cores = os.sched_getaffinity(0)
    with Launcher() as first:
        pass
    try:
        os.sched_setaffinity(0, {min(cores)})
        with Launcher() as second:
            messages, _ = ask(second, {"kind": "probe"})
    finally:
        os.sched_setaffinity(0, cores)
    assert second._server is not first._server
    assert messages[0]["environment"]["threads"] == 1


@pytest.mark.usefixtures("light")
def test_a_launcher_is_closed_once():
    first = Launcher()
    first.close()
    second = Launcher()
    first.close()
    third = Launcher()
    assert third._server is not second._server
    second.close()
    third.close()


def test_a_large_environment_reaches_the_worker(launcher, tmp_path, monkeypatch):
    """Of clusters and CI: more than a socket takes at once."""
    (tmp_path / "large.py").write_text(
        "import os\nfrom torch import nn\n"
        "def build():\n    return nn.Conv2d(len(os.environ['DABENCH_LARGE']) // 10**5, 1, 1)\n"
    )
    monkeypatch.setenv("DABENCH_LARGE", "x" * 500_000)
    item = {"name": f"{tmp_path}/large.py:build", "batch": 1, "height": 1, "width": 1}
    request = {"kind": "count", "items": [{**item, "channels": 5, "mode": "eval"}], "shares": False}
    messages, last = ask(launcher, request)
    assert last == {"kind": "done"}
    assert messages[0]["count"]["macs"] == 5


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_a_folder_that_is_gone_is_a_reason(launcher, tmp_path, monkeypatch, device):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(DabenchError, match="the working folder is gone"):
        ask(launcher, timing(make_case(device=device)))
    monkeypatch.chdir(tmp_path)
    assert ask(launcher, timing(make_case()))[1] == {"kind": "done"}


def test_what_a_worker_prints_goes_where_its_client_prints(launcher, tmp_path, capfd):
    (tmp_path / "loud.py").write_text(
        "import os, sys\nfrom torch import nn\n"
        "def build():\n    print('out'); print('err', file=sys.stderr); os.write(1, b'fd')\n"
        "    sys.stdout.flush()\n    return nn.Conv2d(1, 1, 1)\n"
    )
    item = {"name": f"{tmp_path}/loud.py:build", "batch": 1, "height": 1, "width": 1}
    request = {"kind": "count", "items": [{**item, "channels": 1, "mode": "eval"}], "shares": False}
    assert ask(launcher, request)[1] == {"kind": "done"}
    printed = capfd.readouterr()
    assert printed.out == ""
    assert all(word in printed.err for word in ("out", "err", "fd"))


COLLECTS = """
import gc

def build():
    raise RuntimeError(f"collects: {gc.isenabled()}, frozen: {gc.get_freeze_count() > 0}")
"""


@pytest.mark.skipif(not forkserver.may_fork("cpu"), reason="workers are new processes here")
def test_a_worker_collects_its_own_garbage_and_not_the_servers(launcher, tmp_path):
    (tmp_path / "net.py").write_text(COLLECTS)
    _, last = ask(launcher, timing(make_case(model=f"{tmp_path}/net.py:build")))
    assert "collects: True, frozen: True" in last["reason"]


@pytest.mark.usefixtures("light")
def test_a_server_that_did_not_answer_is_not_used_again():
    with Launcher() as first:
        server = first._server
        first._busy = True  # as after a Ctrl-C in the middle of an answer
    assert server.process.poll() is not None
    with Launcher() as second:
        assert second._server is not server


@pytest.mark.usefixtures("light")
def test_a_fork_of_the_client_leaves_the_server_alone():
    with Launcher() as launcher:
        pass
    pid = os.fork()
    if pid == 0:
        with Launcher() as own:
            os._exit(own._server is launcher._server)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with Launcher() as again:
        assert again._server is launcher._server


def test_a_worker_runs_where_its_client_is_by_now(launcher, tmp_path, monkeypatch):
    """Folder and environment of the moment, whenever the server was started."""
    (tmp_path / "here.py").write_text(
        "import os\nfrom torch import nn\n"
        "def build():\n    return nn.Conv2d(19, int(os.environ['WIDTH_HERE']), 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WIDTH_HERE", "5")
    item = {"name": "here:build", "batch": 1, "channels": 19, "height": 4, "width": 4}
    request = {"kind": "count", "items": [{**item, "mode": "eval"}], "shares": False}
    messages, last = ask(launcher, request)
    assert last == {"kind": "done"}
    assert messages[0]["count"]["macs"] == 19 * 5 * 16


def test_a_worker_may_start_afresh(launcher, monkeypatch):
    """What devices need whose libraries do not survive a fork."""
    messages, last = ask(launcher, timing(make_case(device="mps")))
    assert last["kind"] == "failed"
    assert "no Apple GPU" in last["reason"]
    assert messages == []
    assert {"mps", "xla"} == set(forkserver.NOT_FORKABLE)


def test_a_worker_measures_without_what_it_does_not_need():
    code = (
        "import json, sys; from dabench.run.worker import handle; last = []; "
        "handle(json.loads(sys.argv[1]), last.append); "
        "print(last[-1]['kind'], *{m.partition('.')[0] for m in sys.modules})"
    )
    request = json.dumps(timing(make_case()))
    shown = subprocess.run(
        [sys.executable, "-c", code, request], capture_output=True, text=True, check=True
    )
    kind, *modules = shown.stdout.split()
    assert kind == "done"
    assert "torch" in modules
    assert not {"pandas", "torchvision", "fvcore", "rich", "typer"} & set(modules)


LEAVES_A_SLEEPER = """
import os, time
from torch import nn

def build(daemon=False, ends=False):
    if os.fork() == 0:
        if daemon:
            os.setsid()
        # It is there once it is whole.
        with open({pids!r} + ".new", "w") as file:
            file.write(f"{{os.getpid()}}")
        os.rename({pids!r} + ".new", {pids!r})
        time.sleep(60)
        os._exit(0)
    while not os.path.exists({pids!r}):
        time.sleep(0.001)
    if ends:
        os._exit(7)
    return nn.Conv2d(19, 1, 1)
"""


@pytest.mark.parametrize("arguments", ["", "(daemon=True)", "(ends=True)"])
def test_nothing_that_a_worker_forked_is_left_or_waited_for(launcher, tmp_path, arguments):
    pids = tmp_path / "pids"
    (tmp_path / "net.py").write_text(LEAVES_A_SLEEPER.format(pids=str(pids)))
    case = make_case(model=f"{tmp_path}/net.py:build{arguments}", family="other")
    # Its server may have to be started: that is no part of what is bounded.
    ask(launcher, {"kind": "probe"})
    begin = time.monotonic()
    _, last = ask(launcher, timing(case), timeout_s=30)
    # The sleeper holds the worker's socket for a minute.
    assert time.monotonic() - begin < 25
    assert last["kind"] == ("failed" if "ends" in arguments else "done")
    assert "exit code 7" in last.get("reason", "exit code 7")
    assert not is_alive(int(pids.read_text()))


def test_where_a_fork_is_not_safe_a_worker_is_a_new_process(monkeypatch):
    monkeypatch.setattr(forkserver.platform, "system", lambda: "Darwin")
    assert not forkserver.may_fork("cpu")
    monkeypatch.setattr(forkserver.platform, "system", lambda: "Linux")
    assert forkserver.may_fork("cuda:0")
    assert not forkserver.may_fork("xla")
