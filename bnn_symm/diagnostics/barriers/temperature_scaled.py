"""Measure a barrier after temperature scaling at every point of the path.

The average of two networks has smaller outputs than both, or larger ones, so that a part of a
barrier is not a loss of accuracy but too little or too much confidence. At every point of the path,
the ends included, one temperature of the class probabilities is fitted on the validation split, and
the losses of the other splits are measured with it:

    B = max over tau of  L_T(tau)(q_tau) - [(1 - tau) L_T(0)(q0) + tau L_T(1)(q1)]
    L_T(q)  the NLL of  p_T(y | x) proportional to p(y | x)^(1 / T),  p the mixture over all draws

What the temperature removes is the share of confidence; what remains is a barrier of any classifier
that ranks the classes in the same order with the same relative probabilities.

References:
    Ito, Yamada, Chijiwa and Kumagai (2025), arXiv:2510.08023; Guo, Pleiss, Sun and Weinberger
    (2017), arXiv:1706.04599, section 4.2.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.advice import advise
from bnn_symm.data import Split
from bnn_symm.diagnostics.barriers.curves import (
    Resampling,
    above_chord,
    resampled_heights,
    trace,
)
from bnn_symm.diagnostics.barriers.interpolation import CoupledDraws
from bnn_symm.diagnostics.barriers.repair import RepairedPath
from bnn_symm.diagnostics.calibration.temperature_scaling import (
    draw_log_probabilities,
    optimal_temperature,
)
from bnn_symm.errors import ConfigError
from bnn_symm.models.likelihoods import Likelihood, is_classification
from bnn_symm.posteriors import Posterior, SamplePosterior
from bnn_symm.summaries import plain

# Probabilities of resamples in memory at once.
_NUMBERS = 2**20
# Range of 1 / T, as that of the fit.
_INVERSE = (0.01, 100.0)
_NEWTON = 6


@dataclass(frozen=True, kw_only=True)
class TemperatureScaledCurve:
    """Losses along the path after temperature scaling, on one split of the data.

    Attributes:
        tau: Positions, ascending, 0 and 1 included.
        temperature: Of the class probabilities at each position, fitted on the validation split;
            above 1 if predictions were overconfident.
        marginal_nll: In nats per point.
        band: Standard error of `marginal_nll` above the chord, at each tau.
        height: Maximum of the marginal NLL above the chord.
        standard_error: Of `height`, by bootstrap over draws, points and validation points.
        above_mean: Maximum of the marginal NLL above the mean of the end points.
        midpoint: Marginal NLL at tau = 1/2 above the mean of the end points.
    """

    tau: list[float]
    temperature: list[float]
    marginal_nll: list[float]
    band: list[float]
    height: float
    standard_error: float
    above_mean: float
    midpoint: float


@dataclass(frozen=True, kw_only=True)
class TemperatureScaledBarrier:
    """The barrier along a path with a temperature that is fitted at every point.

    Attributes:
        points: Number of validation points of each fit.
        test: Losses on the test split.
        train: Losses on the training split.
    """

    points: int
    test: TemperatureScaledCurve
    train: TemperatureScaledCurve

    @property
    def num_bounded(self) -> int:
        """Return the number of test positions whose temperature is at an end of its range."""
        return sum(map(is_bounded, self.test.temperature))

    def to_dict(self) -> dict[str, Any]:
        """Return the heights and the curves as JSON types."""
        return {
            "height": self.test.height,
            "standard_error": self.test.standard_error,
            "points": self.points,
            "test": plain(self.test),
            "train": plain(self.train),
        }


class TemperatureScaledPath:
    """A path with a temperature at every point.

    Args:
        path: The path.
        posterior: Provides the model and the scaling.
        validation: Points that the temperatures are fitted on.
        seed: Seed of the bootstrap over validation points.

    Raises:
        ConfigError: If the target is not a class, or there are no validation points.
    """

    def __init__(
        self,
        path: CoupledDraws | RepairedPath,
        posterior: Posterior,
        validation: Split,
        seed: int = 0,
    ) -> None:
        reason = why_not_scaled(posterior.model.likelihood, validation)
        if reason:
            raise ConfigError(
                f"{advise('--temperature-scaling', 'temperature_scaling=True')}: {reason}"
            )
        self._path, self._posterior, self._validation = path, posterior, validation
        self._weights = Resampling.of(1, len(validation), seed, "validation of a barrier").points
        self._fitted: dict[float, tuple[float, Tensor]] = {}

    def temperature(self, tau: float) -> float:
        """Return the temperature at a position."""
        return self._fit(tau)[0]

    def _fit(self, tau: float) -> tuple[float, Tensor]:
        """Return the temperature at a position, and that of every resample of the validation."""
        if tau not in self._fitted:
            log_p = torch.cat([_mixture(own) for own in self._predictions(tau, self._validation)])
            y = self._validation.y.cpu()
            temperature = optimal_temperature(log_p, y)[0]
            self._fitted[tau] = (
                temperature,
                _resampled_temperatures(log_p, y, temperature, self._weights),
            )
        return self._fitted[tau]

    def nll(
        self, tau: float, part: Split, resampling: Resampling
    ) -> tuple[float, Float[Tensor, " resample"]]:
        """Return the loss of a split at a position, and that of every resample.

        Args:
            tau: The position.
            part: The split.
            resampling: Of the draws and of the points of the split.
        """
        (temperature, temperatures), start, total = self._fit(tau), 0, 0.0
        resampled = torch.zeros(len(resampling.points), dtype=torch.float64)
        for log_p in self._predictions(tau, part):
            stop = start + log_p.shape[1]
            y = part.y[start:stop].cpu()
            total += float(_scaled_nll(_mixture(log_p), y, temperature).sum())
            resampled += _resampled_sum(
                log_p, y, temperatures, resampling.draws, resampling.points[:, start:stop]
            )
            start = stop
        return total / len(part), resampled

    def _predictions(self, tau: float, part: Split) -> Any:
        """Yield log probabilities (draw, point, class) of consecutive points."""
        weights = [1 - tau, tau]
        model = self._path.model(weights) or self._posterior.model
        draws = self._path.interpolate(weights)
        sample = SamplePosterior.from_draws(model, draws[None], self._posterior.scaling)
        for predictive in sample.iter_predict(part.x):
            yield draw_log_probabilities(predictive).cpu()


def is_bounded(temperature: float) -> bool:
    """Return whether a temperature is at an end of its range, so that it is not determined.

    Args:
        temperature: A fitted temperature.

    Example:
        >>> [is_bounded(temperature) for temperature in (0.01, 0.5, 100.0)]
        [True, False, True]
    """
    low, high = _INVERSE
    return not 1.01 / high < temperature < 1 / (1.01 * low)


def why_not_scaled(likelihood: Likelihood, validation: Split) -> str | None:
    """Return why no temperature can be fitted, or None if it can.

    Args:
        likelihood: Of the model.
        validation: Points of the fit.
    """
    if not is_classification(likelihood):
        return (
            "a temperature is fitted to class probabilities, and likelihood "
            f"{likelihood.name} has none"
        )
    if len(validation) == 0:
        return (
            "a temperature is fitted on the validation split, which has no points; fit with "
            "data.validation_fraction=0.1"
        )
    return None


def temperature_scaled_barrier(
    path: CoupledDraws | RepairedPath,
    posterior: Posterior,
    validation: Split,
    test: Split,
    train: Split,
    num_tau: int,
    seed: int,
) -> TemperatureScaledBarrier:
    """Return the barrier along a path after temperature scaling.

    Args:
        path: The path.
        posterior: Provides the model and the scaling.
        validation: Points that the temperatures are fitted on.
        test: Test split.
        train: Training split.
        num_tau: Number of even positions.
        seed: Seed of the bootstrap.

    Raises:
        ConfigError: If the target is not a class, or there are no validation points.
    """
    scaled = TemperatureScaledPath(path, posterior, validation, seed)
    num_draws = len(path.interpolate([1.0, 0.0]))

    def curve(part: Split) -> TemperatureScaledCurve:
        resampling = Resampling.of(num_draws, len(part), seed)
        values = trace(lambda tau: scaled.nll(tau, part, resampling), lambda own: own[0], num_tau)
        tau, nll = list(values), [own for own, _ in values.values()]
        heights, band = resampled_heights(
            tau, torch.stack([own for _, own in values.values()], dim=1)
        )
        ends = (nll[0] + nll[-1]) / 2
        return TemperatureScaledCurve(
            tau=tau,
            temperature=[scaled.temperature(t) for t in tau],
            marginal_nll=nll,
            band=band,
            height=max(above_chord(tau, nll)),
            standard_error=float(np.std(heights, ddof=1)),
            above_mean=max(nll) - ends,
            midpoint=values[0.5][0] - ends,
        )

    return TemperatureScaledBarrier(points=len(validation), test=curve(test), train=curve(train))


def _mixture(log_p: Tensor) -> Tensor:
    """Return the log probabilities of the mixture over draws, (point, class)."""
    return log_p.logsumexp(0) - math.log(len(log_p))


def _resampled_temperatures(
    log_p: Tensor, y: Tensor, temperature: float, weights: Tensor
) -> Tensor:
    """Return the temperature of every resample, by Newton's method in 1 / T from the optimum."""
    at_once = max(1, _NUMBERS // log_p.numel())
    target = log_p.gather(1, y[:, None])[:, 0]
    found = []
    for own in weights.split(at_once):
        inverse = torch.full((len(own),), 1 / temperature, dtype=torch.float64)
        for _ in range(_NEWTON):
            p = (inverse[:, None, None] * log_p).softmax(-1)
            mean = (p * log_p).sum(-1)
            variance = (p * log_p.square()).sum(-1) - mean.square()
            step = (own * (mean - target)).sum(1) / (own * variance).sum(1).clamp(min=1e-12)
            # The loss is nearly flat where all points are classified right: no long steps.
            inverse = (inverse - step).clamp(inverse / 2, 2 * inverse).clamp(*_INVERSE)
        found.append(1 / inverse)
    return torch.cat(found)


def _scaled_nll(log_p: Tensor, y: Tensor, temperature: float | Tensor) -> Tensor:
    """Return -log p_T(y) of every point; `log_p` is (*resample, point, class)."""
    scaled = (log_p / temperature).log_softmax(-1)
    return -scaled.gather(-1, y[:, None].expand(*scaled.shape[:-1], 1)).squeeze(-1)


def _resampled_sum(
    log_p: Tensor, y: Tensor, temperatures: Tensor, draws: Tensor, points: Tensor
) -> Tensor:
    """Return the weighted sum over points of the loss of every resample."""
    top = log_p.amax(0)
    likelihood = (log_p - top).exp().flatten(1)
    at_once = max(1, _NUMBERS // likelihood.shape[1])
    sums = []
    for start in range(0, len(draws), at_once):
        chosen = slice(start, start + at_once)
        mixed = (draws[chosen] @ likelihood).clamp(min=1e-300).log().view(-1, *top.shape) + top
        nll = _scaled_nll(mixed, y, temperatures[chosen, None, None])
        sums.append((points[chosen] * nll).sum(1))
    return torch.cat(sums)
