"""Measure losses at positions along a path, and their height above the chord.

Positions are evenly spaced, and more are added around the maximum. Standard errors are those of a
bootstrap over draws and points. Draws are coupled across positions, so one resample serves a whole
curve, and curves of equally many draws and points have equal resamples.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Split
from bnn_symm.diagnostics.barriers.interpolation import CoupledDraws, Losses, losses
from bnn_symm.diagnostics.barriers.repair import RepairedPath
from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import numpy_generator

_BOOTSTRAP = 400

Evaluated = TypeVar("Evaluated")


@dataclass(frozen=True, kw_only=True)
class BarrierCurve:
    """Losses along the path, on one split of the data.

    Attributes:
        tau: Positions, ascending, 0 and 1 included.
        marginal_nll: In nats per point.
        expected_nll: In nats per point.
        error: Error rate, or root mean squared error.
        ece: Expected calibration error; empty for regression.
        mixture_nll: Marginal NLL of the mixture (1 - tau) q0 + tau q1.
        band: Standard error of `marginal_nll` above the chord, at each tau.
        height: Maximum of the marginal NLL above the chord.
        standard_error: Of `height`, by bootstrap over draws and points; it is conditional on the
            two fits and does not include the variation over seeds.
        above_mean: Maximum of the marginal NLL above the mean of the end points.
        midpoint: Marginal NLL at tau = 1/2 above the mean of the end points, which is the chord
            there.
        expected_height: Maximum of the expected NLL above the chord.
        error_height: Maximum of `error` above the chord.
        mixture_height: Maximum of `mixture_nll` above the chord; not positive, by convexity.
    """

    tau: list[float]
    marginal_nll: list[float]
    expected_nll: list[float]
    error: list[float]
    ece: list[float]
    mixture_nll: list[float]
    band: list[float]
    height: float
    standard_error: float
    above_mean: float
    midpoint: float
    expected_height: float
    error_height: float
    mixture_height: float


@dataclass(frozen=True)
class Resampling:
    """Bootstrap resamples of draws and of points.

    Attributes:
        draws: (resample, draw), relative frequency of each draw.
        points: (resample, point), relative frequency of each point.
    """

    draws: Float[Tensor, "resample draw"]
    points: Float[Tensor, "resample point"]

    @classmethod
    def of(
        cls, num_draws: int, num_points: int, seed: int, name: str = "bootstrap of a barrier"
    ) -> "Resampling":
        """Return the resamples of a seed.

        Args:
            num_draws: Number of draws.
            num_points: Number of points.
            seed: Seed of the resamples.
            name: Resamples of different names are independent.
        """
        generator = numpy_generator(seed, name)
        return cls(_frequencies(generator, num_draws), _frequencies(generator, num_points))

    @property
    def of_one_draw(self) -> "Resampling":
        """Return the same resamples of points for a single draw."""
        return Resampling(torch.ones(len(self.draws), 1, dtype=torch.float64), self.points)

    def nll(self, log_likelihood: Float[Tensor, "draw point"]) -> Float[Tensor, " resample"]:
        """Return the marginal NLL of every resample, by products of weights and likelihoods.

        Args:
            log_likelihood: In nats.
        """
        top = log_likelihood.amax(0)
        marginal = (self.draws @ (log_likelihood - top).exp()).clamp(min=1e-300).log() + top
        return -(self.points * marginal).sum(1)


def _frequencies(generator: np.random.Generator, number: int) -> Tensor:
    """Return (resample, item): the relative frequency of each item in each resample."""
    counts = generator.multinomial(number, np.full(number, 1 / number), size=_BOOTSTRAP)
    return torch.from_numpy(counts / number)


def trace(
    evaluate: Callable[[float], Evaluated], nll: Callable[[Evaluated], float], num_tau: int
) -> dict[float, Evaluated]:
    """Evaluate a path at even positions, at its midpoint, and around its maximum.

    Args:
        evaluate: Returns the value at a position.
        nll: Returns the loss of a value; its maximum above the chord is located.
        num_tau: Number of even positions.

    Returns:
        Position -> value, ascending.
    """
    values = {float(tau): evaluate(float(tau)) for tau in np.linspace(0, 1, num_tau).round(10)}
    if 0.5 not in values:
        values[0.5] = evaluate(0.5)
    for _ in range(3):  # halve the steps on both sides of the maximum
        positions = sorted(values)
        top = int(np.argmax(above_chord(positions, [nll(values[tau]) for tau in positions])))
        around = [positions[i] for i in (top - 1, top, top + 1) if 0 <= i < len(positions)]
        for left, right in pairwise(around):
            values[(left + right) / 2] = evaluate((left + right) / 2)
    return {tau: values[tau] for tau in sorted(values)}


def above_chord(tau: Sequence[float], values: Sequence[float]) -> list[float]:
    """Return the height above the chord at every tau; 0 at both ends.

    Args:
        tau: Positions, ascending from 0 to 1.
        values: Loss at each.
    """
    first, last = values[0], values[-1]
    return [value - (1 - t) * first - t * last for t, value in zip(tau, values, strict=True)]


def resampled_heights(
    tau: Sequence[float], curves: Float[Tensor, "resample position"]
) -> tuple[np.ndarray, list[float]]:
    """Return the height of every resample, and the standard error above the chord at each tau.

    Args:
        tau: Positions, ascending from 0 to 1.
        curves: Loss of every resample.
    """
    values, position = curves.numpy(), np.asarray(tau)
    above = values - (1 - position) * values[:, :1] - position * values[:, -1:]
    return above.max(1), np.std(above, axis=0, ddof=1).tolist()


def barrier_curve(
    pairs: CoupledDraws | RepairedPath, posterior: Posterior, part: Split, num_tau: int, seed: int
) -> BarrierCurve:
    """Measure all losses along a path.

    Args:
        pairs: The path.
        posterior: Provides the model and the scaling.
        part: Split of the data that is predicted.
        num_tau: Number of even positions.
        seed: Seed of the bootstrap.
    """

    def evaluate(tau: float) -> Losses:
        weights = [1 - tau, tau]
        return losses(posterior, pairs.interpolate(weights), part, pairs.model(weights))

    losses_at = trace(evaluate, lambda own: own.marginal_nll, num_tau)
    tau, path_losses = list(losses_at), list(losses_at.values())
    marginal, expected, error = (
        [getattr(losses, name) for losses in path_losses]
        for name in ("marginal_nll", "expected_nll", "error")
    )
    mixture = [_mixture_nll(path_losses[0], path_losses[-1], t) for t in tau]
    draws, points = path_losses[0].log_likelihood.shape
    resampling = Resampling.of(draws, points, seed)
    curves = torch.stack([resampling.nll(own.log_likelihood) for own in path_losses], dim=1)
    heights, band = resampled_heights(tau, curves)
    ends = (marginal[0] + marginal[-1]) / 2
    return BarrierCurve(
        tau=tau,
        marginal_nll=marginal,
        expected_nll=expected,
        error=error,
        ece=[losses.ece for losses in path_losses if losses.ece is not None],
        mixture_nll=mixture,
        band=band,
        height=max(above_chord(tau, marginal)),
        standard_error=float(np.std(heights, ddof=1)),
        above_mean=max(marginal) - ends,
        midpoint=losses_at[0.5].marginal_nll - ends,
        expected_height=max(above_chord(tau, expected)),
        error_height=max(above_chord(tau, error)),
        mixture_height=max(above_chord(tau, mixture)),
    )


def _mixture_nll(first: Losses, second: Losses, tau: float) -> float:
    marginal = [
        own.log_likelihood.logsumexp(0) - math.log(len(own.log_likelihood))
        for own in (first, second)
    ]
    if tau in (0.0, 1.0):
        return float(-marginal[int(tau)].mean())
    mixed = torch.logaddexp(marginal[0] + math.log1p(-tau), marginal[1] + math.log(tau))
    return float(-mixed.mean())
