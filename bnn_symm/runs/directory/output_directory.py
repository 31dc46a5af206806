"""Where a command may write: directories that do not exist yet, and errors of the disk in one
line.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bnn_symm.errors import BnnSymmError, InvalidRun, shell_words


def check_free(path: Path) -> None:
    """Raises InvalidRun if a run directory of that name exists: none is ever overwritten."""
    if "\0" in str(path):
        raise InvalidRun(
            "the output directory's name holds a null character, which no file name may have; correct it"
        )
    if path.exists() or path.is_symlink():
        advice = "choose another --out"
        if (path / "run.json").exists():  # a run
            advice += f", or go on with it: bnn-symm {shell_words('fit', '--resume', path)}"
        raise InvalidRun(f"{path} exists and is never overwritten; {advice}")


def next_free(parent: Path, stem: str) -> Path:
    """`parent/stem-1`, or with the first number that is free."""
    number = 1
    while (parent / f"{stem}-{number}").exists():
        number += 1
    return parent / f"{stem}-{number}"


def new_directory(path: Path | None, stem: str) -> Path:
    """Makes a directory for the answer of a command: the one that is named, or
    `runs/<stem>-<number>`.

    Raises:
        InvalidRun: if it exists, or cannot be made.
    """
    path = path or next_free(Path("runs"), stem)
    check_free(path)
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise InvalidRun(
            f"{path} cannot be made ({error.strerror}); choose another place with -o DIR"
        ) from None
    return path


@contextlib.contextmanager
def disk_errors(path: Path, advice: str) -> Iterator[None]:
    """Turns an error of the file system, such as a full disk, into one line that names what was to
    be written.
    """
    try:
        yield
    except OSError as error:
        raise BnnSymmError(
            f"{path} could not be written ({error.strerror or error}); {advice}"
        ) from error
