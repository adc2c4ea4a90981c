"""What the operators of a network do, by running it on tensors without data.

A forward, and in training a backward, run under torch's own dispatch: every
operator that reaches a kernel is seen with its shapes, after autograd has
decided which gradients are needed, and whoever wrote the code. Tensors are fake
(shapes and types, no memory), so that a batch of large images costs nothing; a
network that must look at its data is run on a real input instead.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from math import prod
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.graph import _engine_run_backward
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import checkpoint
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from dabench.counting.known import known_result
from dabench.counting.rules import PRODUCTS, has_none, macs_of, reals, unneeded_macs
from dabench.network.calls import Calls
from dabench.network.tensors import input_dtype, outputs

FORWARD, BACKWARD = "forward", "backward"

OUTSIDE = ""
"""Path of what no module's call does: the network's own."""


@dataclass(frozen=True, slots=True)
class OperatorCounts:
    """What one operator, over all its calls in one module and phase, amounts to.

    Attributes:
        calls: How often it is called; views are not.
        macs: Multiply-adds executed.
        for_nothing: Of these, those whose results nobody gets or asks for, or that
            repeat what was computed before (checkpointing).
        activations: Elements that convolutions and matrix products put out
            (the definition of RegNet and fvcore).
        moved: Elements read and written, each operand once.
        uncounted: Calls that may do arithmetic nobody counted.
    """

    calls: int = 0
    macs: int = 0
    for_nothing: int = 0
    activations: int = 0
    moved: int = 0
    uncounted: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """A traced pass.

    Attributes:
        own: (phase, module path) -> operator -> counts, of the calls the module
            itself makes, its children's left out.
        uncounted: Operator -> calls that may do arithmetic nobody counted.
        without: Operator -> calls known to have no multiply-adds.
        shapes: Module path -> output shape (N, ...), where that is a tensor.
        end_elements: Real numbers of the input and all outputs together, each once.
        parameters: Real numbers of the parameters that an output needs.
        graph: A digest of the forward: its operators in order, what of which result each is
            given, shapes, settings and tables of indices; in training what is frozen. Versions of
            torch may differ in it; weights do not. Empty where it had to be run on data, or chance
            has a part in it.
        note: What a reader must know of how it was run; empty if nothing.
        on_data: Whether it had to be run on a real input.
    """

    own: Mapping[tuple[str, str], Mapping[str, OperatorCounts]]
    uncounted: Mapping[str, int]
    without: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    end_elements: int
    parameters: int
    graph: str
    note: str = ""
    on_data: bool = False


def trace_operators(network: nn.Module, shape: tuple[int, ...], *, backward: bool) -> Trace:
    """Runs a network once and counts what its operators do.

    Args:
        network: In the mode whose graph is wanted.
        shape: Of the input, (N, C, H, W).
        backward: Whether to run the backward from all its outputs too.

    Raises:
        TypeError: It puts out no tensor.
        RuntimeError: It cannot be run at that size.
    """
    try:
        return _traced(network, shape, backward=backward, fake=True)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if _TOO_FEW in reason:
            raise  # as it would be with data
    if any(isinstance(module, nn.TransformerEncoder) for module in network.modules()):
        with suppress(Exception), _without_fast_path():
            traced = _traced(network, shape, backward=backward, fake=True)
            return replace(traced, note="; ".join(filter(None, (_ALL_COUNTED, traced.note))))
    traced = _traced(network, shape, backward=backward, fake=False)
    on_data = f"run on data, since it cannot be run without: {reason}"
    note = "; ".join(filter(None, (on_data, traced.note)))
    # What is read from data is an argument of what follows: the digest is of that input.
    return replace(traced, note=note, on_data=True, graph="")


@contextmanager
def _no_word_of_failures() -> Iterator[None]:
    """Torch prints the traceback of what cannot be run without data; it is run with some then."""
    logger = logging.getLogger(FakeTensor.__module__)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


_TOO_FEW = "Expected more than 1 value per channel when training"
"""What batch norm says of a single image's 1x1 map: a matter of shapes."""

_BY_CHANCE = "its code draws or seeds random numbers: another pass may count otherwise"
_NO_BACKWARD = "no output can be differentiated: there is no backward"
_ALL_COUNTED = "torch's fast path would leave out tokens that are masked: all are counted"


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Attention written out: the fast path packs masked tokens by what the mask holds."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _traced(
    network: nn.Module,
    shape: tuple[int, ...],
    *,
    backward: bool,
    fake: bool,
) -> Trace:
    calls = Calls(network)
    without_data = FakeTensorMode(allow_non_fake_inputs=True) if fake else None
    recorder = _Recorder(calls, without_data, (*network.parameters(), *network.buffers()))
    drawn = _states_of_chance()
    with ExitStack() as stack:
        if without_data is not None:
            stack.enter_context(without_data)
            stack.enter_context(_no_word_of_failures())
        stack.enter_context(torch.set_grad_enabled(backward))
        x = torch.randn(shape).to(input_dtype(network))
        with calls.followed(), recorder:
            found = outputs(network(x))
        recorder.end_forward(found)
        if backward:
            # Calls are followed on: checkpointing calls modules again.
            with calls.followed(), recorder, _attributed(calls, recorder):
                _differentiate(found)
    network.zero_grad(set_to_none=True)
    own = recorder.own()
    learns = any(output.requires_grad for output in found)
    notes = {
        _NO_BACKWARD: backward and not learns,
        _BY_CHANCE: _states_of_chance() != drawn,
    }
    return Trace(
        own=own,
        uncounted=dict(recorder.uncounted),
        without=dict(recorder.without),
        shapes=calls.shapes,
        end_elements=recorder.distinct((x, *found)),
        parameters=recorder.distinct(recorder.needed(network.parameters())),
        graph="" if notes[_BY_CHANCE] else recorder.graph(found),
        note="; ".join(note for note, holds in notes.items() if holds),
    )


def _states_of_chance() -> bytes:
    """Of the generators that decide which way a network goes, where it is not its tensors."""
    return pickle.dumps((random.getstate(), np.random.get_state(legacy=False)))


def _differentiate(found: Iterable[Tensor]) -> None:
    heads = [head for head in found if head.requires_grad]
    if heads:
        torch.autograd.backward(heads, [torch.ones_like(head) for head in heads])


@contextmanager
def _attributed(calls: Calls, recorder: _Recorder) -> Iterator[None]:
    """While a node of the graph runs, what it does is its owner's."""
    handles = [
        node.register_prehook(lambda _, path=path: recorder.enter(path))
        for node, path in calls.owners.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(slots=True)
class _Call:
    """One operator that ran."""

    phase: str
    path: str
    name: str
    counts: OperatorCounts
    reads: frozenset[int]
    writes: frozenset[int]
    again: bool


class _Recorder(TorchDispatchMode):
    """Notes every operator that reaches a kernel."""

    def __init__(
        self, calls: Calls, without_data: FakeTensorMode | None, weights: Iterable[Tensor]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls = calls
        self._without_data = without_data
        self._phase = FORWARD
        self._node_path: str | None = None
        self._made: list[_Call] = []
        self._needed: set[int] = set()
        # Keeps the addresses of storages from being given again; not the memory.
        self._storages: dict[int, torch.UntypedStorage | StorageWeakRef] = {}
        self._weights = frozenset(map(id, weights))
        self._held: dict[int, _Held] = {}
        self._said = hashlib.sha256()
        self._numbers: dict[tuple[Any, ...], int] = {}
        self.uncounted: Counter[str] = Counter()
        self.without: Counter[str] = Counter()

    def end_forward(self, found: Iterable[Tensor]) -> None:
        """From here on it is the backward; what was found must have been computed for it."""
        self._phase = BACKWARD
        self._needed = set(self._keys(found))

    def enter(self, path: str) -> None:
        """A node of this path's begins to run."""
        self._node_path = path

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is _DEVICE_OF and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # which torch asks for more often than for all else together
        if torch.is_inference_mode_enabled() and _consists_of_others(function):
            # There nothing takes apart what elsewhere autograd does.
            with self:
                return function._op_dk(_COMPOSITE, *args, **kwargs)
        if function.namespace in _NOT_OF_NETWORKS:
            return function(*args, **kwargs)
        given = tree_leaves((args, kwargs))
        for each in given:
            if isinstance(each, Tensor):
                self._as_run(each)
        result = known_result(function, args)
        if result is None:
            result = function(*args, **kwargs)
        made = tree_leaves(result)
        operator = _operator(function)
        if self._phase == FORWARD:
            # A count of batches, which goes up in place, is no part of a graph.
            tables = not operator.changed
            words = [self._word(leaf, tables=tables) for leaf in (operator.whole, *given, *made)]
            self._said.update(f"{words}\n".encode())
        arguments = operator.arguments(args, kwargs)
        self._note(function, operator, arguments, given, made)
        for name in operator.changed:
            # What stands for a weight may have been given another size.
            self._held.pop(id(arguments[name]), None)
        return result

    def _word(self, value: Any, *, tables: bool = False) -> object:
        """What a graph says of an argument: of a tensor which one it is, and its shape.

        Which one, by its memory and how it lies there, which two views of one need not share; not
        how it lies there, which is the machine's.
        """
        if isinstance(value, Tensor):
            lies = (value.storage_offset(), value.stride()) if value.layout == torch.strided else ()
            one = (*self._keys([value]), tuple(value.shape), *lies)
            number = self._numbers.setdefault(one, len(self._numbers))
            given = *self._frozen(value), *(self._table(value) if tables else ())
            return number, tuple(value.shape), str(value.dtype), *given
        return repr(value) if isinstance(value, _SAID) else type(value).__name__

    def _frozen(self, tensor: Tensor) -> Iterator[str]:
        """Where gradients are asked for: that a parameter gets none."""
        if isinstance(tensor, nn.Parameter) and torch.is_grad_enabled() > tensor.requires_grad:
            yield "frozen"

    def _table(self, tensor: Tensor) -> Iterator[str]:
        """Indices that are written into the code or kept: which channels are taken, in what order.

        Unlike weights, which have other types, they make a network another.
        """
        held = self._without_data is not None and not isinstance(tensor, FakeTensor)
        readable = tensor.device.type == "cpu" and tensor.layout == torch.strided
        if held and readable and tensor.dtype in (torch.int32, torch.int64):
            with _disable_current_modes():
                indices = tensor.numpy().tobytes()
            yield hashlib.sha256(indices).hexdigest()

    def graph(self, found: Iterable[Tensor]) -> str:
        """The digest of the forward that ended in these outputs."""
        said = self._said.copy()
        said.update(f"{[self._word(output) for output in found]}".encode())
        return said.hexdigest()[:16]

    def _note(
        self,
        function: Any,
        operator: _Operator,
        arguments: Mapping[str, Any],
        given: Iterable[Any],
        made: Iterable[Any],
    ) -> None:
        name = operator.name
        read = [leaf for leaf in given if isinstance(leaf, Tensor)]
        written = [leaf for leaf in made if isinstance(leaf, Tensor)]
        macs, without = macs_of(name, arguments, written), False
        again = self._phase == BACKWARD and _repeats_a_forward()
        # Not only what is returned: data that tensors without data are made of is written too.
        changed = [arguments[each] for each in operator.changed]
        reads = frozenset(self._keys(read))
        writes = frozenset(self._keys((*written, *filter(torch.is_tensor, tree_leaves(changed)))))
        if macs is None:
            if _is_view(function, name):
                return
            without = has_none(function)
            (self.without if without else self.uncounted)[name] += 1
        counts = OperatorCounts(
            calls=1,
            macs=macs or 0,
            for_nothing=unneeded_macs(name, arguments),
            activations=written[0].numel() if name in PRODUCTS else 0,
            moved=_moved(name, arguments, read, written),
            uncounted=int(macs is None and not without),
        )
        path = self._calls.path
        if path is None:
            path = (self._node_path if self._phase == BACKWARD else None) or OUTSIDE
        self._made.append(_Call(self._phase, path, name, counts, reads, writes, again))

    def own(self) -> dict[tuple[str, str], dict[str, OperatorCounts]]:
        """Counts by phase, module and operator."""
        found: dict[tuple[str, str], dict[str, Counter[str]]] = defaultdict(
            lambda: defaultdict(Counter)
        )
        for call, wasted in zip(self._made, self._wasted(), strict=True):
            sums = found[call.phase, call.path][call.name]
            sums.update({each.name: getattr(call.counts, each.name) for each in _FIELDS})
            if wasted:
                sums["for_nothing"] += call.counts.macs - call.counts.for_nothing
        return {
            key: {name: OperatorCounts(**sums) for name, sums in operators.items()}
            for key, operators in found.items()
        }

    def _wasted(self) -> list[bool]:
        """Whether each call's result reaches no output, or repeats an earlier one."""
        needed = self._needed
        wasted = []
        for call in reversed(self._made):
            # What is read on the host decides which way the network goes.
            on_host = not call.writes
            used = call.phase == BACKWARD or on_host or bool(call.writes & needed)
            if used and call.phase == FORWARD:
                needed |= call.reads
            wasted.append(call.again or not used)
        return wasted[::-1]

    def needed(self, values: Iterable[Tensor]) -> list[Tensor]:
        """Those of some tensors that an output needs, once `own` has followed what it does."""
        return [each for each in values if self._needed.intersection(self._keys([each]))]

    def distinct(self, values: Iterable[Tensor]) -> int:
        """Real numbers that tensors hold, what they share once."""
        views, apart = {}, 0
        for each in map(self._as_run, values):
            if each.layout == torch.strided:
                (key,) = self._keys([each])
                views[key, each.storage_offset(), each.shape, each.stride()] = each
            else:
                apart += reals(each)
        held: Counter[int] = Counter()
        room = {}
        for (key, *_), each in views.items():
            parts = 1 + each.is_complex()
            sides = zip(each.shape, each.stride(), strict=True)
            held[key] += parts * prod(side for side, step in sides if step)
            room[key] = parts * each.untyped_storage().nbytes() // each.itemsize
        return apart + sum(min(held[key], room[key]) for key in held)

    def _as_run(self, tensor: Tensor) -> Tensor:
        """The tensor that operators get for this one, which may hold data.

        Of a weight it is kept: torch makes another for each operator where nobody does, a third
        of the time of a trace, and takes the one that is there also for a weight that was given
        other data meanwhile.
        """
        if self._without_data is None or isinstance(tensor, FakeTensor):
            return tensor
        if id(tensor) not in self._weights or tensor.layout != torch.strided:
            return self._without_data.from_tensor(tensor)
        held, lies = self._held.get(id(tensor)), _lies(tensor)
        if held is not None and held.lies == lies:
            return held.as_run
        # First nobody may hold what stood for it: as long as it is there, torch takes it.
        del held
        self._held.pop(id(tensor), None)
        as_run = self._without_data.from_tensor(tensor)
        self._held[id(tensor)] = _Held(tensor, tensor.untyped_storage(), lies, as_run)
        return as_run

    def _keys(self, values: Iterable[Tensor]) -> Iterator[int]:
        """Which memory tensors are of: views share theirs."""
        for tensor in map(self._as_run, values):
            if tensor.layout != torch.strided:
                continue
            storage = tensor.untyped_storage()
            key: int = storage._cdata
            if key not in self._storages:
                # A weak reference to what has no data crashes torch 2.4 to 2.9.
                without_data = isinstance(tensor, FakeTensor)
                self._storages[key] = storage if without_data else StorageWeakRef(storage)
            yield key


class _Held(NamedTuple):
    """What stands for a weight, with what keeps its address and that of its memory from others."""

    weight: Tensor
    storage: torch.UntypedStorage
    lies: tuple[object, ...]
    as_run: Tensor


def _lies(tensor: Tensor) -> tuple[object, ...]:
    """In which memory a tensor lies, and how."""
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


@dataclass(frozen=True, slots=True)
class _Operator:
    """What the schema of an operator says.

    Attributes:
        whole: Its name with its namespace.
        name: Without.
        names: Of its arguments.
        defaults: Of those that have one.
        changed: Names of the arguments that it writes to.
    """

    whole: str
    name: str
    names: Sequence[str]
    defaults: Mapping[str, Any]
    changed: Sequence[str]

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of a call by name."""
        return {**self.defaults, **dict(zip(self.names, args, strict=False)), **kwargs}


@cache
def _operator(function: Any) -> _Operator:
    schema = function._schema
    return _Operator(
        whole=schema.name,
        name=schema.name.rpartition("::")[2],
        names=[each.name for each in schema.arguments],
        defaults={e.name: e.default_value for e in schema.arguments if e.has_default_value()},
        changed=[e.name for e in schema.arguments if e.alias_info and e.alias_info.is_write],
    )


_FIELDS = fields(OperatorCounts)

_SAID = (
    bool, int, float, complex, str, type(None), torch.dtype, torch.layout, torch.memory_format,
)  # fmt: skip
"""Kinds of arguments whose values belong to a graph."""


_NOT_OF_NETWORKS = frozenset({"prim", "profiler"})
"""Namespaces of operators that are about a network's run: what is printed or named in it."""


_DEVICE_OF = torch.ops.prim.device.default

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


def _consists_of_others(function: Any) -> bool:
    if function.namespace in _NOT_OF_NETWORKS:
        return False
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), _COMPOSITE))


def _is_view(function: Any, name: str) -> bool:
    """Whether an operator only makes another view, or memory without contents."""
    return bool(getattr(function, "is_view", False)) or name.startswith(_NO_WORK)


_NO_WORK = (
    "empty", "new_empty", "detach", "alias", "lift_fresh", "_unsafe_view", "ones_like",
    "unsafe_split", "unsafe_chunk", "transpose_", "squeeze_", "unsqueeze_", "t_", "resize_",
)  # fmt: skip


def _repeats_a_forward() -> bool:
    """Whether what runs within the backward is a forward that is computed again.

    Gradients are off in a backward; who computes with them on repeats a forward. So does a
    checkpoint, where the part that it repeats switches them off: its frame is then nearer than
    that of the engine that runs the backward.
    """
    if torch.is_grad_enabled():
        return True
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _engine_run_backward.__code__:
        if frame.f_code.co_filename == checkpoint.__file__:
            return True
        frame = frame.f_back
    return False


def _moved(
    name: str, arguments: Mapping[str, Any], read: list[Tensor], written: list[Tensor]
) -> int:
    """Real numbers read and written: each operand once, as if nothing stayed in a cache."""
    if name == "convolution_backward":
        # It is handed what it may not need.
        of_input, of_weight, _bias = arguments["output_mask"]
        wanted = [arguments["grad_output"]]
        wanted += [arguments["weight"]] * of_input + [arguments["input"]] * of_weight
        read = wanted
    return sum(map(reals, (*read, *written)))
