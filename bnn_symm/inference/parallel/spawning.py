"""Start processes that never run the caller's script again.

A spawned process imports the script that started it, to find its classes. If the script has no
`if __name__ == "__main__":`, that runs the fit again, within its own worker. Here, the task is
pickled by value instead: classes and functions of a script or a notebook are part of it, and the
script is not imported.
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
    """Return a task as bytes for another process, with classes defined in a script or a notebook.

    Args:
        work: any object.
        advice: what to do if it cannot be pickled.

    Raises:
        ConfigError: if a part of it cannot be pickled.
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
    """Hide the main module from processes that are started in this context."""
    with _TURN:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
