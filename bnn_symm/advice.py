"""Word advice for its reader: flags and commands on the command line, arguments in Python.

The command line says that it is the reader in an environment variable, which worker processes
inherit.
"""

import contextlib
import os
from collections.abc import Iterator

from bnn_symm.errors import shell_words

_VARIABLE = "BNN_SYMM_COMMAND_LINE"


@contextlib.contextmanager
def for_command_line() -> Iterator[None]:
    """Word advice for the command line within this context."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]


def advise(command_line: str, python: str) -> str:
    """Return the advice that its reader can follow.

    Args:
        command_line: words for the command line, such as a flag.
        python: words for a user of the Python interface, such as an argument.

    Example:
        >>> advise("use --jobs 1", "use jobs=1")
        'use jobs=1'
    """
    return command_line if _VARIABLE in os.environ else python


def advise_setting(*assignments: str) -> str:
    """Return settings as overrides of the command line, or as keyword arguments in Python.

    Args:
        assignments: dotted keys of the configuration with their values. Capitals stand for a value
            that the reader chooses.

    Example:
        >>> advise_setting("data.target=COLUMN", "data.task=regression", "inference.num_draws=100")
        "target=COLUMN, task='regression', num_draws=100"
        >>> with for_command_line():
        ...     advise_setting("data.target=COLUMN", "data.task=regression")
        '--set data.target=COLUMN data.task=regression'
    """
    arguments = []
    for assignment in assignments:
        path, _, value = assignment.partition("=")
        key = path.rpartition(".")[2]
        is_text = value.isidentifier() and value.islower() and value not in ("true", "false")
        arguments.append(f"{key}={value!r}" if is_text else f"{key}={value}")
    return advise(f"--set {shell_words(*assignments)}", ", ".join(arguments))
