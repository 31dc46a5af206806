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

from dataclasses import dataclass
from typing import Any, Literal

from bnn_symm.arguments import checked
from bnn_symm.data import Dataset
from bnn_symm.diagnostics.barriers.bezier_curves import fit_bezier_curve
from bnn_symm.diagnostics.barriers.curves import BarrierCurve, barrier_curve
from bnn_symm.diagnostics.barriers.interpolation import Coupling, couple, couple_means, losses
from bnn_symm.diagnostics.barriers.layerwise import LayerBarrier, layer_barriers
from bnn_symm.diagnostics.barriers.repair import RepairedPath
from bnn_symm.diagnostics.barriers.temperature_scaled import (
    TemperatureScaledBarrier,
    temperature_scaled_barrier,
)
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import Posterior
from bnn_symm.summaries import Summarized, plain

Path = Literal["geodesic", "line", "bezier"]

# Maximum number of points of each part. The training split is in random order, so its first points
# are a sample.
POINTS = 2000


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
        temperature_scaled: Losses with a temperature that is fitted at every point, if they were
            requested.
        layers: Barriers of single layers on the test split, if they were requested.
    """

    path: str
    num_draws: int
    test: BarrierCurve
    train: BarrierCurve
    end_nll: float
    repaired: RepairedBarrier | None = None
    temperature_scaled: TemperatureScaledBarrier | None = None
    layers: list[LayerBarrier] | None = None

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

    @property
    def confidence(self) -> float | None:
        """Return the height minus that after temperature scaling, if it was measured."""
        scaled = self.temperature_scaled
        return None if scaled is None else self.height - scaled.test.height


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
    temperature_scaling: bool = False,
    layers: bool = False,
    seed: int = 0,
) -> Barrier:
    """Return the marginalized loss barrier between two posteriors.

    The posteriors are not aligned here: align them first to remove permutations.

    Args:
        first: Posterior at tau = 0.
        second: Posterior at tau = 1, in the same parameter space.
        dataset: Its test and training splits are predicted.
        num_draws: Draws at each tau. The marginal NLL is biased upwards by O(1 / num_draws), more
            where predictions differ more between draws. A permuted posterior gives other draws from
            the same noise, so its loss at tau = 1 is that of the unpermuted one up to Monte Carlo
            error.
        num_tau: Evenly spaced positions; up to six more are added around the maximum.
        path: `geodesic`: between the full posteriors (see `interpolation`); `line`: between their
            means, as points; `bezier`: the geodesic bent to the curve with the lowest training loss
            (see `bezier_curves`).
        coupling: How draws of sample posteriors are paired.
        curve_steps: Adam steps for a learned curve.
        repair: Whether to measure a second time with statistics that are reset on the training
            split at every point of the path (see `repair`).
        temperature_scaling: Whether to measure a second time with a temperature of the class
            probabilities that is fitted on the validation split at every point of the path (see
            `temperature_scaled`).
        layers: Whether to measure the barrier of one layer at a time too (see `layerwise`).
        seed: Seed of the draws, and of a learned curve.

    Returns:
        Losses along the path, and the height of the barrier.

    Raises:
        IncompatiblePosteriors: If the parameters or the fixed weights differ.
        ConfigError: If there are fewer than two positions, a part has no points, or an option does
            not apply to the path or to the target.

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
    repaired = scaled = None
    if repair:
        if path == "bezier":
            raise ConfigError("repair is for straight paths; use path='geodesic' or path='line'")
        reset = RepairedPath(pairs, first.model, train.x)
        repaired = RepairedBarrier(
            test=barrier_curve(reset, first, test, num_tau, seed),
            train=barrier_curve(reset, first, train, num_tau, seed),
        )
    if temperature_scaling:
        validation = dataset.validation.take(slice(0, POINTS))
        scaled = temperature_scaled_barrier(pairs, first, validation, test, train, num_tau, seed)
    return Barrier(
        path=pairs.path,
        num_draws=len(pairs.draws[0]),
        test=barrier_curve(pairs, first, test, num_tau, seed),
        train=barrier_curve(pairs, first, train, num_tau, seed),
        end_nll=losses(second, second_draws, test).marginal_nll,
        repaired=repaired,
        temperature_scaled=scaled,
        layers=layer_barriers(pairs, first, test, num_tau, seed) if layers else None,
    )
