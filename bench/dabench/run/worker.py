"""What runs in a worker process: one request in, messages out, then the end.

Messages are JSON documents. A request has a ``kind``: ``probe`` describes the
machine, ``count`` counts operations, ``time`` measures one case, ``layers`` one
case layer by layer, ``ceilings`` what the device can reach at best, ``score`` compares
what a case predicts with labels, ``export`` writes its network to a file,
``frame`` times an image's way through it.
"""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dabench.base.errors import (
    DabenchError,
    DiedError,
    OverloadError,
    UnsupportedError,
    clean_line,
)
from dabench.device.energy import EnergyMeter, NoEnergyError
from dabench.device.native import emulates
from dabench.plan.axes import KEEP
from dabench.plan.cases import Case
from dabench.plan.references import Reference
from dabench.plan.trained import trained_at
from dabench.plan.variants import EXPORTED
from dabench.run.sampling import sampled
from dabench.timing.clock import host_clock
from dabench.timing.engine import StopRule

if TYPE_CHECKING:
    from torch import Tensor

    from dabench.counting.counted import ModelCount
    from dabench.device.base import Device
    from dabench.network.workload import Workload
    from dabench.run.team import Team

Message = dict[str, Any]
Send = Callable[[Message], None]


def handle(request: Message, send: Send) -> None:
    """Answers one request; whatever goes wrong becomes a ``failed`` message."""
    try:
        _HANDLERS[request["kind"]](request, send)
    except Exception as error:  # the worker's last line of defence: report, never die silently
        send(
            {
                "kind": "failed",
                "status": _status(error),
                "reason": _one_line(error),
                "traceback": traceback.format_exc(),
            }
        )
    else:
        send({"kind": "done"})


def _probe(request: Message, send: Send) -> None:
    from dabench.device.machine import describe_torch

    send({"kind": "environment", "environment": describe_torch()})


def _count(request: Message, send: Send) -> None:
    from dabench.counting.counts import count_model
    from dabench.counting.shares import time_shares
    from dabench.network.build import build_network
    from dabench.plan.networks import spec_of

    for item in request["items"]:
        count = count_model(**item)
        if request.get("cross_check"):
            send({"kind": "count", "count": _cross_checked(count)})
            continue
        # The count first: should measuring the shares fail, it is not lost.
        send({"kind": "count", "count": {**count.to_dict(), "time_shares": None}})
        outside = {**count.uncounted, **count.without}
        if outside and request.get("shares", True):
            shares = time_shares(
                build_network(count.model),
                spec_of(count.model),
                shape=(count.channels, count.height, count.width),
                mode=count.mode,
                operators=outside,
            )
            send({"kind": "count", "count": {**count.to_dict(), "time_shares": shares}})


def _cross_checked(count: ModelCount) -> Message:
    """A count with fvcore's beside it, or why there is none."""
    from dabench.counting.counts import count_model
    from dabench.counting.crosscheck import cross_check
    from dabench.network.build import build_network

    document: Message = {**count.to_dict(), "time_shares": None}
    if count.mode == "train" and count.batch == 1:
        # Batch norm refuses to train on a single 1x1 map.
        shape = {name: getattr(count, name) for name in ("channels", "height", "width", "mode")}
        count = count_model(count.model, batch=2, **shape)
    try:
        rows = cross_check(build_network(count.model), count)
    except Exception as error:  # whatever fvcore's trace raises for code of others
        return {**document, "cross_check": [], "no_cross_check": _one_line(error)}
    checked = [asdict(row) for row in rows]
    return {
        **document, "cross_check": checked, "cross_check_batch": count.batch, "no_cross_check": ""
    }  # fmt: skip


def _time(request: Message, send: Send) -> None:
    count = Case.of(request["case"]).concurrency
    if count == 1:
        _time_one(request, send)
        return
    from dabench.run.team import merged, team_of

    own: list[Message] = []
    # What compilers and exporters write is each process's own.
    others = [
        {**request, "scratch": _apart(request, number), "exports": None}
        for number in range(1, count)
    ]
    with team_of(others, _time_member) as team:
        _time_one(request, own.append, team)
        theirs = team.gather()
    for place, message in enumerate(own):
        is_phase = message["kind"] == "phase"
        send(merged(message, [each[place] for each in theirs]) if is_phase else message)


def _apart(request: Message, number: int) -> str | None:
    scratch = request.get("scratch")
    return None if scratch is None else f"{scratch}-{number}"


def _time_member(request: Message, team: Team) -> list[Message]:
    """What one of several processes says that run a case at once."""
    messages: list[Message] = []
    _time_one(request, messages.append, team)
    return messages


def _workload(request: Message, case: Case, device: Device) -> Workload:
    """A case made real, with the images that it is calibrated on.

    Raises:
        UnsupportedError: Its memory is to be kept, where that cannot be.
    """
    from dabench.network.workload import Workload

    _settle_memory(case)
    load = Workload(case, device, request["seed"])
    load.exports = Path(request["exports"]) if request.get("exports") else None
    if chosen := request.get("calibration"):
        files = [Path(each) for each in chosen["images"]]
        load.calibration = partial(_calibration, case, files, chosen["digest"])
        load.calibrated_on = "images of the target"
    return load


def _settle_memory(case: Case) -> None:
    """Keeps what is freed from here on, where that is asked for.

    Raises:
        UnsupportedError: It cannot be kept.
    """
    from dabench.device import memory

    if case.allocator == KEEP:
        memory.keep_freed_pages()
        if not (memory.can_keep_freed_pages() and memory.freed_pages_stay()):
            raise UnsupportedError("freed memory is kept only by glibc's allocator")


def _calibration(case: Case, files: Sequence[Path], digest: str) -> Iterator[Tensor]:
    """Images as a trained network takes them, in whole batches: the last one fills the last.

    Raises:
        DabenchError: They are not what they were.
    """
    import torch

    from dabench.data.calibration import digest_of, read_calibration
    from dabench.data.inputs import network_input

    if digest_of(files) != digest:
        raise DabenchError("the calibration images have changed since the run was begun")

    normalised = trained_at(Path(Reference.of(case.model).factory)).normalised
    for first in range(0, len(files), case.batch):
        some = [*files[first : first + case.batch], *[files[-1]] * case.batch][: case.batch]
        images = [
            torch.tensor(read_calibration(each, (case.height, case.width))).permute(2, 0, 1)
            for each in some
        ]
        yield network_input(torch.stack(images), normalised=normalised).contiguous()


def _time_one(request: Message, send: Send, team: Team | None = None) -> None:
    """Measures a case, as one of a team where there is one."""
    from dabench.device import memory
    from dabench.device.registry import open_device
    from dabench.network.runtimes import prepare, set_precision
    from dabench.network.workload import LOSSES, is_variant

    case = Case.of(request["case"])
    set_precision(case.runtime, case.dtype)
    device = open_device(case.device)
    # The paper left cuDNN at its default, which does not search.
    device.configure(dtype=case.dtype, threads=case.threads, autotune=case.protocol != "paper")
    load = _workload(request, case, device)
    meter, energy = _meter(device)
    if team is not None:
        meter, energy = None, "n/a: several processes share the device"
    prepared: Message = {}
    if is_variant(case):
        with _scratch(request) as folder:
            prepared = dict(prepare(load, device, folder, host_clock))
    send(
        {
            "kind": "device",
            "device": {
                **device.describe(),
                "precision": _precision(load),
                "loss": LOSSES[case.family] if case.mode == "train" else None,
                "energy": energy,
                "emulated": emulates(device.native_dtypes(), case.dtype),
                **prepared,
            },
        }
    )
    rule = StopRule(**request["rule"])
    for phase in case.phases:
        work = load.work(phase)
        if case.allocator == KEEP:
            # Of the phase before, it would count as this one's.
            memory.give_freed_pages_back()
        device.reset_peak()
        message = sampled(phase, work, device, case.protocol, rule, meter, case.rate, team)
        send({**message, "peak_bytes": load.peak_bytes()})
    if load.notes:
        # Some are known only after a pass.
        send({"kind": "device", "device": {"notes": load.notes}})


@contextmanager
def _scratch(request: Message) -> Iterator[Path]:
    """Where compilers and exporters write: the case's own folder of the run, or a passing one."""
    if request.get("scratch"):
        yield Path(request["scratch"])
        return
    with tempfile.TemporaryDirectory(prefix="dabench-") as folder:
        yield Path(folder)


def _precision(load: Workload) -> str:
    """How the dtype came about: ``as is``, ``cast``, ``autocast`` or by the ``runtime``."""
    if load.case.dtype in ("fp32", "tf32"):
        return "as is"
    if load.case.runtime in EXPORTED:
        return "runtime"
    return "cast" if load.casts else "autocast"


def _meter(device: Device) -> tuple[EnergyMeter | None, str]:
    """What counts the device's joules, and its name or why there is none."""
    try:
        meter = device.energy_meter()
    except NoEnergyError as error:
        return None, f"n/a: {error}"
    return meter, meter.source


def _layers(request: Message, send: Send) -> None:
    from dabench.device.registry import open_device
    from dabench.network.workload import Workload
    from dabench.profiling.layers import measure_layers

    case = Case.of(request["case"])
    device = open_device(case.device)
    device.configure(dtype=case.dtype, threads=case.threads, autotune=True)
    _settle_memory(case)
    load = Workload(case, device, request["seed"])
    send({"kind": "device", "device": {**device.describe()}})
    for phase in case.phases:
        begin = host_clock()
        before = _floors(case, phase, device, request["limit_s"])
        spent_s = host_clock() - begin
        samples = measure_layers(
            load.model,
            load.work(phase),
            backward=phase == "backward",
            device=device,
            clock=host_clock,
            limit_s=max(request["limit_s"] - 2 * spent_s, 0.0),
        )
        after = _floors(case, phase, device, request["limit_s"])
        send(
            {
                "kind": "layers",
                "phase": phase,
                # Of a machine whose speed wanders, what was measured at another time says nothing.
                "floors": {key: (before[key] + after[key]) / 2 for key in before if key in after},
                "bare": samples.bare,
                "hooked": samples.hooked,
                "layers": samples.layers,
            }
        )
    if request.get("trace"):
        from dabench.profiling.traces import write_trace

        write_trace(load, case.phases, request["trace"])


def _floors(case: Case, phase: str, device: Device, limit_s: float) -> dict[str, float]:
    """What layers of some kinds take with next to nothing to do, in a part of a phase's time.

    Layers are worth having without: where they cannot be measured there are none.
    """
    from dabench.profiling.kernels import SHARE_OF_FLOORS, measure_floors

    with suppress(Exception):
        kind_of_pass = f"{case.mode} {phase}"
        return measure_floors(kind_of_pass, case.dtype, device, SHARE_OF_FLOORS / 2 * limit_s)
    return {}


def _score(request: Message, send: Send) -> None:
    from dabench.data.domain import Frame
    from dabench.data.inputs import network_input
    from dabench.data.prepare import prepare as prepare_frames
    from dabench.device.registry import open_device
    from dabench.network.runtimes import prepare, set_precision
    from dabench.network.workload import is_variant
    from dabench.scoring.evaluate import evaluate, image_batches

    case = Case.of(request["case"])
    frames = [
        Frame(name, Path(image), Path(label), encoding)
        for name, image, label, encoding in request["frames"]
    ]
    set_precision(case.runtime, case.dtype)
    device = open_device(case.device)
    device.configure(dtype=case.dtype, threads=case.threads, autotune=True)
    load = _workload(request, case, device)
    ready = prepare_frames(frames, (case.height, case.width))
    if ready.digest != request["digest"]:
        raise DabenchError("the frames have changed since the run was begun")

    def logits(images: Tensor) -> Tensor:
        return load.logits(network_input(images, normalised=request["normalised"]))

    with _scratch(request) as folder:
        prepared = prepare(load, device, folder, host_clock) if is_variant(case) else {}
        found = evaluate(
            logits, ready, classes=request["classes"], device=load.device, batch=case.batch
        )
        images = next(image_batches(ready, case.batch, load.device))
        real = against_random(load, images, device, request) if request["times"] else None
    send(
        {
            "kind": "score",
            "counts": found.counts.tolist(),
            "frames": [asdict(frame) for frame in found.frames],
            "difference": prepared.get("difference"),
            "emulated": emulates(device.native_dtypes(), case.dtype),
            "real": real,
        }
    )


def against_random(
    load: Workload, images: Tensor, device: Device, request: Message
) -> dict[str, float]:
    """How long passes on real images take, over those on random input of their shape.

    Both lie in memory as the pass takes them: images come in another layout, and what changes it
    wakes torch's threads, which spin beside those of a runtime and can double its pass.
    """
    import torch

    from dabench.data.inputs import network_input
    from dabench.timing.pairs import measure_pairs

    real = load.taken(network_input(images, normalised=request["normalised"]))
    torch.manual_seed(request["seed"])
    random = torch.randn_like(real)
    with torch.inference_mode():
        found = measure_pairs(
            lambda: load.logits(real), lambda: load.logits(random), host_clock, device.synchronize
        ).ratio()
    return {"real_ratio": found.estimate, "real_low": found.low, "real_high": found.high}


def _frame(request: Message, send: Send) -> None:
    import torch

    from dabench.device.registry import open_device
    from dabench.network.frame import FrameWay
    from dabench.network.runtimes import prepare, set_precision
    from dabench.network.workload import is_variant
    from dabench.timing.stages import measure_stages

    case, source = Case.of(request["case"]), request["source"]
    set_precision(case.runtime, case.dtype)
    device = open_device(case.device)
    device.configure(dtype=case.dtype, threads=case.threads, autotune=True)
    load = _workload(request, case, device)
    with _scratch(request) as folder:
        prepared = prepare(load, device, folder, host_clock) if is_variant(case) else {}
        with torch.inference_mode():
            way = FrameWay(
                load, Path(source) if isinstance(source, str) else tuple(source), request["seed"]
            )
            found = measure_stages(
                list(way.stages.values()),
                host_clock,
                device.synchronize,
                warmup=request["warmup"],
                passes=request["passes"],
            )
    send(
        {
            "kind": "frame",
            "stages": list(way.stages),
            "whole": found.whole,
            "apart": found.stages,
            "difference": prepared.get("difference"),
            "device_name": device.describe().get("device_name") or "",
            "emulated": emulates(device.native_dtypes(), case.dtype),
            "notes": "; ".join(load.notes),
        }
    )


def _export(request: Message, send: Send) -> None:
    from dabench.device.registry import open_device
    from dabench.network.runtimes import prepare, write_network

    case = Case.of(request["case"])
    device = open_device(case.device)
    device.configure(dtype=case.dtype, threads=case.threads, autotune=True)
    load = _workload(request, case, device)
    with _scratch(request) as folder:
        difference = prepare(load, device, folder, host_clock)["difference"]
        files = write_network(load, folder, Path(request["to"]))
    send({"kind": "exported", "difference": difference, "files": files})


def _ceilings(request: Message, send: Send) -> None:
    from dabench.device.registry import open_device
    from dabench.profiling.kernels import measure_kernels

    device = open_device(request["device"])
    device.configure(dtype=request["dtype"], threads=request["threads"], autotune=True)
    found = measure_kernels(device, request["dtype"])
    found["device_name"] = device.describe()["device_name"]
    send({"kind": "ceilings", "ceilings": found})


_HANDLERS: dict[str, Callable[[Message, Send], None]] = {
    "probe": _probe,
    "count": _count,
    "time": _time,
    "layers": _layers,
    "ceilings": _ceilings,
    "score": _score,
    "export": _export,
    "frame": _frame,
}


def _status(error: Exception) -> str:
    """Which kind of failure an exception is: overloaded, oom, unsupported or error."""
    if isinstance(error, OverloadError):
        return "overloaded"
    if isinstance(error, DiedError):
        return "crashed"
    text = str(error).lower()
    out_of_memory = ("out of memory", "can't allocate memory", "cannot allocate memory")
    unsupported = (
        "not implemented for",
        "expected more than 1 value per channel",
        "not supported",
        "unsupported",
    )
    if isinstance(error, MemoryError) or any(words in text for words in out_of_memory):
        return "oom"
    if isinstance(error, NotImplementedError) or any(words in text for words in unsupported):
        return "unsupported"
    return "error"


def _one_line(error: BaseException) -> str:
    """An error as one line: its cause, where it only wraps another one, without escape codes."""
    if isinstance(error, DabenchError):
        return clean_line(str(error))
    while error.__cause__ is not None and _only_wraps(error):
        error = error.__cause__
    first = clean_line(str(error))
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _only_wraps(error: BaseException) -> bool:
    """Whether an error says how it came about rather than what is wrong, as torch's exporter's."""
    return type(error).__module__.startswith(("torch.onnx", "torch.export", "torch._dynamo"))
