"""What a configuration means: data, model, initial posterior and threads, before anything is
written.
"""

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from bnn_symm.architectures import count_flops, fingerprint, short_fingerprint
from bnn_symm.data import Dataset, load_dataset
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.inference import Method, versions
from bnn_symm.inference.density.compiled import has_compiler
from bnn_symm.inference.optimization.training_loop import OptimizationMethod
from bnn_symm.models import BayesianModel, PriorMean, check_task, default_likelihood
from bnn_symm.posteriors import Posterior
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.configuration.prior_mean import read_prior_mean
from bnn_symm.runs.configuration.unused_settings import unused_settings
from bnn_symm.runs.directory.network_record import NetworkRecord, fingerprint_of_constants
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.run import build_model, load_run, module_of, stored_config
from bnn_symm.threads import choose_threads


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a configuration means.

    Attributes:
        config: resolved.
        dataset: with its parts.
        model: prior x likelihood x architecture.
        initial: the posterior that the fit starts from, if any.
        threads: of torch within an operation.
    """

    config: Config
    dataset: Dataset
    model: BayesianModel
    initial: Posterior | None
    threads: int

    @property
    def prior_mean(self) -> PriorMean | None:
        """What the prior is centerd on."""
        mean = self.model.prior.mean
        return mean if isinstance(mean, PriorMean) else None

    @cached_property
    def network(self) -> NetworkRecord | None:
        """What a network of the user's own is besides its parameters."""
        if module_of(self.config) is None:
            return None
        return NetworkRecord.of(self.model, self.dataset.train.x)

    @cached_property
    def network_bytes(self) -> bytes | None:
        """Content of the file that keeps it."""
        return None if self.network is None else self.network.to_bytes()

    def record(self) -> dict[str, Any]:
        """What `run.json` says from the start."""
        methods = (*self.config.warm_start, self.config.inference)
        return {
            "method": self.config.inference.name,
            "engine": self.config.inference.engine,
            "compiled": any(method.is_compiled() for method in methods) and has_compiler(),
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
            "data_summary": self.dataset.summary,
            **({"data_notes": list(self.dataset.notes)} if self.dataset.notes else {}),
            "mask_fingerprint": fingerprint(self.model.net),
            **({"constants_fingerprint": self.network.fingerprint} if self.network else {}),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **(
                {"warm_start": [{"method": method.name} for method in methods[:-1]]}
                if methods[:-1]
                else {}
            ),
            **({"prior_mean": self.prior_mean.sha256} if self.prior_mean else {}),
            **({"unused": unused} if (unused := unused_settings(self.config)) else {}),
        }


def prepare(
    config: Config, load: Callable[..., Dataset] = load_dataset, mean: PriorMean | None = None
) -> Prepared:
    """Reads the data and builds the model.

    Args:
        config: everything.
        load: reads the data; one that remembers them saves time where many configurations share
            them.
        mean: what the prior is centerd on, where it was read before; default what `prior.mean`
            names.

    Raises:
        BnnSymmError: with one line that says what in the configuration does not fit.
    """
    data = config.data
    if (
        data.task == "auto"
        and config.likelihood is not None
        and config.likelihood.name == "poisson"
    ):
        data = dataclasses.replace(data, task="count")
    # Only of a file: the folder `digits` does not hide the data set.
    if os.path.isfile(data.name):
        data = dataclasses.replace(data, name=os.path.abspath(data.name))
    dataset = load(data, dtype=getattr(torch, config.dtype))
    likelihood = config.likelihood or default_likelihood(dataset.task)
    check_task(likelihood, dataset.task)
    config = dataclasses.replace(config, data=data, likelihood=likelihood)
    config, mean = named_mean(config, mean)
    model = build_model(config, dataset.input_shape, dataset.num_outputs, mean, dataset.train.x)
    methods = (*config.warm_start, config.inference)
    for method in methods:
        method.check(dataset)
    steps_to_keep(config, len(dataset.train))  # says at once if there is nothing to keep
    initial = None
    if config.initial is not None:
        initial = _initial(config.initial, config, model)
        config = dataclasses.replace(config, initial=os.path.abspath(config.initial))
    return Prepared(
        config=config,
        dataset=dataset,
        model=model,
        initial=initial,
        threads=choose_threads(gradient_flops(methods, model, dataset), config.threads),
    )


def gradient_flops(methods: Sequence[Method], model: BayesianModel, dataset: Dataset) -> int:
    """Floating-point operations of the forward pass of the largest gradient evaluation, by which
    threads are chosen.

    Args:
        methods: whose gradients.
        model: the model.
        dataset: whose training part.
    """
    train = dataset.train
    passes = [
        method.points_per_gradient(len(train)) * method.chains_together(model, train)
        for method in methods
    ]
    return count_flops(model.net, dataset.input_shape, max(passes))


def named_mean(config: Config, mean: PriorMean | None = None) -> tuple[Config, PriorMean | None]:
    """The configuration with a name for what its prior is centerd on that can be written down, and
    that itself.

    Args:
        config: whose `prior.mean` names it, or is it.
        mean: where it was read before.

    Raises:
        BnnSymmError: if it cannot be read.
    """
    named = config.prior.mean
    if named is None:
        return config, None
    if isinstance(named, PriorMean):
        mean, named = named, f"sha256:{named.sha256}"
    elif mean is None:
        mean, named = read_prior_mean(named, module_of(config)), os.path.abspath(named)
    return dataclasses.replace(config, prior=dataclasses.replace(config.prior, mean=named)), mean


def steps_to_keep(config: Config, num_points: int) -> list[int]:
    """The steps of the epochs in `checkpoint.keep`.

    Raises:
        ConfigError: if the method draws samples, which have no such states, or ends before an
            epoch.
    """
    if not config.checkpoint.keep:
        return []
    if not isinstance(config.inference, OptimizationMethod):
        raise ConfigError(
            f"checkpoint.keep is for methods that optimize; {config.inference.name} keeps all of "
            "its draws"
        )
    batch = config.inference.points_per_gradient(num_points)
    steps = [round(epoch * num_points / batch) for epoch in config.checkpoint.keep]
    if max(steps) >= config.inference.num_steps:
        raise ConfigError(
            f"checkpoint.keep has epoch {max(config.checkpoint.keep):g}, which is step "
            f"{max(steps)}; the fit ends at step {config.inference.num_steps}, whose state is the "
            "posterior itself: name earlier ones"
        )
    return steps


def _initial(path: str, config: Config, model: BayesianModel) -> Posterior:
    """The posterior of the run that a fit starts from."""
    directory = RunDirectory(path)
    directory.read_record()
    # Of networks that the user's code makes, only that of the factory named in this configuration
    # is built.
    module = module_of(config)
    if module_of(stored_config(directory)) not in (None, module):
        raise IncompatiblePosteriors(
            f"initial: {path} has a network of another factory; give it the same architecture"
        )
    source = load_run(path, module=module if module_of(stored_config(directory)) else None)
    theirs, ours = source.record["mask_fingerprint"], fingerprint(model.net)
    if theirs != ours:
        raise IncompatiblePosteriors(
            f"initial: {path} has the mask fingerprint {short_fingerprint(theirs)}, this network "
            f"{short_fingerprint(ours)}: what is fixed of their weights differs; give it the same "
            "architecture, its "
            f"symmetry and that section's seed included"
        )
    theirs, ours = source.record.get("constants_fingerprint"), _fingerprint(config, model)
    if theirs is not None and theirs != ours:
        raise IncompatiblePosteriors(
            f"initial: the network of {path} has other constants (buffers, frozen parameters; "
            "fingerprint "
            f"{short_fingerprint(theirs)}, here {short_fingerprint(ours)}), so that its weights "
            "mean other things; "
            f"give it the same, or draw them from a seed of their own"
        )
    if list(source.model.shapes.items()) != list(model.shapes.items()):
        raise IncompatiblePosteriors(
            f"initial: {path} has another network ({_shapes(source.model)}, wanted "
            f"{_shapes(model)}); give it the same data columns, architecture and likelihood"
        )
    return source.posterior


def _fingerprint(config: Config, model: BayesianModel) -> str | None:
    """Of the constants of a network of the user's own."""
    return None if module_of(config) is None else fingerprint_of_constants(model.net)


def _shapes(model: BayesianModel) -> str:
    shapes = [f"{name} {'x'.join(map(str, shape)) or 1}" for name, shape in model.shapes.items()]
    return ", ".join(shapes[:6]) + (", ..." if len(shapes) > 6 else "")
