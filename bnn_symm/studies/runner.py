"""Run a study: do the tasks that are not done yet, then write its tables and its summary."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnn_symm.advice import advise
from bnn_symm.arguments import checked
from bnn_symm.errors import ConfigError, InvalidRun, one_line
from bnn_symm.runs.configuration.factories import check_repeated, factories_of, study_commands
from bnn_symm.runs.directory.output_directory import disk_errors
from bnn_symm.studies.directory import StudyDirectory
from bnn_symm.studies.executors import dask_executor, local_executor, run_in_process
from bnn_symm.studies.plan import Plan, plan_study
from bnn_symm.studies.results.summary import write_summary
from bnn_symm.studies.study import Study, load_study

# Tasks queued at an executor beyond the running ones: few, so that a stopped study has little to
# cancel.
_QUEUED = 2
_LONGEST = 300  # characters of the reason of a failure


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a study.

    Attributes:
        done: number of tasks that have a result, including those of former calls.
        failed: number of tasks that failed in this call.
        total: number of fits and pairs.
        last: description of the task that ended last.
    """

    done: int
    failed: int
    total: int
    last: str = ""


OnProgress = Callable[[Progress], None]


@checked
def run_study(
    study: Study | str | Path | None = None,
    directory: str | Path | None = None,
    *,
    resume: bool = False,
    jobs: int | None = None,
    dask: str | None = None,
    modules: Sequence[str] = (),
    on_progress: OnProgress = lambda progress: None,
) -> dict[str, Any]:
    """Run the missing tasks of a study, then write its tables and its summary.

    Args:
        study: the study, or the path of its configuration; with `resume`, None for the stored one.
        directory: a new directory, by default `runs/<name>-<number>`; with `resume`, that of the
            study.
        resume: continue an existing study; if the study was extended, only the new tasks run.
        jobs: number of processes at once on this machine, by default one per core.
        dask: address of a Dask scheduler, whose workers run the tasks instead.
        modules: with `resume` and no study, the factories of custom networks that the study names
            (`package.module:factory`). They are repeated here because code that a directory names
            is never run by itself.
        on_progress: called with the progress at the start and after every task.

    Returns:
        The content of `summary.json`; its key `directory` names the directory of the study.

    Raises:
        ConfigError: for a wrong study, or if no such cluster answers.
        InvalidRun: if the directory exists already; with `resume`, if it is not a study, or if the
            data of the study changed.
        KeyboardInterrupt: after running tasks had time to write a checkpoint; the message contains
            the command that resumes the study.

    Example:
        >>> import tempfile
        >>> fits = ["data.limit=60", "inference={name: map, num_steps: 2}", "study.seeds=1"]
        >>> summary = run_study(load_study(None, fits), tempfile.mkdtemp() + "/study", jobs=1)
        >>> summary["status"]
        'complete'
    """
    if jobs is not None and dask is not None:
        raise ConfigError(
            f"{advise('--jobs', 'jobs')} applies to this machine; a Dask cluster runs one task per "
            "thread of its workers"
        )
    if jobs is not None and jobs < 1:
        raise ConfigError(f"{advise(f'--jobs {jobs}', f'jobs={jobs}')}: expected 1 or more")
    if isinstance(study, str | Path):
        study = load_study(study)
    study, plan, study_directory = _plan(
        study, None if directory is None else Path(directory), resume, modules
    )
    resume_command = advise(
        _commands(study_directory, plan)["resume"],
        f"run_study(directory={str(study_directory.path)!r}, resume=True)",
    )
    try:
        with (
            local_executor(jobs)
            if dask is None
            else dask_executor(dask, study_directory.path.resolve())
        ) as (executor, slots, cores):
            study_directory.remove_leftovers(plan)
            _run_tasks(study_directory, plan, executor, slots, cores, on_progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"resume with: {resume_command}") from None
    with disk_errors(study_directory.path, f"free some space, then resume with: {resume_command}"):
        return write_summary(study_directory, study, plan)


def _commands(study_directory: StudyDirectory, plan: Plan) -> dict[str, str]:
    return study_commands(study_directory.path, factories_of(fit.config for fit in plan.fits))


def _plan(
    study: Study | None, directory: Path | None, resume: bool, modules: Sequence[str]
) -> tuple[Study, Plan, StudyDirectory]:
    if not resume:
        if study is None:
            raise ConfigError("no study is given; name its configuration")
        plan = plan_study(study)
        study_directory = StudyDirectory.create(directory, study, plan)
    else:
        if directory is None:
            raise ConfigError("to resume a study, name its directory")
        study_directory = StudyDirectory(directory)
        former = study_directory.read_study()
        if study is None:
            check_repeated(factories_of(former.configs()), modules, study_directory.path)
        plan = plan_study(study or former)
        if study is None:
            study = former
            _check_unchanged(study_directory, plan)
        with disk_errors(directory, "free some space, then run the command again"):
            study_directory.write_plan(study, plan)
    return study, plan, study_directory


def _check_unchanged(study_directory: StudyDirectory, plan: Plan) -> None:
    if not study_directory.plan.exists():  # killed before any task ran
        return
    try:
        before = set(study_directory.read_plan()["cells"])
    except InvalidRun:  # damaged; it is written again from the study
        return
    now = {fit.key for fit in plan.fits}
    if before and not before & now:
        repeat_command = _commands(study_directory, plan)["repeat"]
        raise InvalidRun(
            f"the fits of {study_directory.path} do not match its study.yaml: the data, or the "
            f"version of bnn_symm, changed; restore it, or start a new study: {repeat_command}"
        )


def _run_tasks(
    study_directory: StudyDirectory,
    plan: Plan,
    executor: Executor,
    slots: int,
    cores: int,
    on_progress: OnProgress,
) -> None:
    """Run fits in the order of folds and seeds, and each pair as soon as its fits are done.

    A study that is stopped has therefore complete folds and seeds.
    """
    names = _task_names(plan)
    in_order = sorted(plan.fits, key=lambda fit: (fit.fold or 0, fit.seed))
    fits = [
        key
        for key in dict.fromkeys(fit.key for fit in in_order)
        if not study_directory.is_done(key)
    ]
    pairs = {pair.key: pair for pair in plan.pairs if not study_directory.is_done(pair.key)}
    fitted = {fit.key for fit in plan.fits} - set(fits)

    def next_task() -> str | None:
        """Return a pair whose fits are done if there is one, else a fit."""
        ready = next(
            (key for key, pair in pairs.items() if {pair.first, pair.second} <= fitted), None
        )
        if ready is not None:
            del pairs[ready]
        return ready or (fits.pop(0) if fits else None)

    total = len(fitted) + len(fits) + len({pair.key for pair in plan.pairs})
    progress = Progress(done=total - len(fits) - len(pairs), failed=0, total=total)
    on_progress(progress)
    running: dict[Future[str | None], str] = {}
    absolute = str(study_directory.path.resolve())
    modules = _modules(plan)
    while True:
        while len(running) < slots + _QUEUED and (key := next_task()) is not None:
            running[executor.submit(run_in_process, absolute, key, cores, modules[key])] = key
        if not running:
            break
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            key = running.pop(future)
            error = _task_error(study_directory, key, future)
            study_directory.set_failure(key, error)
            if error is None:
                fitted.add(key)
            progress = Progress(
                done=progress.done + (error is None),
                failed=progress.failed + (error is not None),
                total=total,
                last=names[key] if error is None else f"{names[key]} failed: {error}",
            )
            on_progress(progress)
    for pair in pairs.values():
        missing = next(key for key in (pair.first, pair.second) if key not in fitted)
        study_directory.set_failure(pair.key, f"there is no {names[missing]}")


def _task_error(
    study_directory: StudyDirectory, key: str, future: Future[str | None]
) -> str | None:
    """Return why a task failed; None if its result is on disk."""
    try:
        error = future.result()
    except CancelledError:
        error = "it was canceled"
    except Exception as raised:  # an error of the cluster, such as a worker lost too often
        error = f"{type(raised).__name__}: {raised}"
    if study_directory.is_done(key):
        return None
    return one_line(error or "it ended without a result", _LONGEST)


def _modules(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Return the factories that each task needs, by key."""
    configs = {fit.key: fit.config for fit in plan.fits}
    modules = {key: factories_of([config]) for key, config in configs.items()}
    return modules | {
        pair.key: factories_of([configs[pair.first], configs[pair.second]]) for pair in plan.pairs
    }


def _task_names(plan: Plan) -> dict[str, str]:
    """Return a readable name of each task, by key."""
    names = {fit.key: f"{plan.settings[fit.setting].label}, {fit.replicate}" for fit in plan.fits}
    return names | {
        pair.key: f"barrier between {names[pair.first]} and {names[pair.second]}"
        for pair in plan.pairs
    }
