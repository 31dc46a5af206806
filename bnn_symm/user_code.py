"""Import what a user names as `package.module:name`, and describe its source.

The names are of installed packages, or of modules in the current directory, as with `python -m`.
Importing runs the user's code: where a name comes from a run directory, ask the user first.
"""

import contextlib
import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from typing import Any

from bnn_symm.errors import ConfigError, nearest, one_line


def import_named(name: str, key: str, example: str) -> Any:
    """Return the object that `package.module:name` names.

    Args:
        name: of the object, `package.module:name`.
        key: the setting that names it, for messages.
        example: what to write in the setting for an object in a file of the current directory.

    Raises:
        ConfigError: if the name has another form, the module cannot be imported, or has no such
            object.

    Example:
        >>> import_named("math:tau", "architecture.factory", "networks:build")
        6.283185307179586
    """
    module_name, colon, attribute = name.partition(":")
    parts = [*module_name.split("."), attribute]
    if not colon or not all(part.isidentifier() for part in parts):
        word = "factory" if key.endswith("factory") else "Class"
        file, _, attribute = example.partition(":")
        raise ConfigError(
            f"got {key}={name!r}, want package.module:{word}; for `{attribute}` in {file}.py of "
            f"this directory, use {example}"
        )
    importlib.invalidate_caches()  # so that files written since the start of the process are found
    try:
        with current_directory_on_path():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _import_failed(module_name, error) from error
        raise ConfigError(
            f"{key}={name!r}: no module {error.name!r} in {os.getcwd()} or among the installed "
            f"packages; change to the directory of {error.name}.py, or install it"
        ) from error
    except Exception as error:
        raise _import_failed(module_name, error) from error
    if not hasattr(module, attribute):
        public = [key for key, value in vars(module).items() if key[0] != "_" and callable(value)]
        hint = nearest(attribute, public) if public else "it defines no function or class"
        raise ConfigError(f"{key}={name!r}: {module_name} has no {attribute!r}; {hint}")
    return getattr(module, attribute)


def _import_failed(module_name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"importing {module_name} raised {one_line(f'{type(error).__name__}: {error}', 150)}; for "
        f"the traceback, run python -c 'import {module_name}'"
    )


@contextlib.contextmanager
def current_directory_on_path() -> Iterator[None]:
    """Import modules of the current directory meanwhile, as with `python -m`."""
    directory = os.getcwd()
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        sys.path.remove(directory)  # removes the first one, keeps what the user's code added


def source_record(cls: type) -> dict[str, str]:
    """Describe the source of a class: what can be compared when it is imported again.

    Args:
        cls: the class.

    Returns:
        `sha256` of its source text, if that can be read, and `version` of its package, if the
        package has `__version__`.
    """
    record = {}
    with contextlib.suppress(OSError, TypeError):  # no file, as in an interactive session
        record["sha256"] = hashlib.sha256(inspect.getsource(cls).encode()).hexdigest()
    package = sys.modules.get(cls.__module__.partition(".")[0])
    version = getattr(package, "__version__", None)
    return record if version is None else {**record, "version": str(version)}
