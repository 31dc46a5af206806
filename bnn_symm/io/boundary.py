"""Conversion of the exceptions of file parsers to errors of one line."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bnn_symm.errors import BnnSymmError, InvalidRun, one_line

# Largest number of characters quoted from the message of a parser.
_REASON_LIMIT = 110


@contextlib.contextmanager
def parser_errors(
    what: str | Path,
    advice: str,
    error: type[BnnSymmError] = InvalidRun,
    problem: str = "cannot be read",
) -> Iterator[None]:
    """Convert any exception of a parser to an error of one line that names the file.

    Errors of this package and `FileNotFoundError` are not converted.

    Args:
        what: file or other source, as the message names it.
        advice: what to do about a damaged file.
        error: class of the error to raise.
        problem: verb phrase that describes a damaged file.

    Raises:
        error: with `what`, the reason of the parser and the advice.

    Example:
        >>> with parser_errors("a.json", "copy it again"):
        ...     {}["x"]
        Traceback (most recent call last):
        ...
        bnn_symm.errors.InvalidRun: a.json cannot be read (no entry 'x'); copy it again
    """
    try:
        yield
    except (BnnSymmError, FileNotFoundError):
        raise
    except Exception as cause:
        raise error(f"{shown(what)} {problem} ({reason_of(cause)}); {advice}") from None
    except BaseException as cause:
        # Panics of parsers in Rust derive from BaseException.
        if type(cause).__name__ != "PanicException":
            raise
        raise error(f"{shown(what)} {problem} ({reason_of(cause)}); {advice}") from None


def reason_of(cause: BaseException) -> str:
    """Return the message of an exception in one short line, or the name of its class.

    Args:
        cause: exception of a parser.
    """
    if isinstance(cause, RecursionError):
        return "it is nested too deeply"
    if isinstance(cause, OSError) and cause.strerror:
        return one_line(cause.strerror, _REASON_LIMIT)
    if isinstance(cause, KeyError):
        return f"no entry {one_line(cause, _REASON_LIMIT)}"
    mark = getattr(cause, "problem_mark", None)
    if mark is not None:  # the full message of YAML quotes the surrounding text
        problem = one_line(getattr(cause, "problem", None) or "not valid YAML", _REASON_LIMIT)
        return f"{problem}, line {mark.line + 1}, column {mark.column + 1}"
    return one_line(cause, _REASON_LIMIT) or type(cause).__name__


def shown(what: str | Path) -> str:
    """Return a path or name as messages quote it: one printable line of bounded length.

    Args:
        what: path or name.
    """
    return one_line(what, 80)
