"""Paths of regular files, as opposed to folders, pipes and devices."""

import os
import stat
from pathlib import Path

from bnn_symm.errors import BnnSymmError, InvalidData

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def expand_user(name: str | Path, error: type[BnnSymmError] = InvalidData) -> Path:
    """Return a path with a leading `~` or `~user` replaced by the home directory.

    Args:
        name: path as the user typed it.
        error: class of the error to raise.

    Raises:
        error: if the home directory of the user is unknown, or the path contains a null character.
    """
    if "\0" in str(name):
        raise error("the path contains a null character; check the name")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        user = Path(name).parts[0]
        raise error(f"the home directory of {user!r} is unknown; write the full path") from None


def check_regular_file(path: Path, error: type[BnnSymmError] = InvalidData) -> int:
    """Return the size of a regular file in bytes.

    Other kinds of files are errors, because reading a pipe or a device may block or never end.

    Args:
        path: path of the file; symbolic links are followed.
        error: class of the error to raise.

    Raises:
        error: if the path is a folder, a pipe, a device or a socket, or cannot be accessed.
        FileNotFoundError: if the path does not exist.

    Example:
        >>> from pathlib import Path
        >>> check_regular_file(Path("/dev/null"))
        Traceback (most recent call last):
        ...
        bnn_symm.errors.InvalidData: /dev/null is a device, expected a regular file
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(2, "No such file or directory", str(path)) from None
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or cause
        raise error(
            f"{path} cannot be read ({reason}); check the path and its permissions"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a special file")
        raise error(f"{path} is {kind}, expected a regular file")
    return status.st_size
