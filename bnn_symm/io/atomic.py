"""Writing files so that a reader never sees half of one, and a power cut never takes one back.

A file is written under a temporary name of an unmistakable form, synced and renamed into place, and
its folder is synced; when a function of this module returns, what it wrote is on the disk, and what
it replaces may be removed.
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
"""What names of temporary files and folders hold, and no other name does."""

_TEMPORARY_NAME = re.compile(rf"\..+\.[a-z0-9_]{{8}}\.{TEMPORARY}(\.[^.]*)?", re.DOTALL)
NAME_LENGTH = 100
"""How much of the name that it stands for a temporary name holds, so that it is not too long for
the file system."""

# File systems that cannot sync a folder, such as some of networks, report one of these.
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}


def write_atomically(
    path: Path, write: Callable[[Path], object], *, sync_parent: bool = True
) -> None:
    """Write a temporary file beside `path`, sync it to disk, rename it into place and sync the
    folder.

    A process killed at any moment, or a power cut, leaves either the old file or the new one, never
    a part.

    Args:
        path: of the file.
        write: called with the path of the temporary file, which exists and is empty.
        sync_parent: False if the caller syncs the folder later, after several files.

    Raises:
        OSError: as the operating system reports it (disk full, no permission); the temporary file
            is removed.
    """
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name[:NAME_LENGTH]}.", suffix=f".{TEMPORARY}{path.suffix}"
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
    """Write JSON atomically; see `write_atomically` and `json_text`."""
    write_text(path, json_text(content) + "\n", sync_parent=sync_parent)


def write_text(path: Path, text: str, *, sync_parent: bool = True) -> None:
    """Write a text in UTF-8 atomically; see `write_atomically`."""
    write_atomically(
        path,
        lambda temporary: temporary.write_text(text, encoding="utf-8"),
        sync_parent=sync_parent,
    )


def json_text(content: Mapping[str, Any]) -> str:
    """Return indented JSON; NaN and infinities, which JSON has no words for, become null."""
    return json.dumps(_finite(content), indent=2, allow_nan=False, ensure_ascii=False)


def sync_file(handle: int) -> None:
    """Return once the content of an open file is on the disk."""
    try:
        import fcntl

        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)  # pyright: ignore[reportAttributeAccessIssue]
    except (
        ImportError,
        AttributeError,
        OSError,
    ):  # only macOS has it, where `fsync` leaves it to the drive
        os.fsync(handle)


def sync_folder(folder: Path) -> None:
    """Return once the entries of a folder (names added, replaced, removed) are on the disk."""
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
    """Make a folder, with those above it that are missing, and sync where it was added; one that
    exists is left.
    """
    if folder.is_dir():
        return
    if not folder.parent.exists():
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def make_temporary_folder(path: Path) -> Path:
    """Make a folder beside `path`, to be renamed to it once its files are written."""
    return Path(
        tempfile.mkdtemp(
            dir=path.parent, prefix=f".{path.name[:NAME_LENGTH]}.", suffix=f".{TEMPORARY}"
        )
    )


def publish_folder(temporary: Path, path: Path) -> None:
    """Sync a folder, give it its name, and sync where that was added: it is there whole, or not at
    all.

    Raises:
        OSError: if there is a folder of that name already, which is left alone.
    """
    sync_folder(temporary)
    os.rename(temporary, path)
    sync_folder(path.parent)


def is_temporary(name: str) -> bool:
    """Return whether a name is one that this module gives to temporary files and folders."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder, and nothing else.

    Args:
        folder: where they lie; one that is missing or a symbolic link is left alone.
    """
    remove_files(folder, is_temporary)


def remove_files(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Remove the regular files of a folder whose names are ours; links are neither followed nor
    removed.

    Args:
        folder: where they lie; one that is missing or a symbolic link is left alone.
        is_ours: whether a name is that of a file to be removed.
    """
    for entry in _entries(folder):
        if is_ours(entry.name) and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.path)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder unless something is left in it, which then is not ours; a symbolic link is
    left alone.
    """
    with contextlib.suppress(OSError):
        if not folder.is_symlink():
            folder.rmdir()


def is_real_folder(path: Path) -> bool:
    """Return whether a path is a folder itself, and not a symbolic link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    if not is_real_folder(folder):
        return []
    with os.scandir(folder) as entries:
        return list(entries)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
