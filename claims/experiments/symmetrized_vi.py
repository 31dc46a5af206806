"""Mean-field and symmetrized VI of networks of one hidden layer, with the exact mutual information.

The data are those of `benchmarks/symmetrized_vi_study.py`: y = sin(1.5 x) + noise at few points.
Settings are `N points, noise S, n units`; values of both trainings, `plain` and `symmetrized`:
`_elbo` of the posterior averaged over all n! permutations, `_mi` the mutual information between a
permutation and the weights, in nats, `_fit` the expected log likelihood; and `gain`, the difference
of the averaged ELBOs, `missing`, log(n!) less the mutual information of the plain training.
"""

import math
from pathlib import Path
from typing import Any

import torch

from benchmarks.symmetrized_vi_study import draw_data
from bnn_symm import BayesianModel, MeanFieldVI, MLPConfig, Prior, SymmetrizedVI, build_network
from bnn_symm.diagnostics.elbo.elbo import elbo
from bnn_symm.diagnostics.elbo.symmetrized_elbo import symmetrized_elbo
from bnn_symm.likelihoods import Gaussian
from bnn_symm.posteriors import GaussianPosterior
from bnn_symm.randomness import key_seed
from bnn_symm.threads import use_threads

REPLICATES = 6
SETTINGS = ((10, 0.5, 3), (10, 0.5, 5), (10, 1.0, 3), (20, 0.1, 3))
_STEPS = 1500


def measure(replicate: int, runs: Path) -> list[dict[str, Any]]:
    """Return the row of each setting.

    Args:
        replicate: number of the replicate, the seed of data and fits.
        runs: not used.

    Returns:
        The rows.
    """
    del runs
    with use_threads(1):
        return [_row(*setting, replicate) for setting in SETTINGS]


def _row(points: int, noise: float, units: int, seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {"setting": f"{points} points, noise {noise:g}, {units} units"}
    data = draw_data(points, noise, seed)
    for name, method in (("plain", MeanFieldVI), ("symmetrized", SymmetrizedVI)):
        network = build_network(MLPConfig(widths=(units,)), input_shape=(1,), num_outputs=1)
        model = BayesianModel(network.double(), Prior(), Gaussian(noise=noise))
        fit = method(num_steps=_STEPS, num_samples=8)
        start = model.initial(key_seed(seed, "initial value"))
        initial = GaussianPosterior(
            model, data.scaling, loc=start, scale=torch.full_like(start, fit.initial_scale)
        )
        posterior = fit.fit(model, data, seed=seed, initial=initial)
        assert isinstance(posterior, GaussianPosterior)
        plain = elbo(posterior, data.train, seed=seed)
        assert plain is not None
        found = symmetrized_elbo(posterior, plain, seed=seed)
        row |= {
            f"{name}_elbo": found.value,
            f"{name}_mi": found.mutual_information,
            f"{name}_fit": plain.expected_log_likelihood,
        }
    row["gain"] = row["symmetrized_elbo"] - row["plain_elbo"]
    row["missing"] = math.lgamma(units + 1) - row["plain_mi"]
    return row
