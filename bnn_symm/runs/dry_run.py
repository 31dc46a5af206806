"""Estimate what a fit would cost, without fitting or writing anything.

One gradient of the log density is timed on the data and the threads of the fit. The number of
gradients follows from the settings. Samplers of Hamiltonian dynamics choose the number of gradients
of an iteration while they run, so that theirs is a lower bound, with one gradient an iteration.
"""

import statistics
import time
from dataclasses import dataclass

import torch

from bnn_symm.data.summary import ColumnSummary, column_summaries
from bnn_symm.inference import (
    DeepEnsemble,
    Method,
    Mixture,
    Sampler,
    StochasticGradientMethod,
    stochastic_part,
)
from bnn_symm.inference.density.density import bytes_kept
from bnn_symm.inference.fit_checks import draws_shape
from bnn_symm.models import BayesianModel
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.configuration.prepare import Prepared, prepare
from bnn_symm.summaries import Result
from bnn_symm.threads import available_cores, use_threads

_REPETITIONS = 5


@dataclass(frozen=True, kw_only=True)
class StageEstimate:
    """Estimate the cost of one method.

    Attributes:
        method: its name.
        num_chains: chains, or members of an ensemble.
        points_per_gradient: training points of one gradient.
        gradient_evaluations: gradients of all chains; for HMC, NUTS and ChEES-HMC a lower bound.
        seconds_per_gradient: measured.
        seconds: of the whole fit; for HMC, NUTS and ChEES-HMC a lower bound.
        is_lower_bound: whether the number of gradients and the time are lower bounds.
        draws_bytes: size of the stored draws.
    """

    method: str
    num_chains: int
    points_per_gradient: int
    gradient_evaluations: int
    seconds_per_gradient: float
    seconds: float
    is_lower_bound: bool
    draws_bytes: int


@dataclass(frozen=True, kw_only=True)
class FitEstimate(Result):
    """Describe what a configuration would fit, and estimate the cost.

    Attributes:
        dataset: name of the data.
        task: `regression`, `classification` or `count`.
        train: training points.
        validation: validation points.
        test: test points.
        split: rule by which the points were split.
        features: shape of the features of one point, after preprocessing.
        outputs: outputs of the network.
        parameters: parameters that the fit learns; in several stages, those of the last one.
        fixed_parameters: parameters of the network that get no posterior.
        threads: threads of torch.
        gradient_bytes: memory that one gradient keeps between its two passes.
        stages: the methods, those of the warm start first.
        columns: what was decided for each column of a table.
        notes: remarks on the data, such as columns that are left out.
    """

    dataset: str
    task: str
    train: int
    validation: int
    test: int
    split: str
    features: tuple[int, ...]
    outputs: int
    parameters: int
    fixed_parameters: int
    threads: int
    gradient_bytes: int
    stages: tuple[StageEstimate, ...]
    columns: tuple[ColumnSummary, ...]
    notes: tuple[str, ...]


def estimate_fit(config: Config) -> FitEstimate:
    """Read the data, build the network, time one gradient, and estimate the cost of the fit.

    Args:
        config: the configuration.

    Raises:
        BnnSymmError: if the configuration cannot be fitted.

    Example:
        >>> from bnn_symm import load_config
        >>> from bnn_symm.runs.dry_run import estimate_fit
        >>> estimate = estimate_fit(load_config(None, ["data.name=iris"]))
        >>> estimate.train, estimate.parameters
        (108, 4675)
    """
    prepared = prepare(config)
    dataset, config = prepared.dataset, prepared.config
    methods = (*config.warm_start, config.inference)
    return FitEstimate(
        dataset=dataset.name,
        task=dataset.task,
        train=len(dataset.train),
        validation=len(dataset.validation),
        test=len(dataset.test),
        split=dataset.provenance.split_rule,
        features=tuple(dataset.graph.features.shape[1:] if dataset.graph else dataset.input_shape),
        outputs=dataset.num_outputs,
        parameters=prepared.model.num_parameters,
        fixed_parameters=prepared.model.num_fixed_parameters,
        threads=prepared.threads,
        gradient_bytes=max(_gradient_bytes(prepared, method) for method in methods),
        stages=tuple(_estimate(prepared, method) for method in methods),
        columns=column_summaries(dataset.preprocessing),
        notes=prepared.notes,
    )


def _estimate(prepared: Prepared, method: Method) -> StageEstimate:
    # Variational inference averages a gradient over several draws of the weights.
    fitted = method.member if isinstance(method, Mixture) else method
    model, _ = stochastic_part(prepared.full_model, method.parameters, None)
    seconds = _seconds_per_gradient(prepared, model, method) * getattr(fitted, "num_samples", 1)
    chains, draws, parameters = draws_shape(method, model)
    if method.steps_per_chain is None:
        raise TypeError(f"{method.name} has no known number of gradients")
    gradients = chains * method.steps_per_chain
    in_parallel = (
        isinstance(method, DeepEnsemble | Mixture | StochasticGradientMethod)
        and method.chain_method != "sequential"
    )
    return StageEstimate(
        method=method.name,
        num_chains=chains,
        points_per_gradient=method.points_per_gradient(len(prepared.dataset.train)),
        gradient_evaluations=gradients,
        seconds_per_gradient=seconds,
        seconds=seconds * gradients / (min(chains, available_cores()) if in_parallel else 1),
        is_lower_bound=isinstance(method, Sampler),
        draws_bytes=chains * draws * parameters * prepared.model.dtype.itemsize,
    )


def _seconds_per_gradient(prepared: Prepared, model: BayesianModel, method: Method) -> float:
    train = prepared.dataset.to(prepared.model.device).train
    number = method.points_per_gradient(len(train))
    seconds = []
    with use_threads(prepared.threads):
        for _ in range(_REPETITIONS + 1):
            flat = model.initial(prepared.config.seed).requires_grad_()
            start = time.perf_counter()
            value = model.potential(flat, train.x[:number], train.targets[:number])
            float(torch.autograd.grad(value, flat)[0][0])  # waits for a GPU
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def _gradient_bytes(prepared: Prepared, method: Method) -> int:
    model, _ = stochastic_part(prepared.full_model, method.parameters, None)
    train = prepared.dataset.train
    vectors = method.chains_per_gradient(model, train)
    fixed, per_point = bytes_kept(model, model.initial(prepared.config.seed), train)
    return round(vectors * (fixed + method.points_per_gradient(len(train)) * per_point))
