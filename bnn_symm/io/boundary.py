"""The boundary around parsers: whatever a parser of a file format raises becomes one line of an
error.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bnn_symm.errors import BnnSymmError, InvalidRun, one_line

# How much of a parser's own message is quoted.
_REASON_LIMIT = 110


@contextlib.contextmanager
def parser_errors(
    what: str | Path,
    advice: str,
    error: type[BnnSymmError] = InvalidRun,
    problem: str = "cannot be read",
) -> Iterator[None]:
    """Turn every exception of a parser into one line that names the file.

    Errors of this package and `FileNotFoundError`, for which callers have advice of their own,
    pass.

    Args:
        what: the file, or what else is parsed, as the message calls it.
        advice: what to do about a damaged file.
        error: the class of the error.
        problem: what is the matter with a damaged file, as a verb phrase.

    Raises:
        error: with `what`, the reason of the parser and the advice.

    Example:
        >>> with parser_errors("a.json", "copy it again"):
        ...     int("x")
        Traceback (most recent call last):
        ...
        bnn_symm.errors.InvalidRun: a.json cannot be read (invalid literal for int() with base 10:
            'x'); copy it again
    """
    try:
        yield
    except (BnnSymmError, FileNotFoundError):
        raise
    except Exception as cause:
        raise error(f"{shown(what)} {problem} ({reason_of(cause)}); {advice}") from None
    except BaseException as cause:
        # A panic of a parser that is written in Rust, which derives from BaseException.
        if type(cause).__name__ != "PanicException":
            raise
        raise error(f"{shown(what)} {problem} ({reason_of(cause)}); {advice}") from None


def reason_of(cause: BaseException) -> str:
    """Return the message of an exception as one short line, or its name where it has none."""
    if isinstance(cause, RecursionError):
        return "it is nested too deeply"
    if isinstance(cause, OSError) and cause.strerror:
        return one_line(cause.strerror, _REASON_LIMIT)
    if isinstance(cause, KeyError):
        return f"no entry {one_line(cause, _REASON_LIMIT)}"
    mark = getattr(cause, "problem_mark", None)
    if mark is not None:  # of YAML, whose full message quotes the text around it
        problem = one_line(getattr(cause, "problem", None) or "not valid YAML", _REASON_LIMIT)
        return f"{problem}, line {mark.line + 1}, column {mark.column + 1}"
    return one_line(cause, _REASON_LIMIT) or type(cause).__name__


def shown(what: str | Path) -> str:
    """Return a path or a name as messages quote it: one printable line of bounded length."""
    return one_line(what, 80)
