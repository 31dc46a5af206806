"""How far a network is from a permutation symmetry: the change of its log density under the best
projected swap.

A swap of two hidden units leaves a standard network's log density as it is. With fixed entries the
swapped weights lie outside of the parameter space; projected back, with what is fixed in its place
again, they are other weights. A small change says that the two modes are still there, nearly as
good and nearly mirrored, whatever a certificate says: with few entries fixed at zero no permutation
is an exact symmetry, and all of them nearly are.
"""

import copy
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.architectures import count_flops
from bnn_symm.arguments import checked
from bnn_symm.data import Split
from bnn_symm.models import BayesianModel
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import (
    FixedTensor,
    Permutation,
    PermutationSpec,
    fixed_entries,
    permutation_spec,
)
from bnn_symm.symmetry.tracing.precision import DoublePrecision

# Points whose log likelihood is compared; their order is random, so the first ones are a sample. Of
# a network whose passes cost much, fewer: as many as all swaps together may have so many
# floating-point operations for.
_POINTS, _FEWEST_POINTS = 500, 10
_FLOPS = 1e10


@dataclass(frozen=True, kw_only=True)
class SymmetryDefect:
    """Changes of the log density, in nats, under swaps of two units.

    A change is the sum of the absolute changes of the log likelihood of each point and of the log
        prior: it bounds the
    change of the log density from above, and is not small by the chance that points cancel.

    Attributes:
        best: the smallest change found; 0 where a swap is a symmetry.
        median: over the swaps tried.
        reference: the median change when units are swapped where they are made and not where they
            are read, which no network is symmetric under.
        group: of the best swap.
        units: of the best swap.
        num_swaps: tried.
        num_points: of the data behind the log likelihood.
    """

    best: float
    median: float
    reference: float
    group: str
    units: tuple[int, int]
    num_swaps: int
    num_points: int

    @property
    def relative(self) -> float:
        """`best` as a fraction of `reference`: 0 for a symmetry, about 1 where swapping is as bad
        as scrambling.
        """
        return self.best / self.reference if self.reference > 0 else math.nan


@checked
def symmetry_defect(
    model: BayesianModel,
    part: Split,
    flat: Float[Tensor, " parameter"],
    *,
    spec: PermutationSpec | None = None,
    num_swaps: int = 60,
    seed: int = 0,
) -> SymmetryDefect | None:
    """Swaps pairs of units, projects, and compares log densities, in float64.

    Half of the pairs of each group are those whose projection moves the weights least, the others
        are random: the
    best of all pairs is bounded from above.

    Args:
        model: with any network whose spec can be derived.
        part: of the data; at most 500 points are used, fewer where a pass is expensive.
        flat: where the density is looked at: initial values, a posterior mean, a draw.
        spec: of the network, if it has been derived already.
        num_swaps: pairs tried, over all groups.
        seed: of the random pairs.

    Returns:
        The defect; None for a network without two units that could be swapped.
    """
    spec = spec or permutation_spec(model.net, tuple(part.x.shape[1:]))
    with (
        DoublePrecision()
    ):  # constants of the network that are no buffers keep their type otherwise
        return _defect(model, part, flat, spec, num_swaps, seed)


def _defect(
    model: BayesianModel,
    part: Split,
    flat: Tensor,
    spec: PermutationSpec,
    num_swaps: int,
    seed: int,
) -> SymmetryDefect | None:
    double = BayesianModel(copy.deepcopy(model.net).double(), model.prior, model.likelihood)
    flops = count_flops(double.net, tuple(part.x.shape[1:]), 1)
    points = int(min(_POINTS, max(_FEWEST_POINTS, _FLOPS / max(1, flops * num_swaps))))
    part = part.take(slice(0, points)).to(double.device, double.dtype)
    flat = flat.detach().to(double.device, double.dtype)
    swappable = [name for name, group in spec.groups.items() if group.size // group.blocks > 1]
    if not swappable:
        return None

    def log_densities(at: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat(
                [double.log_likelihood(at, part.x, part.y), double.log_prior(at)[None]]
            )

    def change_to(at: Tensor) -> float:
        return float((log_densities(at) - before).abs().sum())

    before, each = log_densities(flat), max(2, num_swaps // len(swappable))
    changes: list[tuple[float, str, tuple[int, int]]] = []
    references = []
    for name in swappable:
        pairs = _pairs(double, spec, flat, name, each, seed)
        for number, units in enumerate(pairs):
            swap = spec.transposition(name, units)
            changes.append((change_to(double.permute(flat, swap, project=True)), name, units))
            if number >= len(pairs) - max(
                1, len(pairs) // 4
            ):  # of any pairs, not of the nearest, which come first
                references.append(change_to(_half(double, spec, flat, name, swap)))
    best = min(changes)
    return SymmetryDefect(
        best=best[0],
        median=float(
            torch.tensor([change for change, _, _ in changes], dtype=torch.float64).median()
        ),
        reference=float(torch.tensor(references, dtype=torch.float64).median()),
        group=best[1],
        units=best[2],
        num_swaps=len(changes),
        num_points=len(part),
    )


def _half(
    model: BayesianModel, spec: PermutationSpec, flat: Tensor, name: str, swap: Permutation
) -> Tensor:
    """Units swapped where they are made, on the first axis of a parameter, and not where they are
    read.

    Where no parameter reads them on a later axis, as within attention, one of those that make them
    is left out.
    """
    values = model.unflatten(flat)
    permuted = model.unflatten(model.permute(flat, swap, project=True))
    read = [
        tensor
        for tensor, axes in spec.axes.items()
        if tensor in values and any(segment.group == name for axis in axes[1:] for segment in axis)
    ]
    own = [tensor for tensor in _with_children(spec, name) if tensor in values]
    read = read or own[-1:]
    return model.flatten({**permuted, **{tensor: values[tensor] for tensor in read}})


def _with_children(spec: PermutationSpec, name: str) -> list[str]:
    """Tensors that a group acts on, or one whose blocks it owns."""
    family = [name, *(child.name for child in spec.groups.values() if child.parent == name)]
    return [tensor for member in family for tensor in spec.tensors_of(member)]


def _pairs(
    model: BayesianModel, spec: PermutationSpec, flat: Tensor, name: str, number: int, seed: int
) -> list[tuple[int, int]]:
    """Pairs of units of one block: those whose projected swap moves the weights least, and random
    ones.
    """
    group = spec.groups[name]
    block = group.size // group.blocks
    cost = _projection_cost(model, spec, flat, name)
    unit = torch.arange(group.size)
    candidate = (unit[:, None] < unit) & (unit[:, None] // block == unit // block)
    pairs = candidate.nonzero()
    generator = torch_generator(seed, "swaps", name)
    shuffled = pairs[torch.randperm(len(pairs), generator=generator)]
    # Shuffled first, so that of equally cheap pairs any may come.
    nearest = shuffled[cost[shuffled[:, 0], shuffled[:, 1]].argsort(stable=True)][: number // 2]
    chosen = torch.cat([nearest, shuffled])[:number]
    return list(dict.fromkeys((int(i), int(j)) for i, j in chosen))


def _projection_cost(
    model: BayesianModel, spec: PermutationSpec, flat: Tensor, name: str
) -> Tensor:
    """(unit, unit), the squared distance by which projecting moves the swapped weights.

    At an entry that is fixed for unit i the value of unit j arrives and is put back, so that each
    pair costs the squared difference at the entries fixed for either; of the entries of both units
    with each other, twice.
    """
    size = spec.groups[name].size
    cost = torch.zeros(size, size, dtype=torch.float64)
    values = model.layer_values(model.unflatten(flat))
    for tensor, entry in fixed_entries(model.net).items():
        if tensor not in spec.axes:
            continue
        whole = values.get(tensor, entry.values).detach().double().cpu()
        for held, own in _rows(spec, tensor, entry, whole, name):
            fixed = held.double()
            one_way = (
                (fixed * own.square()).sum(1)[:, None]
                - 2 * (fixed * own) @ own.T
                + fixed @ own.square().T
            )
            cost += one_way + one_way.T
    return cost


def _rows(
    spec: PermutationSpec, tensor: str, entry: FixedTensor, whole: Tensor, name: str
) -> list[tuple[Tensor, Tensor]]:
    """(unit, entry) of what is fixed and of the values, for each stretch of an axis that has the
    group's units.
    """
    return [
        (segment.by_unit(~entry.free, dim, start), segment.by_unit(whole, dim, start))
        for place, dim, segment, start in spec.occurrences(name)
        if place == tensor and not segment.within
    ]
