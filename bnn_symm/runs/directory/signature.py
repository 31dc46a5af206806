"""Check which files belong to a run: `run.json` has the SHA-256 of each finished file.

    files    name -> SHA-256, in hexadecimal, of files that do not change any more
    id       of the run; its states and draws carry a token derived from it while the fit runs

Every reader compares. Files of another run, or of another time, are refused instead of giving wrong
numbers. Runs of former versions have no such keys and load without a check. `bnn-symm sign RUN`
accepts files that were changed on purpose.
"""

import hashlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from bnn_symm.advice import advise
from bnn_symm.errors import InvalidRun, one_line, shell_words
from bnn_symm.io.atomic import write_json
from bnn_symm.io.boundary import parser_errors, shown
from bnn_symm.io.checksums import file_sha256
from bnn_symm.io.documents import read_json
from bnn_symm.io.paths import check_regular_file

FILES, ID = "files", "id"
_METADATA = "bnn_symm_run"
_TOKEN_DIGITS = 16  # in hexadecimal: one 64-bit number
_SHORT = 12


def _remedy(root: Path) -> str:
    accept = f", or accept this one with: bnn-symm {shell_words('sign', root)}"
    return f"restore the original file{advise(accept, '')}"


def new_id() -> str:
    """Return the identity of a new run."""
    return uuid.uuid4().hex


class RunSignature:
    """Read and write the signature of a run, which `run.json` stores.

    Args:
        record: path of `run.json`.
    """

    def __init__(self, record: Path):
        self._record = record
        self._root = record.parent

    def hashes(self, *paths: Path) -> dict[str, str]:
        """Return the SHA-256 of the existing files among these, by name.

        Args:
            paths: files of the run.
        """
        found = {}
        for path in paths:
            if path.exists():
                check_regular_file(path, InvalidRun)
                with parser_errors(path, "check its permissions"):
                    found[self._name(path)] = file_sha256(path)
        return found

    def has(self, path: Path) -> bool:
        """Return whether there is a file that belongs to this run.

        Args:
            path: a file of the run.

        Raises:
            InvalidRun: if the file is signed but was changed or removed.
        """
        self.require(path)
        signed = self._signed()
        if not path.exists() or (signed is not None and self._name(path) not in signed):
            return False
        self.check(path)
        return True

    def check(self, *paths: Path) -> None:
        """Compare files with the signature; missing and unsigned files are left to their readers.

        Args:
            paths: files of the run.

        Raises:
            InvalidRun: if a file is not the one that was signed.
        """
        signed = self._signed() or {}
        for path in paths:
            wanted = signed.get(self._name(path))
            got = self.hashes(path).get(self._name(path)) if wanted is not None else None
            if got is not None and got != wanted:
                raise InvalidRun(
                    f"{shown(path)} was damaged or replaced since it was written (sha256 "
                    f"{got[:_SHORT]}, {self._record.name} has {one_line(str(wanted)[:_SHORT])}); "
                    f"{_remedy(self._root)}"
                )

    def require(self, *paths: Path) -> None:
        """Check that no signed file was removed.

        Args:
            paths: files of the run.

        Raises:
            InvalidRun: if a signed file is missing.
        """
        signed = self._signed() or {}
        for path in paths:
            if self._name(path) in signed and not path.exists():
                raise InvalidRun(
                    f"{shown(path)} is missing, which {self._record.name} names; "
                    f"{_remedy(self._root)}"
                )

    def add(self, *paths: Path) -> None:
        """Sign unsigned files, and compare signed ones; without a signature, do nothing.

        Args:
            paths: files of the run.

        Raises:
            InvalidRun: if a file is not the one that was signed.
        """
        signed = self._signed()
        if signed is None:
            return
        self.check(*paths)
        new = self.hashes(*(path for path in paths if self._name(path) not in signed))
        if new:
            self._write({**signed, **new})

    def replace(self, path: Path) -> None:
        """Sign a file that this process has just written, in place of a former one.

        Args:
            path: a file of the run.
        """
        signed = self._signed()
        if signed is not None:
            self._write({**signed, **self.hashes(path)})

    def renew(self, *paths: Path) -> list[str]:
        """Sign all files in their present state.

        Args:
            paths: all files that may be signed.

        Returns:
            The names of the files whose signature changed.
        """
        before, now = self._signed() or {}, self.hashes(*paths)
        self._write(now)
        return sorted(name for name in {**before, **now} if before.get(name) != now.get(name))

    def token(self, folder: Path) -> str | None:
        """Return the token of states and draws in a folder; None for a run without an identity.

        Args:
            folder: a folder of the run.
        """
        if not self._record.exists():
            return None
        identity = read_json(self._record).get(ID)
        if not isinstance(identity, str):
            return None
        return hashlib.sha256(f"{identity}/{self._name(folder)}".encode()).hexdigest()[
            :_TOKEN_DIGITS
        ]

    def _signed(self) -> dict[str, str] | None:
        """Return the signature: the SHA-256 of each file; None if the run has none."""
        if not self._record.exists():
            return None
        signed = read_json(self._record).get(FILES)
        if signed is not None and not isinstance(signed, dict):
            raise InvalidRun(
                f"{shown(self._record)} is damaged: files is not an object; copy the run again"
            )
        return signed

    def _write(self, files: Mapping[str, str]) -> None:
        content: dict[str, Any] = {**read_json(self._record), FILES: dict(sorted(files.items()))}
        write_json(self._record, content)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def metadata(token: str | None, state: Mapping[str, np.ndarray]) -> dict[str, str] | None:
    """Return the metadata of a state: the token of its run, and a digest of its content.

    Args:
        token: the token; None for a run without an identity.
        state: the arrays of the state.
    """
    return None if token is None else {_METADATA: f"{token}-{_digest(state)}"}


def _digest(state: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(state.items()):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:_TOKEN_DIGITS]


def check_state(path: Path, token: str | None, state: Mapping[str, np.ndarray]) -> None:
    """Check that a state belongs to a run and is not damaged.

    Args:
        path: a safetensors file.
        token: the token that it must carry; None for a run without an identity: no check.
        state: the arrays that were read from it.

    Raises:
        InvalidRun: if it carries another token, or none, or other values than were written.
    """
    if token is None:
        return
    with (
        parser_errors(path, "restore the original file"),
        safe_open(path, framework="np") as file,
    ):
        got = str((file.metadata() or {}).get(_METADATA)).partition("-")
    if got[0] != token:
        raise InvalidRun(
            f"{shown(path)} is a state of another run (it carries "
            f"{one_line(got[0], _TOKEN_DIGITS)}, expected {token}); restore the original file, or "
            "fit again"
        )
    if got[2] != _digest(state):
        raise InvalidRun(
            f"{shown(path)} is damaged: its values are not those that were written; restore the "
            "file"
        )
