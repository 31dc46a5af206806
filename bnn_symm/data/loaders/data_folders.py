"""Where files of data sets are looked for, and whether they are the right ones."""

import hashlib
import os
from pathlib import Path

from bnn_symm.errors import ConfigError, DatasetNotFound, InvalidData
from bnn_symm.io.boundary import shown
from bnn_symm.io.memory import format_bytes
from bnn_symm.io.paths import check_regular_file, expand_user

# Where Linux distributions install data sets.
_SYSTEM = Path("/usr/share/datasets")


def user_folder() -> Path | None:
    """Return the folder that the environment variable BNN_SYMM_DATA names, or None if it is not
    set.

    Raises:
        ConfigError: if it names the home directory of an unknown user.
    """
    name = os.environ.get("BNN_SYMM_DATA")
    return expand_user(name, ConfigError) if name else None


def cache_folder() -> Path:
    """Return the folder that `fetch` writes to; it need not exist."""
    import pooch

    return Path(pooch.os_cache("bnn_symm"))


def find(name: str, files: tuple[str, ...]) -> Path | None:
    """Return the first folder that has all `files` of the data set `name`, or None.

    Looked for in $BNN_SYMM_DATA, the system's data sets and the cache, in that order; in each, in a
    folder named after the set (also with "-" for "_") before the folder itself.
    """
    for root in (user_folder(), _SYSTEM, cache_folder()):
        if root is None:
            continue
        for folder in (root / name, root / name.replace("_", "-"), root):
            if all(os.path.isfile(folder / file) for file in files):
                return folder
    return None


def locate(name: str, files: tuple[str, ...]) -> Path:
    """Return the first folder that has all `files` of the data set `name`.

    Raises:
        DatasetNotFound: with the command that gets the set.
    """
    folder = find(name, files)
    if folder is None:
        raise DatasetNotFound(
            f"data set {name!r} is not on this machine: looked for {files[0]} in $BNN_SYMM_DATA, "
            f"{_SYSTEM} and {shown(cache_folder())}; get it with: bnn-symm data fetch {name}"
        )
    return folder


def read_limited(path: Path, largest: int, name: str) -> bytes:
    """Return the content of a file.

    Args:
        path: of a regular file.
        largest: the largest size in bytes that it can have.
        name: the data set to fetch again if it is another file.

    Raises:
        InvalidData: if it is no regular file, too large, or cannot be read.
    """
    try:
        size = check_regular_file(path)
        if size <= largest:
            with path.open("rb") as file:
                return file.read(largest)
    except OSError as error:
        raise InvalidData(
            f"{shown(path)} cannot be read ({error.strerror}); {get_again(name)}"
        ) from None
    raise InvalidData(
        f"{shown(path)} is another file: got {format_bytes(size)}, expected at most "
        f"{format_bytes(largest)}; {get_again(name)}"
    )


def check_sha256(content: bytes, wanted: str, path: Path, name: str) -> None:
    """Refuse a file whose content is not what it should be.

    Raises:
        InvalidData: with both hashes.
    """
    got = hashlib.sha256(content).hexdigest()
    if got != wanted:
        raise InvalidData(
            f"{shown(path)} is damaged or of another version: got sha256 {got[:12]}..., wanted "
            f"{wanted[:12]}...; {get_again(name)}"
        )


def get_again(name: str) -> str:
    """Return what to do about a damaged file of a data set."""
    return f"delete it and type: bnn-symm data fetch {name}"
