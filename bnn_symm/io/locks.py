"""Exclusive write access to a folder.

The operating system holds the lock. It therefore ends with its process, however the process ends,
and is valid across containers and independent of the clock. `lock.json` beside it names the owner
for messages. On file systems that cannot lock, this record alone decides.
"""

import contextlib
import errno
import json
import os
import shutil
import socket
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bnn_symm.errors import BnnSymmError, InvalidRun, one_line
from bnn_symm.io.atomic import is_real_folder, write_json
from bnn_symm.io.owners import is_alive, is_current_boot, process_record
from bnn_symm.io.paths import check_regular_file

RECORD, LOCK = "lock.json", "writer.lock"
# Timeout in seconds of acquiring a lock. Readers that test it hold it for microseconds only.
_GRACE = 0.2
_LARGEST_RECORD = 2**16  # bytes
# Attempts to create and lock a folder.
_ATTEMPTS = 5
# Errors of file systems that cannot lock.
_CANNOT_LOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


class LockWarning(UserWarning):
    """A file system cannot lock, so that exclusive access depends on a record alone."""


class FolderInUse(InvalidRun):
    """Another live process has write access to a folder."""


class FolderLock:
    """Lock of a folder, which one process at a time can hold.

    Args:
        folder: folder to write; set this attribute if it is renamed while the lock is held.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock: FileLock | None = None
        # Process ID of the holder, because a forked process does not hold the lock.
        self._holder: int | None = None

    @property
    def record(self) -> Path:
        """Return the path of the record of the owner."""
        return self.folder / RECORD

    @property
    def is_owned(self) -> bool:
        """Return whether this object holds the lock in this process."""
        return self._holder == os.getpid()

    def acquire(self) -> None:
        """Acquire the lock; the record of a dead process is replaced.

        Raises:
            FolderInUse: if a live process holds the lock.
            InvalidRun: if the folder cannot be written.
        """
        existed = (self.folder / LOCK).exists()
        try:
            lock = self._acquire_system_lock()
            if self._is_recorded(lock_is_free=lock is not None and existed):
                if lock is not None:
                    if not existed:  # a new file would appear to be the released lock of the owner
                        (self.folder / LOCK).unlink(missing_ok=True)
                    lock.release()
                elsewhere = (self.owner() or {}).get("host") != socket.gethostname()
                missing_owner = f"that {'host' if elsewhere else 'process'} no longer exists"
                raise FolderInUse(f"{self._in_use()}, or if {missing_owner}, remove {self.record}")
            self._lock, self._holder = lock, os.getpid()
            write_json(
                self.record, {**process_record(), "os_lock": lock is not None}, sync_parent=False
            )
        except Timeout:
            raise FolderInUse(self._in_use()) from None
        except OSError as error:
            self.release()
            raise InvalidRun(
                f"{self.folder} cannot be written ({error.strerror}); free disk space, or copy it "
                "to a writable folder"
            ) from None

    def try_acquire(self) -> bool:
        """Acquire the lock if the folder can be written and no live process holds it.

        Returns:
            Whether the lock was acquired.
        """
        with contextlib.suppress(InvalidRun):
            self.acquire()
        return self.is_owned

    def remove_folder(self) -> None:
        """Remove the locked folder with all its files, and release the lock."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Release the lock if this process holds it."""
        if self.is_owned:
            with contextlib.suppress(OSError):
                self.record.unlink(missing_ok=True)
                if self._lock is not None:  # a waiting process notices that the file was replaced
                    (self.folder / LOCK).unlink(missing_ok=True)
            if self._lock is not None:
                self._lock.release()
        self._lock = self._holder = None

    def is_held(self) -> bool:
        """Return whether a live process holds the lock.

        A process on another machine is assumed to be alive.
        """
        locked = _is_locked(self.folder / LOCK)
        return locked is True or self._is_recorded(lock_is_free=locked is False)

    def owner(self) -> dict[str, Any] | None:
        """Return the record of the owner, or None if it is missing or damaged."""
        try:
            if check_regular_file(self.record) > _LARGEST_RECORD:
                return None
            content = json.loads(self.record.read_bytes())
            return {**content, "host": str(content["host"]), "pid": int(content["pid"])}
        except (
            OSError,
            BnnSymmError,
            ValueError,
            KeyError,
            TypeError,
            OverflowError,
            RecursionError,
        ):
            return None

    def _is_recorded(self, *, lock_is_free: bool) -> bool:
        """Return whether the record names a live process that holds the lock."""
        owner = self.owner()
        if owner is None:
            return False
        if lock_is_free and owner.get("os_lock") is True and is_current_boot(owner):
            return False  # the lock of this kernel was released
        return is_alive(owner)

    def _acquire_system_lock(self) -> FileLock | None:
        """Return the acquired lock of the operating system, or None if it cannot lock."""
        # Without the library's fallback for file systems that cannot lock.
        lock = FileLock(self.folder / LOCK, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire(timeout=_GRACE, poll_interval=0.01)
        except Timeout:
            raise
        except OSError as error:
            if error.errno not in _CANNOT_LOCK:
                raise
            warnings.warn(
                f"{self.folder}: this file system cannot lock ({error.strerror}); do not write to "
                "it from two machines or containers at once",
                LockWarning,
                stacklevel=3,
            )
            return None
        return lock

    def _in_use(self) -> str:
        owner = self.owner()
        who = (
            "another process"
            if owner is None
            else f"process {owner['pid']} on {one_line(owner['host'], 60)}"
        )
        return f"{self.folder} is being written by {who}; wait for it"


def new_locked_folder(create: Callable[[], Path]) -> FolderLock:
    """Create a folder and acquire its lock.

    Args:
        create: creates an empty folder of another name at each call, because another process may
            acquire a new folder as abandoned before this one does.

    Returns:
        The lock.

    Raises:
        InvalidRun: if the folder cannot be written.
        OSError: if it cannot be created.
    """
    for _ in range(_ATTEMPTS - 1):
        if (lock := FolderLock(create())).try_acquire():
            return lock
    lock = FolderLock(create())
    lock.acquire()
    return lock


def abandoned_folders(parent: Path, is_candidate: Callable[[str], bool]) -> Iterator[FolderLock]:
    """Yield the acquired locks of folders that no live process writes.

    Args:
        parent: folder of the folders; it may be missing. Links in it are not followed.
        is_candidate: whether a folder of a name may be taken over or removed.
    """
    for folder in sorted(parent.glob("*")):
        lock = FolderLock(folder)
        if is_candidate(folder.name) and is_real_folder(folder) and lock.try_acquire():
            yield lock


def _is_locked(path: Path) -> bool | None:
    """Return whether a process holds the lock of a file; None if that is unknown."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    try:
        import fcntl

        fcntl.flock(
            handle, fcntl.LOCK_SH | fcntl.LOCK_NB
        )  # shared, so that readers do not conflict
    except (BlockingIOError, PermissionError):
        return True
    except (OSError, ImportError):
        return None
    finally:
        os.close(handle)  # also unlocks
    return False
