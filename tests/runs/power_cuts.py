"""Power cuts of a recorded fit: at every moment, what a disk may have of it, and what it has for
sure.

A recorder looks at a folder before every call that changes names in it, before and after every
`fsync`, and keeps all contents. What was synced (the content of a file, the entries of a folder) is
on the disk for sure. Of everything else a power cut leaves what it likes: a name as it was or as it
is now, and of a file that is being written the content as it was, all of the new one, a part of it,
or zeros.
"""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "open", "os.truncate"}
_active: "list[Recorder]" = []

Entries = dict[str, tuple[bool, int]]
"""Map each name to whether it is a folder, and its inode."""


@dataclass(frozen=True)
class Moment:
    """Hold a folder at one time: as processes see it, as synced to disk, and what was promised."""

    root: int
    folders: dict[int, Entries]
    files: dict[int, bytes]
    synced_folders: dict[int, Entries]
    synced_files: dict[int, bytes]
    promised: dict[int, int]

    def restore(self, target: Path, chance: np.random.Generator) -> None:
        """Write the files that a power cut at this time may leave."""
        self._folder(self.root, target, chance, set())

    def _folder(
        self, inode: int, target: Path, chance: np.random.Generator, seen: set[int]
    ) -> None:
        target.mkdir()
        before, now = self.synced_folders.get(inode, {}), self.folders.get(inode, {})
        for name in chance.permutation(sorted({*before, *now})).tolist():
            entry = (before if chance.random() < 0.5 else now).get(name)
            if entry is None or entry[1] in seen:  # a file that was renamed has one name, whichever
                continue
            seen.add(entry[1])
            if entry[0]:
                self._folder(entry[1], target / name, chance, seen)
            else:
                (target / name).write_bytes(self._content(entry[1], chance))

    def _content(self, inode: int, chance: np.random.Generator) -> bytes:
        before = self.synced_files.get(inode, b"")
        now = self.files.get(inode, before)
        if before == now:
            return now
        common = len(before) if now.startswith(before) else 0
        cut = int(chance.integers(common, len(now) + 1))
        zeros = now[:cut] + bytes(len(now) - cut)
        return (before, now, now[:cut], zeros)[int(chance.integers(4))]


@dataclass
class Recorder:
    """Records a folder while `recording`.

    Attributes:
        root: the folder.
        moments: one for every call that changes something.
        promised: chain -> draws that were reported as written; the recorded program sets it.
    """

    root: Path
    moments: list[Moment] = field(default_factory=list)
    promised: dict[int, int] = field(default_factory=dict)
    _synced_folders: dict[int, Entries] = field(default_factory=dict)
    _synced_files: dict[int, bytes] = field(default_factory=dict)
    _open: dict[int, int] = field(
        default_factory=dict
    )  # inodes are kept open, so that no number is given twice

    @contextmanager
    def recording(self) -> Iterator[None]:
        real = os.fsync

        def fsync(handle: int) -> None:
            self.look()
            real(handle)
            self._synced(handle)
            self.look()

        _install()
        os.fsync = fsync  # type: ignore[assignment]
        _active.append(self)
        try:
            yield
            self.look()
        finally:
            _active.remove(self)
            os.fsync = real
            for handle in self._open.values():
                os.close(handle)

    def look(self) -> None:
        """Store the present state of the folder."""
        own, _active[:] = list(_active), []
        try:
            folders: dict[int, Entries] = {}
            files: dict[int, bytes] = {}
            self._walk(self.root, folders, files)
            synced = dict(self._synced_folders), dict(self._synced_files)
            self.moments.append(
                Moment(os.stat(self.root).st_ino, folders, files, *synced, dict(self.promised))
            )
        finally:
            _active[:] = own

    def _walk(self, folder: Path, folders: dict[int, Entries], files: dict[int, bytes]) -> None:
        entries: Entries = {}
        for path in folder.iterdir():
            inode = self._keep(os.open(path, os.O_RDONLY))
            entries[path.name] = path.is_dir(), inode
            if path.is_dir():
                self._walk(path, folders, files)
            else:
                content = path.read_bytes()
                files[inode] = (
                    content
                    if content != self._synced_files.get(inode)
                    else self._synced_files[inode]
                )
        folders[os.stat(folder).st_ino] = entries

    def _keep(self, handle: int) -> int:
        inode = os.fstat(handle).st_ino
        if inode in self._open:
            os.close(handle)
        else:
            self._open[inode] = handle
        return inode

    def _synced(self, handle: int) -> None:
        own, _active[:] = list(_active), []
        try:
            inode = self._keep(os.dup(handle))
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                entries = Path(os.readlink(f"/proc/self/fd/{handle}")).iterdir()
                self._synced_folders[inode] = {
                    path.name: (path.is_dir(), os.stat(path).st_ino) for path in entries
                }
            else:
                self._synced_files[inode] = Path(
                    os.readlink(f"/proc/self/fd/{handle}")
                ).read_bytes()
        finally:
            _active[:] = own


_installed = False


def _install() -> None:
    """Forward a call to the recorder, if one records: hooks cannot be removed."""
    global _installed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _active and event in _CHANGES and (event != "open" or _writes(arguments)):
        for recorder in list(_active):
            if any(
                str(recorder.root) in os.fsdecode(word)
                for word in arguments
                if isinstance(word, str | bytes | Path)
            ):
                recorder.look()


def _writes(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 else 0
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
