"""Errors that a user can fix, in one line: the problem, the value received, the allowed values, the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from alexnet_lab.base.printable import printable

__all__ = ["AlexNetLabError", "ConfigError", "DataError", "Interrupted", "RunError"]


class AlexNetLabError(Exception):
    """An error with a message for the user; entry points print it in one line and exit with `exit_code`.

    Example:
        >>> ConfigError("unknown key `model.nrom`").exit_code
        2
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class ConfigError(AlexNetLabError):
    """The request itself is wrong (a key, a value, a combination): nothing was started.

    Example:
        >>> from alexnet_lab import compose
        >>> compose("model=lenet6")
        Traceback (most recent call last):
        alexnet_lab.base.errors.ConfigError: there is no `model=lenet6`; did you mean `lenet5`?
    """

    exit_code = 2


class DataError(AlexNetLabError):
    """A data set is missing, damaged or not what it should be.

    Example:
        >>> issubclass(DataError, AlexNetLabError), DataError("no images").exit_code
        (True, 1)
    """


class RunError(AlexNetLabError):
    """A run, its directory or its files cannot be used.

    Example:
        >>> from alexnet_lab import load
        >>> load("logs/runs/none")
        Traceback (most recent call last):
        alexnet_lab.base.errors.RunError: there is no run directory logs/runs/none
    """


class JobsCancelledError(RunError):
    """Jobs of a sweep were cancelled in the cluster's queue; a launcher raises it after all have left the queue."""


class Interrupted(AlexNetLabError):  # noqa: N818 - an event, not a fault
    """Ctrl-C or SIGTERM: neither the user's fault nor the program's.

    Example:
        >>> Interrupted("Ctrl-C").exit_code
        130
    """

    exit_code = 130


def is_interrupt(error: BaseException) -> bool:
    """Whether an error stands for Ctrl-C or SIGTERM."""
    return isinstance(error, Interrupted | KeyboardInterrupt)


def one_line(message: object) -> str:
    """The message in one line: white space and line breaks become single blanks, control characters are escaped.

    torch's C++ stack is left out.
    """
    return printable(" ".join(str(message).partition("\nException raised from ")[0].split()))


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The end of an error message: names the choice nearest to `word`, or lists all choices.

    Example:
        >>> did_you_mean("nrom", ["norm", "pool"])
        'did you mean `norm`?'
        >>> did_you_mean("xyz", ["norm", "pool"])
        'allowed: norm, pool'
    """
    names = sorted(set(choices))
    found = nearest(word, names)
    if found:
        return f"did you mean `{found}`?"
    return f"allowed: {', '.join(names)}" if names else "no keys are allowed here"


def nearest(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The choice that is spelled most like `word`, if any is similar enough.

    Args:
        word: As typed; upper and lower case do not matter.
        choices: In any order.
        cutoff: The least similarity, between 0 and 1.
    """
    names = sorted(set(choices))
    swapped = [name.lower() for name in names if sorted(name.lower()) == sorted(word.lower())]  # letters changed places
    lower = {name.lower() for name in names}
    near = swapped or difflib.get_close_matches(word.lower(), lower, n=1, cutoff=cutoff)
    if not near:
        return None
    alike = [name for name in names if name.lower() == near[0]]
    return difflib.get_close_matches(word, alike, n=1, cutoff=0)[0]
