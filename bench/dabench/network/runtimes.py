"""Other ways to run a workload's network: compiled, captured, or exported to another runtime.

Each is checked against the plain network in fp32 before anything is timed.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dabench.base.errors import UnsupportedError, clean_line
from dabench.base.files import cache_folder, write_atomically
from dabench.device.base import Device
from dabench.network.quantising import IMPORTS, quantised_onnx, quantised_openvino
from dabench.network.tensors import FlatOutputs, outputs
from dabench.network.workload import Workload
from dabench.plan.axes import DYNAMIC, INT8
from dabench.plan.cases import Case
from dabench.plan.variants import ALLOWED_DIFFERENCE, EXPORTED
from dabench.timing.clock import Clock, host_clock

Call = Callable[[Tensor], Any]

EXPORTER = (
    "torch._dynamo",
    "torch.export._trace",
    "torch.onnx._internal.exporter._compat",
    "onnxscript.function_libs.torch_lib.ops",
)
"""What torch's exporter imports at its first export: a second that is no exporting."""

_INDUCTOR, _LOADS = "inductor", ".load_ok"
"""The folder of torch's compiler's cache, and how it marks what it built and could load."""
_COMPILERS = ("torch._dynamo", "torch._inductor.compile_fx")
_EXPORTERS = {
    "onnxruntime": (*EXPORTER, "onnxruntime"),
    "tensorrt": (*EXPORTER, "onnxruntime"),
    "openvino": (*EXPORTER, "openvino"),
}
"""What is imported before the clock starts: seconds that are neither compiling nor exporting."""

_QUANTISERS = {"onnxruntime": ("onnxruntime.quantization",), "openvino": IMPORTS}
"""Likewise, of what runs in int8."""

_ROUNDING = 0.1
"""Above it a tolerance is more than rounding's, and no reason to divide by an output's offset."""


class DisagreementError(Exception):
    """A variant computes something else than the plain network."""


def set_precision(runtime: str, dtype: str) -> None:
    """Turns TF32 off for TensorRT unless the dtype is tf32; to be called before CUDA starts.

    TensorRT uses TF32 for fp32 and has no option against it, so this sets a variable of CUDA's.
    """
    if runtime == "tensorrt" and dtype != "tf32":
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"


def prepare(load: Workload, device: Device, folder: Path, clock: Clock) -> dict[str, float | None]:
    """Makes a workload run in the way its case says.

    Args:
        load: Its ``call`` is replaced.
        device: Where it runs.
        folder: For what the compilers and exporters write; what an earlier launch of the same
            case left there is used again.
        clock: The host's.

    Returns:
        ``compile_s``, seconds until the first pass was done, imports and the trial of the machine's
        own compiler apart (None where nothing is compiled or exported), ``exported_before_s``,
        those of them that another case spent (None where none did), ``tried_s``, seconds of that
        trial, and ``difference``, how far its outputs are from the plain network's in fp32
        (`difference_of`; None in training, which has no fixed output).

    Raises:
        DisagreementError: That is above `ALLOWED_DIFFERENCE`, or the plain network does not
            agree with itself.
        UnsupportedError: The runtime that is installed cannot use the device.
    """
    case = load.case
    _import_compilers(case)
    tried_s: float | None = None
    if case.compile != "off":
        # It says at every start that there is no GPU.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        if case.device.partition(":")[0] == "cpu":
            begin = clock()
            _try_instructions(folder / _INDUCTOR)
            tried_s = clock() - begin
    exported_s = _shared_s(load)
    begin = clock()
    if case.compile != "off":
        load.call = _compiled(load, folder)
    elif case.runtime != "eager":
        load.call = _RUNTIMES[case.runtime](load, folder)
    found: list[Tensor] = []
    if case.mode == "train":
        torch.autograd.backward(load.loss(load.forward()))
    else:
        load.refresh()
        with torch.inference_mode():
            found = outputs(load.call(load.x))
        load.refresh()
    device.synchronize()
    seconds = clock() - begin
    difference = _checked(found, load) if load.reference else None
    # It is not the network's memory that it keeps.
    load.reference.clear()
    if note := getattr(load.call, "note", ""):
        load.remarks.append(note)
    plain = case.compile == "off" and case.runtime == "eager"
    return {
        "compile_s": None if plain else seconds + exported_s,
        "exported_before_s": exported_s or None,
        "tried_s": tried_s,
        "difference": difference,
    }


def _import_compilers(case: Case) -> None:
    """Imports what compiles, exports or quantises for a case, as far as it is installed."""
    modules = _COMPILERS if case.compile != "off" else _EXPORTERS.get(case.runtime, ())
    if case.dtype == INT8:
        modules = (*modules, *_QUANTISERS.get(case.runtime, ()))
    for module in modules:
        # What is not installed is said where it is used.
        with suppress(ImportError):
            importlib.import_module(module)


def _checked(found: Sequence[Tensor], load: Workload) -> float:
    """How far a variant is from the plain network, if that is little enough."""
    once, again = load.reference
    # Of the whole batch's outputs the images that the plain network was given.
    images = len(load.check_x)
    batch = load.case.batch
    found = [output[:images] if output.shape[:1] == (batch,) else output for output in found]
    allowed = ALLOWED_DIFFERENCE[load.case.dtype]
    unsteady = difference_of(again, once, allowed)
    if not unsteady <= allowed:
        raise DisagreementError(
            f"the plain network differs from itself by {unsteady:.2g} between two passes, so "
            "there is nothing to compare with"
        )
    difference = difference_of(found, once, allowed)
    if not difference <= allowed:
        raise DisagreementError(
            f"differs from the plain network in fp32 by {difference:.2g} (relative L2), "
            f"allowed in {load.case.dtype} is {allowed:g}"
        )
    return difference


def difference_of(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> float:
    """The largest relative L2 distance over all outputs of a network.

    For each output: the L2 norm of the difference, divided by the L2 norm of the expected
    output minus its mean, so that a large offset hides nothing. The divisor is at least
    ``sqrt(tolerance)`` times the norm of the expected output itself (of tolerances up to
    `_ROUNDING`), since rounding errors grow with that; for a single number it is its absolute
    value.

    Raises:
        DisagreementError: Their number or shapes differ.
    """
    shapes = [[tuple(t.shape) for t in each] for each in (found, expected)]
    if shapes[0] != shapes[1]:
        raise DisagreementError(
            f"puts out {shapes[0]} where the plain network puts out {shapes[1]}"
        )
    return max(
        _distance(_numbers(a), _numbers(b), tolerance) for a, b in zip(found, expected, strict=True)
    )


def _numbers(output: Tensor) -> Tensor:
    """An output in double precision on the host, real and imaginary parts side by side."""
    real = torch.view_as_real(output.resolve_conj()) if output.is_complex() else output
    # Not every device has double precision.
    return real.detach().cpu().double()


def _distance(found: Tensor, expected: Tensor, tolerance: float) -> float:
    error = float((found - expected).norm())
    size = float(expected.norm())
    spread = float((expected - expected.mean()).norm())
    offset = math.sqrt(min(tolerance, _ROUNDING)) * size
    scale = size if expected.numel() == 1 else max(spread, offset)
    if error == 0:
        return 0.0
    relative = error / scale if scale else math.inf
    # Not a number is the worst there is.
    return math.inf if math.isnan(relative) else relative


def _try_instructions(cache: Path) -> None:
    """Lets torch's compiler try for which vector instructions this machine can build.

    For each cache it does so anew, some seconds for each set of instructions, which are no
    network's; what was found to load in another case's is taken over. Whatever fails here fails
    where it is needed, if it is, with the compiler's own words.

    Args:
        cache: The compiler's, for this case.
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    kept: Path | None = None
    with suppress(OSError, RuntimeError):  # there may be no home
        kept = cache_folder() / "inductor"
        _copy_tried(kept, cache)
    with suppress(Exception):
        importlib.import_module("torch._inductor.cpu_vec_isa").pick_vec_isa()
    if kept is not None:
        with suppress(OSError):
            _copy_tried(cache, kept)


def _copy_tried(source: Path, target: Path) -> None:
    """Copies what the compiler built for its trial and found to load, the mark of that last."""
    for mark in source.glob(f"*/*{_LOADS}"):
        library = mark.with_name(mark.name.removesuffix(_LOADS))
        folder = target / mark.parent.name
        if not (folder / mark.name).exists():
            folder.mkdir(parents=True, exist_ok=True)
            whole = folder / f"{library.name}.{os.getpid()}"
            shutil.copyfile(library, whole)
            whole.replace(folder / library.name)
            write_atomically(folder / mark.name, "")


def _compiled(load: Workload, folder: Path) -> Call:
    """The network under torch.compile, with a cache of its own: the first launch compiles."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / _INDUCTOR)
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
    mode = load.case.compile
    if mode == "freeze":
        inductor: Any = importlib.import_module("torch._inductor.config")
        inductor.freezing = True
    compiled: Call = torch.compile(load.model, mode="default" if mode == "freeze" else mode)
    return compiled


class _CudaGraph:
    """The forward captured once and replayed: one launch for all kernels.

    Its maps lie in a pool of the graph's own, which the allocator's peak does not
    see when it is replayed.
    """

    def __init__(self, load: Workload, folder: Path) -> None:
        self._input, self._model = load.x, load.model
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(side):
            # Libraries allocate and choose kernels before the capture.
            for _ in range(3):
                load.model(self._input)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(self._graph):
            self._output = load.model(self._input)

    def peak_bytes(self) -> int:
        """What the graph's pool has reserved, and the weights and the input beside it."""
        pool = tuple(self._graph.pool())
        reserved = sum(
            segment["total_size"]
            for segment in torch.cuda.memory_snapshot()
            if tuple(segment["segment_pool_id"]) == pool
        )
        outside = [*self._model.parameters(), *self._model.buffers(), self._input]
        return int(reserved + sum(t.numel() * t.element_size() for t in outside))

    def __call__(self, x: Tensor) -> Any:
        if x is not self._input:
            self._input.copy_(x)
        self._graph.replay()
        return self._output


_EXPORTED_NAME, _SECONDS = "exported.onnx", "exported.seconds"


def _network_file(load: Workload, folder: Path) -> Path:
    """The file that an exported runtime reads: in fp32, or quantised for it."""
    exported, case = _export(load, folder), load.case
    if case.dtype != INT8:
        return exported
    # The export may lie elsewhere.
    folder.mkdir(parents=True, exist_ok=True)
    narrow = not load.computes_in(INT8)
    how: dict[str, Any] = {"keep_float": case.keep_float, "narrow": narrow}
    if case.runtime == "openvino":
        path = quantised_openvino(exported, folder, load.calibration, **how)
    else:
        path = quantised_onnx(exported, folder, load.calibration, ranges=case.calibration, **how)
    if case.calibration == DYNAMIC:
        load.remarks.append("ranges are found in each pass")
    else:
        load.remarks.append(f"calibrated on {load.calibrated_on}")
    if narrow:
        load.remarks.append("weights in seven bits: no int8 dot products on this machine")
    return path


def _export(load: Workload, folder: Path) -> Path:
    """Writes the network as ONNX by torch's own exporter, once per folder.

    Beside it, how many seconds that took: of every case that it is part of they are compiling.
    """
    folder = load.exports or folder
    path = folder / _EXPORTED_NAME
    if not path.exists():
        begin = host_clock()
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / "unfinished.onnx"
        flat = FlatOutputs(load.model).eval()
        # A failed export prints the graph, page after page; its error says enough.
        with (folder / "exporter.log").open("w") as log, redirect_stdout(log), redirect_stderr(log):
            torch.onnx.export(flat, (load.x,), str(unfinished), dynamo=True, verbose=False)
        (folder / _SECONDS).write_text(repr(host_clock() - begin), encoding="ascii")
        unfinished.replace(path)
    return path


def _shared_s(load: Workload) -> float:
    """Seconds of an export that another case did for this one, if this one runs an export."""
    if load.case.runtime not in EXPORTED or load.exports is None:
        return 0.0
    done = load.exports / _SECONDS
    return float(done.read_text(encoding="ascii")) if done.exists() else 0.0


def write_network(load: Workload, folder: Path, to: Path) -> list[str]:
    """Writes what the runtime read after `prepare` into a folder.

    Returns:
        Names of the files, the one to be opened first: ``network.onnx``, weights within, or
        OpenVINO's ``network.xml`` and ``network.bin``.
    """
    path = _network_file(load, folder)
    if path.suffix == ".xml":
        files = [path, path.with_suffix(".bin")]
        return [shutil.copyfile(each, to / f"network{each.suffix}").name for each in files]
    import onnx

    file = to / "network.onnx"
    onnx.save(onnx.load(path), file)
    return [file.name]


NO_CPU_FALLBACK = "session.disable_cpu_ep_fallback"
RECORD_NODES = "session.record_ep_graph_assignment_info"
"""Keys of ONNX Runtime's sessions (onnxruntime_session_options_config_keys.h)."""


class _OnnxRuntime:
    """The exported network in an ONNX Runtime session; outputs go where torch put them.

    Args:
        load: The workload.
        folder: For the exported file.
        providers: Of ONNX Runtime, the wanted one first, each with its options.
    """

    def __init__(
        self, load: Workload, folder: Path, providers: Sequence[tuple[str, dict[str, Any]]]
    ) -> None:
        import onnxruntime

        wanted = providers[0][0]
        if wanted not in onnxruntime.get_available_providers():
            raise UnsupportedError(
                f"the onnxruntime installed here has no {wanted}; pip install onnxruntime-gpu"
            )
        with torch.inference_mode():
            self._outputs = [t.contiguous().clone() for t in outputs(load.model(load.x))]
        self._session = _session(onnxruntime, _network_file(load, folder), providers)
        # What is listed is not what is used: a provider whose library cannot be loaded is
        # dropped without an error.
        used = self._session.get_providers()
        if used[0] != wanted:
            raise UnsupportedError(
                f"onnxruntime runs it by {used[0]}: {wanted} could not be loaded"
            )
        self.note = _shares(self._session, wanted) if len(providers) > 1 else ""
        (self._input,) = self._session.get_inputs()
        self._given = load.x
        self._binding = self._session.io_binding()
        for slot, tensor in zip(self._session.get_outputs(), self._outputs, strict=True):
            self._binding.bind_output(slot.name, *_buffer(tensor))

    def __call__(self, x: Tensor) -> list[Tensor]:
        if x is not self._given and x.is_cuda:
            # Its copy is on torch's stream, which ONNX Runtime does not wait for.
            torch.cuda.current_stream(x.device).synchronize()
        self._binding.bind_input(self._input.name, *_buffer(x))
        self._session.run_with_iobinding(self._binding)
        return self._outputs


def _session(onnxruntime: Any, path: Path, providers: Sequence[tuple[str, dict[str, Any]]]) -> Any:
    """A session that runs by the providers named and by nothing else.

    Raises:
        UnsupportedError: One of them cannot be had, or leaves a part to the CPU.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    if providers[0][0] != _ON_CPU:
        options.add_session_config_entry(NO_CPU_FALLBACK, "1")
    if len(providers) > 1:
        options.add_session_config_entry(RECORD_NODES, "1")
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=list(providers), enable_fallback=0
        )
    except Exception as error:  # its errors derive from Exception alone
        raise UnsupportedError(
            f"onnxruntime cannot run it by {providers[0][0]}: {clean_line(str(error))}"
        ) from error


def _shares(session: Any, wanted: str) -> str:
    """How many nodes each provider took, in words."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return f"which nodes {wanted} took is unknown: it needs onnxruntime 1.24 or newer"
    nodes: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
    others = ", ".join(f"{name} {n}" for name, n in nodes.items() if name != wanted)
    rest = f"; {others}" if others else ""
    return f"{wanted} runs {nodes[wanted]} of {nodes.total()} nodes{rest}"


def _buffer(tensor: Tensor) -> tuple[Any, ...]:
    """A tensor's memory as ONNX Runtime wants it described."""
    item = str(tensor.dtype).removeprefix("torch.")
    numpy = importlib.import_module("numpy")
    place, index = tensor.device.type, tensor.device.index or 0
    return place, index, numpy.dtype(item), tuple(tensor.shape), tensor.data_ptr()


_ON_CPU = "CPUExecutionProvider"


def _onnxruntime(load: Workload, folder: Path) -> Call:
    if load.device.type == "cpu":
        return _OnnxRuntime(load, folder, [(_ON_CPU, {})])
    return _OnnxRuntime(load, folder, [_on_cuda(load)])


def _tensorrt(load: Workload, folder: Path) -> Call:
    options = {**_on(load), "trt_fp16_enable": load.case.dtype == "fp16"}
    # CUDA behind it, for what it rejects.
    return _OnnxRuntime(load, folder, [("TensorrtExecutionProvider", options), _on_cuda(load)])


def _on_cuda(load: Workload) -> tuple[str, dict[str, Any]]:
    # Its default is to use TF32 for fp32.
    tf32 = int(load.case.dtype == "tf32")
    return "CUDAExecutionProvider", {**_on(load), "use_tf32": tf32}


def _on(load: Workload) -> dict[str, Any]:
    return {"device_id": load.device.index or 0}


class _OpenVino:
    """The exported network compiled by OpenVINO for the CPU."""

    def __init__(self, load: Workload, folder: Path) -> None:
        import openvino

        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # What int8 leaves out is in fp32.
            "INFERENCE_PRECISION_HINT": {"bf16": "bf16"}.get(load.case.dtype, "f32"),
            "PERFORMANCE_HINT": "LATENCY",
        }
        network = core.compile_model(core.read_model(_network_file(load, folder)), "CPU", settings)
        self._request = network.create_infer_request()

    def __call__(self, x: Tensor) -> list[Tensor]:
        found = self._request.infer([x.numpy()], share_inputs=True, share_outputs=True)
        return [torch.from_numpy(output) for output in found.values()]


_RUNTIMES: dict[str, Callable[[Workload, Path], Call]] = {
    "cuda-graph": _CudaGraph,
    "onnxruntime": _onnxruntime,
    "openvino": _OpenVino,
    "tensorrt": _tensorrt,
}
