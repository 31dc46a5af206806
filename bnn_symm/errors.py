"""One hierarchy of errors. Each message says what was got, what was wanted and what to type next.

The command line prints the message of a `BnnSymmError` as one line; everything else is a defect and
keeps its traceback.
"""

import difflib
import shlex
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any


class BnnSymmError(Exception):
    """Base of every error that this package raises on purpose."""


class DatasetNotFound(BnnSymmError):
    """A data set or file is not on this machine; the message has the command that gets it."""


class InvalidData(BnnSymmError):
    """Data were read but cannot be used as they are: NaN, one class only, a missing column."""


class ConfigError(BnnSymmError):
    """A key, a name or a value of a configuration is not valid."""


class IncompatiblePosteriors(BnnSymmError):
    """Two posteriors, or a posterior and a network, do not live in the same parameter space."""


class SymmetryError(BnnSymmError):
    """The symmetries of a network cannot be derived: an operation without a rule, or an unknown
    input shape.
    """


class NotRepresentable(BnnSymmError):
    """A permutation of weights moves what is fixed, so that it leaves the parameter space of the
    network.
    """


class InvalidRun(BnnSymmError):
    """A run directory is missing, truncated, foreign, of another schema, or in use."""


class FitDiverged(BnnSymmError):
    """The objective became NaN or infinite.

    Args:
        message: what happened, and what to type next.
        states: chain -> its last good state.

    Attributes:
        posterior: the posterior of the last good states.
        states: these themselves.
    """

    posterior: Any = None

    def __init__(self, message: str, states: Mapping[int, Any] | None = None):
        super().__init__(message)
        self.states = dict(states or {})


class NotEnoughMemory(BnnSymmError):
    """Something needs more memory than is available; it was refused before the memory was taken."""


class ProcessLost(BnnSymmError):
    """Of the processes that share a fit, one died, does not answer, or went another way than the
    others.
    """


def nearest(got: str, known: Iterable[str]) -> str:
    """A hint "did you mean 'x'?" naming the known word nearest to `got`, or the known words when
    none is near.
    """
    words = list(known)
    close = difflib.get_close_matches(got, words, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(words)}"


def one_line(value: object, limit: int = 300) -> str:
    r"""Return a text as one printable line of bounded length, for messages that quote what a file
    or a user gave.

    Line breaks become spaces; control characters, which a terminal would obey, become escapes such
    as `\x1b`; a text that is too long loses its middle.

    Args:
        value: anything with a `str`.
        limit: the largest number of characters of the result.

    Example:
        >>> one_line("a\nb")
        'a b'
        >>> one_line("x" * 1000, limit=11)
        'xxxx...xxxx'
    """
    text = str(value)
    if len(text) > 4 * limit:  # a long text is cut before it is searched for control characters
        text = f"{text[: 2 * limit]} {text[-2 * limit :]}"
    text = "".join(_printable(character) for character in " ".join(text.split()))
    if len(text) <= limit:
        return text
    head = (limit - 3 + 1) // 2
    tail = limit - 3 - head
    return f"{text[:head]}...{text[len(text) - tail :]}"


def printable(text: str) -> str:
    r"""Return a text with its lines, in which nothing is left that a terminal would obey.

    Control and format characters become escapes such as `\x1b`; line breaks stay.

    Example:
        >>> printable("one\ntwo\x1b[31m")
        'one\ntwo\\x1b[31m'
    """
    return "".join(character if character == "\n" else _printable(character) for character in text)


def printable_name(value: object) -> str:
    r"""Return a whole path or name, in which nothing is left that a terminal would obey, or that
    ends a line.

    Example:
        >>> printable_name("runs/a\nb")
        'runs/a\\nb'
    """
    return "".join(_printable(character) for character in str(value))


def shell_words(*words: object) -> str:
    """Return words of a command to type, quoted where a shell would read something else.

    Args:
        words: paths, names and flags, each one argument of the command.

    Example:
        >>> shell_words("fit", "--resume", "runs/my run; ls")
        "fit --resume 'runs/my run; ls'"
    """
    return " ".join(shlex.quote(str(word)) for word in words)


def _printable(character: str) -> str:
    """Return a character, or the escape of one that is a control, a format character or half of a
    pair.
    """
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character
