"""Atomic and durable writes of files and folders.

A file is written under a temporary name with a fixed marker, synced, and renamed; then its folder
is synced. Readers never see a partial file. When a function of this module returns, its data are on
the disk, even after a power failure, and what they replace may be deleted.
"""

import contextlib
import errno
import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

TEMPORARY = "bnn-symm-tmp"
"""Marker in the names of temporary files and folders, which no other name contains."""

_TEMPORARY_NAME = re.compile(rf"\..+\.[a-z0-9_]{{8}}\.{TEMPORARY}(\.[^.]*)?", re.DOTALL)
# Number of characters of the final name in a temporary name, limited by the file system.
_NAME_LENGTH = 100

# Errors of file systems that cannot sync a folder, such as some network file systems.
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}


def write_atomically(
    path: Path, write: Callable[[Path], object], *, sync_parent: bool = True
) -> None:
    """Write a temporary file beside `path`, sync it, rename it, and sync the folder.

    If the process is killed or the power fails at any time, either the old or the new file remains
    complete.

    Args:
        path: path of the file.
        write: function of the path of the temporary file, which exists and is empty.
        sync_parent: False if the caller syncs the folder later, after several files.

    Raises:
        OSError: if the disk is full or permission is missing; the temporary file is removed.
    """
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=_prefix(path), suffix=f".{TEMPORARY}{path.suffix}"
    )
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            sync_file(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync_parent:
        sync_folder(path.parent)


def write_json(path: Path, content: Mapping[str, Any], *, sync_parent: bool = True) -> None:
    """Write JSON atomically; see `write_atomically` and `json_text`.

    Args:
        path: path of the file.
        content: object to write.
        sync_parent: False if the caller syncs the folder later.
    """
    write_text(path, json_text(content) + "\n", sync_parent=sync_parent)


def write_text(path: Path, text: str, *, sync_parent: bool = True) -> None:
    """Write a text in UTF-8 atomically; see `write_atomically`.

    Args:
        path: path of the file.
        text: content of the file.
        sync_parent: False if the caller syncs the folder later.
    """
    write_bytes(path, text.encode(), sync_parent=sync_parent)


def write_bytes(path: Path, content: bytes, *, sync_parent: bool = True) -> None:
    """Write bytes atomically; see `write_atomically`.

    Args:
        path: path of the file.
        content: content of the file.
        sync_parent: False if the caller syncs the folder later.
    """
    write_atomically(
        path, lambda temporary: temporary.write_bytes(content), sync_parent=sync_parent
    )


def json_text(content: Mapping[str, Any]) -> str:
    """Return indented JSON in which NaN and infinite values are null.

    Args:
        content: object to serialize.
    """
    return json.dumps(_replace_nonfinite(content), indent=2, allow_nan=False, ensure_ascii=False)


def sync_file(handle: int) -> None:
    """Wait until the content of an open file is on the disk.

    Args:
        handle: file descriptor.
    """
    try:
        import fcntl

        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)  # pyright: ignore[reportAttributeAccessIssue]
    except (ImportError, AttributeError, OSError):  # only on macOS, where `fsync` is not enough
        os.fsync(handle)


def sync_folder(folder: Path) -> None:
    """Wait until the entries of a folder (added, replaced and removed names) are on the disk.

    Args:
        folder: path of the folder.
    """
    if os.name == "nt":  # a folder cannot be opened, and renames are written through
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents durably, unless it exists.

    Args:
        folder: path of the folder.
    """
    if folder.is_dir():
        return
    if not folder.parent.exists():
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def make_temporary_folder(path: Path) -> Path:
    """Create a folder beside `path`, to be renamed to it once its files are written.

    Args:
        path: final path of the folder.
    """
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=f".{TEMPORARY}"))
    folder.chmod(0o777 & ~_umask())
    return folder


def publish_folder(temporary: Path, path: Path) -> None:
    """Rename a temporary folder to its final path, durably and atomically.

    Args:
        temporary: folder whose files are synced.
        path: final path.

    Raises:
        OSError: if a folder of that name exists, which is left unchanged.
    """
    sync_folder(temporary)
    os.rename(temporary, path)
    sync_folder(path.parent)


def is_temporary(name: str) -> bool:
    """Return whether a name is one that this module gives to temporary files and folders.

    Args:
        name: name of a file or folder.
    """
    return _TEMPORARY_NAME.fullmatch(name) is not None


def is_temporary_folder(name: str, path: Path | None = None) -> bool:
    """Return whether a name is one that `make_temporary_folder` gives.

    Args:
        name: name of a folder.
        path: final path of the folder; None for any.
    """
    prefix = "." if path is None else _prefix(path)
    return is_temporary(name) and name.startswith(prefix) and name.endswith(TEMPORARY)


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder.

    Args:
        folder: folder of the files; one that is missing or a symbolic link is left unchanged.
    """
    remove_files(folder, is_temporary)


def remove_files(folder: Path, is_removable: Callable[[str], bool]) -> None:
    """Remove the regular files of a folder that a predicate selects.

    Links are neither followed nor removed.

    Args:
        folder: folder of the files; one that is missing or a symbolic link is left unchanged.
        is_removable: whether to remove the file of a name.
    """
    for entry in _directory_entries(folder):
        if is_removable(entry.name) and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.path)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder if it is empty and no symbolic link.

    Args:
        folder: path of the folder.
    """
    with contextlib.suppress(OSError):
        if not folder.is_symlink():
            folder.rmdir()


def is_real_folder(path: Path) -> bool:
    """Return whether a path is a folder, and not a symbolic link to one.

    Args:
        path: path to test.
    """
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _directory_entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    if not is_real_folder(folder):
        return []
    with os.scandir(folder) as entries:
        return list(entries)


def _replace_nonfinite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _replace_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _prefix(path: Path) -> str:
    """Return the start of the temporary names of a path."""
    return f".{path.name[:_NAME_LENGTH]}."


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
