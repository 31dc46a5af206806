"""Create output directories, and report errors of the file system in one line."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bnn_symm.advice import advise
from bnn_symm.errors import BnnSymmError, InvalidRun, shell_words
from bnn_symm.io.atomic import (
    is_temporary_folder,
    make_folder,
    make_temporary_folder,
    publish_folder,
)
from bnn_symm.io.locks import FolderLock, abandoned_folders, new_locked_folder


def check_free(path: Path) -> None:
    """Check that a path does not exist yet: outputs are never overwritten.

    Args:
        path: the path of a new directory.

    Raises:
        InvalidRun: if it exists, or is no valid path.
    """
    if "\0" in str(path):
        raise InvalidRun(
            "the name of the output directory contains a null character; use another name"
        )
    if path.exists() or path.is_symlink():
        advice = advise("choose another --out", "choose another directory")
        if (path / "run.json").exists():  # a run
            resume = advise(
                f"bnn-symm {shell_words('fit', '--resume', path)}", f"resume_run({str(path)!r})"
            )
            advice += f", or resume it: {resume}"
        raise InvalidRun(f"{path} exists and is never overwritten; {advice}")


def next_free(parent: Path, stem: str) -> Path:
    """Return `parent/stem-<number>` with the first number that does not exist.

    Args:
        parent: the parent directory.
        stem: the first part of the name.
    """
    number = 1
    while (parent / f"{stem}-{number}").exists():
        number += 1
    return parent / f"{stem}-{number}"


def new_directory(path: Path | None, stem: str) -> Path:
    """Create a directory for the results of a command.

    Args:
        path: its path; None for `runs/<stem>-<number>`.
        stem: the first part of the default name.

    Returns:
        The path.

    Raises:
        InvalidRun: if it exists, or cannot be created.
    """
    path = path or next_free(Path("runs"), stem)
    check_free(path)
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise InvalidRun(
            f"{path} cannot be created ({error.strerror}); choose another place with -o DIR"
        ) from None
    return path


@contextlib.contextmanager
def create_whole(path: Path) -> Iterator[FolderLock]:
    """Create a directory that appears with all the files that the block writes into it.

    It has a temporary name until then. What killed processes left under such names is removed.

    Args:
        path: the path of a new directory.

    Yields:
        The acquired lock of the directory, whose `folder` is its present path.

    Raises:
        InvalidRun: if it exists, or its parent cannot be written.
    """
    check_free(path)
    try:
        make_folder(path.parent)
        former = abandoned_folders(path.parent, lambda name: is_temporary_folder(name, path))
        for abandoned in former:
            abandoned.remove_folder()
        lock = new_locked_folder(lambda: make_temporary_folder(path))
        try:
            yield lock
            check_free(path)
            publish_folder(lock.folder, path)
        except BaseException:
            lock.remove_folder()
            raise
    except OSError as error:
        check_free(path)  # Another process was faster.
        raise InvalidRun(
            f"{path.parent} cannot be written ({error.strerror}); free some space, or choose "
            f"another {advise('place with --out DIR', 'directory')}"
        ) from None
    lock.folder = path


@contextlib.contextmanager
def disk_errors(path: Path, advice: str) -> Iterator[None]:
    """Convert an error of the file system, such as a full disk, to a message of one line.

    Args:
        path: the file or directory that is written.
        advice: what to try next.

    Raises:
        BnnSymmError: naming the path and the advice.
    """
    try:
        yield
    except OSError as error:
        raise BnnSymmError(
            f"{path} could not be written ({error.strerror or error}); {advice}"
        ) from error
