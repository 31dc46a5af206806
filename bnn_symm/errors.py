"""Exceptions of the package, and helpers that format their messages.

Each message states what was received, what is expected and what to try next. The command line
prints the message of a `BnnSymmError` as one line. Any other exception is a defect and keeps its
traceback.
"""

import difflib
import importlib.util
import shlex
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any


class BnnSymmError(Exception):
    """Base class of every exception that this package raises on purpose."""


class DatasetNotFound(BnnSymmError):
    """A data set or file is not on this machine.

    The message contains the command that downloads it, where there is one.
    """


class InvalidData(BnnSymmError):
    """Data were read but are not usable: NaN, a single class, or a missing column."""


class ConfigError(BnnSymmError):
    """A key, name or value of a configuration or an argument is not valid."""


class IncompatiblePosteriors(BnnSymmError):
    """Posteriors, or a posterior and a network, have different parameter spaces."""


class SymmetryError(BnnSymmError):
    """The symmetries of a network cannot be derived.

    An operation has no rule, or the shape of the input is unknown.
    """


class NotRepresentable(BnnSymmError):
    """A permutation of weights moves fixed entries.

    The permuted weights are outside the parameter space of the network.
    """


class InvalidRun(BnnSymmError):
    """A run directory cannot be used.

    It is missing, truncated, not written by this package, of another schema version, or in use.
    """


class FitDiverged(BnnSymmError):
    """The objective became NaN or infinite.

    Args:
        message: what happened, and what to try next.
        states: chain -> its last finite state.

    Attributes:
        posterior: posterior of the last finite states.
        states: the last finite states.
    """

    posterior: Any = None

    def __init__(self, message: str, states: Mapping[int, Any] | None = None):
        super().__init__(message)
        self.states = dict(states or {})


class NotEnoughMemory(BnnSymmError):
    """A computation needs more memory than is available; it was not started."""


class ProcessLost(BnnSymmError):
    """A process of a distributed fit died, does not answer, or diverged from the others."""


class MissingExtra(BnnSymmError, ImportError):
    """A package that only some functions need is not installed.

    The message contains the command that installs it.
    """


def require_extra(extra: str, package: str, user: str) -> None:
    """Check that a package of an optional extra is installed, before it is imported.

    Args:
        extra: name of the extra in `pyproject.toml`.
        package: name under which the package is imported.
        user: what needs it, the subject of the sentence.

    Raises:
        MissingExtra: if it is not installed.

    Example:
        >>> require_extra("arviz", "numpy", "to_arviz")
    """
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(
            f"{user} needs the package {package}, which is not installed; type: "
            f'pip install "bnn_symm[{extra}]"'
        )


def nearest(got: str, known: Iterable[str]) -> str:
    """Return a hint that names the known word nearest to `got`, or lists the known words.

    Args:
        got: word that was received.
        known: words that are valid.

    Returns:
        "did you mean 'x'?" if a known word is similar, else "known: ..." with all of them.
    """
    words = list(known)
    close = difflib.get_close_matches(got, words, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(words)}"


def one_line(value: object, limit: int = 300) -> str:
    r"""Return a text as one printable line of bounded length.

    Messages use it to quote files and user input. Line breaks become spaces. Control characters,
    which a terminal would interpret, become escapes such as `\x1b`. The middle of a text that is
    too long is omitted.

    Args:
        value: anything with a `str`.
        limit: largest number of characters of the result.

    Example:
        >>> one_line("a\nb")
        'a b'
        >>> one_line("x" * 1000, limit=11)
        'xxxx...xxxx'
    """
    text = str(value)
    if len(text) > 4 * limit:  # avoid escaping text that is cut anyway
        text = f"{text[: 2 * limit]} {text[-2 * limit :]}"
    text = "".join(_printable(character) for character in " ".join(text.split()))
    if len(text) <= limit:
        return text
    head = (limit - 3 + 1) // 2
    tail = limit - 3 - head
    return f"{text[:head]}...{text[len(text) - tail :]}"


def printable(text: str) -> str:
    r"""Return a text of several lines without characters that a terminal would interpret.

    Control and format characters become escapes such as `\x1b`; line breaks stay.

    Args:
        text: text to print.

    Example:
        >>> printable("one\ntwo\x1b[31m")
        'one\ntwo\\x1b[31m'
    """
    return "".join(character if character == "\n" else _printable(character) for character in text)


def printable_name(value: object) -> str:
    r"""Return a path or name in full without characters that a terminal would interpret.

    Line breaks are escaped as well.

    Args:
        value: path or name.

    Example:
        >>> printable_name("runs/a\nb")
        'runs/a\\nb'
    """
    return "".join(_printable(character) for character in str(value))


def shell_words(*words: object) -> str:
    """Return a command line of the given words, each quoted where a shell requires it.

    Args:
        words: paths, names and flags, each one argument of the command.

    Example:
        >>> shell_words("fit", "--resume", "runs/my run; ls")
        "fit --resume 'runs/my run; ls'"
    """
    return " ".join(shlex.quote(str(word)) for word in words)


def _printable(character: str) -> str:
    """Return a character, or its escape if it is a control, format or surrogate character."""
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character
