"""Orders of symmetry groups, and planted permutations: nothing is fitted.

- Settings `weight_asymmetric, kappa=0`, `weight_asymmetric`, `sigma_asymmetric` and `standard`:
  `log10_order` of the group of an MLP with three hidden layers of 64, whose masks and fixed values
  differ between replicates, and `excess`, the same above the sum of log10(width!).
- Settings `planted` and `planted, noise`: a random element of the group of an MLP 64-64-64 is
  applied to a network with standard initial values, with noise of half the standard deviation of
  the weights in the second; `recovered` is 1 if alignment by weights finds it exactly.
"""

import math
from pathlib import Path
from typing import Any

import torch

from bnn_symm import BayesianModel, MLPConfig, Prior, SymmetryConfig, align, build_network
from bnn_symm.likelihoods import Categorical
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.symmetry import SymmetryGroup, symmetry_group

REPLICATES = 10
_WIDTHS = (64, 64, 64)
_KINDS: dict[str, dict[str, Any]] = {
    "standard": {},
    "weight_asymmetric": {"kind": "weight_asymmetric"},
    "weight_asymmetric, kappa=0": {"kind": "weight_asymmetric", "kappa": 0.0},
    "sigma_asymmetric": {"kind": "sigma_asymmetric"},
}


def measure(replicate: int, runs: Path) -> list[dict[str, Any]]:
    """Return the rows of a replicate.

    Args:
        replicate: number of the replicate.
        runs: not used.

    Returns:
        The rows.
    """
    del runs
    whole = sum(math.lgamma(width + 1) / math.log(10) for width in _WIDTHS)
    rows: list[dict[str, Any]] = []
    for setting, keys in _KINDS.items():
        symmetry = SymmetryConfig(**keys, seed=replicate)
        order = symmetry_group(_network(symmetry, replicate)).log10_order
        rows.append({"setting": setting, "log10_order": order, "excess": order - whole})
    for setting, noise in (("planted", 0.0), ("planted, noise", 0.5)):
        found = recovered(_network(SymmetryConfig(), replicate), replicate, noise)
        rows.append({"setting": setting, "recovered": found})
    return rows


def _network(symmetry: SymmetryConfig, seed: int) -> torch.nn.Module:
    config = MLPConfig(widths=_WIDTHS, activation="gelu", norm="layer", symmetry=symmetry)
    return build_network(config, input_shape=(64,), num_outputs=10, seed=seed)


def recovered(net: torch.nn.Module, seed: int, noise: float = 0.0) -> float:
    """Return 1 if a random permutation of a network's initial values is found exactly, else 0.

    Args:
        net: the network.
        seed: of the values, and as for `is_recovered`.
        noise: as for `is_recovered`.
    """
    model = BayesianModel(net, Prior(), Categorical())
    return float(is_recovered(model, model.initial(seed), symmetry_group(net), seed, noise))


def is_recovered(
    model: BayesianModel, flat: torch.Tensor, group: SymmetryGroup, seed: int, noise: float = 0.0
) -> bool:
    """Return whether alignment by weights finds a random element of a group exactly.

    Args:
        model: the model.
        flat: (parameter,), the values that are permuted.
        group: of the network.
        seed: of the element, of the noise and of the alignment.
        noise: its standard deviation over that of the weights.
    """
    planted = group.random("planted", seed)
    moved = model.permute(flat, planted)
    moved = moved + noise * moved.std() * torch.randn(
        moved.shape, generator=torch.Generator().manual_seed(seed + 1)
    )
    first, second = (
        SamplePosterior.from_draws(model, value[None, None]) for value in (flat, moved)
    )
    found = align(first, second, group=group, seed=seed).permutation
    whole = found.compose(planted).fixed_points()
    return all(whole[name] == units.size for name, units in found.spec.groups.items())
