"""Interpolate between posteriors and evaluate the predictions along the path.

Draws at the ends are coupled, and each pair moves along a straight line or along a learned curve
(`bezier_curves`). The coupling determines the path:

- diagonal normals share the noise at both ends: the Wasserstein-2 geodesic, along which means and
  standard deviations are linear in tau;
- low-rank normals share the noise too, and their factors are rotated to match those of the first
  posterior, which leaves each distribution unchanged. Means, diagonal standard deviations and
  factors are linear in tau, the ends are exact, and no path of this kind is shorter (the geodesic
  of the full covariances is, but it leaves the family);
- points are connected by the straight line;
- samples use the moment map (draws of the first posterior, shifted and scaled to the moments of the
  second, which is the same geodesic for the moments), an optimal assignment of draws, or the order
  of the draws.

References:
    Rossi, Singh and Hannagan (2023), arXiv:2310.10171; McCann (1997), doi:10.1006/aima.1997.1634
    (displacement interpolation).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import scipy
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.alignment import check_same_parameters
from bnn_symm.arguments import checked
from bnn_symm.data import Split
from bnn_symm.diagnostics.scores.scores import expected_calibration_error
from bnn_symm.errors import InvalidData
from bnn_symm.models import BayesianModel
from bnn_symm.models.likelihoods import has_events
from bnn_symm.posteriors import (
    ClosedFormPosterior,
    GaussianPosterior,
    LowRankGaussianPosterior,
    Posterior,
    Predictive,
    SamplePosterior,
)
from bnn_symm.posteriors.low_rank import layer_sizes

Coupling = Literal["moment", "assignment", "independent"]
PathName = Literal[
    "wasserstein",
    "turned factors",
    "straight line",
    "moment",
    "assignment",
    "independent",
    "bezier",
]


@dataclass(frozen=True)
class CoupledDraws:
    """Draws of several posteriors in pairs (or triples, ...), in one parameter space.

    Attributes:
        draws: One (draw, parameter) tensor per posterior; row s of each belongs together.
        path: Name of the interpolation.
        models: The model of each posterior. They differ in the statistics of frozen batch norm
            only, which are interpolated too. Empty if these are equal.
        bend: (parameter,), offset of the control point from the midpoint of two draws (see
            `bezier_curves`); None for a straight path.
    """

    draws: tuple[Float[Tensor, "draw parameter"], ...]
    path: PathName
    bend: Float[Tensor, " parameter"] | None = None
    models: tuple[BayesianModel, ...] = ()

    def model(self, weights: Sequence[float]) -> BayesianModel | None:
        """Return the model at a point of the simplex, or None if it is the same everywhere."""
        if not self.models:
            return None
        named = [model.statistics for model in self.models]
        return self.models[0].with_statistics(
            {
                name: torch.stack(
                    [w * own[name] for w, own in zip(weights, named, strict=True)]
                ).sum(0)
                for name in named[0]
            }
        )

    def interpolate(self, weights: Sequence[float]) -> Float[Tensor, "draw parameter"]:
        """Return the interpolated draws at a point of the simplex: (1 - tau, tau) for a pair."""
        total = weights[0] * self.draws[0]
        for weight, draws in zip(weights[1:], self.draws[1:], strict=True):
            total = total + weight * draws
        return total if self.bend is None else total + 2 * weights[0] * weights[1] * self.bend

    def take(self, number: int) -> "CoupledDraws":
        """Return a single pair of coupled draws."""
        return replace(self, draws=tuple(own[number : number + 1] for own in self.draws))


def couple_means(posteriors: Sequence[Posterior]) -> CoupledDraws:
    """Couple the means of posteriors as points: the path is the straight line between them.

    Args:
        posteriors: Posteriors in one parameter space.

    Returns:
        One draw per posterior, its mean.

    Raises:
        IncompatiblePosteriors: If their parameters differ.
    """
    check_same_parameters(list(posteriors))
    return CoupledDraws(
        tuple(posterior.mean()[None] for posterior in posteriors),
        "straight line",
        models=_models(posteriors),
    )


def _models(posteriors: Sequence[Posterior]) -> tuple[BayesianModel, ...]:
    """Return the models if their statistics of frozen batch norm differ, else nothing."""
    first, *others = (posterior.model for posterior in posteriors)
    if all(first.with_statistics(other.statistics) is first for other in others):
        return ()
    return (first, *others)


@checked
def couple(
    posteriors: Sequence[Posterior], *, num_draws: int, coupling: Coupling = "moment", seed: int = 0
) -> CoupledDraws:
    """Draw from posteriors of one model, coupled for interpolation.

    Paths are between weights, at which the network itself is evaluated. So of a posterior that
    predicts by a linearized network, only the distribution of its weights is used.

    Args:
        posteriors: Two or more, in one parameter space; align them first for a meaningful path.
        num_draws: Draws per posterior; at most the size of the smallest sample posterior.
        coupling: How draws of sample posteriors are paired.
        seed: Seed of the noise, which all posteriors share.

    Returns:
        The coupled draws, with the name of the path.

    Raises:
        IncompatiblePosteriors: If their parameters differ.
        ConfigError: If the coupling is another word.
    """
    check_same_parameters(list(posteriors))
    posteriors = [posterior.of_weights for posterior in posteriors]
    pairs = _coupled(posteriors, num_draws, coupling, seed)
    return replace(pairs, models=_models(posteriors))


def _coupled(
    posteriors: Sequence[Posterior], num_draws: int, coupling: Coupling, seed: int
) -> CoupledDraws:
    """Return the coupled draws of posteriors in one parameter space."""
    if all(isinstance(posterior, GaussianPosterior) for posterior in posteriors):
        return CoupledDraws(
            tuple(_draws_with_noise(posterior, num_draws, seed) for posterior in posteriors),
            "wasserstein",
        )
    closed = [posterior for posterior in posteriors if isinstance(posterior, ClosedFormPosterior)]
    if len(closed) == len(posteriors):
        return CoupledDraws(
            tuple(p.draws(num_draws, seed=seed) for p in _rotate_factors(closed)), "turned factors"
        )
    if all(_is_point(posterior) for posterior in posteriors):
        return CoupledDraws(tuple(posterior.draws() for posterior in posteriors), "straight line")
    sizes = [p.shape[0] * p.shape[1] for p in posteriors if isinstance(p, SamplePosterior)]
    number = min([num_draws, *(count for count in sizes if count > 1)])
    # A point is the same in every draw.
    draws = [
        posterior.draws().expand(number, -1)
        if _is_point(posterior)
        else posterior.draws(number, seed=seed)
        for posterior in posteriors
    ]
    if coupling == "moment":
        first = posteriors[0]
        standard = _standardized(draws[0], first)
        rest = [p.mean() + p.standard_deviation() * standard for p in posteriors[1:]]
        return CoupledDraws((draws[0], *rest), "moment")
    if coupling == "assignment":
        draws[1:] = [own[_optimal_assignment(draws[0], own)] for own in draws[1:]]
    return CoupledDraws(tuple(draws), coupling)


def _is_point(posterior: Posterior) -> bool:
    return isinstance(posterior, SamplePosterior) and posterior.shape[0] * posterior.shape[1] == 1


def _draws_with_noise(posterior: Posterior, number: int, seed: int) -> Tensor:
    """Return draws from the noise of `seed`, coordinate by coordinate, ignoring permutations."""
    assert isinstance(posterior, GaussianPosterior)
    plain = GaussianPosterior(
        posterior.model, posterior.scaling, loc=posterior.loc, scale=posterior.scale
    )
    return plain.draws(number, seed=seed)


def _rotate_factors(posteriors: Sequence[ClosedFormPosterior]) -> list[LowRankGaussianPosterior]:
    """Return the same distributions with equally many factors, rotated to match the first's."""
    rank = max(
        len(posterior.factors)
        for posterior in posteriors
        if isinstance(posterior, LowRankGaussianPosterior)
    )
    rotated: list[LowRankGaussianPosterior] = []
    for posterior in posteriors:
        factors = posterior.loc.new_zeros(rank, len(posterior.loc))
        if isinstance(posterior, LowRankGaussianPosterior):
            factors[: len(posterior.factors)] = posterior.factors
        if rotated:
            sizes = list(layer_sizes(posterior.model).values())
            layers = zip(
                rotated[0].factors.split(sizes, dim=-1), factors.split(sizes, dim=-1), strict=True
            )
            factors = torch.cat(
                [_rotation(first, other) @ other for first, other in layers], dim=-1
            )
        rotated.append(
            LowRankGaussianPosterior(
                posterior.model,
                posterior.scaling,
                loc=posterior.loc,
                scale=posterior.scale,
                factors=factors,
            )
        )
    return rotated


def _rotation(first: Tensor, other: Tensor) -> Tensor:
    """Return the orthogonal matrix that best maps the second's rows to the first's (Procrustes)."""
    left, _, right = torch.linalg.svd((first @ other.mT).double())
    return (left @ right).to(first)


def _standardized(draws: Tensor, posterior: Posterior) -> Tensor:
    sd = posterior.standard_deviation()
    return (draws - posterior.mean()) / torch.where(sd > 0, sd, torch.ones_like(sd))


def _optimal_assignment(first: Tensor, second: Tensor) -> Tensor:
    """Return the order of the second's draws that minimizes the sum of squared distances."""
    cost = torch.cdist(first.double(), second.double()).square()
    return torch.from_numpy(scipy.optimize.linear_sum_assignment(cost.cpu().numpy())[1])


@dataclass(frozen=True)
class Losses:
    """Predictive losses of draws on one split of the data.

    Attributes:
        log_likelihood: (draw, point), in nats, in the target's own units.
        error: Error rate of the mixture, or root mean squared error; of times, that of the log of
            the median, without censored times that are below it.
        ece: Expected calibration error; None for regression.
    """

    log_likelihood: Float[Tensor, "draw point"]
    error: float
    ece: float | None

    @property
    def marginal_nll(self) -> float:
        """Return the mean over points of -log of the likelihood averaged over draws."""
        draws = len(self.log_likelihood)
        marginal = (
            self.log_likelihood.logsumexp(0) - torch.tensor(float(draws), dtype=torch.float64).log()
        )
        return float(-marginal.mean())

    @property
    def expected_nll(self) -> float:
        """Return the mean over points and draws of -log likelihood."""
        return float(-self.log_likelihood.mean())


def losses(
    posterior: Posterior,
    draws: Float[Tensor, "draw parameter"],
    part: Split,
    model: BayesianModel | None = None,
) -> Losses:
    """Evaluate the predictions of the given draws under the posterior's model and scaling.

    Args:
        posterior: Provides the model and the scaling.
        draws: Flat parameter vectors.
        part: Split of the data that is predicted.
        model: The model, if it is not that of the posterior.

    Returns:
        The losses of the draws.

    Raises:
        InvalidData: If a draw assigns density zero to a target.
    """
    sample = SamplePosterior.from_draws(model or posterior.model, draws[None], posterior.scaling)
    parts = []
    start = 0
    for predictive in sample.iter_predict(part.x):
        size = predictive.outputs.shape[2]
        parts.append(_summary(predictive, part.y[start : start + size].cpu()))
        start += size
    log_likelihood = torch.cat([own[0] for own in parts], dim=1)
    if not bool(torch.isfinite(log_likelihood).all()):
        raise InvalidData(
            "a draw on the path predicts a target with density zero, so the loss is infinite and "
            "no barrier is defined; check the scores of each posterior, and extreme inputs"
        )
    error = float(torch.cat([own[1] for own in parts]).double().mean())
    if parts[0][2] is None:
        return Losses(log_likelihood, error**0.5, None)
    probabilities = torch.cat([own[2] for own in parts if own[2] is not None])
    return Losses(log_likelihood, error, expected_calibration_error(probabilities, part.y.cpu()))


def _summary(predictive: Predictive, y: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    log_likelihood = predictive.draw_log_prob(y).double().flatten(0, 1)
    if predictive.is_classification:
        probabilities = predictive.probabilities()
        return log_likelihood, probabilities.argmax(-1) != y, probabilities
    predictive, y = predictive.given(y)
    if has_events(predictive.likelihood):
        error = predictive.quantiles([0.5])[0].log() - predictive.observed(y).log()
        is_right = (y[:, 1] == 0) & (error > 0)
        return log_likelihood, torch.where(is_right, 0.0, error).square(), None
    if len(predictive.columns) == 1:
        error = (predictive.mean() - predictive.in_own_units(y)).square()
        return log_likelihood, error, None
    # Columns have several units: errors are relative to the standard deviations of the targets.
    errors = [
        ((own.mean() - own.in_own_units(z)) / own.scale).square()
        for own, z in zip(predictive.columns, y.unbind(-1), strict=True)
    ]
    return log_likelihood, torch.stack(errors).mean(0), None
