"""Networks by name: those of the registry, and other people's by reference.

A reference says where a factory is and what to call it with::

    path/to/file.py:factory            a function or class in a file
    package.module:factory             the same in an installed or nearby package
    torchvision:NAME  timm:NAME  smp:NAME
    timm:resnet18(num_classes=10)      with keyword arguments

Other people's code is imported where the network is built, that is in a worker
process of its own: `spec_of` reads a reference without importing anything.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dabench.errors import UsageError, bad_value
from dabench_models import ModelSpec, UnknownModelError, build, resolve

if TYPE_CHECKING:
    from torch import nn

Arguments = tuple[tuple[str, Any], ...]

FORMS = "path/to/file.py:factory, package.module:factory, torchvision:NAME, timm:NAME, smp:NAME"

_CALL = re.compile(r"(?P<target>[^()]+)(\((?P<arguments>.*)\))?", re.DOTALL)
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_WORDS = {"true": True, "false": False, "none": None}


@dataclass(frozen=True, slots=True)
class Library:
    """A package that builds networks by name.

    Attributes:
        package: What is imported.
        extra: The extra of dabench that installs it, if it is not always there.
        defaults: Arguments that keep it from downloading weights.
        size: Height and width its networks mostly take.
    """

    package: str
    extra: str | None
    defaults: Mapping[str, Any]
    size: tuple[int, int] = (512, 1024)


LIBRARIES: Mapping[str, Library] = {
    "torchvision": Library("torchvision", None, {"weights": None, "weights_backbone": None}),
    "timm": Library("timm", "timm", {"pretrained": False}, (224, 224)),
    "smp": Library("segmentation_models_pytorch", "smp", {"encoder_weights": None}),
}


@dataclass(frozen=True, slots=True)
class Reference:
    """A network of somebody else's.

    Attributes:
        source: A name of `LIBRARIES`, the path of a Python file, or a module.
        factory: The name within it; dots lead to attributes.
        arguments: Keyword arguments of the factory.
    """

    source: str
    factory: str
    arguments: Arguments

    @classmethod
    def of(cls, name: str) -> Reference:
        """Reads a reference as the user writes it.

        Raises:
            UsageError: It is none.
        """
        call = _CALL.fullmatch(name.strip())
        source, colon, factory = call["target"].rpartition(":") if call else ("", "", "")
        if call is None or not colon or not source or not factory:
            raise bad_value("--model", name, f"it takes a name of 'dabench models' or {FORMS}")
        return cls(source.strip(), factory.strip(), _arguments(name, call["arguments"] or ""))

    @property
    def name(self) -> str:
        """The reference in its one way of being written."""
        listed = ", ".join(f"{key}={value!r}" for key, value in self.arguments)
        return f"{self.source}:{self.factory}" + (f"({listed})" if listed else "")

    @property
    def is_file(self) -> bool:
        """Whether the source is a Python file."""
        return self.source.endswith(".py")

    def check(self) -> None:
        """Checks what can be checked without importing anything.

        Raises:
            UsageError: The file or the package is missing, or the names cannot be any.
        """
        library = LIBRARIES.get(self.source)
        if library is not None:
            if importlib.util.find_spec(library.package) is None:
                mend = f"pip install 'dabench[{library.extra}]'" if library.extra else ""
                raise UsageError(f"--model: {self.name}: {library.package} is missing; {mend}")
            return
        if self.is_file and not Path(self.source).is_file():
            raise bad_value("--model", self.name, f"there is no file {self.source!r}")
        if not self.is_file and not _is_module(self.source):
            near = difflib.get_close_matches(self.source, LIBRARIES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise bad_value("--model", self.name, f"there is no module {self.source!r}{hint}")
        if not _DOTTED.fullmatch(self.factory):
            raise bad_value("--model", self.name, f"{self.factory!r} is no name of a factory")

    def build(self) -> Any:
        """Imports the source and calls the factory; whatever that raises goes through."""
        arguments = dict(self.arguments)
        library = LIBRARIES.get(self.source)
        if library is not None:
            makers: dict[str, Callable[[str, dict[str, Any]], Any]] = {
                "torchvision": _torchvision,
                "timm": _timm,
                "smp": _smp,
            }
            return makers[self.source](self.factory, {**library.defaults, **arguments})
        found: Any = _file_module(Path(self.source)) if self.is_file else _module(self.source)
        for part in self.factory.split("."):
            found = getattr(found, part)
        return found(**arguments)


def is_reference(name: str) -> bool:
    """Whether a name is of somebody else's network: those of the registry have no colon."""
    return ":" in name


def spec_of(name: str) -> ModelSpec:
    """What is known of a network before it is built; imports no code of others.

    Raises:
        UsageError: Not in the registry, and no reference whose source is there.
    """
    if is_reference(name):
        reference = Reference.of(name)
        reference.check()
        library = LIBRARIES.get(reference.source)
        height, width = library.size if library else (512, 1024)
        return ModelSpec(
            name=reference.name,
            family="other",
            builder=f"{reference.source}:{reference.factory}",
            options=dict(reference.arguments),
            height=height,
            width=width,
            outputs=(),
            summary="a network from outside of dabench",
            source=reference.source,
        )
    try:
        return resolve(name)
    except UnknownModelError as error:
        raise UsageError(f"--model: {error}; or {FORMS}") from None


def build_network(name: str) -> nn.Module:
    """Builds a network by its name or reference, in training mode.

    Raises:
        TypeError: The factory made something else.
    """
    if not is_reference(name):
        return build(name)
    from torch import nn

    made = Reference.of(name).build()
    if not isinstance(made, nn.Module):
        raise TypeError(f"{name} made a {type(made).__name__}, not a torch.nn.Module")
    return made.train()


def with_arguments(name: str, arguments: Arguments) -> str:
    """A reference with keyword arguments added; those it names itself stay."""
    if not arguments or not is_reference(name):
        return name
    reference = Reference.of(name)
    both = {**dict(arguments), **dict(reference.arguments)}
    return Reference(reference.source, reference.factory, tuple(both.items())).name


def parse_argument(text: str) -> tuple[str, Any]:
    """Reads ``key=value``; what is no Python literal is a text.

    Raises:
        ValueError: There is no key.
    """
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key.isidentifier():
        raise ValueError(text)
    if value.lower() in _WORDS:
        return key, _WORDS[value.lower()]
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def split_names(text: str) -> list[str]:
    """Names separated by commas, those within parentheses apart."""
    return [part.strip() for part in re.split(r",(?![^()]*\))", text)]


def _is_module(name: str) -> bool:
    """Whether a module's first package is installed or lies in the working folder."""
    first = name.partition(".")[0]
    if not _DOTTED.fullmatch(name):
        return False
    nearby = Path(first).is_dir() or Path(f"{first}.py").is_file()
    return nearby or importlib.util.find_spec(first) is not None


def _arguments(name: str, text: str) -> Arguments:
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError(text)
        return tuple((str(k.arg), ast.literal_eval(k.value)) for k in call.keywords)
    except (ValueError, SyntaxError):
        allowed = "arguments are key=value with Python literals, such as (num_classes=19)"
        raise bad_value("--model", name, allowed) from None


def _torchvision(name: str, arguments: dict[str, Any]) -> Any:
    from torchvision.models import get_model, get_model_builder

    # Only segmenters and detectors have a backbone with weights of its own.
    takes = importlib.import_module("inspect").signature(get_model_builder(name)).parameters
    if "weights_backbone" not in takes:
        arguments.pop("weights_backbone")
    return get_model(name, **arguments)


def _timm(name: str, arguments: dict[str, Any]) -> Any:
    return importlib.import_module("timm").create_model(name, **arguments)


def _smp(name: str, arguments: dict[str, Any]) -> Any:
    return importlib.import_module("segmentation_models_pytorch").create_model(name, **arguments)


def _module(name: str) -> ModuleType:
    """Imports a module that is installed or lies in the working folder."""
    _look_first_in([Path.cwd()])
    return importlib.import_module(name)


def _file_module(path: Path) -> ModuleType:
    """Imports a file: as part of its package if it is in one, else under a name of its own."""
    path = path.resolve()
    root, name = path.parent, path.stem
    while (root / "__init__.py").exists():
        root, name = root.parent, f"{root.name}.{name}"
    _look_first_in([path.parent, root, Path.cwd()])
    if root != path.parent:
        # Its relative imports need the package it is in.
        return importlib.import_module(name.removesuffix(".__init__"))
    spec = importlib.util.spec_from_file_location(f"dabench_user_{name}", path)
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
