"""Three point solutions at a time on digits, by width, and everything that is said of them.

The network is an MLP with three hidden layers, layer norm and ReLU, fitted for 54 epochs with Adam.
A replicate has three fits of each width, with seeds of their own. Rows are settings `width 16`,
`width 64` and `width 256`; barriers are heights in test NLL above the chord, in nats per point, of
the first two fits unless the measure says otherwise:

- `naive`, `aligned`, `activations`: without alignment, by weights, by activations;
- `naive_calibrated`, `aligned_calibrated`: with a temperature of the logits at each point of the
  path, which minimizes the NLL of the validation split (Ito et al. 2025);
- `early_naive`, `early_aligned`: of the states after two epochs;
- `final_on_early_E`: of the states after E epochs, with the permutation of the last states;
  `early_E_on_final`: of the last states, with the permutation of epoch E (Sharma et al. 2024);
- `composed`: of the second and third fit, each aligned to the first; `direct`: to each other;
  `joint`: worst pair, all three aligned jointly; `centroid`, `centroid_naive`;
- `distance_reduction`: 1 - aligned / unaligned distance of the weights; `leading_before`,
  `leading_after`, `rest_before`, `rest_after`: mean squared cosines between the left singular
  vectors of both fits, of the leading tenth and of the others, over the hidden layers, and
  `leading_gain`, `rest_gain`, their increase by alignment (Ito et al. 2024);
- `merged_loss`, `own_loss`: test NLL of the mean of the three jointly aligned networks, and the
  mean of their own.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from bnn_symm import align, barrier, load_config, synchronize
from bnn_symm.alignment import merge
from bnn_symm.data import Dataset
from bnn_symm.diagnostics.barriers.simplex import simplex_barrier
from bnn_symm.posteriors import Posterior
from bnn_symm.runs import Run
from claims.fits import DIGITS_POINTS, fitted

REPLICATES = 5
WIDTHS = (16, 64, 256)
EPOCHS = (2, 5, 15, 30)
_OVERRIDES = (
    *DIGITS_POINTS,
    "inference.num_steps=1200",
)
_PLACES = np.linspace(0, 1, 11)


def measure(replicate: int, runs: Path) -> list[dict[str, Any]]:
    """Return the row of each width.

    Args:
        replicate: number of the replicate.
        runs: directory of the experiment.

    Returns:
        The rows.
    """
    return [
        {"setting": f"width {width}", **_measures(_three(width, replicate, runs), replicate)}
        for width in WIDTHS
    ]


def _three(width: int, replicate: int, runs: Path) -> list[Run]:
    keys = [f"architecture.widths=[{width},{width},{width}]", f"checkpoint.keep={list(EPOCHS)}"]
    return [
        fitted(load_config(None, [*_OVERRIDES, *keys, f"seed={3 * replicate + i}"]), runs)
        for i in range(3)
    ]


def _measures(three: list[Run], seed: int) -> dict[str, float]:
    data = three[0].dataset()
    ends = [run.posterior for run in three]
    first, second, third = ends
    direct = align(first, second, seed=seed)
    moved, third_moved = direct.apply(second), align(first, third, seed=seed).apply(third)
    between = align(second, third, seed=seed).apply(third)
    together = synchronize(ends, seed=seed).apply(ends)
    by_activations = align(first, second, matching="activations", part=data.train, seed=seed)
    found = {
        "naive": _height(first, second, data),
        "aligned": _height(first, moved, data),
        "activations": _height(first, by_activations.apply(second), data),
        "naive_calibrated": _calibrated_height(first, second, data),
        "aligned_calibrated": _calibrated_height(first, moved, data),
        "composed": _height(moved, third_moved, data),
        "direct": _height(second, between, data),
        "joint": max(_height(together[i], together[j], data) for i, j in ((0, 1), (0, 2), (1, 2))),
        "centroid_naive": simplex_barrier(ends, data.test, seed=seed).centroid,
        "centroid": simplex_barrier(together, data.test, seed=seed).centroid,
        "merged_loss": _loss(merge(together), data),
        "own_loss": float(np.mean([_loss(own, data) for own in ends])),
        "distance_reduction": 1 - (direct.distance_after / direct.distance_before) ** 0.5,
        **_singular(first, second, "before"),
        **_singular(first, moved, "after"),
    }
    for part in ("leading", "rest"):
        found[f"{part}_gain"] = found[f"{part}_after"] - found[f"{part}_before"]
    states = [list(run.checkpoints().values()) for run in three[:2]]
    for epoch, own, other in zip(EPOCHS, *states, strict=True):
        early = align(own, other, seed=seed)
        if epoch == EPOCHS[0]:
            found["early_naive"] = _height(own, other, data)
            found["early_aligned"] = _height(own, early.apply(other), data)
        found[f"final_on_early_{epoch}"] = _height(own, direct.apply(other), data)
        found[f"early_{epoch}_on_final"] = _height(first, early.apply(second), data)
    return found


def _height(first: Posterior, second: Posterior, data: Dataset) -> float:
    return barrier(first, second, data, num_draws=1).height


def _loss(posterior: Posterior, data: Dataset) -> float:
    return _nll(_logits(posterior, posterior.mean(), data.test.x), data.test.y, 1.0)


def _logits(posterior: Posterior, flat: Tensor, x: Tensor) -> Tensor:
    with torch.no_grad():
        return posterior.model.outputs(flat, x)


def _nll(logits: Tensor, y: Tensor, temperature: float) -> float:
    return float(torch.nn.functional.cross_entropy(logits.double() / temperature, y))


def _calibrated_height(first: Posterior, second: Posterior, data: Dataset) -> float:
    """Return the height of the barrier with the best temperature at each point of the path."""
    losses = []
    for tau in _PLACES:
        flat = (1 - tau) * first.mean() + tau * second.mean()
        validation, test = (_logits(first, flat, own.x) for own in (data.validation, data.test))
        best: Any = minimize_scalar(
            lambda log, logits=validation: _nll(logits, data.validation.y, float(np.exp(log))),
            bounds=(-4, 4),
            method="bounded",
        )
        losses.append(_nll(test, data.test.y, float(np.exp(best.x))))
    return float(np.max(losses - (1 - _PLACES) * losses[0] - _PLACES * losses[-1]))


def _singular(first: Posterior, second: Posterior, when: str) -> dict[str, float]:
    """Return mean squared cosines of left singular vectors, of the leading tenth and the rest.

    Of a subspace with orthonormal columns U and another with V, both of k columns, the mean squared
    cosine is |U' V|^2 / k: 1 for equal subspaces, and k / n on average for random ones in n
    dimensions.
    """
    leading, rest = [], []
    own, other = (p.model.unflatten(p.mean()) for p in (first, second))
    for name, weight in own.items():
        if weight.ndim != 2 or name.startswith("head"):
            continue
        u, v = (torch.linalg.svd(w.double(), full_matrices=False).U for w in (weight, other[name]))
        k = max(1, u.shape[1] // 10)
        for cosines, part in ((leading, slice(0, k)), (rest, slice(k, None))):
            product = u[:, part].T @ v[:, part]
            cosines.append(float(product.square().sum() / product.shape[0]))
    return {
        f"leading_{when}": float(np.mean(leading)),
        f"rest_{when}": float(np.mean(rest)),
    }
