"""Symmetry groups and planted permutations of the networks of the papers, at their own size.

Nothing is fitted. Networks are

- `MLP`: 784-512-512-512-10, layer norm, GELU, with 64, 64, 64 and 256 fixed entries per row of size
  1, 1, 1/2 and 1/4 (Lim et al. 2024; Ainsworth et al. 2023 have the same widths);
- `ResNet-20`: for CIFAR-10, layer norm, with the masks of Lim et al.;
- `deep MLP 8` and `deep MLP 16`: their Bayesian MLPs of as many layers, of width 256, with 8 fixed
  entries per row of size 1/2.

Settings are `MLP, weight_asymmetric` and so on. `removed` is the share of log10 of the group's
order that a kind of symmetry removes: 1 if no permutation is left. Masks, fixed values and gates
differ between replicates. `recovered` is 1 if alignment by weights finds a planted permutation.
"""

from pathlib import Path
from typing import Any

from bnn_symm import MLPConfig, SymmetryConfig, build_network
from bnn_symm.architectures import ResNetConfig
from bnn_symm.symmetry import symmetry_group
from claims.experiments.groups import recovered

REPLICATES = 3
_MASKS: dict[str, dict[str, Any]] = {
    "MLP": {"fixed_per_row": (64, 64, 64, 256), "kappa": (1.0, 1.0, 0.5, 0.25)},
    "ResNet-20": {},
    "deep MLP 8": {"fixed_per_row": 8, "kappa": 0.5},
    "deep MLP 16": {"fixed_per_row": 8, "kappa": 0.5},
}
_PLANTED = ("MLP", "ResNet-20")


def measure(replicate: int, runs: Path) -> list[dict[str, Any]]:
    """Return the rows of a replicate.

    Args:
        replicate: number of the replicate.
        runs: not used.

    Returns:
        The rows.
    """
    del runs
    rows: list[dict[str, Any]] = []
    for name, masks in _MASKS.items():
        kinds = {
            "weight_asymmetric": {"kind": "weight_asymmetric", **masks},
            "weight_asymmetric, kappa=0": {"kind": "weight_asymmetric", **masks, "kappa": 0.0},
            "init_matched": {"kind": "init_matched", **masks},
            "sigma_asymmetric": {"kind": "sigma_asymmetric"},
        }
        whole = _log10_order(name, SymmetryConfig(), replicate)
        for kind, keys in kinds.items():
            order = _log10_order(name, SymmetryConfig(**keys, seed=replicate), replicate)
            rows.append({"setting": f"{name}, {kind}", "removed": 1 - order / whole})
        if name in _PLANTED:
            found = recovered(_network(name, SymmetryConfig(), replicate), replicate)
            rows.append({"setting": name, "recovered": found})
    return rows


def _log10_order(name: str, symmetry: SymmetryConfig, seed: int) -> float:
    return symmetry_group(_network(name, symmetry, seed)).log10_order


def _network(name: str, symmetry: SymmetryConfig, seed: int) -> Any:
    if name == "ResNet-20":
        config = ResNetConfig(depth=20, norm="layer", symmetry=symmetry)
        return build_network(config, input_shape=(3, 32, 32), num_outputs=10, seed=seed)
    if name == "MLP":
        config = MLPConfig(
            widths=(512, 512, 512), activation="gelu", norm="layer", symmetry=symmetry
        )
    else:
        layers = int(name.removeprefix("deep MLP "))
        config = MLPConfig(widths=(256,) * (layers - 1), norm="layer", symmetry=symmetry)
    return build_network(config, input_shape=(784,), num_outputs=10, seed=seed)
