"""One point for all that differ by the scale of relu units: every unit balanced.

A relu unit made c times as large and read 1/c times is the same function. Of all these points this
takes the one where for every unit the norm of what makes it is the norm of what reads it,

    |w_in(u)| = |w_out(u)|        found unit by unit, c = sqrt(|w_out| / |w_in|), round after round

which is where the sum of squared weights is smallest over all scales: it is convex in log c, and
    each step is its exact
minimum in one group's scales, so the rounds end at the same point wherever in the orbit they begin.
The function stays the same, the prior density does not.

Units with a fixed entry other than zero among what makes or reads them stay: alone they have no
    scale, and the scale
that units tied by such an entry keep in common is left as it is. So do units of grouped
convolutions' blocks, and units with nothing going in, or nothing coming out, whose smallest sum is
not attained.

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
# Largest |log c| of a round that ends: float64, so that the result is the same to rounding in
# float32.
_TOLERANCE = 1e-12


@checked
def canonicalize(
    model: BayesianModel,
    flat: Float[Tensor, "*draw parameter"],
    spec: PermutationSpec | None = None,
) -> Float[Tensor, "*draw parameter"]:
    """The flat vector (or a batch of them) with every relu unit balanced: the same function.

    Args:
        model: whose flat vector it is. A network without relu units, or with norms, has no scales:
            nothing changes.
        flat: free coordinates, and latent variables of the likelihood, which stay as they are.
        spec: of the network, if it is known already.

    Raises:
        SymmetryError: if the network's symmetries cannot be derived.
    """
    spec = spec or permutation_spec(model.net)
    held = _frozen_units(spec, fixed_entries(model.net))
    if not held:
        return flat
    values = model.unflatten(flat.reshape(-1, flat.shape[-1]))
    whole = model.layer_values(values)
    batch = {name: whole[name].detach().double() for name in whole if name in spec.axes}
    factors = _balancing(spec, batch, held)
    balanced = []
    for i in range(len(next(iter(batch.values())))):
        own = {name: value[i] for name, value in batch.items()}
        balanced.append(rescale(spec, own, {name: factor[i] for name, factor in factors.items()}))
    stacked = {
        name: torch.stack([own[name] for own in balanced]).to(whole[name].dtype) for name in batch
    }
    made = model.flatten({**values, **free_parameters(model.net, {**whole, **stacked})})
    return made.reshape(flat.shape)


def canonical_samples(
    posterior: SamplePosterior, spec: PermutationSpec | None = None
) -> SamplePosterior:
    """A posterior whose draws are all balanced; they are held in memory.

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


def _places(spec: PermutationSpec, group: str) -> Iterator[tuple[str, int, int, Segment]]:
    """Where a group's units have a scale: tensor, dimension, where in it, segment."""
    for tensor, dim, segment, start in spec.occurrences(group):
        if segment.scale:
            yield tensor, dim, start, segment


def _frozen_units(spec: PermutationSpec, fixed: Mapping[str, FixedTensor]) -> dict[str, Tensor]:
    """Group with scales -> (unit,), whether a fixed entry other than zero is on what makes or reads
    the unit.
    """
    found = {}
    for name, group in spec.groups.items():
        places = list(_places(spec, name))
        if not places or any(segment.within for _, _, _, segment in places):
            continue
        held = torch.zeros(group.size, dtype=torch.bool)
        for tensor, dim, start, segment in places:
            if tensor in fixed:
                held |= (
                    _by_unit((fixed[tensor].values != 0).double()[None], dim, start, segment)[0] > 0
                )
        found[name] = held
    return found


def _balancing(
    spec: PermutationSpec, tensors: Mapping[str, Tensor], held: Mapping[str, Tensor]
) -> dict[str, Float[Tensor, "draw _"]]:
    """The factors of all units, (draw, unit): round after round over groups until none changes."""
    mass = {name: value.square() for name, value in tensors.items()}
    draws = len(next(iter(mass.values())))
    logs = {name: torch.zeros(draws, len(own), dtype=torch.float64) for name, own in held.items()}
    places = {name: [place for place in _places(spec, name) if place[0] in mass] for name in held}
    for _ in range(_MAX_ROUNDS):
        largest = 0.0
        for name, own in held.items():
            made, read = torch.zeros_like(logs[name]), torch.zeros_like(logs[name])
            for tensor, dim, start, segment in places[name]:
                (made if segment.scale > 0 else read).add_(
                    _by_unit(mass[tensor], dim, start, segment)
                )
            possible = (made > 0) & (read > 0) & ~own
            step = torch.where(possible, 0.25 * (read / made).log(), torch.zeros_like(made))
            for tensor, dim, start, segment in places[name]:
                _multiply(mass[tensor], dim, start, segment, (2 * segment.scale * step).exp())
            logs[name] += step
            largest = max(largest, float(step.abs().max()))
        if largest < _TOLERANCE:
            break
    return {name: own.exp() for name, own in logs.items()}


def _by_unit(value: Tensor, dim: int, start: int, segment: Segment) -> Float[Tensor, "draw unit"]:
    """The sum of a tensor (draw, *shape) over everything that a stretch of an axis gives to each
    unit.
    """
    own = value.movedim(dim + 1, 1)[:, start : start + segment.length]
    return own.reshape(len(value), segment.outer, segment.size, -1).sum((1, 3))


def _multiply(
    value: Tensor, dim: int, start: int, segment: Segment, factor: Float[Tensor, "draw unit"]
) -> None:
    """Multiplies a stretch of an axis, in place."""
    own = value.movedim(dim + 1, 1)[:, start : start + segment.length]
    along = factor[:, None, :, None].expand(-1, segment.outer, -1, segment.inner).flatten(1)
    own *= along.reshape(*along.shape, *[1] * (own.dim() - 2))
