"""SHA-256 of files, read in blocks and cached while a file is unchanged."""

import hashlib
import os
import time
from pathlib import Path

_BLOCK = 2**20  # bytes read at once
_cache: dict[tuple[int, ...], str] = {}
_MAX_CACHED = 10_000
# Nanoseconds after which a further change of a file is certain to have another time stamp.
_TIME_RESOLUTION = 2_000_000_000


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    A process reads a file once. The cache identifies it by device, inode, size and the times of its
    last changes.

    Args:
        path: path of a regular file.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        identity = (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        if (cached := _cache.get(identity)) is not None:
            return cached
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _TIME_RESOLUTION:
        if len(_cache) >= _MAX_CACHED:
            _cache.clear()
        _cache[identity] = digest.hexdigest()
    return digest.hexdigest()
