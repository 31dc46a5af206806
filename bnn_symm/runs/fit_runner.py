"""One fit: from a configuration to a saved posterior with its metrics, and on from where it was
left.

Data, network, model and method are made from the configuration; the fit is kept on disk while it
runs; the posterior and its metrics are written at the end. A run that was killed, interrupted or
failed still loads, with what was reached, and can go on.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn_symm.architectures import fixed_buffers
from bnn_symm.arguments import checked
from bnn_symm.errors import (
    ConfigError,
    FitDiverged,
    IncompatiblePosteriors,
    InvalidRun,
    shell_words,
)
from bnn_symm.inference import Callback
from bnn_symm.inference.method import ConvergenceWarning
from bnn_symm.inference.parallel.process_group import ProcessGroup, launch_command
from bnn_symm.posteriors import Posterior
from bnn_symm.runs.configuration.config import Config, dump_config
from bnn_symm.runs.configuration.prepare import Prepared, prepare, steps_to_keep
from bnn_symm.runs.directory.history import all_stages, cost_before
from bnn_symm.runs.directory.metrics import measure, write_metrics
from bnn_symm.runs.directory.output_directory import check_free, disk_errors, next_free
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.directory.writer import RunWriter, StopOnSignal
from bnn_symm.runs.distributed_fit import check_can_share, leave_together, shared_work
from bnn_symm.runs.run import (
    Run,
    load_run,
    module_flags,
    module_of,
    on_device_here,
    read_network,
    stored_config,
    with_module,
)
from bnn_symm.runs.stages import Stage, TellStage, costs, stages_of
from bnn_symm.threads import use_threads


@checked
def fit_run(
    config: Config,
    out: str | Path | None = None,
    *,
    on_note: Callable[[str], None] | None = None,
    callbacks: Sequence[Callback] = (),
    group: ProcessGroup | None = None,
    check: Callable[[Prepared], None] = lambda prepared: None,
) -> Run:
    """Fits what a configuration says and saves it.

    Args:
        config: everything.
        out: a directory that does not exist; default
            `runs/<data>-<architecture>-<method>-<number>`.
        on_note: called before the fit with each sentence about what a person may not expect of the
            data.
        callbacks: told of progress beside the run's own.
        group: processes that share the training part, of which this is the first; the others
            `run_worker`.
        check: called with what was read and built, before anything is written; raises to refuse it.

    Returns:
        The run; its status is `complete`, or `interrupted` after a signal.

    Raises:
        BnnSymmError: with one line; FitDiverged after saving the last good state.
    """
    group = group or ProcessGroup()
    check_can_share(config, group)
    if out is not None:
        check_free(Path(out))
    prepared = prepare(config)
    if on_note is not None:
        for note in prepared.dataset.notes:
            on_note(note)
    check(prepared)
    config = prepared.config
    stem = f"{Path(config.data.name).stem}-{config.architecture.name}-{config.inference.name}"
    while True:
        path = Path(out) if out is not None else next_free(Path("runs"), stem)
        try:
            directory = RunDirectory.create(
                path,
                config=dump_config(config),
                record={**prepared.record(), "processes": group.size},
                preprocessing=prepared.dataset.preprocessing.to_dict(),
                fixed=fixed_buffers(prepared.model.net),
                prior_mean=prepared.prior_mean,
                network=prepared.network_bytes,
            )
            break
        except InvalidRun:
            # Another process that started at the same moment took the number.
            if out is not None or not path.exists():
                raise
    return _fit(directory, prepared, callbacks, group)


@checked
def resume_run(
    path: str | Path,
    *,
    module: str | None = None,
    allow_changes: bool = False,
    on_note: Callable[[str], None] | None = None,
    callbacks: Sequence[Callback] = (),
    group: ProcessGroup | None = None,
) -> Run:
    """Goes on with a run that was killed or interrupted, to the same bits as if it had not been.

    Args:
        path: of its directory.
        module: `package.module:factory` of a user's own network, said again.
        allow_changes: whether to go on although the engine, threads, processes, versions, dtype or
            device are others, which changes the bits; `run.json` says so from then on, under
            `resumed_with_changes`.
        on_note: called with one line that names the changes, if there are any.
        callbacks: told of progress beside the run's own.
        group: processes that share the training part, of which this is the first; the others
            `run_worker`.

    Raises:
        InvalidRun: if it is complete, in use, or was made with other data; or with another engine,
            threads, processes, versions, dtype or device, unless `allow_changes`.
    """
    group = group or ProcessGroup()
    directory = RunDirectory(path)
    _check_can_go_on(path, directory.read_record())
    directory.acquire()
    try:
        record = {"processes": 1, **directory.read_record()}
        directory.check_first_files()
        _check_can_go_on(
            path, record
        )  # again: the process that held the lock may have completed it meanwhile
        if directory.is_finished():  # it was killed between the last file and the word `complete`
            directory.finish()
            directory.release()
            leave_together(group)
            return load_run(path, module=module)
        mean = directory.read_prior_mean(record)
        # Where its device is missing, `_changes` says so.
        prepared = prepare(on_device_here(with_module(stored_config(directory), module)), mean=mean)
        network = read_network(directory, record)
        if network is not None:
            network.restore(prepared.model, directory.path, str(module))
        check_can_share(prepared.config, group)
        now = {**prepared.record(), "processes": group.size}
        changes = _changes(path, record, now, allow_changes)
        with disk_errors(directory.path, _advice(directory, group, prepared.config)):
            if changes:
                former = record.get("resumed_with_changes", [])
                again = {"resumed": now["started"], "changes": changes}
                directory.update_record(
                    resumed_with_changes=[*former, again], **{key: now[key] for key in _TO_BITS}
                )
            directory.update_record(status="running", error=None)
        if changes and on_note is not None:
            on_note(f"{path} goes on, but not to the same bits: {'; '.join(changes)}")
    except BaseException:
        directory.release()
        raise
    return _fit(directory, prepared, callbacks, group)


def _check_can_go_on(path: str | Path, record: Mapping[str, Any]) -> None:
    if "derived" in record:
        raise InvalidRun(
            f"{path} was made by {record['derived'].get('by')} from other runs; make it again from "
            "these"
        )
    if record["status"] == "complete":
        raise InvalidRun(f"{path} is complete; there is nothing to go on with")
    if record["status"] == "failed" and record.get("diverged"):
        raise InvalidRun(
            f"{path} diverged, and would do so again; start afresh with other settings, from where "
            "it came to with "
            f"{shell_words('--set', f'initial={path}')}"
        )


# What bits depend on, besides what a fit is of.
_TO_BITS = ("engine", "compiled", "threads", "processes", "device", "dtype", "versions")


def _changes(
    path: str | Path, record: Mapping[str, Any], now: Mapping[str, Any], allow_changes: bool
) -> list[str]:
    """In words, what is not as it was among all that the bits depend on.

    Raises:
        InvalidRun: if something is, unless `allow_changes`; if data or masks are others, also
            then.
    """
    # Runs of former versions have fewer keys.
    lost = _differences(
        record["dataset"],
        now["dataset"],
        [key for key in now["dataset"] if key in record["dataset"]],
    )
    lost += _differences(record, now, ("mask_fingerprint",))
    changes = _differences(
        record, now, [key for key in _TO_BITS if key != "versions" and key in record]
    )
    changes += _differences(record["versions"], now["versions"])
    if lost or (changes and not allow_changes):
        advice = "put it back"
        if record["processes"] != now["processes"]:
            advice = f"start it with: {launch_command(record['processes'])} fit --resume"
        advice += f", start afresh with {shell_words('--set', f'initial={path}')}"
        if not lost:
            advice += ", or accept other bits with --allow-changes"
        raise InvalidRun(
            f"{path} cannot go on to the same bits: {'; '.join([*lost, *changes])}; {advice}"
        )
    return changes


def _differences(
    then: Mapping[str, Any], now: Mapping[str, Any], keys: Iterable[str] | None = None
) -> list[str]:
    return [
        f"{key} was {then.get(key)}, is {now[key]}"
        for key in keys or now
        if key in now and then.get(key) != now[key]
    ]


def _fit(
    directory: RunDirectory, prepared: Prepared, callbacks: Sequence[Callback], group: ProcessGroup
) -> Run:
    stop = StopOnSignal()
    failure = None
    try:
        with (
            disk_errors(directory.path, _advice(directory, group, prepared.config)),
            use_threads(prepared.threads),
            stop.installed(),
        ):
            try:
                posterior = _run_stages(directory, prepared, stop, callbacks, group)
            except FitDiverged as error:
                failure, posterior = error, error.posterior
            stop.at_once = True
            _finish(directory, prepared, posterior, failure)
            if posterior is None or posterior.info["status"] != "complete":
                leave_together(group)
    except KeyboardInterrupt as error:
        _mark(directory, error)
        again = resume_command(directory.path, group, module_of(prepared.config))
        raise KeyboardInterrupt(f"go on with: {again}") from None
    except BaseException as error:
        _mark(directory, error)
        raise
    finally:
        directory.release()
    if failure is not None:
        raise failure
    return load_run(directory.path, module=module_of(prepared.config))


def _run_stages(
    directory: RunDirectory,
    prepared: Prepared,
    stop: StopOnSignal,
    callbacks: Sequence[Callback],
    group: ProcessGroup,
) -> Posterior | None:
    """The posterior of the last stage, or of the one that was stopped; None if that had nothing to
    keep yet.
    """
    initial, stages = prepared.initial, stages_of(directory, prepared.config)
    for stage in stages:
        if not stage.is_complete:
            posterior = _run_stage(stage, initial, prepared, stop, callbacks, group)
            if stage.is_last or posterior is None or posterior.info["status"] != "complete":
                return posterior
            stage.complete(posterior, max_megabytes=prepared.config.save.max_megabytes)
        # Also of one that was complete when its process was killed, which may not have come to
        # this.
        stage.close()
        directory.update_record(warm_start=costs(stages))
        # As it lies on disk, also where it is still in memory: a resumed run has nothing else.
        initial = stage.posterior(prepared.model, prepared.dataset.scaling)
    raise AssertionError("a run whose last stage is complete is finished, and does not go on")


def _run_stage(
    stage: Stage,
    initial: Posterior | None,
    prepared: Prepared,
    stop: StopOnSignal,
    callbacks: Sequence[Callback],
    group: ProcessGroup,
) -> Posterior | None:
    config, dataset = prepared.config, prepared.dataset
    fit_state = stage.begin()
    keep = steps_to_keep(config, len(dataset.train)) if stage.is_last else []
    writer = RunWriter(stage.directory, config.checkpoint.every, keep)
    told = (
        [TellStage(callback, stage.number) for callback in callbacks]
        if config.warm_start
        else callbacks
    )
    try:
        with (
            shared_work(group, str(stage.directory.path), prepared, fit_state),
            warnings.catch_warnings(),
        ):
            if not stage.is_last:  # a start for the next need not be an optimum
                warnings.simplefilter("ignore", ConvergenceWarning)
            return stage.method.fit(
                prepared.model,
                dataset,
                seed=stage.seed,
                initial=initial,
                callbacks=[writer, stop, *told],
                fit_state=fit_state,
                group=group,
            )
    except (FitDiverged, ConfigError) as error:
        if not stage.is_last:
            error.args = (
                f"{stage.name}: {error} (what is said of inference is of this method in "
                "warm_start)",
            )
        raise
    except IncompatiblePosteriors:
        if not stop.stopped:
            raise
        return None  # it was stopped before there was anything to keep
    finally:
        writer.close()


def _finish(
    directory: RunDirectory,
    prepared: Prepared,
    posterior: Posterior | None,
    failure: FitDiverged | None,
) -> None:
    """Writes what a fit returned. Of a fit that was stopped the writer has kept the states, from
    which it can go on.
    """
    if posterior is None:
        if failure is None:
            directory.update_record(status="interrupted")
        else:
            directory.update_record(status="failed", diverged=True, error=str(failure))
        return
    before = cost_before(directory.path)
    record = {key: posterior.info[key] + value for key, value in before.items()}
    if posterior.info["status"] == "complete":
        posterior.save(directory.posterior, max_megabytes=prepared.config.save.max_megabytes)
        directory.signature.replace(directory.posterior)
        directory.update_record(**record, warnings=posterior.info.get("warnings", []))
        metrics = measure(posterior, prepared.dataset, seed=prepared.config.seed)
        write_metrics(directory, metrics)
        directory.finish_history(all_stages(directory.path, posterior.history))
        directory.finish()
        return
    if failure is not None:
        record.update(diverged=True, error=str(failure))
    directory.update_record(status=posterior.info["status"], **record)


def resume_command(path: str | Path, group: ProcessGroup, module: str | None) -> str:
    """Return what to type to go on with a run.

    Args:
        path: of the run.
        group: the processes that share it.
        module: the factory of a user's own network.
    """
    return f"{launch_command(group.size)} {shell_words('fit', '--resume', path)}{module_flags([module])}"


def _advice(directory: RunDirectory, group: ProcessGroup, config: Config) -> str:
    command = resume_command(directory.path, group, module_of(config))
    return f"what was written before is kept; make room and go on with: {command}"


def _mark(directory: RunDirectory, error: BaseException) -> None:
    """Says in `run.json` how the fit ended, if the disk still lets us."""
    interrupted = isinstance(error, KeyboardInterrupt)
    # Where even that cannot be written, the status stays `running`, which reads as `interrupted`:
    # the lock is given up.
    with contextlib.suppress(OSError, InvalidRun):  # the latter where the whole directory is gone
        directory.update_record(
            status="interrupted" if interrupted else "failed", error=str(error) or None
        )
