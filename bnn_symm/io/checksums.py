"""SHA-256 of files, read in blocks, and remembered for as long as a file is the same."""

import hashlib
import os
import time
from pathlib import Path

_BLOCK = 2**20  # bytes read at once
_known: dict[tuple[int, ...], str] = {}
_MOST_KNOWN = 10_000
# Nanoseconds after which a further change of a file surely has another time.
_SETTLED = 2_000_000_000


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    A process reads a file once: it is known again by device, number, size and the times of its last
        changes.

    Args:
        path: of a regular file.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        same = (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        if (known := _known.get(same)) is not None:
            return known
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[same] = digest.hexdigest()
    return digest.hexdigest()
