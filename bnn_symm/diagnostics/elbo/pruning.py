"""Find hidden units that a mean-field posterior does not use.

Variational inference prunes: giving up a unit that contributes little to the likelihood saves its
KL (Trippe and Turner 2018), and in the limit of wide networks nearly all units are given up (Coker
et al. 2022). There are two signs:

- *reverted*: the free incoming and outgoing weights of the unit are at the prior. Their KL is below
  0.01 nats per weight on average; under a normal prior this corresponds to a standard deviation
  10 % below the prior's, or a mean 0.14 prior standard deviations from 0.
- *silent*: no outgoing weight differs from 0, |mean| / sd < 1 for all of them. Usually the incoming
  weights have reverted, and the outgoing weights have shrunk to 0, so that the unit adds no noise
  to the outputs.

A unit is *pruned* if it is reverted or silent. Its weights, and which of them are outgoing (on an
axis after the first), are defined by the `PermutationSpec` of the network. Fixed entries have no
KL. A unit with a fixed outgoing entry or gate other than 0 is never silent.

References:
    Trippe and Turner (2018), Overpruning in variational BNNs, arXiv:1801.06230; Coker, Bruinsma,
    Burt, Pan and Doshi-Velez (2022), Wide mean-field BNNs ignore the data, arXiv:2202.11670; Graves
    (2011), NeurIPS 24 (signal to noise of weights).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from bnn_symm.diagnostics.elbo.elbo import kl_by_coordinate
from bnn_symm.diagnostics.mixing.parameter_index import ParameterIndex
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import GaussianPosterior, Posterior
from bnn_symm.symmetry import PermutationSpec, fixed_entries, permutation_spec


@dataclass(frozen=True, kw_only=True)
class UnitsOfGroup:
    """The units of one group of a spec.

    Attributes:
        kl: Nats per free weight, averaged over the unit's incoming and outgoing weights; NaN if it
            has none.
        signal_to_noise: Largest |mean| / sd of the outgoing weights; infinite if one of them is
            fixed and not 0; NaN if the unit has none outside of attention.
        reverted: Whether the unit is at the prior.
        silent: Whether no outgoing weight differs from 0.
    """

    kl: Float[np.ndarray, " unit"]
    signal_to_noise: Float[np.ndarray, " unit"]
    reverted: Bool[np.ndarray, " unit"]
    silent: Bool[np.ndarray, " unit"]

    @property
    def pruned(self) -> Bool[np.ndarray, " unit"]:
        """Return whether each unit is reverted or silent."""
        return self.reverted | self.silent


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """The pruned units of a network.

    Attributes:
        groups: By name, in the order of the layers; groups without weights, such as attention
            heads, are excluded.
        kl_below: Nats per weight below which a unit is reverted.
        signal_below: |mean| / sd below which a unit is silent.
    """

    groups: Mapping[str, UnitsOfGroup]
    kl_below: float
    signal_below: float

    @property
    def num_units(self) -> int:
        """Return the number of units of all groups."""
        return sum(len(group.kl) for group in self.groups.values())

    @property
    def fraction(self) -> float | None:
        """Return the fraction of pruned units; None for a network without hidden units."""
        if not self.num_units:
            return None
        return sum(int(group.pruned.sum()) for group in self.groups.values()) / self.num_units


def pruned_units(
    posterior: Posterior,
    spec: PermutationSpec | None = None,
    *,
    kl_below: float = 0.01,
    signal_below: float = 1.0,
) -> Pruning | None:
    """Find the units that a posterior does not use.

    Args:
        posterior: A closed form. None is returned for draws: they have no KL, and their moments mix
            units that are renumbered along a chain, so that used units would appear silent.
        spec: Symmetries of its network, if known.
        kl_below: Nats per weight below which a unit is reverted.
        signal_below: |mean| / sd below which a unit is silent.

    Returns:
        The units of each group, or None.

    Raises:
        ConfigError: If a threshold is not positive.
        SymmetryError: If the symmetries of the network cannot be derived.
    """
    for name, value in (("kl_below", kl_below), ("signal_below", signal_below)):
        if not value > 0:
            raise ConfigError(f"{name}: got {value}, expected a positive number")
    if not isinstance(posterior, GaussianPosterior):
        return None
    model = posterior.model
    spec = spec or permutation_spec(model.net)
    kl = ParameterIndex(model, spec).means(kl_by_coordinate(posterior).numpy())
    signals = _signal_to_noise(posterior, spec)
    groups = {}
    for name, own in kl.items():
        signal = signals[name]
        groups[name] = UnitsOfGroup(
            kl=own,
            signal_to_noise=signal,
            # A unit without free weights cannot revert.
            reverted=np.nan_to_num(own, nan=np.inf) < kl_below,
            silent=np.nan_to_num(signal, nan=np.inf, posinf=np.inf) < signal_below,
        )
    return Pruning(groups=groups, kl_below=kl_below, signal_below=signal_below)


def _signal_to_noise(
    posterior: GaussianPosterior, spec: PermutationSpec
) -> dict[str, Float[np.ndarray, " unit"]]:
    """Return group -> (unit,): the largest |mean| / sd of outgoing weights, NaN without any."""
    model = posterior.model
    mean = model.layer_values(model.unflatten(posterior.mean().double()))
    sd = model.layer_scales(model.unflatten(posterior.standard_deviation().double()))
    mean, sd = ({name: value.cpu() for name, value in own.items()} for own in (mean, sd))
    buffers = {
        name: entry.values for name, entry in fixed_entries(model.net).items() if name not in mean
    }
    mean = {**buffers, **mean}
    sd = {**{name: torch.zeros_like(value) for name, value in buffers.items()}, **sd}
    found = {}
    for name, group in spec.groups.items():
        largest = torch.full((group.size,), torch.nan, dtype=torch.float64)
        for tensor, dim, segment, start in spec.occurrences(name):
            if dim == 0 or tensor not in mean or segment.within:
                continue
            absolute, spread = (segment.by_unit(value[tensor], dim, start) for value in (mean, sd))
            ratio = torch.where(absolute == 0, 0.0, absolute.abs() / spread)
            largest = torch.fmax(largest, ratio.amax(1))
        found[name] = largest.numpy()
    return found
