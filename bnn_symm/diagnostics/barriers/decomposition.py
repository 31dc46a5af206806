"""Divide a barrier into shares of its causes, which sum to it.

The barrier is measured at one position tau, that of the maximum of the naive barrier. Steps remove
one cause after the other, in this order, and the share of a cause is the barrier before its step
minus that after it:

    permutation     the second posterior is permuted
    scale           and its units are rescaled
    rotation        and its heads are rotated
    statistics      and the statistics of channels are reset (see `repair`)
    confidence      and one temperature is fitted at each of 0, tau and 1 (see `temperature_scaled`)
    spread          and both posteriors are replaced with their means
    initialization  and the second one started at the initial values of the first
    remainder       the barrier after all steps

So the shares sum to the naive barrier exactly. All steps use the same draws and the same points.
The step of the initialization needs a control run, which differs from the second one in its initial
values alone. What remains is the barrier between two runs that differ in the order of the data and
in other noise of training.
The standard error of a share is that of a paired bootstrap, in which all steps have the same
resamples of draws, points and validation points. Causes interact, so shares depend on the order: a
cause that is removed early includes what it has in common with later ones. A share may be negative.

Steps that do not apply are left out, each with its reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnn_symm.architectures import frozen_layers
from bnn_symm.arguments import checked
from bnn_symm.data import Dataset, Split
from bnn_symm.diagnostics.barriers.curves import Resampling, above_chord, trace
from bnn_symm.diagnostics.barriers.interpolation import (
    CoupledDraws,
    Coupling,
    couple,
    couple_means,
    losses,
)
from bnn_symm.diagnostics.barriers.repair import RepairedPath
from bnn_symm.diagnostics.barriers.temperature_scaled import TemperatureScaledPath, why_not_scaled
from bnn_symm.posteriors import Posterior
from bnn_symm.summaries import Result, Summarized

REMAINDER = "remainder"
"""Name of the barrier that no step removes."""

# Largest number of points of each part, as of `barrier`.
_POINTS = 2000
# Height that may be an error of rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class BarrierShare(Result):
    """A part of a barrier.

    Attributes:
        value: In nats per point.
        standard_error: Of `value`.
    """

    value: float
    standard_error: float


@dataclass(frozen=True, kw_only=True, repr=False)
class BarrierDecomposition(Summarized):
    """The barrier at one position of a path, divided into shares that sum to it.

    Attributes:
        tau: The position.
        barrier: The naive barrier there.
        shares: Cause -> its share, in the order of the steps; `remainder` is the last.
        left_out: Cause -> why it has no share.
        temperatures: Fitted at 0, tau and 1 for the share of confidence; empty without it.
    """

    tau: float
    barrier: BarrierShare
    shares: dict[str, BarrierShare]
    left_out: dict[str, str]
    temperatures: tuple[float, ...] = ()

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return {"barrier": self.barrier.value} | {n: s.value for n, s in self.shares.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the decomposition as JSON types."""
        return {
            "tau": self.tau,
            "barrier": self.barrier.to_dict(),
            "shares": {name: own.to_dict() for name, own in self.shares.items()},
            "left_out": self.left_out,
            "temperatures": list(self.temperatures),
        }


@dataclass(frozen=True)
class _Step:
    """A path without some of the causes."""

    path: CoupledDraws | RepairedPath
    posterior: Posterior
    is_scaled: bool = False


@checked
def decompose_barrier(
    ways: Mapping[str, tuple[Posterior, Posterior]],
    dataset: Dataset,
    *,
    control: tuple[Posterior, Posterior] | None = None,
    tau: float | None = None,
    num_draws: int = 50,
    coupling: Coupling = "moment",
    repair: bool = False,
    seed: int = 0,
) -> BarrierDecomposition:
    """Divide the barrier between two posteriors into shares that sum to it.

    Args:
        ways: `naive` -> the two posteriors, and then cause -> the same two after one more
            alignment, such as `permutation` and `scale`.
        dataset: Its test split is predicted.
        control: The first posterior, and that of a fit which is like the second one but starts at
            the initial values of the first, after all alignments.
        tau: Position of the path; default, that of the maximum of the naive barrier, or the
            midpoint where nothing is above the chord.
        num_draws: Draws at each position.
        coupling: How draws of sample posteriors are paired.
        repair: Whether the statistics of hidden channels are a cause; those of frozen batch norm
            always are.
        seed: Seed of the draws and of the bootstrap.

    Returns:
        The shares, with standard errors.

    Raises:
        IncompatiblePosteriors: If the parameters or the fixed weights differ.
        ConfigError: If `repair` does not apply to the network.

    Example:
        >>> import torch
        >>> from bnn_symm import BayesianModel, Categorical, MeanFieldVI, Prior, align, load_dataset
        >>> data = load_dataset("iris")
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 3))
        >>> model = BayesianModel(net, Prior(), Categorical())
        >>> method = MeanFieldVI(num_steps=5)
        >>> first, second = (method.fit(model, data, seed=seed) for seed in (0, 1))
        >>> aligned = align(first, second).apply(second)
        >>> ways = {"naive": (first, second), "permutation": (first, aligned)}
        >>> list(decompose_barrier(ways, data, num_draws=5).shares)
        ['permutation', 'confidence', 'spread', 'remainder']
    """
    test, validation = (p.take(slice(0, _POINTS)) for p in (dataset.test, dataset.validation))
    steps, left_out = _steps(
        ways,
        dataset,
        control,
        num_draws=num_draws,
        coupling=coupling,
        repair=repair,
        seed=seed,
    )
    naive = steps["naive"]
    if tau is None:
        tau = _highest(naive, test)
    resampling = Resampling.of(len(naive.path.interpolate([1.0, 0.0])), len(test), seed)
    barriers = [_barrier(step, tau, test, validation, resampling, seed) for step in steps.values()]
    causes = [*list(steps)[1:], REMAINDER]
    after = [*barriers[1:], torch.zeros_like(barriers[0])]
    return BarrierDecomposition(
        tau=tau,
        barrier=_share(barriers[0]),
        shares={
            cause: _share(own - rest)
            for cause, own, rest in zip(causes, barriers, after, strict=True)
        },
        left_out=left_out,
        temperatures=_temperatures(steps, tau, validation, seed),
    )


def _temperatures(
    steps: Mapping[str, _Step], tau: float, validation: Split, seed: int
) -> tuple[float, ...]:
    """Return the temperatures of the step that removes the share of confidence."""
    if "confidence" not in steps:
        return ()
    step = steps["confidence"]
    path = TemperatureScaledPath(step.path, step.posterior, validation, seed)
    return tuple(path.temperature(t) for t in (0.0, tau, 1.0))


def _steps(
    ways: Mapping[str, tuple[Posterior, Posterior]],
    dataset: Dataset,
    control: tuple[Posterior, Posterior] | None,
    *,
    num_draws: int,
    coupling: Coupling,
    repair: bool,
    seed: int,
) -> tuple[dict[str, _Step], dict[str, str]]:
    """Return cause -> the path without it and the causes before it, and reasons of omissions."""
    left_out: dict[str, str] = {}
    coupled = {
        cause: couple(list(pair), num_draws=num_draws, coupling=coupling, seed=seed)
        for cause, pair in ways.items()
    }
    steps = {cause: _Step(pairs, ways[cause][0]) for cause, pairs in coupled.items()}
    ends, pairs = list(ways.values())[-1], list(coupled.values())[-1]
    first = ends[0]
    is_repaired = repair or bool(frozen_layers(first.model.net))

    def path(own: CoupledDraws) -> CoupledDraws | RepairedPath:
        return RepairedPath(own, first.model, dataset.train.x[:_POINTS]) if is_repaired else own

    whole = path(pairs)
    if is_repaired:
        steps["statistics"] = _Step(whole, first)
    else:
        left_out["statistics"] = "the network has no batch norm, and repair was not requested"
    reason = why_not_scaled(first.model.likelihood, dataset.validation)
    if reason is None:
        steps["confidence"] = _Step(whole, first, is_scaled=True)
    else:
        left_out["confidence"] = reason
    if any(own.shape[0] > 1 for own in ends):
        left_out["spread"] = "the mean of several chains is not a network"
    elif len(pairs.draws[0]) == 1:
        left_out["spread"] = "one draw of each posterior has none"
    else:
        means = path(couple_means(list(ends)))
        steps["spread"] = _Step(means, first, is_scaled=reason is None)
    if control is None:
        left_out["initialization"] = "it needs a control run from the initial values of the first"
    else:
        of_control = (
            couple_means(list(control))
            if "spread" in steps
            else couple(list(control), num_draws=num_draws, coupling=coupling, seed=seed)
        )
        steps["initialization"] = _Step(path(of_control), first, is_scaled=reason is None)
    return steps, left_out


def _highest(naive: _Step, test: Split) -> float:
    """Return the position of the maximum above the chord, or the midpoint if none is above it."""

    def evaluate(tau: float) -> float:
        weights = [1 - tau, tau]
        draws, model = naive.path.interpolate(weights), naive.path.model(weights)
        return losses(naive.posterior, draws, test, model).marginal_nll

    values = trace(evaluate, lambda nll: nll, 11)
    return highest_position(list(values), list(values.values()))


def highest_position(tau: Sequence[float], nll: Sequence[float]) -> float:
    """Return the position of the maximum above the chord, or the midpoint if none is above it.

    Args:
        tau: Positions, ascending from 0 to 1.
        nll: Loss at each.

    Example:
        >>> highest_position([0.0, 0.25, 1.0], [1.0, 2.0, 1.0])
        0.25
        >>> highest_position([0.0, 0.25, 1.0], [1.0, 0.5, 1.0])
        0.5
    """
    above = above_chord(tau, nll)
    return tau[int(np.argmax(above))] if max(above) > _ROUNDING else 0.5


def _barrier(
    step: _Step,
    tau: float,
    test: Split,
    validation: Split,
    resampling: Resampling,
    seed: int,
) -> Tensor:
    """Return the barrier at tau, and that of every resample: (1 + resample,)."""
    path, posterior = step.path, step.posterior
    if len(path.interpolate([1.0, 0.0])) == 1:
        resampling = resampling.of_one_draw
    scaled = TemperatureScaledPath(path, posterior, validation, seed) if step.is_scaled else None

    def loss(t: float) -> Tensor:
        if scaled is not None:
            nll, resampled = scaled.nll(t, test, resampling)
        else:
            weights = [1 - t, t]
            own = losses(posterior, path.interpolate(weights), test, path.model(weights))
            nll, resampled = own.marginal_nll, resampling.nll(own.log_likelihood)
        return torch.cat([torch.tensor([nll], dtype=torch.float64), resampled])

    return loss(tau) - (1 - tau) * loss(0.0) - tau * loss(1.0)


def _share(values: Tensor) -> BarrierShare:
    """Return a share from its value and those of the resamples."""
    return BarrierShare(value=float(values[0]), standard_error=float(values[1:].std()))


@dataclass(frozen=True, kw_only=True)
class MeanDecomposition(Result):
    """The means of decompositions over all pairs of several runs.

    Attributes:
        num_runs: Number of runs.
        barrier: Mean of the naive barriers.
        shares: Cause -> mean of its shares.
        left_out: Cause -> why it has no share.
        pairs: Each decomposition, with the positions of its runs.
    """

    num_runs: int
    barrier: BarrierShare
    shares: dict[str, BarrierShare]
    left_out: dict[str, str]
    pairs: list[dict[str, Any]]


def mean_decomposition(
    pairs: Mapping[tuple[int, int], BarrierDecomposition],
) -> MeanDecomposition:
    """Average decompositions over all pairs of three or more runs.

    Pairs share runs, so they are not independent. Standard errors are those of the jackknife over
    runs: the means without all pairs of one run.

    Args:
        pairs: Positions of two runs -> their decomposition, for all pairs.
    """
    runs = sorted({run for pair in pairs for run in pair})

    def mean(values: Mapping[tuple[int, int], float]) -> BarrierShare:
        without = np.array(
            [np.mean([value for pair, value in values.items() if run not in pair]) for run in runs]
        )
        error = np.sqrt((len(runs) - 1) * np.mean((without - without.mean()) ** 2))
        return BarrierShare(
            value=float(np.mean(list(values.values()))), standard_error=float(error)
        )

    first = next(iter(pairs.values()))
    return MeanDecomposition(
        num_runs=len(runs),
        barrier=mean({pair: own.barrier.value for pair, own in pairs.items()}),
        shares={
            cause: mean({pair: own.shares[cause].value for pair, own in pairs.items()})
            for cause in first.shares
        },
        left_out=first.left_out,
        pairs=[{"first": i, "second": j, **own.to_dict()} for (i, j), own in pairs.items()],
    )
