"""Starting a process that never runs the caller's script again.

A spawned process imports the script that started it, to find its classes. Where the script has no
`if __name__ == "__main__":`, that runs the fit once more, within the process that was to help with
it. Here the work is sent by value instead: classes and functions of a script or a notebook travel
with it, and the script is left alone.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import cloudpickle

from bnn_symm.errors import ConfigError, one_line

_TURN = threading.Lock()


def pickle_by_value(work: Any, advice: str) -> bytes:
    """Return work as bytes for another process, with the classes that a script or a notebook
    defines.

    Args:
        work: any object.
        advice: what to do where that cannot be.

    Raises:
        ConfigError: if a part of it cannot be sent.
    """
    try:
        return cloudpickle.dumps(work)
    except Exception as error:
        raise ConfigError(
            "the network cannot be sent to another process "
            f"({one_line(f'{type(error).__name__}: {error}', 120)}); {advice}"
        ) from error


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Hide the main module from processes that are started within, so that they do not import
    it.
    """
    with _TURN:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
