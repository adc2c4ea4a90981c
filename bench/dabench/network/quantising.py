"""An exported network in int8: ranges found on images, some layers left in fp32.

ONNX Runtime's own quantiser and OpenVINO's (NNCF) do the work, each for its runtime: weights per
channel and symmetric, activations per tensor in eight bits (with dynamic ranges, weights per tensor
too: its integer convolution takes nothing else). Without int8 dot products
(`dabench.device.native`) weights get seven bits, as both libraries advise: pairs of products are
then added up in 16 bits, which eight would overflow.
"""

from __future__ import annotations

import ast
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from torch import Tensor

from dabench.base.errors import UnsupportedError
from dabench.plan.axes import ALL, DYNAMIC

Images = Callable[[], Iterator[Tensor]]
"""Gives batches for the calibration, each (N, C, H, W) fp32 on the CPU."""

IMPORTS = ("onnxruntime.quantization", "nncf")
"""What quantising for OpenVINO imports first."""

HEADS = "heads"
NETWORK = "network"
"""The name of the network within the module that is exported (`FlatOutputs`)."""

_LOG = "quantiser.log"
_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter says which modules a node is of, from the outermost on."""


def quantised_onnx(
    exported: Path, folder: Path, images: Images, *, ranges: str, keep_float: str, narrow: bool
) -> Path:
    """Quantises by ONNX Runtime into ``quantised.onnx``, once per folder.

    Args:
        exported: The network in fp32.
        folder: For the file.
        images: That ranges are found on.
        ranges: A number of images, or ``dynamic``: each pass finds its own.
        keep_float: Layers that stay in fp32: ``none``, ``heads`` or a module's name.
        narrow: Whether weights get seven bits.

    Raises:
        UnsupportedError: No such layers.
    """
    path = folder / "quantised.onnx"
    if path.exists():
        return path
    unfinished = folder / "unfinished.onnx"
    with _aside(folder / _LOG):
        from onnxruntime import quantization

        network = _folded(exported, folder)
        usual: dict[str, Any] = {
            # Dynamic ranges first make two nodes of a linear layer, the first of this name.
            "nodes_to_exclude": [
                name
                for node in _kept(exported, network, keep_float)
                for name in (node.name, f"{node.name}_MatMul")
            ],
            "reduce_range": narrow,
            "weight_type": quantization.QuantType.QInt8,
        }
        if ranges == DYNAMIC:
            # The only kind that its integer convolution takes.
            usual["weight_type"] = quantization.QuantType.QUInt8
            quantization.quantize_dynamic(str(network), str(unfinished), **usual)
        else:
            quantization.quantize_static(
                str(network),
                str(unfinished),
                _Reader(network, images),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                **usual,
            )
    unfinished.replace(path)
    return path


def quantised_openvino(
    exported: Path, folder: Path, images: Images, *, keep_float: str, narrow: bool
) -> Path:
    """Quantises by NNCF into OpenVINO's ``quantised.xml`` and ``quantised.bin``, once per folder.

    Args:
        exported: The network in fp32.
        folder: For the files.
        images: That ranges are found on.
        keep_float: Layers that stay in fp32: ``none``, ``heads`` or a module's name.
        narrow: Whether weights get seven bits.

    Raises:
        UnsupportedError: No such layers.
    """
    path = folder / "quantised" / "quantised.xml"
    if path.exists():
        return path
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    # Which NNCF imports, and which says that there is no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    with _aside(folder / _LOG):
        import nncf
        import openvino
        from nncf.quantization import advanced_parameters as advanced

        network = _folded(exported, folder)
        model = openvino.Core().read_model(network)
        overflow = advanced.OverflowFix.ENABLE if narrow else advanced.OverflowFix.DISABLE
        found = nncf.quantize(
            model,
            nncf.Dataset(_Arrays(images)),
            # Of fewer it takes all.
            subset_size=sys.maxsize,
            ignored_scope=nncf.IgnoredScope(
                names=_names_in(model, _kept(exported, network, keep_float))
            ),
            advanced_parameters=advanced.AdvancedQuantizationParameters(overflow_fix=overflow),
        )
        unfinished.mkdir()
        openvino.save_model(found, unfinished / path.name, compress_to_fp16=False)
    unfinished.replace(path.parent)
    return path


@contextmanager
def _aside(path: Path) -> Iterator[None]:
    """Progress and advice of quantisers go into a file: standard output is for results."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with path.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            yield
    finally:
        logging.disable(before)


def _names_in(model: Any, nodes: Sequence[Any]) -> list[str]:
    """What OpenVINO calls nodes of a file that it read.

    It takes the bias apart and adds to the name; what makes an output is named as that is.
    """
    wanted = {name for node in nodes for name in (node.name, *node.output)}
    names = (str(each.get_friendly_name()) for each in model.get_ordered_ops())
    return [name for name in names if name.partition("/")[0] in wanted]


class _Arrays:
    """Batches as NNCF takes them, one at a time in memory."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __iter__(self) -> Iterator[Any]:
        return (batch.numpy() for batch in self._images())


class _Reader:
    """Batches as ONNX Runtime's quantiser asks for them."""

    def __init__(self, network: Path, images: Images) -> None:
        import onnx

        self._name = onnx.load(network, load_external_data=False).graph.input[0].name
        self._batches = images()

    def get_next(self) -> dict[str, Any] | None:
        """The next batch by the input's name; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch.numpy()}


def _folded(exported: Path, folder: Path) -> Path:
    """The network as one file with batch norms folded away: their ranges are nobody's."""
    import onnx
    from onnxruntime.quantization import shape_inference

    whole, folded = folder / "whole.onnx", folder / "folded.onnx"
    onnx.save(onnx.load(exported), whole)
    # Shapes are known from the export, without sympy.
    shape_inference.quant_pre_process(str(whole), str(folded), skip_symbolic_shape=True)
    return folded


def _kept(exported: Path, network: Path, keep_float: str) -> list[Any]:
    """The nodes that stay in fp32.

    Args:
        exported: As torch wrote it: it says which modules a node is of.
        network: The same with batch norms folded, whose nodes these are.
        keep_float: As of `quantised_onnx`.

    Raises:
        UnsupportedError: There are none.
    """
    import onnx

    if keep_float == ALL:
        return []
    graph = onnx.load(network, load_external_data=False).graph
    if keep_float == HEADS:
        return _heads(graph)
    written = onnx.load(exported, load_external_data=False).graph
    modules = {node.name: _modules(node) for node in written.node}
    known = {node.name: modules.get(node.name, set()) | _modules(node) for node in graph.node}
    wanted = f"{NETWORK}.{keep_float}"
    found = [
        node for node in graph.node if node.op_type in _WITH_WEIGHTS and wanted in known[node.name]
    ]
    if not found:
        names = {name.split(".")[1] for each in known.values() for name in each if "." in name}
        raise UnsupportedError(
            f"--keep-float: no layer with weights is in a module {keep_float!r}; modules are "
            f"{', '.join(sorted(names))}, and those within them"
        )
    return found


def _heads(graph: Any) -> list[Any]:
    """The last node with weights before each output, on each way to it."""
    makers = {output: node for node in graph.node for output in node.output}
    found: dict[str, Any] = {}
    seen: set[str] = set()
    due = [output.name for output in graph.output]
    while due:
        name = due.pop()
        node = makers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type in _WITH_WEIGHTS:
            found[node.name] = node
        else:
            due.extend(node.input)
    return list(found.values())


def _modules(node: Any) -> set[str]:
    """Names of the modules that a node is of, by what the exporter says and by its weights.

    What was folded into a convolution may leave it its own module's name in place of its.
    """
    said = {each.key: each.value for each in node.metadata_props}.get(_SCOPES, "[]")
    found = {str(name) for name in ast.literal_eval(said)}
    for name in node.input:
        parts = name.split(".")[:-1]
        if parts[:1] == [NETWORK]:
            found |= {".".join(parts[: end + 1]) for end in range(len(parts))}
    return found
