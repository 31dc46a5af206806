"""Run one task of a study: `python -m bnn_symm.studies.task DIR KEY [CORES]`.

A task is one fit and its measurements, or the barrier of one pair. It can be repeated at any time,
on any machine that sees the directory: a result that exists is not computed again. The result is
written to the directory. The exit status is 0 on success; with one line on stderr, it is 2 for
wrong input and 1 for a fit that failed.

Custom networks are named again on the command line (`--module package.module:factory`). Code that
files of the directory name is never imported by itself.
"""

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bnn_symm.advice import for_command_line
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
from bnn_symm.runs.run import Run, code_of, load_run, stored_config
from bnn_symm.studies.directory import StudyDirectory
from bnn_symm.studies.keys import fit_key
from bnn_symm.studies.results.fits import open_fit
from bnn_symm.studies.results.measures import MEASURES, measure_fit, measure_pair
from bnn_symm.threads import limit_cores

_LONGEST = 300  # characters of a message
_STOPPED = 143  # exit status of a process that was terminated


@for_command_line()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the task that the command line names.

    Args:
        arguments: of the command line; None for those of the process.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(arguments)
    if options.cores is not None:
        limit_cores(options.cores)
    # Custom networks are imported from the directory in which the study was started.
    sys.path.append(os.getcwd())
    try:
        return run_task(StudyDirectory(options.directory), options.key, options.module)
    except BnnSymmError as error:
        print(one_line(f"{type(error).__name__}: {error}", _LONGEST), file=sys.stderr)
        return 1 if isinstance(error, FitDiverged | ProcessLost) else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bnn_symm.studies.task",
        description="Run one task of a study: a fit or a pair.",
    )
    parser.add_argument("directory", metavar="DIR", help="the directory of the study")
    parser.add_argument("key", metavar="KEY", help="the key of the task in plan.json")
    parser.add_argument(
        "cores",
        metavar="CORES",
        type=int,
        nargs="?",
        help="the number of cores to use",
    )
    parser.add_argument(
        "--module",
        action="append",
        default=[],
        metavar="PACKAGE.MODULE:FACTORY",
        help="the factory of a custom network; repeat the option for a pair that needs two",
    )
    return parser


def run_task(directory: StudyDirectory, key: str, modules: Sequence[str] = ()) -> int:
    """Run a task, unless its result exists.

    Args:
        directory: of the study.
        key: of the task.
        modules: factories of custom networks; no other is imported.

    Returns:
        The exit status.

    Raises:
        BnnSymmError: if the task fails.
    """
    plan = directory.read_plan()
    if key not in plan["cells"] and key not in plan["pairs"]:
        raise InvalidRun(f"{directory.plan} has no task {one_line(key, 40)}")
    if directory.is_done(key):
        return 0
    pair = plan["pairs"].get(key)
    keys = [key] if pair is None else [pair["first"], pair["second"]]
    if any(fit not in plan["cells"] for fit in keys):
        raise InvalidRun(f"{directory.plan} is damaged: it lacks a fit of the pair {key}")
    configs = [parse_config(plan["cells"][fit]) for fit in keys]
    check_repeated(factories_of(configs), modules, f"task {key} of {directory.path}")
    if pair is None:
        return _fit(directory, key, configs[0])
    runs = [open_fit(directory, fit, config) for fit, config in zip(keys, configs, strict=True)]
    write_json(
        directory.pair_path(key), {"task": key, **measure_pair(runs[0], runs[1], plan["options"])}
    )
    return 0


def _fit(directory: StudyDirectory, key: str, config: Config) -> int:
    def check(prepared: Prepared) -> None:
        if fit_key(prepared) != key:
            raise InvalidRun(
                f"the data of {key} ({one_line(prepared.dataset.name, 80)}), its initial weights, "
                "or the version of bnn_symm changed since the study was planned; restore them, or "
                "start a new study"
            )

    attempt = directory.begin(key)
    try:
        path = attempt.folder / "run"
        try:
            run = _fit_or_resume(path, config, check)
        except FitDiverged as error:
            # A repetition would diverge identically, so this is the result.
            measures: dict[str, Any] = {"error": str(error)}
        else:
            if run.status != "complete":
                return _STOPPED
            measures = measure_fit(run)
        write_json(path / MEASURES, measures)
        run_directory = RunDirectory(path)
        run_directory.signature.add(path / MEASURES)
        run_directory.update_record(task=key)
        directory.publish(attempt, path, key)
        return 0
    finally:
        attempt.release()


def _fit_or_resume(path: Path, config: Config, check: Callable[[Prepared], None]) -> Run:
    """Fit, or resume the run of a dead process where the result is bitwise identical."""
    if not path.exists():
        return fit_run(config, path, check=check)
    # The run found there may be damaged, or belong to another fit.
    with contextlib.suppress(InvalidRun, ConfigError, IncompatiblePosteriors):
        if _without_storage(stored_config(RunDirectory(path))) != _without_storage(config):
            raise InvalidRun(f"{path} belongs to another fit")
        run = load_run(path, module=code_of(config))
        if run.status == "complete":
            return run
        if not run.record.get("diverged"):
            return resume_run(path, module=code_of(config))
    # A run that cannot be resumed is set aside until the attempt ends.
    for number in range(1_000_000):
        with contextlib.suppress(OSError):
            path.rename(path.with_name(f"left-{number}"))
            break
    return fit_run(config, path, check=check)


def _without_storage(config: Config) -> Config:
    """Return a configuration with default settings of storage, which do not change results."""
    return dataclasses.replace(config, checkpoint=CheckpointConfig(), save=SaveConfig())


if __name__ == "__main__":
    sys.exit(main())
