"""Measure marginalized loss barriers: the excess loss between two posteriors.

    B(q0, q1) = max over tau of  L(q_tau) - [(1 - tau) L(q0) + tau L(q1)]
    L(q)      = -(1/N) sum_n log E_q[p(y_n | x_n, w)]

The loss is that of the *marginal* prediction (the mean over draws, inside the logarithm). The path
is a Wasserstein geodesic (see `interpolation`), unless it is the line between means or a learned
curve (`bezier_curves`). Papers differ in the convention: the height is measured against the chord
(Sharma et al.) or against the mean of the end points (Ainsworth et al., Lim et al.), at its maximum
or at the midpoint (Lim et al.); the result contains all four. The path of mixtures is computed as a
check: by convexity of -log its barrier is never positive.

References:
    Rossi, Singh and Hannagan (2023), arXiv:2310.10171; Sharma et al. (2024), arXiv:2404.06498; Lim
    et al. (2024), arXiv:2405.20231; Ainsworth et al. (2023), arXiv:2209.04836.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bnn_symm.arguments import checked
from bnn_symm.data import Dataset, Split
from bnn_symm.diagnostics.barriers.bezier_curves import fit_bezier_curve
from bnn_symm.diagnostics.barriers.interpolation import (
    CoupledDraws,
    Coupling,
    Losses,
    couple,
    couple_means,
    losses,
)
from bnn_symm.diagnostics.barriers.repair import RepairedPath
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import numpy_generator
from bnn_symm.summaries import Summarized, plain

Path = Literal["geodesic", "line", "bezier"]

# Maximum number of points of each part. The training split is in random order, so its first points
# are a sample.
POINTS = 2000
_BOOTSTRAP = 400


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


@dataclass(frozen=True, kw_only=True)
class RepairedBarrier:
    """The barrier along a path whose statistics are reset at every point (`repair`).

    Attributes:
        test: Losses on the test split.
        train: Losses on the training split.
    """

    test: BarrierCurve
    train: BarrierCurve

    def to_dict(self) -> dict[str, Any]:
        """Return the heights and the curves as JSON types."""
        return {
            "height": self.test.height,
            "standard_error": self.test.standard_error,
            "test": plain(self.test),
            "train": plain(self.train),
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class Barrier(Summarized):
    """The loss barrier between two posteriors.

    Attributes:
        path: Name of the path (see `interpolation`).
        num_draws: Draws at every tau, with the same noise at each.
        test: Losses on the test split.
        train: Losses on the training split.
        end_nll: Marginal test NLL of the second posterior itself. The moment map ends at the first
            posterior shifted and scaled to the second's moments, whose predictions differ if the
            two distributions differ in shape.
        repaired: Losses with statistics that are reset at every point, if they were requested.
    """

    path: str
    num_draws: int
    test: BarrierCurve
    train: BarrierCurve
    end_nll: float
    repaired: RepairedBarrier | None = None

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return {
            "height": self.height,
            "standard_error": self.standard_error,
            "path": self.path,
            "num_draws": self.num_draws,
        }

    @property
    def height(self) -> float:
        """Return the maximum of the marginal test NLL above the chord, in nats per point."""
        return self.test.height

    @property
    def standard_error(self) -> float:
        """Return the standard error of `height`, conditional on the two fits."""
        return self.test.standard_error


@checked
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
    repair: bool = False,
    seed: int = 0,
) -> Barrier:
    """Return the marginalized loss barrier between two posteriors.

    The posteriors are not aligned here: align them first to remove permutations.

    Args:
        first: Posterior at tau = 0.
        second: Posterior at tau = 1, in the same parameter space.
        dataset: Its test and training splits are predicted.
        num_draws: Draws at each tau; the marginal NLL is biased upwards by O(1 / num_draws),
            equally at all tau.
        num_tau: Evenly spaced positions; up to six more are added around the maximum.
        path: `geodesic`: between the full posteriors (see `interpolation`); `line`: between their
            means, as points; `bezier`: the geodesic bent to the curve with the lowest training loss
            (see `bezier_curves`).
        coupling: How draws of sample posteriors are paired.
        curve_steps: Adam steps for a learned curve.
        repair: Whether to measure a second time with statistics that are reset on the training
            split at every point of the path (see `repair`).
        seed: Seed of the draws, and of a learned curve.

    Returns:
        Losses along the path, and the height of the barrier.

    Raises:
        IncompatiblePosteriors: If the parameters or the fixed weights differ.
        ConfigError: If there are fewer than two positions, or a part has no points.

    Example:
        >>> import torch
        >>> from bnn_symm import BayesianModel, Categorical, MeanFieldVI, Prior, load_dataset
        >>> data = load_dataset("iris")
        >>> model = BayesianModel(torch.nn.Linear(4, 3), Prior(), Categorical())
        >>> method = MeanFieldVI(num_steps=5)
        >>> first, second = (method.fit(model, data, seed=seed) for seed in (0, 1))
        >>> barrier(first, second, data, num_draws=5, num_tau=3).path
        'wasserstein'
    """
    if num_tau < 2:
        raise ConfigError(f"num_tau={num_tau} is too small; use 2 positions or more")
    for name, part in (("test", dataset.test), ("training", dataset.train)):
        if len(part) == 0:
            raise ConfigError(
                f"the {name} part has no points, so no barrier can be measured; change "
                "data.test_fraction"
            )
    if path == "line":
        pairs = couple_means([first, second])
        second_draws = pairs.draws[1]
    else:
        pairs = couple([first, second], num_draws=num_draws, coupling=coupling, seed=seed)
        second_draws = second.draws(len(pairs.draws[0]), seed=seed)
    if path == "bezier":
        if pairs.models:
            raise ConfigError(
                "a curve is learned for one network, and the statistics of frozen batch norm "
                "differ between these; use path='geodesic'"
            )
        pairs = fit_bezier_curve(pairs, first.model, dataset, num_steps=curve_steps, seed=seed)
    test, train = (part.take(slice(0, POINTS)) for part in (dataset.test, dataset.train))
    repaired = None
    if repair:
        if path == "bezier":
            raise ConfigError("repair is for straight paths; use path='geodesic' or path='line'")
        reset = RepairedPath(pairs, first.model, train.x)
        repaired = RepairedBarrier(
            test=_curve(reset, first, test, num_tau, seed),
            train=_curve(reset, first, train, num_tau, seed),
        )
    return Barrier(
        path=pairs.path,
        num_draws=len(pairs.draws[0]),
        test=_curve(pairs, first, test, num_tau, seed),
        train=_curve(pairs, first, train, num_tau, seed),
        end_nll=losses(second, second_draws, test).marginal_nll,
        repaired=repaired,
    )


def _curve(
    pairs: CoupledDraws | RepairedPath, posterior: Posterior, part: Split, num_tau: int, seed: int
) -> BarrierCurve:
    losses_at: dict[float, Losses] = {}

    def evaluate(tau: float) -> None:
        if tau not in losses_at:
            weights = [1 - tau, tau]
            losses_at[tau] = losses(
                posterior, pairs.interpolate(weights), part, pairs.model(weights)
            )

    for tau in np.linspace(0, 1, num_tau):
        evaluate(round(float(tau), 10))
    evaluate(0.5)
    for _ in range(3):  # halve the steps on both sides of the maximum
        positions = sorted(losses_at)
        top = int(np.argmax(_above(positions, [losses_at[tau].marginal_nll for tau in positions])))
        around = [positions[i] for i in (top - 1, top, top + 1) if 0 <= i < len(positions)]
        for left, right in pairwise(around):
            evaluate((left + right) / 2)
    tau = sorted(losses_at)
    path_losses = [losses_at[t] for t in tau]
    marginal, expected, error = (
        [getattr(losses, name) for losses in path_losses]
        for name in ("marginal_nll", "expected_nll", "error")
    )
    mixture = [_mixture_nll(path_losses[0], path_losses[-1], t) for t in tau]
    heights, band = _bootstrap(tau, path_losses, seed)
    ends = (marginal[0] + marginal[-1]) / 2
    return BarrierCurve(
        tau=tau,
        marginal_nll=marginal,
        expected_nll=expected,
        error=error,
        ece=[losses.ece for losses in path_losses if losses.ece is not None],
        mixture_nll=mixture,
        band=band,
        height=max(_above(tau, marginal)),
        standard_error=float(np.std(heights, ddof=1)),
        above_mean=max(marginal) - ends,
        midpoint=losses_at[0.5].marginal_nll - ends,
        expected_height=max(_above(tau, expected)),
        error_height=max(_above(tau, error)),
        mixture_height=max(_above(tau, mixture)),
    )


def _above(tau: Sequence[float], values: Sequence[float]) -> list[float]:
    """Return the height above the chord at every tau; 0 at both ends."""
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
    tau: Sequence[float], path_losses: Sequence[Losses], seed: int
) -> tuple[np.ndarray, list[float]]:
    """Return bootstrap heights, and the standard error above the chord at each tau.

    Draws and points are resampled. Draws are coupled across tau, so one resample serves the whole
    curve.
    """
    draws, points = path_losses[0].log_likelihood.shape
    generator = numpy_generator(seed, "bootstrap of a barrier")
    draw_weights = _bootstrap_weights(generator, draws)
    point_weights = _bootstrap_weights(generator, points)
    curves = torch.stack(
        [_resampled_nll(p.log_likelihood, draw_weights, point_weights) for p in path_losses], dim=1
    ).numpy()
    position = np.asarray(tau)
    above = curves - (1 - position) * curves[:, :1] - position * curves[:, -1:]
    return above.max(1), np.std(above, axis=0, ddof=1).tolist()


def _bootstrap_weights(generator: np.random.Generator, number: int) -> Tensor:
    """Return (resample, item): the relative frequency of each item in each bootstrap resample."""
    return torch.from_numpy(
        generator.multinomial(number, np.full(number, 1 / number), size=_BOOTSTRAP) / number
    )


def _resampled_nll(log_likelihood: Tensor, draw_weights: Tensor, point_weights: Tensor) -> Tensor:
    """Return the marginal NLL of every resample, by products of weights and likelihoods."""
    top = log_likelihood.amax(0)
    marginal = (draw_weights @ (log_likelihood - top).exp()).clamp(min=1e-300).log() + top
    return -(point_weights * marginal).sum(1)
