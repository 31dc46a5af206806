"""Balance relu units: map all points that differ by scales of relu units to one point.

A relu unit whose incoming weights are multiplied by c and outgoing weights by 1/c computes the same
function. Of all these points this returns the one where for every unit the norms of incoming and
outgoing weights are equal,

    |w_in(u)| = |w_out(u)|        unit by unit, c = sqrt(|w_out| / |w_in|), round after round

It has the smallest sum of squared weights over all scales. That sum is convex in log c, and each
step is its exact minimum over one group's scales, so the rounds converge to the same point from
anywhere in the orbit. The function is unchanged, the prior density is not.

Units with a nonzero fixed entry among their incoming or outgoing weights are unchanged: alone they
have no scale, and the scale that units tied by such an entry share is kept. The same holds for
units of grouped convolutions' blocks, and for units without incoming or outgoing weights, whose
smallest sum is not attained.

References:
    Neyshabur, Salakhutdinov and Srebro (2015), Path-SGD, arXiv:1506.02617 (balance); Du, Hu and Lee
    (2018), arXiv:1806.00900.
"""

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.architectures import free_parameters
from bnn_symm.arguments import checked
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.symmetry import (
    FixedTensor,
    PermutationSpec,
    Segment,
    fixed_entries,
    permutation_spec,
    rescale,
)

_MAX_ROUNDS = 1000
# Largest |log c| of the last round, in float64, so that results agree to rounding in float32.
_TOLERANCE = 1e-12


@checked
def canonicalize(
    model: BayesianModel,
    flat: Float[Tensor, "*draw parameter"],
    spec: PermutationSpec | None = None,
) -> Float[Tensor, "*draw parameter"]:
    """Return the flat vector (or a batch of them) with every relu unit balanced.

    The function is unchanged.

    Args:
        model: the model. A network without relu units, or with norms, has no scales: the vector is
            returned unchanged.
        flat: free coordinates and latent variables of the likelihood; the latter are unchanged.
        spec: of the network, if it is already known.

    Returns:
        The balanced flat vector, or a batch of them.

    Raises:
        SymmetryError: if the network's symmetries cannot be derived.
    """
    spec = spec or permutation_spec(model.net)
    frozen = frozen_units(spec, fixed_entries(model.net))
    if not frozen:
        return flat
    values = model.unflatten(flat.reshape(-1, flat.shape[-1]))
    whole = model.layer_values(values)
    batch = {name: whole[name].detach().double() for name in whole if name in spec.axes}
    factors = balancing(spec, batch, frozen)
    balanced = []
    for i in range(len(next(iter(batch.values())))):
        draw = {name: value[i] for name, value in batch.items()}
        balanced.append(rescale(spec, draw, {name: factor[i] for name, factor in factors.items()}))
    stacked = {
        name: torch.stack([draw[name] for draw in balanced]).to(whole[name].dtype) for name in batch
    }
    result = model.flatten({**values, **free_parameters(model.net, {**whole, **stacked})})
    return result.reshape(flat.shape)


def canonical_samples(
    posterior: SamplePosterior, spec: PermutationSpec | None = None
) -> SamplePosterior:
    """Return a posterior with all draws balanced, held in memory.

    Args:
        posterior: the posterior.
        spec: of its network, if it is already known.

    Returns:
        The balanced posterior.

    Raises:
        SymmetryError: if the network's symmetries cannot be derived.
    """
    spec = spec or permutation_spec(posterior.model.net)
    draws = torch.cat(
        [canonicalize(posterior.model, chunk, spec) for chunk in posterior.iter_draws()]
    )
    return SamplePosterior.from_draws(
        posterior.model,
        draws.unflatten(0, posterior.shape[:2]),
        posterior.scaling,
        sample_stats=posterior.sample_stats,
        info=posterior.info,
        history=posterior.history,
    )


def scaled_occurrences(
    spec: PermutationSpec, group: str
) -> Iterator[tuple[str, int, int, Segment]]:
    """Yield (tensor, dimension, start, segment) where a group's units have a scale."""
    for tensor, dim, segment, start in spec.occurrences(group):
        if segment.scale:
            yield tensor, dim, start, segment


def frozen_units(spec: PermutationSpec, fixed: Mapping[str, FixedTensor]) -> dict[str, Tensor]:
    """Return group with scales -> (unit,), whether a nonzero fixed entry touches the unit."""
    frozen = {}
    for name, group in spec.groups.items():
        occurrences = list(scaled_occurrences(spec, name))
        if not occurrences or any(segment.within for _, _, _, segment in occurrences):
            continue
        units = torch.zeros(group.size, dtype=torch.bool)
        for tensor, dim, start, segment in occurrences:
            if tensor in fixed:
                nonzero = (fixed[tensor].values != 0).double()[None]
                units |= _by_unit(nonzero, dim, start, segment)[0] > 0
        frozen[name] = units
    return frozen


def balancing(
    spec: PermutationSpec, tensors: Mapping[str, Tensor], frozen: Mapping[str, Tensor]
) -> dict[str, Float[Tensor, "draw _"]]:
    """Return the factors of all units, (draw, unit), by rounds over groups until none changes."""
    mass = {name: value.square() for name, value in tensors.items()}
    draws = len(next(iter(mass.values())))
    logs = {
        name: torch.zeros(draws, len(units), dtype=torch.float64) for name, units in frozen.items()
    }
    occurrences = {
        name: [occurrence for occurrence in scaled_occurrences(spec, name) if occurrence[0] in mass]
        for name in frozen
    }
    for _ in range(_MAX_ROUNDS):
        largest = 0.0
        for name, units in frozen.items():
            incoming, outgoing = torch.zeros_like(logs[name]), torch.zeros_like(logs[name])
            for tensor, dim, start, segment in occurrences[name]:
                (incoming if segment.scale > 0 else outgoing).add_(
                    _by_unit(mass[tensor], dim, start, segment)
                )
            is_free = (incoming > 0) & (outgoing > 0) & ~units
            log_factor = 0.25 * (outgoing / incoming).log()
            step = torch.where(is_free, log_factor, torch.zeros_like(incoming))
            for tensor, dim, start, segment in occurrences[name]:
                _multiply(mass[tensor], dim, start, segment, (2 * segment.scale * step).exp())
            logs[name] += step
            largest = max(largest, float(step.abs().max()))
        if largest < _TOLERANCE:
            break
    return {name: log_factors.exp() for name, log_factors in logs.items()}


def _by_unit(value: Tensor, dim: int, start: int, segment: Segment) -> Float[Tensor, "draw unit"]:
    """Return the sum over all entries of each unit along a segment of an axis of (draw, *shape)."""
    along = value.movedim(dim + 1, 1)[:, start : start + segment.length]
    return along.reshape(len(value), segment.outer, segment.size, -1).sum((1, 3))


def _multiply(
    value: Tensor, dim: int, start: int, segment: Segment, factor: Float[Tensor, "draw unit"]
) -> None:
    """Multiply a segment of an axis by a factor per unit, in place."""
    along = value.movedim(dim + 1, 1)[:, start : start + segment.length]
    factors = factor[:, None, :, None].expand(-1, segment.outer, -1, segment.inner).flatten(1)
    along *= factors.reshape(*factors.shape, *[1] * (along.dim() - 2))
