"""Prepare data, model, initial posterior and threads of a fit, before anything is written."""

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from bnn_symm.advice import advise_setting
from bnn_symm.architectures import count_flops, fingerprint, short_fingerprint
from bnn_symm.data import Dataset, load_dataset
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, one_line
from bnn_symm.inference import Automatic, Method, chosen_fixed_values, stochastic_part, versions
from bnn_symm.inference.density.compiled import has_compiler
from bnn_symm.inference.fit_checks import draws_shape
from bnn_symm.models import (
    BayesianModel,
    Imported,
    PriorFamily,
    PriorMean,
    build_likelihood,
    resolve_likelihood,
)
from bnn_symm.models.likelihoods import is_ordered
from bnn_symm.models.priors.families import build_family
from bnn_symm.posteriors import Posterior
from bnn_symm.runs.configuration.automatic import automatic_likelihood, chosen_prior
from bnn_symm.runs.configuration.batch_norm import batch_norm_report, statistics_of_run
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.configuration.prior_mean import read_prior_mean
from bnn_symm.runs.configuration.unused_settings import unused_settings
from bnn_symm.runs.directory.code_record import code_record
from bnn_symm.runs.directory.network_record import (
    NetworkRecord,
    constants,
    fingerprint_of_constants,
)
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.run import Run, build_model, code_of, load_run, module_of, stored_config
from bnn_symm.threads import choose_threads


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Hold everything that a fit needs.

    Attributes:
        config: the resolved configuration.
        dataset: the data and its split.
        model: prior, likelihood and network, with the stochastic parameters of the main method.
            After a warm start, the others have values that are not known yet.
        full_model: the same with all parameters of the network.
        initial: the posterior that the fit, or its warm start, starts from, if any.
        threads: intra-op threads of torch.
        reason: why the method was chosen; None if the configuration names it.
    """

    config: Config
    dataset: Dataset
    model: BayesianModel
    full_model: BayesianModel
    initial: Posterior | None
    threads: int
    reason: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Return sentences for the user: on the data, and on what was chosen."""
        report = batch_norm_report(self.model.net)
        chosen = (report and report.note, self.reason, self._note_on_parameters())
        return (*self.dataset.notes, *(note for note in chosen if note))

    def _note_on_parameters(self) -> str | None:
        """Return which parameters get a posterior, if not all do."""
        if self.model is self.full_model:
            return None
        part, fixed = self.model.num_net_parameters, self.model.num_fixed_parameters
        patterns = ", ".join(self.config.inference.parameters)
        start = (
            "fixed at the result of the warm start"
            if self.config.warm_start
            else f"fixed at the posterior mean of {self.config.initial}"
            if self.config.initial
            else "fixed at the initial values of the network; to fit them first: "
            + advise_setting("warm_start=[map]")
        )
        return one_line(
            f"{part:,} of {part + fixed:,} parameters of the network are stochastic ({patterns}), "
            f"the others {start}"
        )

    @property
    def fixed_parameters(self) -> dict[str, Tensor]:
        """Return the parameters that get no posterior, if their values are known already."""
        if self.config.warm_start:
            return {}
        return chosen_fixed_values(self.model, self.full_model)

    @property
    def prior_mean(self) -> PriorMean | None:
        """Return the mean of the prior, if it is not zero."""
        mean = self.model.prior.mean
        return mean if isinstance(mean, PriorMean) else None

    @cached_property
    def network(self) -> NetworkRecord | None:
        """Return the record of a network with constants of its own.

        It is None for networks of this package without frozen batch norm and without a graph.
        """
        if not _has_record(self.config, self.full_model):
            return None
        return NetworkRecord.of(self.full_model, self.dataset.train.x)

    @cached_property
    def network_bytes(self) -> bytes | None:
        """Return the content of the file that stores the record of the network."""
        return None if self.network is None else self.network.to_bytes()

    def record(self) -> dict[str, Any]:
        """Return the initial content of `run.json`."""
        methods = (*self.config.warm_start, self.config.inference)
        report = batch_norm_report(self.model.net)
        is_compiled = any(method.is_compiled(self.model) for method in methods)
        return {
            "method": self.config.inference.name,
            "engine": self.config.inference.engine,
            "compiled": is_compiled and has_compiler(),
            "seed": self.config.seed,
            "threads": self.threads,
            "device": self.config.device,
            "dtype": self.config.dtype,
            "versions": versions(),
            "host": socket.gethostname(),
            "num_parameters": self.model.num_parameters,
            **(
                {"num_fixed_parameters": fixed}
                if (fixed := self.model.num_fixed_parameters)
                else {}
            ),
            "num_outputs": self.dataset.num_outputs,
            "dataset": {
                "name": self.dataset.name,
                "task": self.dataset.task,
                **self.dataset.provenance.to_dict(),
                "train": len(self.dataset.train),
                "validation": len(self.dataset.validation),
                "test": len(self.dataset.test),
            },
            "data_summary": self.dataset.summary,
            **({"data_notes": list(self.dataset.notes)} if self.dataset.notes else {}),
            "mask_fingerprint": fingerprint(self.model.net),
            **({"constants_fingerprint": self.network.fingerprint} if self.network else {}),
            **({"batch_norm": report.to_dict()} if report else {}),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **(
                {"warm_start": [{"method": method.name} for method in methods[:-1]]}
                if methods[:-1]
                else {}
            ),
            **({"method_reason": self.reason} if self.reason else {}),
            **({"code": code} if (code := code_record(self.config, self.model)) else {}),
            **({"prior_mean": self.prior_mean.sha256} if self.prior_mean else {}),
            **({"unused": unused} if (unused := unused_settings(self.config)) else {}),
        }


def prepare(
    config: Config, load: Callable[..., Dataset] = load_dataset, mean: PriorMean | None = None
) -> Prepared:
    """Read the data and build the model of a configuration.

    Args:
        config: the configuration.
        load: reads the data; a cached reader saves time where many configurations share them.
        mean: the mean of the prior, if it was read before; default: read from `prior.mean`.

    Returns:
        The prepared fit.

    Raises:
        BnnSymmError: if a part of the configuration does not fit.
    """
    data = config.data
    task = "auto" if config.likelihood is None else build_likelihood(config.likelihood).task
    if data.task == "auto" and task in ("count", "survival"):
        data = dataclasses.replace(data, task=task)
    # Only for files: a folder `digits` does not hide the data set of that name.
    for key in ("name", "test_file", "validation_file"):
        file = getattr(data, key)
        if file is not None and os.path.isfile(file):
            data = dataclasses.replace(data, **{key: os.path.abspath(file)})
    dataset = load(data, dtype=getattr(torch, config.dtype))
    config = dataclasses.replace(config, data=data)
    config = with_task_defaults(
        config, dataset.task, dataset.num_outputs, has_exposure=data.exposure is not None
    )
    assert config.likelihood is not None
    if is_ordered(build_likelihood(config.likelihood)):
        dataset = dataclasses.replace(dataset, notes=(*dataset.notes, _order_note(dataset)))
    config, mean = resolve_prior_mean(with_family(config), mean)
    full_model = build_model(
        config, dataset.input_shape, dataset.num_outputs, mean, dataset.train.x, dataset.graph
    )
    config, reason = with_chosen_method(config, full_model, dataset)
    methods = (*config.warm_start, config.inference)
    _check_stages(methods, full_model)
    _check_initial_seed(config)
    for method in methods:
        method.check_prior(config.prior)
        method.check(dataset)
    steps_to_keep(config, len(dataset.train))  # Raises early if `checkpoint.keep` is invalid.
    _check_gain_test(config)
    initial = None
    if config.initial is not None:
        source = _initial(config.initial, config, full_model)
        initial = source.posterior
        _check_gain_test(config, source)
        config = dataclasses.replace(config, initial=os.path.abspath(config.initial))
    model, start = stochastic_part(
        full_model, config.inference.parameters, None if config.warm_start else initial
    )
    return Prepared(
        config=config,
        dataset=dataset,
        model=model,
        full_model=full_model,
        initial=initial if config.warm_start else start,
        threads=choose_threads(gradient_flops(methods, full_model, dataset), config.threads),
        reason=reason,
    )


def _order_note(dataset: Dataset) -> str:
    """Return a note with the order of the classes, for a likelihood that uses it."""
    labels = dataset.preprocessing.class_labels
    order = short_list(labels, 10, 150)
    note = f"classes of {quoted(dataset.preprocessing.target, 30)} from lowest to highest: {order}"
    if any(isinstance(label, str) for label in labels) and list(labels) == sorted(labels, key=str):
        note += "; this is the order of the alphabet: if another is meant, set "
        note += advise_setting("data.levels=[LOWEST,...,HIGHEST]")
    return one_line(note)


def with_task_defaults(
    config: Config, task: str, num_outputs: int, *, has_exposure: bool = False
) -> Config:
    """Return the configuration with the likelihood and the prior of a task, if it leaves them open.

    Args:
        config: the configuration.
        task: the task of the data set.
        num_outputs: the number of classes, or 1.
        has_exposure: whether the data have exposures of counts.

    Raises:
        ConfigError: if its likelihood is for another task.
    """
    named = config.likelihood
    if named is None and isinstance(config.inference, Automatic):
        named = automatic_likelihood(task, num_outputs)
    likelihood = None if named is None else build_likelihood(named)
    resolved: Any = resolve_likelihood(likelihood, task, num_outputs, has_exposure=has_exposure)
    if isinstance(named, Imported):
        resolved = named.resolved(resolved)
    prior = chosen_prior(config.prior, config.architecture, task)
    return dataclasses.replace(config, likelihood=resolved, prior=prior)


def with_family(config: Config) -> Config:
    """Return the configuration with all settings of a prior of the user's own code.

    Args:
        config: the configuration.

    Raises:
        ConfigError: if the class cannot be imported or built, or the prior is an instance of it.
    """
    name = config.prior.name
    if isinstance(name, PriorFamily):
        raise ConfigError(
            f"prior.name is an instance of {type(name).__name__}, and configurations store names: "
            f"use package.module:{type(name).__name__}, with the settings of the class"
        )
    if not isinstance(name, Imported):
        return config
    named = name.resolved(build_family(name, config.prior))
    return dataclasses.replace(config, prior=dataclasses.replace(config.prior, name=named))


def with_chosen_method(
    config: Config, model: BayesianModel, dataset: Dataset
) -> tuple[Config, str | None]:
    """Return the configuration with the methods that `inference.name=auto` chooses.

    Args:
        config: the configuration.
        model: its model.
        dataset: its data.

    Returns:
        The configuration, and why the methods were chosen; None if the configuration names one.

    Raises:
        ConfigError: if `auto` is not the only method.
    """
    if any(isinstance(method, Automatic) for method in config.warm_start):
        raise ConfigError(
            "warm_start names inference.name=auto, which chooses a warm start and a method; "
            "set inference.name=auto and no warm_start"
        )
    if not isinstance(config.inference, Automatic):
        return config, None
    if config.warm_start:
        raise ConfigError(
            "inference.name=auto chooses the warm start too, got warm_start; remove it, or name a "
            "method with inference.name"
        )
    model, _ = stochastic_part(model, config.inference.parameters, None)
    sizes = len(dataset.train), model.num_parameters
    *warm_start, method = config.inference.stages(*sizes)
    chosen = dataclasses.replace(config, warm_start=tuple(warm_start), inference=method)
    return chosen, config.inference.reason(*sizes)


def gradient_flops(methods: Sequence[Method], model: BayesianModel, dataset: Dataset) -> int:
    """Return the floating-point operations of the forward pass of the largest gradient evaluation.

    The number of threads is chosen by it.

    Args:
        methods: the methods of the run.
        model: the model.
        dataset: the data, of which the training split is used.
    """
    train = dataset.train
    passes = [
        method.points_per_gradient(len(train)) * method.chains_per_gradient(model, train)
        for method in methods
    ]
    return count_flops(model.net, dataset.input_shape, max(passes))


def resolve_prior_mean(
    config: Config, mean: PriorMean | None = None
) -> tuple[Config, PriorMean | None]:
    """Return the mean of the prior, and the configuration with a name for it that can be stored.

    Args:
        config: a configuration whose `prior.mean` names the mean, or is it.
        mean: the mean, if it was read before.

    Returns:
        The configuration and the mean.

    Raises:
        BnnSymmError: if it cannot be read.
    """
    named = config.prior.mean
    if named is None:
        return config, None
    if isinstance(named, PriorMean):
        mean, named = named, f"sha256:{named.sha256}"
    elif mean is None:
        mean, named = read_prior_mean(named, code_of(config)), os.path.abspath(named)
    return dataclasses.replace(config, prior=dataclasses.replace(config.prior, mean=named)), mean


def steps_to_keep(config: Config, num_points: int) -> list[int]:
    """Return the steps of the epochs in `checkpoint.keep`, or those that the method keeps itself.

    Args:
        config: the configuration.
        num_points: the number of training points.

    Raises:
        ConfigError: if the method draws samples, which have no such states, has states of its own,
            or ends too early.
    """
    own = config.inference.kept_steps
    if own and config.checkpoint.keep:
        raise ConfigError(
            f"checkpoint.keep: {config.inference.name} keeps the states at the ends of its "
            f"{len(own)} levels; leave it out"
        )
    if not config.checkpoint.keep:
        return list(own)
    num_steps = config.inference.steps_per_chain
    if config.inference.is_sampler or num_steps is None:
        raise ConfigError(
            f"checkpoint.keep is for methods that optimize; {config.inference.name} stores all of "
            "its draws"
        )
    batch = config.inference.points_per_gradient(num_points)
    steps = [round(epoch * num_points / batch) for epoch in config.checkpoint.keep]
    if max(steps) >= num_steps:
        raise ConfigError(
            f"checkpoint.keep has epoch {max(config.checkpoint.keep):g}, which is step "
            f"{max(steps)}; the fit ends at step {num_steps}, whose state is the "
            "posterior itself: name earlier ones"
        )
    return steps


def _check_stages(methods: Sequence[Method], full_model: BayesianModel) -> None:
    """Check that each method can start from the one before it, where it infers other parameters.

    Args:
        methods: the warm start and the main method.
        full_model: the model of all parameters.

    Raises:
        ConfigError: if a method leaves several chains, whose mean is not a network, or a pattern
            of parameters matches nothing.
    """
    models = [stochastic_part(full_model, method.parameters, None)[0] for method in methods]
    for number, (before, after) in enumerate(pairwise(models)):
        chains = draws_shape(methods[number], before)[0]
        if chains > 1 and before.shapes.keys() != after.shapes.keys():
            raise ConfigError(
                f"warm_start.{number} ({methods[number].name}) has {chains} chains, whose hidden "
                "units differ, so that their mean is not a network at which inference.parameters "
                "can fix the other parameters; use a method with a single chain, such as map"
            )


def _check_initial_seed(config: Config) -> None:
    """Check that the fit starts at the initial values of the network.

    Raises:
        ConfigError: if `initial_seed` is set and does not determine them.
    """
    if config.initial_seed is None:
        return
    first = (*config.warm_start, config.inference)[0]
    if hasattr(first, "num_chains") or hasattr(first, "num_members"):
        reason = f"the chains or members of {first.name} have initial values of their own"
    elif config.initial is not None:
        reason = "the fit starts at initial"
    elif config.prior.mean is not None:
        reason = "the fit starts at prior.mean"
    else:
        return
    raise ConfigError(f"initial_seed={config.initial_seed} has no effect: {reason}; leave it out")


def _check_gain_test(config: Config, source: Run | None = None) -> None:
    """Check that the start of the chains does not depend on the points of a test of their gain.

    Args:
        config: the configuration of the fit.
        source: the run that it starts from, if any.

    Raises:
        ConfigError: if the start was stopped early by the validation split, or was fitted to
            another split, which may contain these points.
    """
    if getattr(config.inference, "gain_test", None) is None:
        return
    former = () if source is None else (*source.config.warm_start, source.config.inference)
    for method in (*former, *config.warm_start):
        if getattr(getattr(method, "member", method), "early_stopping", None) is not None:
            raise ConfigError(
                f"inference.gain_test tests the gain over {method.name} on the validation split, "
                f"which also stopped {method.name} early; set its early_stopping=null"
            )
    if source is not None and source.config.data != config.data:
        raise ConfigError(
            "inference.gain_test needs validation points that the start was not fitted to, but "
            f"{source.path} has another data section; use the same data and split"
        )


def _initial(path: str, config: Config, model: BayesianModel) -> Run:
    """Load the run that a fit starts from."""
    directory = RunDirectory(path)
    directory.read_record()
    # Of the code that the run names, only what this configuration names too is imported.
    theirs = code_of(stored_config(directory))
    for name in theirs:
        if name not in code_of(config):
            raise IncompatiblePosteriors(
                f"initial: {path} uses {one_line(name, 80)}, which this configuration does not "
                "name; use the same architecture, likelihood and prior"
            )
    source = load_run(path, module=theirs)
    theirs, ours = source.record["mask_fingerprint"], fingerprint(model.net)
    if theirs != ours:
        raise IncompatiblePosteriors(
            f"initial: {path} has the mask fingerprint {short_fingerprint(theirs)}, this network "
            f"{short_fingerprint(ours)}: their fixed weights differ; use the same architecture and "
            "symmetry, its seed included"
        )
    statistics_of_run(model, source.model, path)
    theirs, ours = source.record.get("constants_fingerprint"), _fingerprint(config, model)
    if theirs is not None and theirs != ours:
        raise IncompatiblePosteriors(
            f"initial: the network of {path} has other constants (buffers, frozen parameters; "
            f"fingerprint {short_fingerprint(theirs)}, here {short_fingerprint(ours)}), and its "
            "weights are not comparable; use the same constants, or draw them from a fixed seed"
        )
    if list(source.full_model.shapes.items()) != list(model.shapes.items()):
        raise IncompatiblePosteriors(
            f"initial: {path} has another network ({_shapes(source.full_model)}, expected "
            f"{_shapes(model)}); use the same data columns, architecture and likelihood"
        )
    return source


def _fingerprint(config: Config, model: BayesianModel) -> str | None:
    """Return the fingerprint of the constants that the record of a network would have."""
    return fingerprint_of_constants(model.net) if _has_record(config, model) else None


def _has_record(config: Config, model: BayesianModel) -> bool:
    """Return whether a run stores constants of its network."""
    return module_of(config) is not None or bool(constants(model.net))


def _shapes(model: BayesianModel) -> str:
    """Return the names and shapes of the first parameters, for a message."""
    shapes = [f"{name} {'x'.join(map(str, shape)) or 1}" for name, shape in model.shapes.items()]
    return ", ".join(shapes[:6]) + (", ..." if len(shapes) > 6 else "")
