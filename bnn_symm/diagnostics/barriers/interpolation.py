"""Draws along a path between posteriors, and what they predict: the raw material of loss barriers.

Draws at the ends are coupled, and each pair moves on a straight line, or on a learned curve
(`curves`). Which coupling makes which path:

- normals with the same noise at both ends: the Wasserstein-2 geodesic, means and standard
  deviations linear in tau;
- normals of which some covary by factors: the same noise too, with factors turned to be those of
  the first as nearly as a rotation can, which is no other distribution; means, standard deviations
  of the diagonal and factors are linear in tau, the ends are exact, and no path of this kind is
  shorter (the geodesic of their whole covariances would be, but leaves the family);
- points: the straight line between them;
- samples: the moment map (draws of the first, shifted and scaled to the moments of the second: the
  same geodesic for the moments), an optimal assignment of draws, or draws paired as they come.

References:
    Rossi, Singh and Hannagan (2023), arXiv:2310.10171; McCann (1997), doi:10.1006/aima.1997.1634
    (displacement interpolation).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from bnn_symm.alignment import check_same_parameters
from bnn_symm.data import Part
from bnn_symm.diagnostics.scores.scores import expected_calibration_error
from bnn_symm.errors import InvalidData
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
        draws: one (draw, parameter) a posterior; row s of all of them belongs together.
        path: what interpolating them is called.
        bend: (parameter,), how far the control point of a curve is from the middle of two draws;
            None for a straight path (see `curves`).
    """

    draws: tuple[Float[Tensor, "draw parameter"], ...]
    path: PathName
    bend: Float[Tensor, " parameter"] | None = None

    def at(self, weights: Sequence[float]) -> Float[Tensor, "draw parameter"]:
        """The draws at a point of the simplex: with two posteriors, (1 - tau, tau)."""
        total = weights[0] * self.draws[0]
        for weight, own in zip(weights[1:], self.draws[1:], strict=True):
            total = total + weight * own
        return total if self.bend is None else total + 2 * weights[0] * weights[1] * self.bend

    def take(self, number: int) -> "CoupledDraws":
        """One of the pairs alone."""
        return replace(self, draws=tuple(own[number : number + 1] for own in self.draws))


def means(posteriors: Sequence[Posterior]) -> CoupledDraws:
    """The means of posteriors as points, and so the straight line between them.

    Raises:
        IncompatiblePosteriors: if their parameters differ.
    """
    check_same_parameters(list(posteriors))
    return CoupledDraws(tuple(posterior.mean()[None] for posterior in posteriors), "straight line")


def couple(
    posteriors: Sequence[Posterior], *, num_draws: int, coupling: Coupling = "moment", seed: int = 0
) -> CoupledDraws:
    """Draws of posteriors of one model, coupled for interpolation.

    Args:
        posteriors: two or more, in one parameter space; align them first for a meaningful path.
        num_draws: of each; at most as many as the smallest sample posterior holds.
        coupling: of sample posteriors.
        seed: of the noise, common to all.

    Raises:
        IncompatiblePosteriors: if their parameters differ.
    """
    check_same_parameters(list(posteriors))
    if all(isinstance(posterior, GaussianPosterior) for posterior in posteriors):
        return CoupledDraws(
            tuple(_same_noise(posterior, num_draws, seed) for posterior in posteriors),
            "wasserstein",
        )
    closed = [posterior for posterior in posteriors if isinstance(posterior, ClosedFormPosterior)]
    if len(closed) == len(posteriors):
        return CoupledDraws(
            tuple(own.draws(num_draws, seed=seed) for own in _turned(closed)), "turned factors"
        )
    if all(_is_point(posterior) for posterior in posteriors):
        return CoupledDraws(tuple(posterior.draws() for posterior in posteriors), "straight line")
    held = [p.shape[0] * p.shape[1] for p in posteriors if isinstance(p, SamplePosterior)]
    number = min([num_draws, *(count for count in held if count > 1)])
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
        draws[1:] = [own[_assigned(draws[0], own)] for own in draws[1:]]
    return CoupledDraws(tuple(draws), coupling)


def _is_point(posterior: Posterior) -> bool:
    return isinstance(posterior, SamplePosterior) and posterior.shape[0] * posterior.shape[1] == 1


def _same_noise(posterior: Posterior, number: int, seed: int) -> Tensor:
    """Draws whose noise is that of every other posterior, coordinate by coordinate, whatever
    permuted it.
    """
    assert isinstance(posterior, GaussianPosterior)
    plain = GaussianPosterior(
        posterior.model, posterior.scaling, loc=posterior.loc, scale=posterior.scale
    )
    return plain.draws(number, seed=seed)


def _turned(posteriors: Sequence[ClosedFormPosterior]) -> list[LowRankGaussianPosterior]:
    """The same distributions, their noise coordinate by coordinate, factors of one number and near
    the first one's.
    """
    rank = max(len(own.factors) for own in posteriors if isinstance(own, LowRankGaussianPosterior))
    made: list[LowRankGaussianPosterior] = []
    for own in posteriors:
        factors = own.loc.new_zeros(rank, len(own.loc))
        if isinstance(own, LowRankGaussianPosterior):
            factors[: len(own.factors)] = own.factors
        if made:
            sizes = list(layer_sizes(own.model).values())
            layers = zip(
                made[0].factors.split(sizes, dim=-1), factors.split(sizes, dim=-1), strict=True
            )
            factors = torch.cat(
                [_rotation(first, other) @ other for first, other in layers], dim=-1
            )
        made.append(
            LowRankGaussianPosterior(
                own.model, own.scaling, loc=own.loc, scale=own.scale, factors=factors
            )
        )
    return made


def _rotation(first: Tensor, other: Tensor) -> Tensor:
    """The orthogonal matrix that brings the rows of the second nearest to those of the first
    (Procrustes).
    """
    left, _, right = torch.linalg.svd((first @ other.mT).double())
    return (left @ right).to(first)


def _standardized(draws: Tensor, posterior: Posterior) -> Tensor:
    sd = posterior.standard_deviation()
    return (draws - posterior.mean()) / torch.where(sd > 0, sd, torch.ones_like(sd))


def _assigned(first: Tensor, second: Tensor) -> Tensor:
    """The order of the second's draws that makes the sum of squared distances smallest."""
    cost = torch.cdist(first.double(), second.double()).square()
    return torch.from_numpy(linear_sum_assignment(cost.cpu().numpy())[1])


@dataclass(frozen=True)
class Losses:
    """What draws predict on one part of the data.

    Attributes:
        log_likelihood: (draw, point), in nats, in the target's own units.
        error: share of points classified wrongly by the mixture, or root mean squared error.
        ece: expected calibration error; None for regression.
    """

    log_likelihood: Float[Tensor, "draw point"]
    error: float
    ece: float | None

    @property
    def marginal_nll(self) -> float:
        """Mean over points of -log of the mean over draws of the likelihood."""
        draws = len(self.log_likelihood)
        marginal = (
            self.log_likelihood.logsumexp(0) - torch.tensor(float(draws), dtype=torch.float64).log()
        )
        return float(-marginal.mean())

    @property
    def expected_nll(self) -> float:
        """Mean over points and draws of -log likelihood."""
        return float(-self.log_likelihood.mean())


def losses(posterior: Posterior, draws: Float[Tensor, "draw parameter"], part: Part) -> Losses:
    """Predicts with given draws in place of the posterior's own."""
    sample = SamplePosterior.from_draws(posterior.model, draws[None], posterior.scaling)
    parts = []
    start = 0
    for predictive in sample.iter_predict(part.x):
        size = predictive.outputs.shape[2]
        parts.append(_summary(predictive, part.y[start : start + size].cpu()))
        start += size
    log_likelihood = torch.cat([own[0] for own in parts], dim=1)
    if not bool(torch.isfinite(log_likelihood).all()):
        raise InvalidData(
            "a draw on the path predicts a target with density zero, so that the loss is infinite "
            "and has no barrier; look at `bnn-symm evaluate` of each run, and at extreme inputs"
        )
    wrong = float(torch.cat([own[1] for own in parts]).double().mean())
    if parts[0][2] is None:
        return Losses(log_likelihood, wrong**0.5, None)
    probabilities = torch.cat([own[2] for own in parts if own[2] is not None])
    return Losses(log_likelihood, wrong, expected_calibration_error(probabilities, part.y.cpu()))


def _summary(predictive: Predictive, y: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    log_likelihood = predictive.draw_log_prob(y).double().flatten(0, 1)
    if predictive.is_classification:
        probabilities = predictive.probabilities()
        return log_likelihood, probabilities.argmax(-1) != y, probabilities
    target = predictive.location + predictive.scale * y.double()
    return log_likelihood, (predictive.mean() - target).square(), None
