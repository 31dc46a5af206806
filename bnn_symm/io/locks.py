"""The right to write into a folder, which one process has at a time.

The operating system holds the lock, so that it ends with its process, however that ends, and holds
across containers and whatever the clock says. `lock.json` beside it names the owner: for messages,
and for file systems that cannot lock, where it alone decides.
"""

import contextlib
import errno
import json
import os
import socket
import warnings
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bnn_symm.errors import BnnSymmError, InvalidRun, one_line
from bnn_symm.io.atomic import write_json
from bnn_symm.io.owners import is_alive, is_of_this_boot, this_process
from bnn_symm.io.paths import check_regular_file

RECORD, LOCK = "lock.json", "writer.lock"
# Seconds after which a lock is taken to be held by a writer: readers that ask hold it for
# microseconds.
_GRACE = 0.2
_LARGEST_RECORD = 2**16  # bytes
# What file systems report that cannot lock.
_CANNOT_LOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


class LockWarning(UserWarning):
    """A file system cannot lock: that there is one writer rests on a record alone."""


class FolderInUse(InvalidRun):
    """Another process that lives has the right to write into a folder."""


class FolderLock:
    """A lock of a folder, held by one process at a time, of which this may be one.

    Args:
        folder: what may be written; it may be renamed while the lock is held, see `moved`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock: FileLock | None = None
        self._holder: int | None = (
            None  # this process: one that is forked from it does not hold what it inherits
        )

    @property
    def record(self) -> Path:
        """The path of the record of the owner."""
        return self.folder / RECORD

    @property
    def is_mine(self) -> bool:
        """Whether this object holds the lock."""
        return self._holder == os.getpid()

    def acquire(self) -> None:
        """Take the lock; the record of a dead process does not stand in the way.

        Raises:
            FolderInUse: if a live process has it.
            InvalidRun: if the folder cannot be written.
        """
        existed = (self.folder / LOCK).exists()
        try:
            lock = self._locked()
            if self._is_recorded(lock_is_free=lock is not None and existed):
                if lock is not None:
                    if (
                        not existed
                    ):  # nor does a file appear that would seem to be the free lock of that process
                        (self.folder / LOCK).unlink(missing_ok=True)
                    lock.release()
                elsewhere = (self.owner() or {}).get("host") != socket.gethostname()
                gone = f"that {'host' if elsewhere else 'process'} is gone"
                raise FolderInUse(f"{self._in_use()}, or if {gone}, remove {self.record}")
            self._lock, self._holder = lock, os.getpid()
            write_json(
                self.record, {**this_process(), "os_lock": lock is not None}, sync_parent=False
            )
        except Timeout:
            raise FolderInUse(self._in_use()) from None
        except OSError as error:
            self.release()
            raise InvalidRun(
                f"{self.folder} cannot be written ({error.strerror}); make room, or copy it to "
                "where you may write"
            ) from None

    def release(self) -> None:
        """Give the lock up, if this process has it."""
        if self.is_mine:
            with contextlib.suppress(OSError):
                self.record.unlink(missing_ok=True)
                if (
                    self._lock is not None
                ):  # whoever waits for it sees that it is no more the file of that name
                    (self.folder / LOCK).unlink(missing_ok=True)
            if self._lock is not None:
                self._lock.release()
        self._lock = self._holder = None

    def moved(self, folder: Path) -> "FolderLock":
        """Follow the folder, which was renamed."""
        self.folder = folder
        return self

    def is_held(self) -> bool:
        """Return whether a live process has the lock; one on another machine is believed to
        live.
        """
        locked = _is_locked(self.folder / LOCK)
        return locked is True or self._is_recorded(lock_is_free=locked is False)

    def owner(self) -> dict[str, Any] | None:
        """Return the record of the owner; None if there is none or it is damaged."""
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
        """Return whether the record names a process that has the lock, as far as nobody seems to
        hold it.
        """
        owner = self.owner()
        if owner is None:
            return False
        if lock_is_free and owner.get("os_lock") is True and is_of_this_boot(owner):
            return False  # the kernel on which it was held is this one, which holds it no more
        return is_alive(owner)

    def _locked(self) -> FileLock | None:
        """Return the lock of the operating system, held; None where the file system cannot lock."""
        # Not removed by the library, and without its substitute for file systems that cannot lock.
        lock = FileLock(self.folder / LOCK, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire(timeout=_GRACE, poll_interval=0.01)
        except Timeout:
            raise
        except OSError as error:
            if error.errno not in _CANNOT_LOCK:
                raise
            warnings.warn(
                f"{self.folder}: this file system cannot lock ({error.strerror}); do not write "
                "there from two machines or containers at once",
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


def _is_locked(path: Path) -> bool | None:
    """Whether a process holds the lock of a file; None if there is no file, or nobody can say."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    try:
        import fcntl

        fcntl.flock(
            handle, fcntl.LOCK_SH | fcntl.LOCK_NB
        )  # shared: readers do not stand in each other's way
    except (BlockingIOError, PermissionError):
        return True
    except (OSError, ImportError):
        return None
    finally:
        os.close(handle)  # which unlocks
    return False
