"""Which files belong to a run: `run.json` has the SHA-256 of each that is finished, and every
reader compares.

    files    name -> SHA-256, in hexadecimal, of files that do not change any more
    id       of the run; its states and draws carry what follows from it while the fit runs

So files of another run, or of another moment, are refused in place of giving wrong numbers. Runs of
former versions have no such keys, and load without a check. `bnn-symm sign RUN` accepts files that
were changed on purpose.
"""

import hashlib
import shlex
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from bnn_symm.errors import InvalidRun, one_line
from bnn_symm.io.atomic import write_json
from bnn_symm.io.boundary import parser_errors, shown
from bnn_symm.io.checksums import file_sha256
from bnn_symm.io.documents import read_json
from bnn_symm.io.paths import check_regular_file

FILES, ID = "files", "id"
_METADATA = "bnn_symm_run"
_TOKEN_DIGITS = 16  # in hexadecimal: one 64-bit number
_SHORT = 12
_ADVICE = "put the run's own file back, or accept this one on purpose: bnn-symm sign"


def new_id() -> str:
    """Return the identity of a new run."""
    return uuid.uuid4().hex


class RunSignature:
    """The signature of a run: what its `run.json` says of the other files.

    Args:
        record: path of `run.json`.
    """

    def __init__(self, record: Path):
        self._record = record
        self._root = record.parent

    def hashes(self, *paths: Path) -> dict[str, str]:
        """Return name -> SHA-256 of the files among these that are there."""
        found = {}
        for path in paths:
            if path.exists():
                check_regular_file(path, InvalidRun)
                with parser_errors(path, "check its permissions"):
                    found[self._name(path)] = file_sha256(path)
        return found

    def is_signed(self, path: Path) -> bool:
        """Return whether a file belongs to the run as far as is known: it is signed, or the run
        signs none.
        """
        signed = self._signed()
        return signed is None or self._name(path) in signed

    def check(self, *paths: Path) -> None:
        """Compare files with the signature; those that are missing or not signed are left to their
        readers.

        Raises:
            InvalidRun: if one is not the file that was signed.
        """
        signed = self._signed() or {}
        for path in paths:
            wanted = signed.get(self._name(path))
            got = self.hashes(path).get(self._name(path)) if wanted is not None else None
            if got is not None and got != wanted:
                raise InvalidRun(
                    f"{shown(path)} was damaged or exchanged since it was written (sha256 "
                    f"{got[:_SHORT]}, {self._record.name} has {one_line(str(wanted)[:_SHORT])}); "
                    f"{_ADVICE} {shlex.quote(str(self._root))}"
                )

    def require(self, *paths: Path) -> None:
        """Refuse a run from which a signed file was taken away.

        Raises:
            InvalidRun: if one is missing.
        """
        signed = self._signed() or {}
        for path in paths:
            if self._name(path) in signed and not path.exists():
                raise InvalidRun(
                    f"{shown(path)} is missing, which {self._record.name} names; {_ADVICE} "
                    f"{shlex.quote(str(self._root))}"
                )

    def add(self, *paths: Path) -> None:
        """Sign files that are not signed yet, and compare those that are; a run that signs none is
        left as it is.

        Raises:
            InvalidRun: if one is not the file that was signed.
        """
        signed = self._signed()
        if signed is None:
            return
        self.check(*paths)
        new = self.hashes(*(path for path in paths if self._name(path) not in signed))
        if new:
            self._write({**signed, **new})

    def replace(self, path: Path) -> None:
        """Sign a file that this process has just written, in place of one that was signed."""
        signed = self._signed()
        if signed is not None:
            self._write({**signed, **self.hashes(path)})

    def renew(self, *paths: Path) -> list[str]:
        """Sign files as they are now.

        Args:
            paths: all that may be signed.

        Returns:
            The names of those that were signed otherwise, or not at all.
        """
        before, now = self._signed() or {}, self.hashes(*paths)
        self._write(now)
        return sorted(name for name in {**before, **now} if before.get(name) != now.get(name))

    def token(self, folder: Path) -> str | None:
        """Return what states and draws of the run in a folder carry; None of a run that has no
        identity.
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
        if not self._record.exists():
            return None
        signed = read_json(self._record).get(FILES)
        if signed is not None and not isinstance(signed, dict):
            raise InvalidRun(
                f"{shown(self._record)} is damaged: files is no object; copy the run again"
            )
        return signed

    def _write(self, files: Mapping[str, str]) -> None:
        content: dict[str, Any] = {**read_json(self._record), FILES: dict(sorted(files.items()))}
        write_json(self._record, content)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def metadata(token: str | None, state: Mapping[str, np.ndarray]) -> dict[str, str] | None:
    """Return the metadata of a state: the run that it is of, and a digest of what it holds."""
    return None if token is None else {_METADATA: f"{token}-{_digest(state)}"}


def _digest(state: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(state.items()):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:_TOKEN_DIGITS]


def check_state(path: Path, token: str | None, state: Mapping[str, np.ndarray]) -> None:
    """Refuse the state of another run, or one that was damaged.

    Args:
        path: of a safetensors file.
        token: that it must carry; None of a run without an identity, which is not checked.
        state: what was read from it.

    Raises:
        InvalidRun: if it carries another one, or none, or other values than were written.
    """
    if token is None:
        return
    with (
        parser_errors(path, "put back the file as it was written"),
        safe_open(path, framework="np") as file,
    ):
        got = str((file.metadata() or {}).get(_METADATA)).partition("-")
    if got[0] != token:
        raise InvalidRun(
            f"{shown(path)} is a state of another run (it carries "
            f"{one_line(got[0], _TOKEN_DIGITS)}, this run's carry {token}); put back the run's own "
            "file, or fit again"
        )
    if got[2] != _digest(state):
        raise InvalidRun(
            f"{shown(path)} is damaged: it holds other values than were written; put back the file"
        )
