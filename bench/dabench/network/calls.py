"""Which module's call does what: the module that runs now, and who made which node of a graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.autograd.graph import Node
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from dabench.network.tensors import tensors


class Calls:
    """Follows the calls of a network's modules.

    Its hooks are global, since hooks on a module itself switch off torch's fast
    paths; so they also see other networks, whose calls are passed over.

    Args:
        network: Calls of modules of other networks are passed over.

    Attributes:
        owners: Node of the autograd graph -> path of the module whose call made it.
        shapes: Path -> shape of the module's output, where that is a tensor.
    """

    def __init__(self, network: nn.Module) -> None:
        self._paths = {id(module): path for path, module in network.named_modules()}
        self._stack: list[str] = []
        self.owners: dict[Node, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    @property
    def path(self) -> str | None:
        """Of the module that runs now; None outside of the network."""
        return self._stack[-1] if self._stack else None

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Follows calls while the context lasts."""
        handles = [
            register_module_forward_pre_hook(self._before),
            # Also after an error: checkpointing ends a repeated call by one when it has enough.
            register_module_forward_hook(self._after, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._stack.clear()

    def _before(self, module: nn.Module, inputs: Any) -> None:
        path = self._paths.get(id(module))
        if path is None:
            return
        if self._stack:
            # What was made up to here is the caller's own work.
            claim(inputs, self._stack[-1], self.owners)
        self._stack.append(path)

    def _after(self, module: nn.Module, _inputs: Any, output: Any) -> None:
        path = self._paths.get(id(module))
        if path is None:
            return
        self._stack.pop()
        claim(output, path, self.owners)
        found = list(tensors(output))
        if len(found) == 1:
            self.shapes[path] = tuple(int(side) for side in found[0].shape)


def claim(values: Any, path: str, owners: dict[Node, str]) -> None:
    """Gives a path all nodes behind some outputs that nobody has yet."""
    waiting = [tensor.grad_fn for tensor in tensors(values)]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in owners:
            owners[node] = path
            waiting.extend(following for following, _ in node.next_functions)
