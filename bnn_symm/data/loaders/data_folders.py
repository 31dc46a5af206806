"""Folders that are searched for data sets, and checks of the files in them."""

import hashlib
import os
from pathlib import Path

import platformdirs

from bnn_symm.advice import advise
from bnn_symm.errors import ConfigError, DatasetNotFound, InvalidData
from bnn_symm.io.boundary import shown
from bnn_symm.io.memory import format_bytes
from bnn_symm.io.paths import check_regular_file, expand_user

# Folder in which Linux distributions install data sets.
_SYSTEM = Path("/usr/share/datasets")


def user_folder() -> Path | None:
    """Return the folder in the environment variable BNN_SYMM_DATA, or None if it is not set.

    Raises:
        ConfigError: if it contains the home directory of an unknown user.
    """
    name = os.environ.get("BNN_SYMM_DATA")
    return expand_user(name, ConfigError) if name else None


def cache_folder() -> Path:
    """Return the folder that `fetch` writes to, which may not exist."""
    return Path(platformdirs.user_cache_dir("bnn_symm"))


def find(name: str, files: tuple[str, ...]) -> Path | None:
    """Return the first folder that has all files of a data set, or None.

    $BNN_SYMM_DATA, the data sets of the system and the cache are searched in this order. In each, a
    folder with the name of the set (also with "-" for "_") precedes the folder itself.

    Args:
        name: name of the data set.
        files: names of its files.
    """
    for root in (user_folder(), _SYSTEM, cache_folder()):
        if root is None:
            continue
        for folder in (root / name, root / name.replace("_", "-"), root):
            if all(os.path.isfile(folder / file) for file in files):
                return folder
    return None


def locate(name: str, files: tuple[str, ...]) -> Path:
    """Return the first folder that has all files of a data set.

    Args:
        name: name of the data set.
        files: names of its files.

    Raises:
        DatasetNotFound: with the command that downloads the data set.
    """
    folder = find(name, files)
    if folder is None:
        raise DatasetNotFound(
            f"data set {name!r} is not on this machine: searched {files[0]} in $BNN_SYMM_DATA, "
            f"{_SYSTEM} and {shown(cache_folder())}; download it with: {_download(name)}"
        )
    return folder


def read_limited(path: Path, largest: int, name: str) -> bytes:
    """Return the content of a file of bounded size.

    Args:
        path: path of a regular file.
        largest: largest valid size in bytes.
        name: data set to fetch again if the file is not valid.

    Raises:
        InvalidData: if the path is no regular file, or the file is too large or cannot be read.
    """
    try:
        size = check_regular_file(path)
        if size <= largest:
            with path.open("rb") as file:
                return file.read(largest)
    except OSError as error:
        raise InvalidData(
            f"{shown(path)} cannot be read ({error.strerror}); {refetch_advice(name)}"
        ) from None
    raise InvalidData(
        f"{shown(path)} is not the expected file: got {format_bytes(size)}, expected at most "
        f"{format_bytes(largest)}; {refetch_advice(name)}"
    )


def check_sha256(content: bytes, expected: str, path: Path, name: str) -> None:
    """Raise an error unless a file has the expected hash.

    Args:
        content: content of the file.
        expected: SHA-256 in hexadecimal.
        path: path of the file, for the message.
        name: data set to fetch again if the file is not valid.

    Raises:
        InvalidData: with both hashes.
    """
    got = hashlib.sha256(content).hexdigest()
    if got != expected:
        raise InvalidData(
            f"{shown(path)} is damaged or of another version: got sha256 {got[:12]}..., expected "
            f"{expected[:12]}...; {refetch_advice(name)}"
        )


def refetch_advice(name: str) -> str:
    """Return the advice to delete and download a data set again.

    Args:
        name: name of the data set.
    """
    return f"delete it and download it again with: {_download(name)}"


def _download(name: str) -> str:
    return advise(f"bnn-symm data fetch {name}", f"bnn_symm.data.fetch({name!r})")
