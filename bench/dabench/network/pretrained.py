"""Trained weights that factories would fetch: left out, since speed and operations need none.

The loaders of torch.hub, torchvision, timm and segmentation-models-pytorch are
replaced while a network is built. What would have been fetched is noted. What a factory
fetches itself finds no network: it takes what it has kept, or is refused.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any, cast

from dabench.base.errors import DabenchError, UnsupportedError, clean_line

VARIABLE = "DABENCH_PRETRAINED"
"""``on`` lets factories fetch what they want; read by workers, and part of every record."""


class _Nothing(dict[str, Any]):
    """Stands for weights that were not fetched, whatever a loader does with them.

    Keys may be read, popped and deleted; what they hold is nothing too, and so is
    what methods, arithmetic and functions of torch make of it.
    """

    def __getitem__(self, key: Any) -> _Nothing:
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __getattr__(self, name: str) -> _Nothing:
        # Python asks whether there are methods of its own.
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> _Nothing:
        return self

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> _Nothing:
        return cls()

    def _with(self, _: Any) -> _Nothing:
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = (
        _with
    )
    __matmul__ = __rmatmul__ = __pow__ = _with

    def __delitem__(self, key: str) -> None:
        pass

    def pop(self, key: str, *default: Any) -> Any:
        return default[0] if default else self


@contextmanager
def weights_left_out() -> Iterator[list[str]]:
    """Keeps factories from fetching weights; yields what they would have fetched.

    Does nothing where `VARIABLE` is ``on``.

    Raises:
        UnsupportedError: A factory that cannot do without what it would have fetched.
    """
    left_out: list[str] = []
    if os.environ.get(VARIABLE) == "on":
        yield left_out
        return
    with _loaders_replaced(left_out), _without_network(left_out) as hosts:
        try:
            yield left_out
        except DabenchError:
            raise
        except Exception as error:
            if not left_out:
                raise
            what = f"{type(error).__name__}: {clean_line(str(error))}"
            why = f"{what} ({left_out_note(left_out)})"
            if hosts:
                why = f"its factory fetches from {hosts[0]}; --pretrained on lets it ({what})"
            raise UnsupportedError(why) from error


@contextmanager
def _loaders_replaced(left_out: list[str]) -> Iterator[None]:
    """Torch's and other libraries' loaders give nothing, and note what of."""
    import torch
    from torch import hub, nn

    def load_state_dict_from_url(url: str, *_: Any, **__: Any) -> _Nothing:
        left_out.append(str(url).rpartition("/")[2])
        return _Nothing()

    load = nn.Module.load_state_dict

    def load_state_dict(self: nn.Module, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        # Loaders pick keys out of what they were given: of nothing that is nothing.
        if left_out and not state_dict:
            return torch.nn.modules.module._IncompatibleKeys([], [])
        return load(self, state_dict, *args, **kwargs)

    def download_url_to_file(url: str, *_: Any, **__: Any) -> None:
        raise UnsupportedError(
            f"its factory fetches {url} into a file, which may hold more than trained weights; "
            "--pretrained on lets it"
        )

    hooks = _Hooks(left_out)
    sys.meta_path.insert(0, hooks)
    try:
        hooks.replace(hub.load_state_dict_from_url, load_state_dict_from_url)
        hooks.replace(hub.download_url_to_file, download_url_to_file)
        nn.Module.load_state_dict = load_state_dict  # type: ignore[method-assign]
        hooks.patch_loaded()
        yield
    finally:
        sys.meta_path.remove(hooks)
        hooks.undo()
        nn.Module.load_state_dict = load  # type: ignore[method-assign]


@contextmanager
def _without_network(left_out: list[str]) -> Iterator[list[str]]:
    """Other hosts cannot be found: what is cached is taken then; yields those asked for."""
    look_up = socket.getaddrinfo
    hosts: list[str] = []

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name in _THIS_MACHINE:
            return look_up(host, *args, **kwargs)
        hosts.append(str(name))
        left_out.append(f"what {name} holds")
        raise socket.gaierror(socket.EAI_AGAIN, f"{name} is not asked")

    # Proxies ask for others, also one on this machine.
    before = {name: os.environ.get(name) for name in ("no_proxy", "NO_PROXY")}
    os.environ.update(dict.fromkeys(before, "*"))
    socket.getaddrinfo = getaddrinfo
    try:
        yield hosts
    finally:
        socket.getaddrinfo = look_up
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def left_out_note(left_out: Sequence[str]) -> str:
    """What is said of a network whose weights were left out."""
    names = ", ".join(dict.fromkeys(left_out))
    return f"trained weights are left out ({names}); --pretrained on fetches them"


_THIS_MACHINE = frozenset({None, "", "localhost", "127.0.0.1", "::1"})


class _Hooks(importlib.abc.MetaPathFinder):
    """Replaces functions, and the loaders of libraries as soon as these are imported."""

    def __init__(self, left_out: list[str]) -> None:
        self._left_out = left_out
        self._undo: list[Callable[[], None]] = []
        self._patches: dict[str, Callable[[ModuleType], None]] = {
            "timm.models._builder": self._timm,
            "segmentation_models_pytorch.encoders": self._smp,
        }

    def patch_loaded(self) -> None:
        """Those that are there already."""
        for name, patch in self._patches.items():
            if name in sys.modules:
                patch(sys.modules[name])

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        patch = self._patches.pop(fullname, None)
        if patch is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                patch(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def undo(self) -> None:
        """Puts everything back."""
        while self._undo:
            self._undo.pop()()

    def _timm(self, builder: ModuleType) -> None:
        def load_pretrained(model: Any, pretrained_cfg: Any = None, *_: Any, **__: Any) -> None:
            architecture = getattr(pretrained_cfg, "architecture", None) or type(model).__name__
            self._left_out.append(f"timm's {architecture}")

        self.replace(builder.load_pretrained, load_pretrained)

    def _smp(self, encoders: ModuleType) -> None:
        def get_encoder(name: str, *args: Any, weights: Any = None, **kwargs: Any) -> Any:
            if weights is not None:
                self._left_out.append(f"the encoder {name}'s {weights}")
            return original(name, *args, weights=None, **kwargs)

        original = self.replace(encoders.get_encoder, get_encoder)

    def replace(self, original: Any, replacement: Callable[..., Any]) -> Callable[..., Any]:
        """Makes each call of a function one of another, whoever holds it and by whatever name.

        A function's code is exchanged, and not the function: to look for it in all modules takes a
        worker longer than to build most networks, since a fork copies what it touches. What is
        called otherwise is looked for.

        Returns:
            What does what the original did.
        """
        if not isinstance(original, FunctionType) or original.__closure__ is not None:
            _replace_everywhere(original, replacement)
            self._undo.append(lambda: _replace_everywhere(replacement, original))
            return cast("Callable[..., Any]", original)
        before = original.__code__, original.__defaults__, original.__kwdefaults__

        def undo() -> None:
            original.__code__, original.__defaults__, original.__kwdefaults__ = before

        copy = FunctionType(before[0], original.__globals__, original.__name__, before[1])
        copy.__kwdefaults__ = before[2]
        self._undo.append(undo)
        original.__code__, original.__defaults__ = _call_instead.__code__, None
        original.__kwdefaults__ = {"_replacement": replacement}
        return copy


def _call_instead(*args: Any, _replacement: Callable[..., Any], **kwargs: Any) -> Any:
    return _replacement(*args, **kwargs)


def _replace_everywhere(original: Any, replacement: Any) -> None:
    """Replaces what is called in every module that holds it, under whatever name."""
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is original:
                setattr(module, name, replacement)
