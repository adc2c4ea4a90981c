"""Networks built by name: those of the registry, and other people's by reference.

Other people's code is imported here, so this runs in a worker process of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from dabench.base.errors import UnsupportedError
from dabench.network.pretrained import left_out_note, weights_left_out
from dabench.plan.references import LIBRARIES, Reference, is_reference
from dabench.plan.revisions import Place
from dabench.plan.trained import is_trained, trained_at
from dabench_models import build

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def build_network(name: str) -> nn.Module:
    """Builds a network by its name or reference, in training mode; with weights if it is trained.

    Other people's code may set threads or precisions for the whole process; these
    are put back, so that a case is measured as it says.

    Trained weights that factories would fetch are left out (`notes_of` says so);
    real weights of another precision are brought to fp32.

    Raises:
        UnknownModelError: A name that is not in the registry.
        UsageError: A reference that cannot be read.
        TypeError: The factory made something else than a module.
        RuntimeError: The factory tried to end the process.
        UnsupportedError: The factory compiled it, which nobody could tell from its row.
    """
    if not is_reference(name):
        return build(name)
    if is_trained(name):
        from dabench.network import checkpoint
        from dabench.network.trained import rebuilt

        weights = trained_at(Path(Reference.of(name).factory)).weights
        return rebuilt(checkpoint.load(weights), weights)
    import torch
    from torch import nn

    try:
        # Whatever a factory prints is no output of ours.
        with (
            _global_settings_kept(),
            _started_as(name),
            weights_left_out() as left_out,
            redirect_stdout(sys.stderr),
        ):
            made = _made(Reference.of(name))
    except SystemExit as error:
        raise RuntimeError(f"{name} tried to end the process: {error}") from error
    if not isinstance(made, nn.Module):
        raise TypeError(f"{name} made a {type(made).__name__}, not a torch.nn.Module")
    if any(map(_is_compiled, made.modules())):
        raise UnsupportedError(
            f"{name} is compiled by its factory; let it return the plain network and name --compile"
        )
    # Not what it returns: those who override it often return nothing.
    made.train()
    cast_real(made, torch.float32)
    if left_out:
        _NOTES[made] = left_out_note(left_out)
    return made


def _is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile wraps it, its call or its forward."""
    if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
        return True
    # torch.compiler.disable marks what it wraps in the same way, and in its own.
    forward = module.forward
    disabled = getattr(forward, "_torchdynamo_disable", False)
    return hasattr(forward, "_torchdynamo_orig_callable") and not disabled


_NOTES: MutableMapping[Any, str] = WeakKeyDictionary()


def notes_of(network: nn.Module) -> str:
    """What a reader must know of how a network was built; empty if nothing."""
    return _NOTES.get(network, "")


def cast_real(network: nn.Module, dtype: torch.dtype) -> None:
    """Brings a network's real weights and buffers to a dtype, in place.

    Complex ones stay as they are: a cast to a real dtype would make another
    network of it. (`Module.to` casts them.)
    """
    network._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)


def settle(network: nn.Module, make_input: Callable[[], Tensor]) -> None:
    """Gives lazy layers their shapes, which they take from a first input."""
    import torch
    from torch.nn.parameter import is_lazy

    if any(is_lazy(p) for p in (*network.parameters(), *network.buffers())):
        with torch.no_grad():
            network(make_input())


def _made(reference: Reference) -> Any:
    """What the factory makes; whatever importing or calling it raises goes through."""
    arguments = dict(reference.arguments)
    library = LIBRARIES.get(reference.source)
    if library is not None:
        return _MAKERS[reference.source](reference.factory, {**library.defaults, **arguments})
    found: Any = _file_module(reference.place()) if reference.is_file else _module(reference.source)
    for part in reference.factory.split("."):
        found = getattr(found, part)
    return found(**arguments)


@contextmanager
def _started_as(program: str) -> Iterator[None]:
    """Without arguments: a factory that reads the command line gets what it does by default."""
    before, sys.argv = sys.argv, [program]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _global_settings_kept() -> Iterator[None]:
    """Puts back what code of others changes for the whole process."""
    import torch

    threads = torch.get_num_threads()
    dtype, device = torch.get_default_dtype(), torch.empty(0).device
    precision = torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    gradients, anomalies = torch.is_grad_enabled(), torch.is_anomaly_enabled()
    switches: list[tuple[Any, str]] = [
        (torch.backends.cudnn, name)
        for name in ("enabled", "benchmark", "deterministic", "allow_tf32")
    ]
    switches.append((torch.backends.mkldnn, "enabled"))
    before = [getattr(module, name) for module, name in switches]
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        # A default of cpu, set, would look at every call of torch from then on.
        torch.set_default_device(None if device.type == "cpu" else device)
        torch.set_float32_matmul_precision(precision)
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_grad_enabled(gradients)
        torch.autograd.set_detect_anomaly(anomalies)
        for (module, name), value in zip(switches, before, strict=True):
            setattr(module, name, value)


def _torchvision(name: str, arguments: dict[str, Any]) -> Any:
    from torchvision.models import get_model, get_model_builder

    # Only segmenters and detectors have a backbone with weights of its own.
    if "weights_backbone" not in inspect.signature(get_model_builder(name)).parameters:
        arguments.pop("weights_backbone")
    return get_model(name, **arguments)


def _timm(name: str, arguments: dict[str, Any]) -> Any:
    return importlib.import_module("timm").create_model(name, **arguments)


def _smp(name: str, arguments: dict[str, Any]) -> Any:
    return importlib.import_module("segmentation_models_pytorch").create_model(name, **arguments)


_MAKERS: dict[str, Callable[[str, dict[str, Any]], Any]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "smp": _smp,
}


def _module(name: str) -> ModuleType:
    """Imports a module that is installed or lies in the working folder."""
    _look_first_in([Path.cwd()])
    return importlib.import_module(name)


def _file_module(place: Place) -> ModuleType:
    """Imports a file: as part of its package if it is in one, else under a name of its own."""
    path = place.file
    root, name = path.parent, path.stem
    while (root / "__init__.py").exists():
        root, name = root.parent, f"{root.name}.{name}"
    # The package's root before its own folders, as for those who run it from there.
    _look_first_in([root, path.parent, place.folder])
    name = name.removesuffix(".__init__")
    if root != path.parent and all(part.isidentifier() for part in name.split(".")):
        return importlib.import_module(name)
    return _standalone(path)


_FOLDER = "dabench_user"


def _standalone(path: Path) -> ModuleType:
    """Imports a file under a name of its own, its folder serving relative imports."""
    folder = ModuleType(_FOLDER)
    folder.__path__ = [str(path.parent)]
    sys.modules[_FOLDER] = folder
    spec = importlib.util.spec_from_file_location(f"{_FOLDER}.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _look_first_in(folders: Iterable[Path]) -> None:
    """Puts folders first on the import path.

    Every repository has its own ``models``, ``utils`` and ``configs``. They do not
    collide, since each network is built in a process of its own that has imported
    none of them before; first on the path they win against installed ones.
    """
    wanted = [str(folder) for folder in dict.fromkeys(folders)]
    sys.path[:] = [*wanted, *(entry for entry in sys.path if entry not in wanted)]
    importlib.invalidate_caches()
