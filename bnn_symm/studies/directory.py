"""The directory of a study: results appear in it whole, by a rename, and are never changed.

    study.yaml  plan.json                                   what is to be done cells/<key>/
    a run, with measures.json pairs/<key>.json  failures/<key>.json attempts/<key>-<random>/
    work in progress of one process, which holds its lock cells.parquet  pairs.parquet  (and .csv)
    summary.json  report.html

Whoever works on a fit does so in an attempt of its own, so that any number of processes, on any
number of machines that share the directory, may do the same without harm: the first to finish
publishes, the others throw theirs away. The attempt of a process that died is taken over with its
lock, which only one can hold, and goes on from its last checkpoint.
"""

import contextlib
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn_symm.errors import InvalidRun, one_line, shell_words
from bnn_symm.io.atomic import is_real_folder, make_folder, publish_folder, write_json, write_text
from bnn_symm.io.locks import FolderInUse, FolderLock
from bnn_symm.runs.directory.file_schemas import PlanFile, check_file
from bnn_symm.runs.directory.output_directory import disk_errors, new_directory
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.studies.plan import Plan
from bnn_symm.studies.study import Study, load_study


class StudyDirectory:
    """Paths and files of a study; see the module for the layout."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    study = property(lambda self: self.path / "study.yaml")
    plan = property(lambda self: self.path / "plan.json")
    cells = property(lambda self: self.path / "cells")
    pairs = property(lambda self: self.path / "pairs")
    failures = property(lambda self: self.path / "failures")
    attempts = property(lambda self: self.path / "attempts")
    summary = property(lambda self: self.path / "summary.json")

    @classmethod
    def create(cls, path: Path | None, stem: str) -> "StudyDirectory":
        """Makes a new directory: the one that is named, or `runs/<stem>-<number>`.

        Raises:
            InvalidRun: if it exists, or cannot be made.
        """
        return cls(new_directory(path, stem))

    def write_plan(self, study: Study, plan: Plan) -> None:
        """What is to be done; of a study that grew, the new one."""
        with disk_errors(self.path, "make room, and run the command again"):
            # First, since it is all that it takes to go on after a kill.
            write_text(self.study, study.to_yaml())
            for folder in (self.cells, self.pairs, self.failures, self.attempts):
                make_folder(folder)
            write_json(self.plan, plan.to_json())

    def read_study(self) -> Study:
        """The study as it was configured.

        Raises:
            InvalidRun: if this is no study.
        """
        if not self.study.exists():
            what = (
                f"{self.path} is not a study" if self.path.exists() else f"no study at {self.path}"
            )
            raise InvalidRun(
                f"{what}: it has no study.yaml; `bnn-symm compare CONFIG --out DIR` makes one"
            )
        return load_study(self.study)

    def read_plan(self) -> dict[str, Any]:
        """`plan.json`.

        Raises:
            InvalidRun: if it is missing or damaged.
        """
        content = RunDirectory.read_json(self.plan)
        again = f"write it again: bnn-symm {shell_words('compare', '--resume', self.path)}"
        check_file(self.plan, content, PlanFile, remedy=again)
        return content

    def cell(self, key: str) -> Path:
        """The run of a fit."""
        return self.cells / key

    def pair(self, key: str) -> Path:
        """The barrier of a pair."""
        return self.pairs / f"{key}.json"

    def is_done(self, key: str) -> bool:
        """Whether a fit or a pair has its result."""
        return self.cell(key).exists() or self.pair(key).exists()

    def failure(self, key: str) -> str | None:
        """Why a task failed the last time; None if it did not."""
        path = self.failures / f"{key}.json"
        try:
            return one_line(RunDirectory.read_json(path)["error"])
        except (InvalidRun, KeyError):
            return None

    def set_failure(self, key: str, error: str | None) -> None:
        """Notes why a task failed, or that it did not."""
        path = self.failures / f"{key}.json"
        if error is None:
            path.unlink(missing_ok=True)
        else:
            write_json(path, {"error": error})

    # -- work in progress

    def begin(self, key: str) -> FolderLock:
        """Return the lock of a folder for this process's work on a fit; that of a dead process if
        there is any.
        """
        for attempt in self._attempts():
            if _key_of(attempt) == key and (lock := _taken(attempt)) is not None:
                return lock
        while True:
            attempt = self.attempts / f"{key}-{uuid.uuid4().hex}"
            attempt.mkdir()
            if (lock := _taken(attempt)) is not None:  # else another process was faster
                return lock

    def publish(self, attempt: FolderLock, run: Path, key: str) -> None:
        """Move a finished run into place, unless another process was faster; either way the attempt
        is over.
        """
        with contextlib.suppress(OSError):
            publish_folder(run, self.cell(key))
        if not self.cell(key).exists():
            raise InvalidRun(
                f"{run} could not be moved to {self.cell(key)}; both have to be on one file system"
            )
        _discard(attempt)

    def remove_leftovers(self, plan: Plan) -> None:
        """Remove attempts of dead processes at what is done by now, or is not asked for any
        more.
        """
        wanted = {cell.key for cell in plan.cells if not self.is_done(cell.key)}
        for attempt in self._attempts():
            if _key_of(attempt) not in wanted and (lock := _taken(attempt)) is not None:
                _discard(lock)

    def _attempts(self) -> list[Path]:
        """All attempts, and nothing else that lies beside them."""
        return sorted(
            path
            for path in self.attempts.glob("*")
            if _ATTEMPT.fullmatch(path.name) and is_real_folder(path)
        )


# Of this version, and with host, process and start in the name, as former ones called them.
_ATTEMPT = re.compile(r"(?P<key>[^-]+)-(?:[0-9a-f]{32}|[^-]+-\d+-\d+\.\d+-[0-9a-f]{8})")


def check_task(path: Path, content: Mapping[str, Any], key: str) -> None:
    """Refuse a result that is of another task than the one under whose key it lies.

    Args:
        path: of the result.
        content: of its record.
        key: of the task.

    Raises:
        InvalidRun: if it is of another.
    """
    if content.get("task") != key:
        raise InvalidRun(
            f"{path} is the result of another task ({one_line(content.get('task'), 40)}); put back "
            "its own, or remove "
            f"it and go on with the study, which makes it again"
        )


def _key_of(attempt: Path) -> str:
    return attempt.name.partition("-")[0]


def _taken(attempt: Path) -> FolderLock | None:
    """The lock of an attempt, now of this process; None if another one holds it."""
    lock = FolderLock(attempt)
    try:
        lock.acquire()
    except FolderInUse:
        return None
    return lock


def _discard(attempt: FolderLock) -> None:
    shutil.rmtree(attempt.folder, ignore_errors=True)
    attempt.release()
