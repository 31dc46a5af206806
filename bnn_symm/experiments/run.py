"""One run: from a configuration to a saved posterior with its metrics, and back from its directory.

Data, network, model and method are made from the configuration; the fit is kept on disk while it runs; the posterior
and its metrics are written at the end. A run that was killed, interrupted or failed still loads, with what was
reached, and can go on.
"""

import contextlib
import dataclasses
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bnn_symm.architectures import build_network, count_flops
from bnn_symm.architectures.config import ModuleConfig
from bnn_symm.data import Dataset, Preprocessing, load_dataset
from bnn_symm.diagnostics import elbo, score
from bnn_symm.errors import ConfigError, FitDiverged, IncompatiblePosteriors, InvalidRun
from bnn_symm.experiments.config import Config, dump_config, load_config
from bnn_symm.experiments.run_directory import RunDirectory, check_free, disk_errors, next_free
from bnn_symm.experiments.run_writer import RunWriter, StopOnSignal
from bnn_symm.files import write_json
from bnn_symm.inference import Callback, Reached, versions
from bnn_symm.models import BayesianModel, check_task, default_likelihood
from bnn_symm.posteriors import Posterior, load_posterior
from bnn_symm.threads import choose_threads, use_threads

# Scores on the training part use at most so many of its points; its order is random, so the first ones are a sample.
_TRAIN_POINTS = 5000


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run on disk.

    Attributes:
        directory: its files.
        config: resolved.
        record: `run.json`, with the true status.
        preprocessing: from raw inputs to points and back.
        model: prior x likelihood x architecture.
    """

    directory: RunDirectory
    config: Config
    record: dict[str, Any]
    preprocessing: Preprocessing
    model: BayesianModel

    @property
    def path(self) -> Path:
        """Of its directory."""
        return self.directory.path

    @property
    def status(self) -> str:
        """running, complete, interrupted or failed."""
        return self.record["status"]

    @cached_property
    def posterior(self) -> Posterior:
        """The posterior; of a run that did not complete, what was reached.

        Raises:
            InvalidRun: if nothing was reached, or a file is damaged.
        """
        scaling = self.preprocessing.scaling
        if self.directory.posterior.exists():
            history = self.directory.read_history()
            info = {key: self.record.get(key) for key in _INFO}
            return load_posterior(self.directory.posterior, self.model, scaling, info=info, history=history)
        try:
            posterior = self.config.inference.recover(
                self.model, scaling, self.directory.reached(), seed=self.config.seed
            )
        except IncompatiblePosteriors as error:
            raise InvalidRun(f"{self.path} holds no posterior ({error}); status: {self.status}") from None
        posterior.info["status"] = self.status
        return posterior

    @property
    def metrics(self) -> dict[str, Any] | None:
        """`metrics.json`, or None for a run that did not complete."""
        return RunDirectory.read_json(self.directory.metrics) if self.directory.metrics.exists() else None

    @property
    def threads(self) -> int:
        """Intra-op threads of the fit, also right for predictions."""
        return int(self.record["threads"])

    def dataset(self) -> Dataset:
        """The data of the run, read and split again.

        Raises:
            InvalidRun: if they are not those that were fitted.
        """
        dataset = load_dataset(self.config.data, dtype=self.model.dtype)
        fitted = self.record["dataset"]["sha256"]
        if dataset.provenance.sha256 != fitted:
            raise InvalidRun(
                f"{self.config.data.name} changed since the fit (sha256 {dataset.provenance.sha256[:12]}, was "
                f"{fitted[:12]}); name data explicitly with --data"
            )
        return dataset


_INFO = ("method", "engine", "seed", "seconds", "gradient_evaluations", "status", "versions")


def fit_run(
    config: Config,
    out: str | Path | None = None,
    *,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Fits what a configuration says and saves it.

    Args:
        config: everything.
        out: a directory that does not exist; default `runs/<data>-<architecture>-<method>-<number>`.
        callbacks: told of progress beside the run's own.

    Returns:
        The run; its status is `complete`, or `interrupted` after a signal.

    Raises:
        BnnSymmError: with one line; FitDiverged after saving the last good state.
    """
    if out is not None:
        check_free(Path(out))
    prepared = _prepare(config)
    config = prepared.config
    stem = f"{Path(config.data.name).stem}-{config.architecture.name}-{config.inference.name}"
    while True:
        path = Path(out) if out is not None else next_free(Path("runs"), stem)
        try:
            directory = RunDirectory.create(
                path,
                config=dump_config(config),
                record=prepared.record(),
                preprocessing=prepared.dataset.preprocessing.to_dict(),
            )
            break
        except InvalidRun:
            # Another process that started at the same moment took the number.
            if out is not None or not path.exists():
                raise
    return _fit(directory, prepared, Reached(), callbacks)


def resume_run(path: str | Path, *, module: str | None = None, callbacks: Sequence[Callback] = ()) -> Run:
    """Goes on with a run that was killed or interrupted, to the same bits as if it had not been.

    Raises:
        InvalidRun: if it is complete, in use, or was made with other data, versions or threads.
    """
    directory = RunDirectory(path)
    _check_can_go_on(path, directory.read_record())
    directory.acquire()
    try:
        record = directory.read_record()
        _check_can_go_on(path, record)  # again: the process that held the lock may have completed it meanwhile
        prepared = _prepare(_with_module(_stored_config(directory), module))
        _check_same(path, record, prepared.record())
        with disk_errors(directory.path, _advice(directory)):
            former = directory.reached()
            reached = prepared.config.inference.rewind(former)
            directory.rewrite(reached, former)
            directory.update_record(status="running", error=None)
    except BaseException:
        directory.release()
        raise
    return _fit(directory, prepared, reached, callbacks)


def _check_can_go_on(path: str | Path, record: Mapping[str, Any]) -> None:
    if record["status"] == "complete":
        raise InvalidRun(f"{path} is complete; there is nothing to go on with")
    if record["status"] == "failed" and record.get("diverged"):
        raise InvalidRun(
            f"{path} diverged, and would do so again; start afresh with other settings, from where it came to with "
            f"--set initial={path}"
        )


def _check_same(path: str | Path, record: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises InvalidRun, naming what is not as it was, unless a fit can go on to the same bits."""
    changes = []
    for key in ("versions", "dataset"):
        for name, value in now[key].items():
            if record[key].get(name) != value:
                changes.append(f"{name} was {record[key].get(name)}, is {value}")
    if record["threads"] != now["threads"]:
        changes.append(f"threads was {record['threads']}, is {now['threads']}")
    if changes:
        raise InvalidRun(
            f"{path} cannot go on to the same bits: {'; '.join(changes)}; put it back, or start afresh from where it "
            f"came to with --set initial={path}"
        )


def load_run(path: str | Path, *, module: str | None = None) -> Run:
    """Opens a run directory, complete or not.

    Args:
        path: of the directory.
        module: `package.module:factory` of a user's own network. Loading never runs code that a directory names,
            so it has to be said again.

    Raises:
        InvalidRun: if it is not a run, damaged, or of a newer schema.
    """
    directory = RunDirectory(path)
    record = directory.read_record()
    config = _with_module(_stored_config(directory), module)
    try:
        preprocessing = Preprocessing.from_dict(RunDirectory.read_json(directory.preprocessing))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRun(f"{directory.preprocessing} is damaged: {type(error).__name__} {error}") from None
    model = _build_model(config, preprocessing.input_shape, record["num_outputs"])
    return Run(directory=directory, config=config, record=record, preprocessing=preprocessing, model=model)


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """What a configuration means."""

    config: Config
    dataset: Dataset
    model: BayesianModel
    initial: Posterior | None
    threads: int

    def record(self) -> dict[str, Any]:
        """What `run.json` says from the start."""
        return {
            "method": self.config.inference.name,
            "engine": self.config.inference.engine,
            "seed": self.config.seed,
            "threads": self.threads,
            "device": self.config.device,
            "dtype": self.config.dtype,
            "versions": versions(),
            "host": socket.gethostname(),
            "num_parameters": self.model.num_parameters,
            "num_outputs": self.dataset.num_outputs,
            "dataset": {
                "name": self.dataset.name,
                "task": self.dataset.task,
                **self.dataset.provenance.to_dict(),
                "train": len(self.dataset.train),
                "validation": len(self.dataset.validation),
                "test": len(self.dataset.test),
            },
            "mask_fingerprint": None,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }


def _prepare(config: Config) -> _Prepared:
    data = config.data
    if data.task == "auto" and config.likelihood is not None and config.likelihood.name == "poisson":
        data = dataclasses.replace(data, task="count")
    # Only of a file: the folder `digits` does not hide the data set.
    if os.path.isfile(data.name):
        data = dataclasses.replace(data, name=os.path.abspath(data.name))
    dataset = load_dataset(data, dtype=getattr(torch, config.dtype))
    likelihood = config.likelihood or default_likelihood(dataset.task)
    check_task(likelihood, dataset.task)
    config = dataclasses.replace(config, data=data, likelihood=likelihood)
    model = _build_model(config, dataset.input_shape, dataset.num_outputs)
    points = config.inference.points_per_gradient(len(dataset.train))
    flops = float(count_flops(model.net, dataset.input_shape, points))
    initial = None
    if config.initial is not None:
        initial = _initial(config.initial, config, model)
        config = dataclasses.replace(config, initial=os.path.abspath(config.initial))
    return _Prepared(
        config=config,
        dataset=dataset,
        model=model,
        initial=initial,
        threads=choose_threads(flops, config.threads),
    )


def _initial(path: str, config: Config, model: BayesianModel) -> Posterior:
    """The posterior of the run that a fit starts from."""
    directory = RunDirectory(path)
    directory.read_record()
    # Of networks that the user's code makes, only that of the factory named in this configuration is built.
    module = _module(config)
    if _module(_stored_config(directory)) not in (None, module):
        raise IncompatiblePosteriors(f"initial: {path} has a network of another factory; give it the same architecture")
    source = load_run(path, module=module if _module(_stored_config(directory)) else None)
    if list(source.model.shapes.items()) != list(model.shapes.items()):
        raise IncompatiblePosteriors(
            f"initial: {path} has another network ({_shapes(source.model)}, wanted {_shapes(model)}); give it the same "
            f"data columns, architecture and likelihood"
        )
    return source.posterior


def _shapes(model: BayesianModel) -> str:
    shapes = [f"{name} {'x'.join(map(str, shape)) or 1}" for name, shape in model.shapes.items()]
    return ", ".join(shapes[:6]) + (", ..." if len(shapes) > 6 else "")


def _build_model(config: Config, input_shape: tuple[int, ...], num_outputs: int) -> BayesianModel:
    likelihood = config.likelihood
    assert likelihood is not None
    try:
        device = torch.device(config.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device {config.device!r} is not available here ({reason}); use `--set device=cpu`"
        ) from None
    net = build_network(
        config.architecture,
        input_shape=input_shape,
        num_outputs=likelihood.num_net_outputs(num_outputs),
        seed=config.seed,
    )
    return BayesianModel(net.to(device=device, dtype=getattr(torch, config.dtype)), config.prior, likelihood)


def _fit(directory: RunDirectory, prepared: _Prepared, reached: Reached, callbacks: Sequence[Callback]) -> Run:
    config, dataset = prepared.config, prepared.dataset
    stop = StopOnSignal()
    try:
        with disk_errors(directory.path, _advice(directory)), use_threads(prepared.threads), stop.installed():
            writer = RunWriter(directory, config.checkpoint.every)
            failure = posterior = None
            try:
                posterior = config.inference.fit(
                    prepared.model,
                    dataset,
                    seed=config.seed,
                    initial=prepared.initial,
                    callbacks=[writer, stop, *callbacks],
                    reached=reached,
                )
            except FitDiverged as error:
                failure, posterior = error, error.posterior
            except IncompatiblePosteriors:
                if not stop.stopped:
                    raise
                # It was stopped before there was anything to keep.
            finally:
                writer.close()
            stop.at_once = True
            _finish(directory, prepared, posterior, failure)
    except KeyboardInterrupt as error:
        _mark(directory, error)
        raise KeyboardInterrupt(f"go on with: bnn-symm fit --resume {directory.path}") from None
    except BaseException as error:
        _mark(directory, error)
        raise
    finally:
        directory.release()
    if failure is not None:
        raise failure
    return load_run(directory.path, module=_module(config))


def _finish(
    directory: RunDirectory, prepared: _Prepared, posterior: Posterior | None, failure: FitDiverged | None
) -> None:
    """Writes what a fit returned. Of a fit that was stopped the writer has kept the states, from which it can go on."""
    if posterior is None:
        if failure is None:
            directory.update_record(status="interrupted")
        else:
            directory.update_record(status="failed", diverged=True, error=str(failure))
        return
    record = {key: posterior.info[key] for key in ("status", "seconds", "gradient_evaluations")}
    if posterior.info["status"] == "complete":
        posterior.save(directory.posterior, max_megabytes=prepared.config.save.max_megabytes)
        metrics = measure(posterior, prepared.dataset, seed=prepared.config.seed)
        write_metrics(directory, metrics)
        directory.finish_history(posterior.history)
        directory.update_record(**record)
        directory.remove_working_files()
        return
    if failure is not None:
        record.update(diverged=True, error=str(failure))
    directory.update_record(**record)


def _advice(directory: RunDirectory) -> str:
    return f"what was written before is kept; make room and go on with: bnn-symm fit --resume {directory.path}"


def _mark(directory: RunDirectory, error: BaseException) -> None:
    """Says in `run.json` how the fit ended, if the disk still lets us."""
    interrupted = isinstance(error, KeyboardInterrupt)
    # Where even that cannot be written, the status stays `running`, which reads as `interrupted`: the lock is given up.
    with contextlib.suppress(OSError):
        directory.update_record(status="interrupted" if interrupted else "failed", error=str(error) or None)


def measure(posterior: Posterior, dataset: Dataset, *, seed: int = 0) -> dict[str, Any]:
    """The content of `metrics.json`: scores on the three parts, and the ELBO of a closed form."""
    train = dataset.train
    bound = elbo(posterior, train, seed=seed)
    return {
        "train": score(posterior, train.take(slice(0, _TRAIN_POINTS))),
        "validation": score(posterior, dataset.validation),
        "test": score(posterior, dataset.test),
        "elbo": None if bound is None else bound.value,
        "elbo_standard_error": None if bound is None else bound.standard_error,
        "expected_log_likelihood": None if bound is None else bound.expected_log_likelihood,
        "kl": None if bound is None else bound.kl,
        "draws": posterior.shape[0] * posterior.shape[1],
        "parameters": posterior.shape[2],
    }


def write_metrics(directory: RunDirectory, metrics: Mapping[str, Any]) -> None:
    """Writes `metrics.json`."""
    write_json(directory.metrics, metrics)


def _stored_config(directory: RunDirectory) -> Config:
    if not directory.config.exists():
        raise InvalidRun(f"{directory.path} is not a run of bnn_symm: it has no config.yaml")
    config = load_config(directory.config)
    if config.likelihood is None:
        raise InvalidRun(f"{directory.config} is damaged: it has no likelihood")
    return config


def _module(config: Config) -> str | None:
    return config.architecture.factory if isinstance(config.architecture, ModuleConfig) else None


def _with_module(config: Config, module: str | None) -> Config:
    stored = _module(config)
    if stored is None:
        if module is not None:
            raise ConfigError(f"--module is for networks of your own; this run's is {config.architecture.name}")
        return config
    if module is None:
        raise ConfigError(
            f"this run's network is made by code of yours; loading never runs code that a directory names, so "
            f"say it again: --module {stored}"
        )
    return dataclasses.replace(config, architecture=dataclasses.replace(config.architecture, factory=module))
