"""Where files of data sets are looked for, and whether they are the right ones."""

import hashlib
import os
from pathlib import Path

from bnn_symm.errors import DatasetNotFound, InvalidData

# Where Linux distributions install data sets.
_SYSTEM = Path("/usr/share/datasets")


def user_folder() -> Path | None:
    """The folder that the environment variable BNN_SYMM_DATA names, if it is set."""
    name = os.environ.get("BNN_SYMM_DATA")
    return Path(name).expanduser() if name else None


def cache_folder() -> Path:
    """The folder that `fetch` writes to; it need not exist."""
    import pooch

    return Path(pooch.os_cache("bnn_symm"))


def find(name: str, files: tuple[str, ...]) -> Path | None:
    """The first folder that has all `files` of the data set `name`, or None.

    Looked for in $BNN_SYMM_DATA, the system's data sets and the cache, in that order; in each, in a folder
    named after the set (also with "-" for "_") before the folder itself.
    """
    for root in (user_folder(), _SYSTEM, cache_folder()):
        if root is None:
            continue
        for folder in (root / name, root / name.replace("_", "-"), root):
            if all((folder / file).is_file() for file in files):
                return folder
    return None


def locate(name: str, files: tuple[str, ...]) -> Path:
    """As `find`.

    Raises:
        DatasetNotFound: with the command that gets the set.
    """
    folder = find(name, files)
    if folder is None:
        raise DatasetNotFound(
            f"data set {name!r} is not on this machine: looked for {files[0]} in $BNN_SYMM_DATA, "
            f"{_SYSTEM} and {cache_folder()}; get it with: bnn-symm data fetch {name}"
        )
    return folder


def check_sha256(content: bytes, wanted: str, path: Path, name: str) -> None:
    """Refuses a file whose content is not what it should be.

    Raises:
        InvalidData: with both hashes.
    """
    got = hashlib.sha256(content).hexdigest()
    if got != wanted:
        raise InvalidData(
            f"{path} is damaged or of another version: got sha256 {got[:12]}..., wanted {wanted[:12]}...; "
            f"delete it and type: bnn-symm data fetch {name}"
        )
