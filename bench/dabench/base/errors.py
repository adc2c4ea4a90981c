"""What can go wrong, in one line a person can act on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator


class DabenchError(Exception):
    """Something dabench cannot do; the message is one line, meant for the user."""


class UsageError(DabenchError):
    """A request that cannot be met as written (exit code 2)."""


class UnsupportedError(DabenchError, NotImplementedError):
    """What a network, a device or a library cannot do; a row with that reason."""


class DiedError(DabenchError):
    """A process of several that run at once ended without a word."""


class OverloadError(DabenchError):
    """A stream that comes faster than it can be worked off."""


class ResultsError(DabenchError):
    """Records that cannot be read or written; the message names file and line."""


def bad_value(option: str, value: object, allowed: str) -> UsageError:
    """An error naming the option, the value and what is allowed.

    Args:
        option: As the user wrote it, such as ``--batch`` or ``batch`` in a file.
        value: What was given.
        allowed: What would have been accepted.
    """
    return UsageError(f"{option}: {str(value)!r} is not allowed; {allowed}")


@contextlib.contextmanager
def named_as(typed: str, *options: str) -> Iterator[None]:
    """Within, an error that names one of the options names what was typed.

    What reads a value cannot know that a command took it from somewhere else.

    Args:
        typed: As the user knows it, such as ``--checkpoints`` or ``ROOT``.
        options: As errors name it.
    """
    try:
        yield
    except UsageError as error:
        option, colon, rest = str(error).partition(": ")
        if not colon or option not in options:
            raise
        raise type(error)(f"{typed}: {rest}") from None


def check_choice(option: str, value: object, choices: Iterable[str]) -> None:
    """Checks that a value is one of those allowed.

    Raises:
        UsageError: It is not; the message lists them.
    """
    if value not in (allowed := tuple(choices)):
        raise bad_value(option, value, f"choices: {', '.join(allowed)}")


# Of a terminal: titles and links (ended by a bell or a backslash), colours and cursors, the rest;
# then whatever else is no character to be read.
_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\|$)|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0e-\x1a\x7f-\x84\x86-\x9f]"
)


def clean_line(text: str) -> str:
    """The first line of a message that says something, without terminal escape codes."""
    lines = (" ".join(_ESCAPES.sub("", line).split()) for line in text.splitlines())
    return next((line for line in lines if line), "")


def one_line(text: str, longest: int = 300) -> str:
    """All lines of a message in one, cut off where it is too long to be read."""
    lines = [clean_line(line) for line in text.splitlines()]
    whole = " ".join(line for line in lines if line)
    return whole if len(whole) <= longest else f"{whole[: longest - 3]}..."


class DataError(UsageError):
    """A dataset that is not what it should be; names the file and what is wrong with it."""
