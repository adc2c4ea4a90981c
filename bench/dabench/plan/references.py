"""References to other people's networks, as text: read, checked, put together.

A reference says where a factory is and what to call it with::

    path/to/file.py:factory            a function or class in a file
    path/to/file.py:factory@REVISION   the same as git has it at a revision
    package.module:factory             the same in an installed or nearby package
    torchvision:NAME  timm:NAME  smp:NAME
    timm:resnet18(num_classes=10)      with keyword arguments
    trained:path/to/a/run              what dabench trained (`dabench.plan.trained`)

Nothing is imported here; `dabench.network.build` does that, in a worker.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import keyword
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dabench.base.errors import UsageError, bad_value
from dabench.plan.revisions import Place, at_revision
from dabench.plan.trained import SOURCE, is_trained, trained_at

Arguments = tuple[tuple[str, Any], ...]

FORMS = (
    "path/to/file.py:factory, the same with @REVISION, package.module:factory, torchvision:NAME, "
    "timm:NAME, smp:NAME, trained:RUN"
)

_CALL = re.compile(r"(?P<factory>[^()]+)(\((?P<arguments>.*)\))?", re.DOTALL)
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_WORDS = {"true": True, "false": False, "none": None}
_OPEN, _CLOSE, _QUOTES = "([{", ")]}", "'\""
# What Python's own reader raises for text that is no literal.
_NO_LITERAL = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError)


@dataclass(frozen=True, slots=True)
class Library:
    """A package that builds networks by name.

    Attributes:
        package: What is imported.
        distribution: What is installed, for its version.
        extra: The extra of dabench that installs it, if it is not always there.
        defaults: Arguments that keep it from downloading weights.
        size: Height and width its networks mostly take.
    """

    package: str
    distribution: str
    extra: str | None
    defaults: Mapping[str, Any]
    size: tuple[int, int] = (512, 1024)


LIBRARIES: Mapping[str, Library] = MappingProxyType(
    {
        "torchvision": Library(
            "torchvision", "torchvision", None, {"weights": None, "weights_backbone": None}
        ),
        "timm": Library("timm", "timm", "timm", {"pretrained": False}, (224, 224)),
        "smp": Library(
            "segmentation_models_pytorch",
            "segmentation-models-pytorch",
            "smp",
            {"encoder_weights": None},
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A network of somebody else's.

    Attributes:
        source: A name of `LIBRARIES`, the path of a Python file, a module, or ``trained``.
        factory: The name within it; dots lead to attributes. Of what is trained its path.
        arguments: Keyword arguments of the factory.
        revision: Of the repository that the file is in; empty for the file as it is.
    """

    source: str
    factory: str
    arguments: Arguments
    revision: str = ""

    @classmethod
    def of(cls, name: str) -> Reference:
        """Reads a reference as the user writes it.

        Raises:
            UsageError: It is none.
        """
        path = name.partition(":")[2]
        # Whatever signs are in it.
        if is_trained(name) and Path(path).exists():
            return cls(SOURCE, path, ())
        colons = [place for place, sign in _outside(name) if sign == ":"]
        source, call = "", None
        if colons:
            source, call = name[: colons[-1]].strip(), _CALL.fullmatch(name[colons[-1] + 1 :])
        if call is None or not source or not call["factory"].strip():
            raise bad_value("--model", name, f"it takes a name of 'dabench models' or {FORMS}")
        factory, revision = call["factory"].strip(), ""
        if source.endswith(".py"):
            factory, _, revision = factory.partition("@")
        return cls(source, factory, _arguments(name, call["arguments"] or ""), revision)

    @property
    def name(self) -> str:
        """The reference in its one way of being written."""
        listed = ", ".join(f"{key}={value!r}" for key, value in self.arguments)
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.source}:{self.factory}{at}" + (f"({listed})" if listed else "")

    @property
    def is_file(self) -> bool:
        """Whether the source is a Python file."""
        return self.source.endswith(".py")

    def place(self) -> Place:
        """Where its file is, and the folder that stands for the working one.

        Raises:
            UsageError: No such revision, or the file is not in it.
        """
        if not self.revision:
            return Place(Path(self.source).resolve(), Path.cwd())
        return at_revision(Path(self.source), self.revision)

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
        if self.source == SOURCE:
            if self.arguments:
                raise bad_value("--model", self.name, "a trained network takes no arguments")
            try:
                trained_at(Path(self.factory))
            except UsageError as error:
                raise bad_value("--model", self.name, str(error)) from None
            return
        if self.revision:
            self.place()
        elif self.is_file and not Path(self.source).is_file():
            raise bad_value("--model", self.name, f"there is no file {self.source!r}")
        if not self.is_file and not _is_module(self.source):
            near = difflib.get_close_matches(self.source, (*LIBRARIES, SOURCE), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise bad_value("--model", self.name, f"there is no module {self.source!r}{hint}")
        if not _DOTTED.fullmatch(self.factory):
            raise bad_value("--model", self.name, f"{self.factory!r} is no name of a factory")


def is_reference(name: str) -> bool:
    """Whether a name is of somebody else's network: those of the registry have no colon."""
    return ":" in name


def with_arguments(name: str, arguments: Arguments) -> str:
    """A reference with keyword arguments added; those it names itself stay."""
    if not arguments or not is_reference(name):
        return name
    reference = Reference.of(name)
    both = {**dict(arguments), **dict(reference.arguments)}
    return replace(reference, arguments=tuple(both.items())).name


def parse_argument(text: str) -> tuple[str, Any]:
    """Reads ``key=value``; what is no Python literal is a text.

    Raises:
        ValueError: There is no key that a factory could take.
    """
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key.isidentifier() or keyword.iskeyword(key):
        raise ValueError(text)
    if value.lower() in _WORDS:
        return key, _WORDS[value.lower()]
    try:
        return check_argument(key, ast.literal_eval(value))
    except _NO_LITERAL:
        return key, value


def check_argument(key: str, value: Any) -> tuple[str, Any]:
    """Checks that an argument can be written into a reference and read back.

    Raises:
        ValueError: It cannot, such as a date.
    """
    if not key.isidentifier() or keyword.iskeyword(key):
        raise ValueError(key)
    try:
        same = ast.literal_eval(repr(value)) == value
    except _NO_LITERAL:
        same = False
    if not same:
        raise ValueError(f"{key}={value}")
    return key, value


def split_names(text: str) -> list[str]:
    """Splits a text at its commas, except those within a reference's brackets or quotes.

    Raises:
        UsageError: It is no text, as names of files need not be.
    """
    if not text.isascii() and text.encode(errors="ignore").decode() != text:
        raise UsageError(f"--model: {text!a} is not allowed; it takes text, rename the file")
    commas = [place for place, sign in _outside(text) if sign == ","]
    starts = [0, *(place + 1 for place in commas)]
    return [text[i:j].strip() for i, j in zip(starts, [*commas, len(text)], strict=True)]


def _outside(text: str) -> Iterator[tuple[int, str]]:
    """The signs outside of a call's brackets and quotes, with their places.

    Before a colon there is a path, in which brackets and quotes are but signs.
    """
    depth, quote, escaped, called = 0, "", False, False
    for place, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote and not escaped else quote
            escaped = sign == "\\" and not escaped
        elif depth and sign in _QUOTES:
            quote = sign
        elif called and sign in _OPEN:
            depth += 1
        elif called and sign in _CLOSE:
            depth = max(depth - 1, 0)
        elif not depth:
            called = sign == ":" or (called and sign != ",")
            yield place, sign


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
        # Text that closes the bracket by itself is more than arguments.
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError(text)
        keys = [each.arg for each in call.keywords]
        if None in keys or len(set(keys)) < len(keys):
            raise ValueError(text)
        return tuple((str(k.arg), ast.literal_eval(k.value)) for k in call.keywords)
    except _NO_LITERAL:
        allowed = "arguments are key=value with Python literals, such as (num_classes=19)"
        raise bad_value("--model", name, allowed) from None
