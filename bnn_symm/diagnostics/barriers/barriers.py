"""Marginalized loss barriers: how much worse predictions are between two posteriors than at both.

    B(q0, q1) = max over tau of  L(q_tau) - [(1 - tau) L(q0) + tau L(q1)]
    L(q)      = -(1/N) sum_n log E_q[p(y_n | x_n, w)]

The loss is that of the *marginal* prediction (the mean over draws, inside the logarithm), the path
a Wasserstein geodesic (see `interpolation`), unless it is the line between means or a learned curve
(`curves`). Papers differ in the
convention: height is against the chord (Sharma et al.) or against the mean of the end points
    (Ainsworth et al., Lim et
al.), at its maximum or at the midpoint (Lim et al.); all four are in the result. The path of
mixtures is computed as a
check: by convexity of -log its barrier is never positive.

References:
    Rossi, Singh and Hannagan (2023), arXiv:2310.10171; Sharma et al. (2024), arXiv:2404.06498; Lim
    et al. (2024), arXiv:2405.20231; Ainsworth et al. (2023), arXiv:2209.04836.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bnn_symm.data import Dataset, Part
from bnn_symm.diagnostics.barriers.bezier_curves import bent
from bnn_symm.diagnostics.barriers.interpolation import (
    CoupledDraws,
    Coupling,
    Losses,
    couple,
    losses,
    means,
)
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import numpy_generator

Path = Literal["geodesic", "line", "bezier"]

# Of each part, at most so many points; the order of the training part is random, so the first ones
# are a sample.
POINTS = 2000
_BOOTSTRAP = 400


@dataclass(frozen=True, kw_only=True)
class BarrierCurve:
    """Losses along the path, on one part of the data.

    Attributes:
        tau: positions, ascending, 0 and 1 included.
        marginal_nll: in nats a point.
        expected_nll: in nats a point.
        error: error rate, or root mean squared error.
        ece: expected calibration error; empty for regression.
        mixture_nll: marginal NLL of the mixture (1 - tau) q0 + tau q1.
        band: standard error of `marginal_nll` above the chord, at each tau.
        height: of the marginal NLL above the chord, at its maximum.
        standard_error: of `height`, by bootstrap over draws and points; conditional on the two
            fits, so never an interval over seeds.
        above_mean: the maximum of the marginal NLL above the mean of the end points.
        midpoint: the marginal NLL at tau = 1/2 above the mean of the end points, which is the chord
            there.
        expected_height: of the expected NLL above the chord.
        error_height: of `error` above the chord.
        mixture_height: of `mixture_nll` above the chord; not positive, by convexity.
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


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """The barrier between two posteriors.

    Attributes:
        path: which one (see `interpolation`).
        num_draws: at every tau, with the same noise at each.
        test: on the test part.
        train: on the training part.
        end_nll: marginal test NLL of the second posterior itself. The moment map ends at the first
            one moved to the second's moments, which predicts otherwise where the two have other
            shapes.
    """

    path: str
    num_draws: int
    test: BarrierCurve
    train: BarrierCurve
    end_nll: float

    @property
    def height(self) -> float:
        """On the test part: marginal NLL, maximum over tau, against the chord, in nats a point."""
        return self.test.height

    @property
    def standard_error(self) -> float:
        """Of `height`, given these two fits."""
        return self.test.standard_error


def barrier(
    first: Posterior,
    second: Posterior,
    dataset: Dataset,
    *,
    num_draws: int = 50,
    num_tau: int = 11,
    path: Path = "geodesic",
    coupling: Coupling = "moment",
    curve_steps: int = 500,
    seed: int = 0,
) -> Barrier:
    """The marginalized loss barrier between two posteriors, as they are: align them first to remove
    permutations.

    Args:
        first: at tau = 0.
        second: at tau = 1, in the same parameter space.
        dataset: its test and training parts are predicted.
        num_draws: at each tau; the marginal NLL is biased upwards by O(1 / num_draws), alike at all
            tau.
        num_tau: evenly spaced positions; up to six more are put around the maximum.
        path: `geodesic`: of the posteriors whole (see `interpolation`); `line`: between their
            means, as points; `bezier`: the geodesic bent to the curve that is best on the training
            part (see `curves`).
        coupling: of sample posteriors.
        curve_steps: of Adam, where a curve is learned.
        seed: of the draws, and of what finds a curve.

    Raises:
        IncompatiblePosteriors: if the parameters, or what is fixed of them, differ.
        ConfigError: for fewer than two positions, or a part without points.
    """
    if num_tau < 2:
        raise ConfigError(f"num_tau={num_tau}: wanted both ends, and so 2 positions or more")
    for name, part in (("test", dataset.test), ("training", dataset.train)):
        if len(part) == 0:
            raise ConfigError(
                f"the {name} part has no points to measure a barrier on; raise "
                f"data.{name[:4]}_fraction"
            )
    if path == "line":
        pairs = means([first, second])
        own = pairs.draws[1]
    else:
        pairs = couple([first, second], num_draws=num_draws, coupling=coupling, seed=seed)
        own = second.draws(len(pairs.draws[0]), seed=seed)
    if path == "bezier":
        pairs = bent(pairs, first.model, dataset, num_steps=curve_steps, seed=seed)
    test, train = (part.take(slice(0, POINTS)) for part in (dataset.test, dataset.train))
    return Barrier(
        path=pairs.path,
        num_draws=len(pairs.draws[0]),
        test=_curve(pairs, first, test, num_tau, seed),
        train=_curve(pairs, first, train, num_tau, seed),
        end_nll=losses(second, own, test).marginal_nll,
    )


def _curve(
    pairs: CoupledDraws, posterior: Posterior, part: Part, num_tau: int, seed: int
) -> BarrierCurve:
    found: dict[float, Losses] = {}

    def visit(tau: float) -> None:
        if tau not in found:
            found[tau] = losses(posterior, pairs.at([1 - tau, tau]), part)

    for tau in np.linspace(0, 1, num_tau):
        visit(round(float(tau), 10))
    visit(0.5)
    for _ in range(3):  # halves the steps on both sides of the maximum
        positions = sorted(found)
        top = int(np.argmax(_above(positions, [found[tau].marginal_nll for tau in positions])))
        around = [positions[i] for i in (top - 1, top, top + 1) if 0 <= i < len(positions)]
        for left, right in pairwise(around):
            visit((left + right) / 2)
    tau = sorted(found)
    own = [found[t] for t in tau]
    marginal, expected, error = (
        [getattr(o, name) for o in own] for name in ("marginal_nll", "expected_nll", "error")
    )
    mixture = [_mixture_nll(own[0], own[-1], t) for t in tau]
    heights, band = _bootstrap(tau, own, seed)
    ends = (marginal[0] + marginal[-1]) / 2
    return BarrierCurve(
        tau=tau,
        marginal_nll=marginal,
        expected_nll=expected,
        error=error,
        ece=[o.ece for o in own if o.ece is not None],
        mixture_nll=mixture,
        band=band,
        height=max(_above(tau, marginal)),
        standard_error=float(np.std(heights, ddof=1)),
        above_mean=max(marginal) - ends,
        midpoint=found[0.5].marginal_nll - ends,
        expected_height=max(_above(tau, expected)),
        error_height=max(_above(tau, error)),
        mixture_height=max(_above(tau, mixture)),
    )


def _above(tau: Sequence[float], values: Sequence[float]) -> list[float]:
    """Height above the chord, at every tau; 0 at both ends."""
    first, last = values[0], values[-1]
    return [value - (1 - t) * first - t * last for t, value in zip(tau, values, strict=True)]


def _mixture_nll(first: Losses, second: Losses, tau: float) -> float:
    marginal = [
        own.log_likelihood.logsumexp(0) - math.log(len(own.log_likelihood))
        for own in (first, second)
    ]
    if tau in (0.0, 1.0):
        return float(-marginal[int(tau)].mean())
    mixed = torch.logaddexp(marginal[0] + math.log1p(-tau), marginal[1] + math.log(tau))
    return float(-mixed.mean())


def _bootstrap(
    tau: Sequence[float], found: Sequence[Losses], seed: int
) -> tuple[np.ndarray, list[float]]:
    """Heights over resampled draws and points, and the standard error above the chord at each tau.

    Draws are coupled across tau, so one resample of them serves the whole curve.
    """
    draws, points = found[0].log_likelihood.shape
    generator = numpy_generator(seed, "bootstrap of a barrier")
    of_draws = _weights(generator, draws)
    of_points = _weights(generator, points)
    curves = torch.stack(
        [_resampled(own.log_likelihood, of_draws, of_points) for own in found], dim=1
    ).numpy()
    position = np.asarray(tau)
    above = curves - (1 - position) * curves[:, :1] - position * curves[:, -1:]
    return above.max(1), np.std(above, axis=0, ddof=1).tolist()


def _weights(generator: np.random.Generator, number: int) -> Tensor:
    """(resample, item), how often each item is drawn, over the number of items; each item once if
    there is one only.
    """
    return torch.from_numpy(
        generator.multinomial(number, np.full(number, 1 / number), size=_BOOTSTRAP) / number
    )


def _resampled(log_likelihood: Tensor, of_draws: Tensor, of_points: Tensor) -> Tensor:
    """Marginal NLL of every resample, by products of weights and likelihoods."""
    top = log_likelihood.amax(0)
    marginal = (of_draws @ (log_likelihood - top).exp()).clamp(min=1e-300).log() + top
    return -(of_points * marginal).sum(1)
