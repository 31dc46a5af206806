"""Hidden units that a mean-field posterior does not use.

Variational inference prunes: the KL of a unit that does too little for the likelihood is saved by
    giving it up
(Trippe and Turner 2018), and in the limit of wide networks nearly all are (Coker et al. 2022). It
has two signs:

- *reverted*: the free weights that make or read the unit are as the prior has them. Their KL is
  below 0.01 nats a weight on average; under a normal prior that much is a standard deviation 10 %
  below the prior's, or a mean 0.14 of it from 0.
- *silent*: of the weights that read it none is told from 0, |mean| / sd < 1 for all of them. What makes the unit has
  usually reverted, and what reads it has shrunk around 0, so that the unit does not add its noise
  to the outputs.

A unit is *pruned* if it is one or the other. Which weights belong to it, and which of them read it
(an axis after the first), the network's `PermutationSpec` says. Fixed entries are nobody's choice
and count for no KL; a unit that is read by a fixed entry or a gate other than 0 is heard whatever
the posterior says, and never silent.

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
        kl: nats a free weight, averaged over those that make or read the unit; NaN if it has none.
        signal_to_noise: the largest |mean| / sd of the weights that read it; infinite where one of them is fixed, and
            not 0; NaN if nothing but attention reads it.
        reverted: whether it is at the prior.
        silent: whether nothing that reads it is told from 0.
    """

    kl: Float[np.ndarray, " unit"]
    signal_to_noise: Float[np.ndarray, " unit"]
    reverted: Bool[np.ndarray, " unit"]
    silent: Bool[np.ndarray, " unit"]

    @property
    def pruned(self) -> Bool[np.ndarray, " unit"]:
        """Reverted or silent."""
        return self.reverted | self.silent


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """Which units of a network are pruned.

    Attributes:
        groups: by name, in the order of the layers; groups that own no weights, such as heads, are
            left out.
        kl_below: nats a weight, below which a unit counts as reverted.
        signal_below: |mean| / sd, below which a unit counts as silent.
    """

    groups: Mapping[str, UnitsOfGroup]
    kl_below: float
    signal_below: float

    @property
    def num_units(self) -> int:
        """Of all groups."""
        return sum(len(group.kl) for group in self.groups.values())

    @property
    def fraction(self) -> float | None:
        """Of all units, those that are pruned; None for a network without hidden units."""
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
    """Finds the units that a posterior does not use.

    Args:
        posterior: a closed form. None is returned for draws: they have no KL, and their moments mix
            units that change places along a chain, which makes used units look silent.
        spec: of its network, if it is known already.
        kl_below: nats a weight.
        signal_below: |mean| / sd.

    Raises:
        ConfigError: if a threshold is not positive.
        SymmetryError: if the symmetries of the network cannot be derived.
    """
    for name, value in (("kl_below", kl_below), ("signal_below", signal_below)):
        if not value > 0:
            raise ConfigError(f"{name}: got {value}, want a positive number")
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
            # A unit without free weights has nothing that could revert.
            reverted=np.nan_to_num(own, nan=np.inf) < kl_below,
            silent=np.nan_to_num(signal, nan=np.inf, posinf=np.inf) < signal_below,
        )
    return Pruning(groups=groups, kl_below=kl_below, signal_below=signal_below)


def _signal_to_noise(
    posterior: GaussianPosterior, spec: PermutationSpec
) -> dict[str, Float[np.ndarray, " unit"]]:
    """Group -> (unit,): the largest |mean| / sd of what reads each unit, NaN where no tensor does."""
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
