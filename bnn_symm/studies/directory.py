"""Read and write the directory of a study.

Results are moved into the directory by an atomic rename and never change afterwards.

    study.yaml  plan.json         the configuration and the tasks
    cells/<key>/                  the run of a fit, with measures.json
    pairs/<key>.json              the barrier between two fits
    failures/<key>.json           why a task failed
    attempts/<key>-<random>/      work in progress of one process, which holds its lock
    cells.parquet  pairs.parquet  the tables (and .csv)
    summary.json  report.html

Each process works on a fit in a separate attempt. Several processes, also on different machines
that share the directory, may therefore work on the same fit: the first to finish publishes its
result, and the others discard theirs. If a process dies, another acquires the lock of its attempt
and resumes from the last checkpoint.
"""

import contextlib
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bnn_symm.advice import advise
from bnn_symm.errors import InvalidRun, one_line, shell_words
from bnn_symm.io.atomic import make_folder, publish_folder, write_json, write_text
from bnn_symm.io.locks import FolderLock, abandoned_folders, new_locked_folder
from bnn_symm.runs.directory.file_schemas import PlanFile, check_file
from bnn_symm.runs.directory.output_directory import create_whole, next_free
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.studies.plan import Plan
from bnn_symm.studies.study import Study, load_study


class StudyDirectory:
    """Paths and files of a study; the module describes the layout.

    Attributes:
        path: of the directory.
    """

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
    def create(cls, path: Path | None, study: Study, plan: Plan) -> "StudyDirectory":
        """Create a new directory with the configuration and the plan.

        Args:
            path: of the directory; None for `runs/<name>-<number>`.
            study: the configuration.
            plan: the tasks of the study.

        Returns:
            The new directory of a study.

        Raises:
            InvalidRun: if the directory exists or cannot be created.
        """
        path = path or next_free(Path("runs"), study.name)
        with create_whole(path) as lock:
            cls(lock.folder).write_plan(study, plan)
        lock.release()
        return cls(path)

    def write_plan(self, study: Study, plan: Plan) -> None:
        """Write the configuration and the plan; an extended study replaces both.

        Args:
            study: the configuration.
            plan: the tasks of the study.
        """
        # Written first, since it is enough to resume after a kill.
        write_text(self.study, study.to_yaml())
        for folder in (self.cells, self.pairs, self.failures, self.attempts):
            make_folder(folder)
        write_json(self.plan, plan.to_json())

    def read_study(self) -> Study:
        """Read the configuration of the study.

        Returns:
            The study as it was configured.

        Raises:
            InvalidRun: if the directory is not a study.
        """
        if not self.study.exists():
            what = (
                f"{self.path} is not a study" if self.path.exists() else f"no study at {self.path}"
            )
            raise InvalidRun(
                f"{what}: study.yaml is missing; "
                f"{advise('`bnn-symm compare CONFIG --out DIR`', 'run_study(CONFIG, DIR)')} "
                "creates a study"
            )
        return load_study(self.study)

    def read_plan(self) -> dict[str, Any]:
        """Read and check `plan.json`.

        Returns:
            The content of the file.

        Raises:
            InvalidRun: if it is missing or damaged.
        """
        content = RunDirectory.read_json(self.plan)
        again = advise(
            f"bnn-symm {shell_words('compare', '--resume', self.path)}",
            f"run_study(directory={str(self.path)!r}, resume=True)",
        )
        remedy = f"write it again: {again}"
        check_file(self.plan, content, PlanFile, remedy=remedy)
        return content

    def fit_path(self, key: str) -> Path:
        """Return the path of the run of a fit."""
        return self.cells / key

    def pair_path(self, key: str) -> Path:
        """Return the path of the barrier of a pair."""
        return self.pairs / f"{key}.json"

    def is_done(self, key: str) -> bool:
        """Return whether a fit or a pair has its result."""
        return self.fit_path(key).exists() or self.pair_path(key).exists()

    def failure(self, key: str) -> str | None:
        """Return why a task failed last time; None if it did not fail."""
        path = self.failures / f"{key}.json"
        try:
            return one_line(RunDirectory.read_json(path)["error"])
        except (InvalidRun, KeyError):
            return None

    def set_failure(self, key: str, error: str | None) -> None:
        """Record why a task failed, or remove the record.

        Args:
            key: of the task.
            error: the reason; None if the task did not fail.
        """
        path = self.failures / f"{key}.json"
        if error is None:
            path.unlink(missing_ok=True)
        else:
            write_json(path, {"error": error})

    # -- work in progress

    def begin(self, key: str) -> FolderLock:
        """Acquire the lock of an attempt at a fit for this process.

        Args:
            key: of the fit.

        Returns:
            The lock of the attempt of a dead process if there is one, else that of a new attempt.
        """
        for attempt in self._abandoned(lambda other: other == key):
            return attempt
        return new_locked_folder(lambda: self._new_attempt(key))

    def publish(self, attempt: FolderLock, run: Path, key: str) -> None:
        """Move a finished run into place, unless another process was faster, and end the attempt.

        Args:
            attempt: the lock of the attempt.
            run: the finished run.
            key: of the fit.

        Raises:
            InvalidRun: if the run cannot be moved.
        """
        with contextlib.suppress(OSError):
            publish_folder(run, self.fit_path(key))
        if not self.fit_path(key).exists():
            raise InvalidRun(
                f"{run} could not be moved to {self.fit_path(key)}; both must be on one file system"
            )
        attempt.remove_folder()

    def remove_leftovers(self, plan: Plan) -> None:
        """Remove attempts of dead processes at fits that are done or no longer planned.

        Args:
            plan: the tasks of the study.
        """
        pending = {fit.key for fit in plan.fits if not self.is_done(fit.key)}
        for attempt in self._abandoned(lambda key: key not in pending):
            attempt.remove_folder()

    def _new_attempt(self, key: str) -> Path:
        attempt = self.attempts / f"{key}-{uuid.uuid4().hex}"
        attempt.mkdir()
        return attempt

    def _abandoned(self, is_wanted: Callable[[str], bool]) -> Iterator[FolderLock]:
        """Yield the acquired locks of attempts of dead processes at the fits of some keys."""

        def is_candidate(name: str) -> bool:
            attempt = _ATTEMPT.fullmatch(name)
            return attempt is not None and is_wanted(attempt["key"])

        return abandoned_folders(self.attempts, is_candidate)


# The second form, with host, process and start time, is that of former versions.
_ATTEMPT = re.compile(r"(?P<key>[^-]+)-(?:[0-9a-f]{32}|[^-]+-\d+-\d+\.\d+-[0-9a-f]{8})")


def check_task(path: Path, content: Mapping[str, Any], key: str) -> None:
    """Check that a result belongs to the task under whose key it is stored.

    Args:
        path: of the result.
        content: of its record.
        key: of the task.

    Raises:
        InvalidRun: if it belongs to another task.
    """
    if content.get("task") != key:
        raise InvalidRun(
            f"{path} is the result of another task ({one_line(content.get('task'), 40)}); restore "
            "the original, or remove it and resume the study, which computes it again"
        )
