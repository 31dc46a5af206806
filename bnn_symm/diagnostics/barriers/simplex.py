"""Measure the loss over the simplex of three or more posteriors.

    B = max over a in the simplex of  L(sum_i a_i q_i) - sum_i a_i L(q_i),

where the sum is the Wasserstein combination of coupled draws (see `interpolation`). Strong linear
connectivity requires a low loss on the whole simplex.

References:
    Sharma et al. (2024), arXiv:2404.06498, section on strong linear connectivity.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnn_symm.arguments import checked
from bnn_symm.data import Split
from bnn_symm.diagnostics.barriers.interpolation import Coupling, couple, losses
from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import numpy_generator
from bnn_symm.summaries import Summarized

_POINTS = 2000
# Steps per side for three posteriors: 66 positions. For more posteriors, random positions are added
# to the corners, the midpoints and the centroid.
_STEPS = 10
_RANDOM_PLACES = 40


@dataclass(frozen=True, kw_only=True, repr=False)
class SimplexBarrier(Summarized):
    """Marginal test NLL over the simplex.

    Attributes:
        weights: (position, posterior), summing to 1; corners come first, then the centroid.
        marginal_nll: At each position, in nats per point.
        above: Marginal NLL above the plane through the corners.
        height: Maximum of `above`.
        centroid: Value of `above` at equal weights.
        path: Name of the interpolation.
    """

    weights: list[list[float]]
    marginal_nll: list[float]
    above: list[float]
    height: float
    centroid: float
    path: str

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return {"height": self.height, "centroid": self.centroid, "path": self.path}


@checked
def simplex_barrier(
    posteriors: Sequence[Posterior],
    part: Split,
    *,
    num_draws: int = 30,
    coupling: Coupling = "moment",
    seed: int = 0,
) -> SimplexBarrier:
    """Return the marginal NLL on a grid of the simplex of three or more posteriors.

    The posteriors are not aligned here: align them first to remove permutations.

    Args:
        posteriors: Posteriors in one parameter space.
        part: Split of the data that is predicted; at most 2,000 points are used.
        num_draws: Draws at every position, with the same noise.
        coupling: How draws of sample posteriors are paired.
        seed: Seed of draws and random positions.

    Returns:
        Losses over the simplex, and the height of the barrier.

    Example:
        >>> import torch
        >>> from bnn_symm import BayesianModel, Categorical, MeanFieldVI, Prior, load_dataset
        >>> data = load_dataset("iris")
        >>> model = BayesianModel(torch.nn.Linear(4, 3), Prior(), Categorical())
        >>> method = MeanFieldVI(num_steps=5)
        >>> posteriors = [method.fit(model, data, seed=seed) for seed in range(3)]
        >>> len(simplex_barrier(posteriors, data.test, num_draws=5).weights)
        67
    """
    number = len(posteriors)
    draws = couple(posteriors, num_draws=num_draws, coupling=coupling, seed=seed)
    part = part.take(slice(0, _POINTS))
    weights = _places(number, seed)
    nll = [
        losses(posteriors[0], draws.interpolate(place), part, draws.model(place)).marginal_nll
        for place in weights
    ]
    above = [
        value - float(np.dot(place, nll[:number]))
        for value, place in zip(nll, weights, strict=True)
    ]
    return SimplexBarrier(
        weights=weights,
        marginal_nll=nll,
        above=above,
        height=max(above),
        centroid=above[number],
        path=draws.path,
    )


def _places(number: int, seed: int) -> list[list[float]]:
    corners = np.eye(number)
    centroid = np.full((1, number), 1 / number)
    if number == 3:
        grid = [
            [i / _STEPS, j / _STEPS, (_STEPS - i - j) / _STEPS]
            for i, j in itertools.product(range(_STEPS + 1), repeat=2)
            if i + j <= _STEPS and max(i, j, _STEPS - i - j) < _STEPS
        ]
    else:
        middles = [
            (corners[i] + corners[j]) / 2 for i, j in itertools.combinations(range(number), 2)
        ]
        grid = [
            *middles,
            *numpy_generator(seed, "simplex").dirichlet(np.ones(number), _RANDOM_PLACES),
        ]
    return np.concatenate([corners, centroid, np.asarray(grid)]).tolist()
