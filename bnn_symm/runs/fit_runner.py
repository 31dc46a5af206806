"""Fit a posterior from a configuration, save it with its metrics, and resume interrupted fits.

Data, network, model and method are built from the configuration. The state of the fit is written to
disk while it runs; the posterior and its metrics are written at the end. A run that was killed,
interrupted or failed can still be loaded, with its last saved state, and can be resumed.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn_symm.advice import advise, advise_setting
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
from bnn_symm.io.atomic import write_json
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior, save_posterior
from bnn_symm.runs.configuration.config import Config, dump_config
from bnn_symm.runs.configuration.prepare import Prepared, prepare, steps_to_keep
from bnn_symm.runs.directory.code_record import code_changes
from bnn_symm.runs.directory.history import all_stages, warm_start_cost
from bnn_symm.runs.directory.metrics import measure
from bnn_symm.runs.directory.output_directory import check_free, disk_errors, next_free
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.directory.writer import RunWriter, StopOnSignal
from bnn_symm.runs.distributed_fit import check_can_share, exit_barrier, shared_fit
from bnn_symm.runs.run import (
    Run,
    code_of,
    load_run,
    module_argument,
    module_flags,
    module_of,
    read_network,
    stored_config,
    with_available_device,
    with_code,
)
from bnn_symm.runs.stages import Stage, StageCallback, costs, stages_of
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
    """Fit the posterior that a configuration describes, and save it as a run.

    Args:
        config: the configuration.
        out: a directory that does not exist; default:
            `runs/<data>-<architecture>-<method>-<number>`.
        on_note: called before the fit with each note on the data, such as columns that are ignored.
        callbacks: callbacks in addition to those of the run itself.
        group: processes that share the training split; this is the first of them, the others call
            `run_worker`.
        check: called with the prepared fit before anything is written; it raises to refuse it.

    Returns:
        The run; its status is `complete`, or `interrupted` after a signal.

    Raises:
        BnnSymmError: if the configuration cannot be fitted.
        FitDiverged: if the objective became NaN or infinite; the last valid state is saved.

    Example:
        >>> from bnn_symm import fit_run, load_config
        >>> config = load_config(None, ["data.name=gap", "inference.name=map"])
        >>> run = fit_run(config, "runs/gap")  # doctest: +SKIP
    """
    group = group or ProcessGroup()
    check_can_share(config, group)
    if out is not None:
        check_free(Path(out))
    prepared = prepare(config)
    if on_note is not None:
        for note in prepared.notes:
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
                fixed_parameters=prepared.fixed_parameters,
            )
            break
        except InvalidRun:
            # Another process that started at the same time took this number.
            if out is not None or not path.exists():
                raise
    return _fit(directory, prepared, callbacks, group)


@checked
def resume_run(
    path: str | Path,
    *,
    module: str | Sequence[str] | None = None,
    allow_changes: bool = False,
    on_note: Callable[[str], None] | None = None,
    callbacks: Sequence[Callback] = (),
    group: ProcessGroup | None = None,
) -> Run:
    """Resume a run that was killed or interrupted.

    The result is bitwise identical to that of an uninterrupted run.

    Args:
        path: the run directory.
        module: code of the user that the run names, which has to be given again.
        allow_changes: whether to resume although the engine, threads, processes, versions, dtype or
            device have changed. The result is then not bitwise identical; `run.json` records the
            changes under `resumed_with_changes`.
        on_note: called with one line that names the changes, if there are any.
        callbacks: callbacks in addition to those of the run itself.
        group: processes that share the training split; this is the first of them, the others call
            `run_worker`.

    Returns:
        The run.

    Raises:
        InvalidRun: if it is complete or in use, was fitted to other data, or with another engine,
            threads, processes, versions, dtype or device, unless `allow_changes`.

    Example:
        >>> from bnn_symm.runs import resume_run
        >>> run = resume_run("runs/gap")  # doctest: +SKIP
    """
    group = group or ProcessGroup()
    directory = RunDirectory(path)
    _check_resumable(path, directory.read_record())
    directory.acquire()
    try:
        record = {"processes": 1, **directory.read_record()}
        directory.check_first_files()
        # Again: the process that held the lock may have completed the run meanwhile.
        _check_resumable(path, record)
        # It was killed after the last file and before the status `complete` was written.
        if directory.is_finished():
            directory.finish()
            directory.release()
            exit_barrier(group)
            return load_run(path, module=module)
        mean = directory.read_prior_mean(record)
        # `_changes` reports a device that is not available.
        prepared = prepare(
            with_available_device(with_code(stored_config(directory), module)), mean=mean
        )
        network = read_network(directory, record)
        if network is not None:
            source = module_of(prepared.config) or prepared.config.data.name
            network.restore(prepared.full_model, directory.path, source)
        check_can_share(prepared.config, group)
        now = {**prepared.record(), "processes": group.size}
        changes = _changes(path, record, now, allow_changes)
        with disk_errors(directory.path, _advice(directory, group, prepared.config)):
            if changes:
                former = record.get("resumed_with_changes", [])
                entry = {"resumed": now["started"], "changes": changes}
                directory.update_record(
                    resumed_with_changes=[*former, entry],
                    **{key: now[key] for key in _REPRODUCIBILITY_KEYS},
                )
            directory.update_record(status="running", error=None)
        if changes and on_note is not None:
            on_note(f"{path} is resumed, but not bitwise identically: {'; '.join(changes)}")
    except BaseException:
        directory.release()
        raise
    return _fit(directory, prepared, callbacks, group)


def _check_resumable(path: str | Path, record: Mapping[str, Any]) -> None:
    """Check that a run can be resumed.

    Raises:
        InvalidRun: if it was derived from other runs, is complete, or diverged.
    """
    if "derived" in record:
        raise InvalidRun(
            f"{path} was derived from other runs by {record['derived'].get('by')}; run that "
            "command again"
        )
    if record["status"] == "complete":
        raise InvalidRun(f"{path} is complete; there is nothing to resume")
    if record["status"] == "failed" and record.get("diverged"):
        raise InvalidRun(
            f"{path} diverged, and would diverge again; start a new run with other settings, from "
            f"its last state with {advise_setting(f'initial={path}')}"
        )


# Keys of `run.json` on which the bits of a result depend, besides data and configuration.
_REPRODUCIBILITY_KEYS = (
    "engine",
    "compiled",
    "threads",
    "processes",
    "device",
    "dtype",
    "versions",
)


def _changes(
    path: str | Path, record: Mapping[str, Any], now: Mapping[str, Any], allow_changes: bool
) -> list[str]:
    """List what has changed among all that the bits of the result depend on.

    Raises:
        InvalidRun: if something has changed, unless `allow_changes`; if data or masks have changed,
            always.
    """
    # Runs of former versions have fewer keys.
    fatal = _differences(
        record["dataset"],
        now["dataset"],
        [key for key in now["dataset"] if key in record["dataset"]],
    )
    fatal += _differences(record, now, ("mask_fingerprint",))
    changes = _differences(
        record, now, [key for key in _REPRODUCIBILITY_KEYS if key != "versions" and key in record]
    )
    changes += _differences(record["versions"], now["versions"])
    changes += code_changes(record.get("code"), now.get("code", {}))
    if fatal or (changes and not allow_changes):
        advice = "restore it"
        if record["processes"] != now["processes"]:
            number = record["processes"]
            advice = advise(
                f"start it with: {launch_command(number)} fit --resume",
                f"start it in {number} processes",
            )
        advice += f", start a new run with {advise_setting(f'initial={path}')}"
        if not fatal:
            changes_flag = advise("--allow-changes", "allow_changes=True")
            advice += f", or accept a different result with {changes_flag}"
        raise InvalidRun(
            f"{path} cannot be resumed bitwise identically: {'; '.join([*fatal, *changes])}; "
            f"{advice}"
        )
    return changes


def _differences(
    then: Mapping[str, Any], now: Mapping[str, Any], keys: Iterable[str] | None = None
) -> list[str]:
    """List the keys whose values differ."""
    return [
        f"{key} was {then.get(key)}, is {now[key]}"
        for key in keys or now
        if key in now and then.get(key) != now[key]
    ]


def _fit(
    directory: RunDirectory, prepared: Prepared, callbacks: Sequence[Callback], group: ProcessGroup
) -> Run:
    """Run all stages, write the results, and record how the fit ended."""
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
                exit_barrier(group)
    except KeyboardInterrupt as error:
        _mark(directory, error)
        command = resume_command(directory.path, group, code_of(prepared.config))
        raise KeyboardInterrupt(f"resume with: {command}") from None
    except BaseException as error:
        _mark(directory, error)
        raise
    finally:
        directory.release()
    if failure is not None:
        raise failure
    return load_run(directory.path, module=code_of(prepared.config))


def _run_stages(
    directory: RunDirectory,
    prepared: Prepared,
    stop: StopOnSignal,
    callbacks: Sequence[Callback],
    group: ProcessGroup,
) -> Posterior | None:
    """Return the posterior of the last stage, or of the stage that was stopped.

    It is None if the stopped stage had not saved a state yet.
    """
    initial, stages = prepared.initial, stages_of(directory, prepared.config)
    for stage in stages:
        model, initial = stage.start(prepared.full_model, initial)
        if not stage.is_complete:
            posterior = _run_stage(stage, model, initial, prepared, stop, callbacks, group)
            if stage.is_last or posterior is None or posterior.info["status"] != "complete":
                return posterior
            stage.complete(posterior, max_megabytes=prepared.config.save.max_megabytes)
        # Also for a stage that was complete when its process was killed: it may not be closed yet.
        stage.close()
        directory.update_record(warm_start=costs(stages))
        # Read from disk even if it is in memory: a resumed run has only the files.
        initial = stage.posterior(model, prepared.dataset.scaling)
    raise AssertionError("a run whose last stage is complete is finished, and is not resumed")


def _run_stage(
    stage: Stage,
    model: BayesianModel,
    initial: Posterior | None,
    prepared: Prepared,
    stop: StopOnSignal,
    callbacks: Sequence[Callback],
    group: ProcessGroup,
) -> Posterior | None:
    """Fit one stage; return None if it was stopped before a state was saved."""
    config, dataset = prepared.config, prepared.dataset
    fit_state = stage.begin()
    keep = steps_to_keep(config, len(dataset.train)) if stage.is_last else []
    writer = RunWriter(stage.directory, config.checkpoint.every, keep)
    stage_callbacks = (
        [StageCallback(callback, stage.number) for callback in callbacks]
        if config.warm_start
        else callbacks
    )
    try:
        with (
            shared_fit(group, str(stage.directory.path), prepared, fit_state),
            warnings.catch_warnings(),
        ):
            if not stage.is_last:  # The start of the next stage need not be an optimum.
                warnings.simplefilter("ignore", ConvergenceWarning)
            return stage.method.fit(
                model,
                dataset,
                seed=stage.seed,
                initial=initial,
                callbacks=[writer, stop, *stage_callbacks],
                fit_state=fit_state,
                group=group,
            )
    except (FitDiverged, ConfigError) as error:
        if not stage.is_last:
            error.args = (f"{stage.name}: {error} (inference here is this method of warm_start)",)
        raise
    except IncompatiblePosteriors:
        if not stop.stopped:
            raise
        return None  # It was stopped before a state was saved.
    finally:
        writer.close()


def _finish(
    directory: RunDirectory,
    prepared: Prepared,
    posterior: Posterior | None,
    failure: FitDiverged | None,
) -> None:
    """Write what a fit returned; the writer has saved the states of a fit that was stopped."""
    if posterior is None:
        if failure is None:
            directory.update_record(status="interrupted")
        else:
            directory.update_record(status="failed", diverged=True, error=str(failure))
        return
    before = warm_start_cost(directory.path)
    record = {key: posterior.info[key] + value for key, value in before.items()}
    if "prior_scale" in posterior.info:
        record["prior_scale"] = posterior.info["prior_scale"]
    if posterior.info["status"] == "complete":
        save_posterior(
            posterior, directory.posterior, max_megabytes=prepared.config.save.max_megabytes
        )
        directory.signature.replace(directory.posterior)
        found = {key: posterior.info[key] for key in ("gain_test",) if key in posterior.info}
        directory.update_record(**record, **found, warnings=posterior.info.get("warnings", []))
        metrics = measure(posterior, prepared.dataset, seed=prepared.config.seed)
        write_json(directory.metrics, metrics)
        directory.finish_history(all_stages(directory.path, posterior.history))
        directory.finish()
        return
    if failure is not None:
        record.update(diverged=True, error=str(failure))
    directory.update_record(status=posterior.info["status"], **record)


def resume_command(path: str | Path, group: ProcessGroup, modules: Sequence[str]) -> str:
    """Return the command, or in Python the call, that resumes a run.

    Args:
        path: the run directory.
        group: the processes that share the fit.
        modules: the code of the user that the run names.
    """
    command = f"{launch_command(group.size)} {shell_words('fit', '--resume', path)}"
    again = f", {module_argument(modules)}" if modules else ""
    return advise(f"{command}{module_flags(modules)}", f"resume_run({str(path)!r}{again})")


def _advice(directory: RunDirectory, group: ProcessGroup, config: Config) -> str:
    """Return what to do after an error of the disk."""
    command = resume_command(directory.path, group, code_of(config))
    return f"earlier files are preserved; free disk space and resume with: {command}"


def _mark(directory: RunDirectory, error: BaseException) -> None:
    """Record in `run.json` how the fit ended, if the disk permits."""
    interrupted = isinstance(error, KeyboardInterrupt)
    # If this cannot be written either, the status stays `running`, which reads as `interrupted`
    # because the lock is released. InvalidRun: the whole directory was removed.
    with contextlib.suppress(OSError, InvalidRun):
        directory.update_record(
            status="interrupted" if interrupted else "failed", error=str(error) or None
        )
