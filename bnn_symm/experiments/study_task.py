"""One task of a study, in a process of its own: `python -m bnn_symm.experiments.study_task DIR KEY [CORES]`.

A task is one fit with what is measured of it, or one pair. It may be run any number of times, anywhere that the
directory is: what is there already is not done again. The result is on disk; the exit status is 0, or 1 with one line
on stderr. Started by a study, it ends when that does: its standard input closes.
"""

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Any

from bnn_symm.errors import BnnSymmError, FitDiverged, InvalidRun
from bnn_symm.experiments.config import Config, parse_config
from bnn_symm.experiments.run import fit_run, resume_run
from bnn_symm.experiments.run_directory import RunDirectory
from bnn_symm.experiments.stored_run import Run, load_run, module_of
from bnn_symm.experiments.study_directory import StudyDirectory
from bnn_symm.experiments.study_measures import MEASURES, measure_cell, measure_pair
from bnn_symm.io.atomic import write_json
from bnn_symm.threads import limit_cores

_STOPPED = 143  # as a process that was terminated


def main() -> int:
    """The task that the command line names."""
    directory, key = StudyDirectory(sys.argv[1]), sys.argv[2]
    if len(sys.argv) > 3:
        limit_cores(int(sys.argv[3]))
        threading.Thread(target=_end_with_the_study, daemon=True).start()
    # A network class of the user's own is found where the study was started.
    sys.path.append(os.getcwd())
    try:
        return run_task(directory, key)
    except BnnSymmError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def run_task(directory: StudyDirectory, key: str) -> int:
    """Does what is to be done under a key, unless it is done; the exit status.

    Raises:
        BnnSymmError: if it cannot be done.
    """
    plan = directory.read_plan()
    if directory.is_done(key):
        return 0
    if key in plan["cells"]:
        return _fit(directory, key, plan["cells"][key])
    if key not in plan["pairs"]:
        raise InvalidRun(f"{directory.plan} has no task {key}")
    pair = plan["pairs"][key]
    runs = [_open(directory.cell(pair[side]), plan["cells"][pair[side]]) for side in ("first", "second")]
    write_json(directory.pair(key), {"task": key, **measure_pair(runs[0], runs[1], plan["options"])})
    return 0


def _fit(directory: StudyDirectory, key: str, raw: dict[str, Any]) -> int:
    config = parse_config(raw)
    attempt = directory.begin(key)
    try:
        path = attempt.folder / "run"
        try:
            run = _fitted(path, config)
        except FitDiverged as error:
            # To the same bits it would do so again: that is its result.
            measures: dict[str, Any] = {"error": str(error)}
        else:
            if run.status != "complete":
                return _STOPPED
            measures = measure_cell(run)
        write_json(path / MEASURES, measures)
        own = RunDirectory(path)
        own.signature.add(path / MEASURES)
        own.update_record(task=key)
        directory.publish(attempt, path, key)
        return 0
    finally:
        attempt.release()


def _fitted(path: Path, config: Config) -> Run:
    """The run, from where a process that died had left it if it can go on to the same bits."""
    if not path.exists():
        return fit_run(config, path)
    with contextlib.suppress(InvalidRun):
        run = load_run(path, module=module_of(config))
        if run.status == "complete":
            return run
        if not run.record.get("diverged"):
            return resume_run(path, module=module_of(config))
    for number in range(1_000_000):  # what cannot go on is kept beside it, until the attempt is over
        with contextlib.suppress(OSError):
            path.rename(path.with_name(f"left-{number}"))
            break
    return fit_run(config, path)


def _open(path: Path, raw: dict[str, Any]) -> Run:
    return load_run(path, module=module_of(parse_config(raw)))


def _end_with_the_study() -> None:
    """Waits for the end of standard input, which comes when the process at the other end is gone."""
    with contextlib.suppress(OSError):
        while os.read(0, 1 << 16):  # not by `sys.stdin`, whose lock the end of the interpreter would wait for
            pass
    os._exit(_STOPPED)


if __name__ == "__main__":
    sys.exit(main())
