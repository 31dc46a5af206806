"""A study from its configuration to its tables: what is missing is done, wherever, and all that is
there is told.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnn_symm.arguments import checked
from bnn_symm.errors import ConfigError, InvalidRun, one_line
from bnn_symm.runs.configuration.factories import check_repeated, factories_of, study_commands
from bnn_symm.runs.directory.output_directory import disk_errors
from bnn_symm.studies.directory import StudyDirectory
from bnn_symm.studies.executors import cores_for, dask_executor, local_executor, run_in_process
from bnn_symm.studies.plan import Plan, plan_study
from bnn_symm.studies.results.summary import write_summary
from bnn_symm.studies.study import Study, load_study
from bnn_symm.threads import available_cores

# Tasks that wait at an executor beyond those that run: few, so that a study that is stopped has
# little to take back.
_AHEAD = 2
_LONGEST = 300  # characters of the reason of a failure


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a study has come.

    Attributes:
        done: tasks that have a result, those of former calls included.
        failed: tasks that failed, in this call.
        total: fits and pairs.
        last: what came to an end last, in words.
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
    """Does what is missing of a study and writes its tables and its summary.

    Args:
        study: or the path of its configuration; with `resume`, None for the one that is there.
        directory: a new one, default `runs/<name>-<number>`; with `resume`, that of a study.
        resume: go on with what is there; of a study that grew, only what is new is done.
        jobs: processes at once on this machine; default one a core.
        dask: address of a Dask scheduler, whose workers do the work instead.
        modules: with `resume` and no study, the factories of the user's own networks,
            `package.module:factory`, repeated: what a directory names never runs by itself.
        on_progress: called with the progress after every task.

    Returns:
        The content of `summary.json`; `directory` in it says where everything is.

    Raises:
        ConfigError: for a wrong study, or where there is no such cluster.
        InvalidRun: if the directory is not free, or, to resume, not a study; or if the data of one
            changed.
        KeyboardInterrupt: after what runs was given time to keep what it has reached; says how to
            go on.
    """
    if jobs is not None and dask is not None:
        raise ConfigError(
            "--jobs is for this machine; a Dask cluster has as many as its workers have threads"
        )
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs {jobs}: wanted 1 or more")
    if isinstance(study, str | Path):
        study = load_study(study)
    study, plan, place = _planned(
        study, None if directory is None else Path(directory), resume, modules
    )
    again = study_commands(place.path, factories_of(cell.config for cell in plan.cells))["resume"]
    try:
        with _executor(place, jobs, dask) as (executor, slots, cores):
            place.remove_leftovers(plan)
            _do(place, plan, executor, slots, cores, on_progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with: {again}") from None
    with disk_errors(place.path, f"make room and go on with: {again}"):
        return write_summary(place, study, plan)


def _planned(
    study: Study | None, directory: Path | None, resume: bool, modules: Sequence[str]
) -> tuple[Study, Plan, StudyDirectory]:
    if not resume:
        if study is None:
            raise ConfigError("there is no study; name its configuration")
        plan = plan_study(study)
        place = StudyDirectory.create(directory, study.name)
    else:
        if directory is None:
            raise ConfigError("to resume, name the directory of the study")
        place = StudyDirectory(directory)
        former = place.read_study()
        if study is None:
            check_repeated(factories_of(former.configs()), modules, place.path)
        plan = plan_study(study or former)
        if study is None:
            study = former
            _check_unchanged(place, plan)
    place.write_plan(study, plan)
    return study, plan, place


def _check_unchanged(place: StudyDirectory, plan: Plan) -> None:
    if not place.plan.exists():  # it was killed before anything was done
        return
    try:
        before = set(place.read_plan()["cells"])
    except InvalidRun:  # damaged; it is written again from the study
        return
    now = {cell.key for cell in plan.cells}
    if before and not before & now:
        anew = study_commands(place.path, factories_of(cell.config for cell in plan.cells))[
            "repeat"
        ]
        raise InvalidRun(
            f"the fits of {place.path} are not those of its study.yaml any more: the data, or the "
            "version of bnn_symm, "
            f"changed; put it back, or begin anew: {anew}"
        )


@contextmanager
def _executor(
    place: StudyDirectory, jobs: int | None, dask: str | None
) -> Iterator[tuple[Executor, int, int]]:
    if dask is not None:
        with dask_executor(dask, place.path.resolve()) as (executor, slots):
            yield executor, slots, 1
        return
    number = available_cores() if jobs is None else jobs
    with local_executor(number) as executor:
        yield executor, number, cores_for(number)


def _do(
    place: StudyDirectory,
    plan: Plan,
    executor: Executor,
    slots: int,
    cores: int,
    on_progress: OnProgress,
) -> None:
    """Fits first, in the order of seeds, so that a study that is stopped has whole seeds; pairs
    once both are there.
    """
    names = _names(plan)
    in_order = sorted(plan.cells, key=lambda cell: cell.seed)
    fits = [key for key in dict.fromkeys(cell.key for cell in in_order) if not place.is_done(key)]
    pairs = {pair.key: pair for pair in plan.pairs if not place.is_done(pair.key)}
    fitted = {cell.key for cell in plan.cells} - set(fits)

    def next_task() -> str | None:
        """A pair whose fits are both there, since it ends what was begun; else a fit."""
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
    absolute = str(place.path.resolve())
    modules = _modules(plan)
    while True:
        while len(running) < slots + _AHEAD and (key := next_task()) is not None:
            running[executor.submit(run_in_process, absolute, key, cores, modules[key])] = key
        if not running:
            break
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            key = running.pop(future)
            error = _outcome(place, key, future)
            place.set_failure(key, error)
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
        lost = next(key for key in (pair.first, pair.second) if key not in fitted)
        place.set_failure(pair.key, f"there is no {names[lost]}")


def _outcome(place: StudyDirectory, key: str, future: Future[str | None]) -> str | None:
    """What went wrong with a task: what counts is whether its result is there."""
    try:
        error = future.result()
    except CancelledError:
        error = "it was canceled"
    except Exception as raised:  # of the cluster: a worker lost too often
        error = f"{type(raised).__name__}: {raised}"
    if place.is_done(key):
        return None
    return one_line(error or "it ended without a result", _LONGEST)


def _modules(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Return the factories that tasks need, by key."""
    configs = {cell.key: cell.config for cell in plan.cells}
    found = {key: factories_of([config]) for key, config in configs.items()}
    return found | {
        pair.key: factories_of([configs[pair.first], configs[pair.second]]) for pair in plan.pairs
    }


def _names(plan: Plan) -> dict[str, str]:
    """What tasks are called, by key."""
    names = {
        cell.key: f"{plan.settings[cell.setting].label}, seed {cell.seed}" for cell in plan.cells
    }
    return names | {
        pair.key: f"barrier between {names[pair.first]} and {names[pair.second]}"
        for pair in plan.pairs
    }
