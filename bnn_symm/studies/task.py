"""One task of a study, in a process of its own: `python -m bnn_symm.studies.task DIR KEY [CORES]`.

Where the network is made by the user's own code, that is repeated: `--module
package.module:factory`. What files of the directory name is never imported by itself.

A task is one fit with what is measured of it, or one pair. It may be run any number of times,
anywhere that the directory is: what is there already is not done again. The result is on disk; the
exit status is 0, or, with one line on stderr, 2 for wrong input and 1 for a fit that failed.
Started by a study, it ends when that does: its standard input closes.
"""

import argparse
import contextlib
import dataclasses
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bnn_symm.errors import (
    BnnSymmError,
    ConfigError,
    FitDiverged,
    IncompatiblePosteriors,
    InvalidRun,
    ProcessLost,
    one_line,
)
from bnn_symm.io.atomic import write_json
from bnn_symm.runs.configuration.config import CheckpointConfig, Config, SaveConfig, parse_config
from bnn_symm.runs.configuration.factories import check_repeated, factories_of
from bnn_symm.runs.configuration.prepare import Prepared
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.fit_runner import fit_run, resume_run
from bnn_symm.runs.run import Run, load_run, module_of, stored_config
from bnn_symm.studies.directory import StudyDirectory
from bnn_symm.studies.keys import fit_key
from bnn_symm.studies.results.fits import open_cell
from bnn_symm.studies.results.measures import MEASURES, measure_cell, measure_pair
from bnn_symm.threads import limit_cores

_LONGEST = 300  # characters of a message
_STOPPED = 143  # as a process that was terminated


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the task that the command line names; return the exit status."""
    options = _parser().parse_args(arguments)
    if options.cores is not None:
        limit_cores(options.cores)
        threading.Thread(target=_end_with_the_study, daemon=True).start()
    # A network class of the user's own is found where the study was started.
    sys.path.append(os.getcwd())
    try:
        return run_task(StudyDirectory(options.directory), options.key, options.module)
    except BnnSymmError as error:
        print(one_line(f"{type(error).__name__}: {error}", _LONGEST), file=sys.stderr)
        return 1 if isinstance(error, FitDiverged | ProcessLost) else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bnn_symm.studies.task",
        description="Do one task of a study: a fit or a pair.",
    )
    parser.add_argument("directory", metavar="DIR", help="of the study")
    parser.add_argument("key", metavar="KEY", help="of the task, from plan.json")
    parser.add_argument(
        "cores",
        metavar="CORES",
        type=int,
        nargs="?",
        help="that it may use; it ends with its parent",
    )
    parser.add_argument(
        "--module",
        action="append",
        default=[],
        metavar="PACKAGE.MODULE:FACTORY",
        help="the factory of your own network, repeated; a pair may need two",
    )
    return parser


def run_task(directory: StudyDirectory, key: str, modules: Sequence[str] = ()) -> int:
    """Does what is to be done under a key, unless it is done; the exit status.

    Args:
        directory: of the study.
        key: of the task.
        modules: factories of the user's own networks, repeated; no other is imported.

    Raises:
        BnnSymmError: if it cannot be done.
    """
    plan = directory.read_plan()
    if key not in plan["cells"] and key not in plan["pairs"]:
        raise InvalidRun(f"{directory.plan} has no task {one_line(key, 40)}")
    if directory.is_done(key):
        return 0
    pair = plan["pairs"].get(key)
    keys = [key] if pair is None else [pair["first"], pair["second"]]
    if any(own not in plan["cells"] for own in keys):
        raise InvalidRun(
            f"{directory.plan} is damaged: the pair {key} is of fits that it does not have"
        )
    configs = [parse_config(plan["cells"][own]) for own in keys]
    check_repeated(factories_of(configs), modules, f"task {key} of {directory.path}")
    if pair is None:
        return _fit(directory, key, configs[0])
    runs = [open_cell(directory, own, config) for own, config in zip(keys, configs, strict=True)]
    write_json(
        directory.pair(key), {"task": key, **measure_pair(runs[0], runs[1], plan["options"])}
    )
    return 0


def _fit(directory: StudyDirectory, key: str, config: Config) -> int:
    def check(prepared: Prepared) -> None:
        if fit_key(prepared) != key:
            raise InvalidRun(
                f"the data of {key} ({one_line(prepared.dataset.name, 80)}), weights that it "
                "starts from, or the "
                "version of bnn_symm changed since the study was planned; put them back, or begin "
                "a new study"
            )

    attempt = directory.begin(key)
    try:
        path = attempt.folder / "run"
        try:
            run = _fitted(path, config, check)
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


def _fitted(path: Path, config: Config, check: Callable[[Prepared], None]) -> Run:
    """The run, from where a process that died had left it if it can go on to the same bits."""
    if not path.exists():
        return fit_run(config, path, check=check)
    # What was left there may be damaged, or of another fit.
    with contextlib.suppress(InvalidRun, ConfigError, IncompatiblePosteriors):
        if _without_keeping(stored_config(RunDirectory(path))) != _without_keeping(config):
            raise InvalidRun(f"{path} is of another fit")
        run = load_run(path, module=module_of(config))
        if run.status == "complete":
            return run
        if not run.record.get("diverged"):
            return resume_run(path, module=module_of(config))
    for number in range(
        1_000_000
    ):  # what cannot go on is kept beside it, until the attempt is over
        with contextlib.suppress(OSError):
            path.rename(path.with_name(f"left-{number}"))
            break
    return fit_run(config, path, check=check)


def _without_keeping(config: Config) -> Config:
    """Return a configuration without what says how it is kept on disk, which changes no result."""
    return dataclasses.replace(config, checkpoint=CheckpointConfig(), save=SaveConfig())


def _end_with_the_study() -> None:
    """Waits for the end of standard input, which comes when the process at the other end is
    gone.
    """
    with contextlib.suppress(OSError):
        while os.read(
            0, 1 << 16
        ):  # not by `sys.stdin`, whose lock the end of the interpreter would wait for
            pass
    os._exit(_STOPPED)


if __name__ == "__main__":
    sys.exit(main())
