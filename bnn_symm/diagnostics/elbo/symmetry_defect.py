"""Measure the distance of a network from a permutation symmetry, by swaps of hidden units.

A swap of two hidden units leaves the log density of a standard network unchanged. With fixed
entries the swapped weights are outside of the parameter space; projected back, with the fixed
values restored, they are different weights. A small change of the log density under the best swap
means that the two modes still exist, nearly equally good and nearly mirrored, whatever the
certificate of the symmetry group: with few entries fixed at zero no permutation is an exact
symmetry, and all of them are approximate ones.
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

# Number of points whose log likelihood is compared; their order is random, so the first ones are a
# sample. For an expensive network fewer, so that all swaps together take this number of
# floating-point operations.
_POINTS, _FEWEST_POINTS = 500, 10
_FLOPS = 1e10


@dataclass(frozen=True, kw_only=True)
class SymmetryDefect:
    """Changes of the log density, in nats, under swaps of two units.

    A change is the sum of the absolute changes of the log likelihood of each point and of the log
    prior. It bounds the change of the log density from above, and points cannot cancel.

    Attributes:
        best: Smallest change; 0 if a swap is a symmetry.
        median: Median over the swaps.
        reference: Median change if only the incoming weights of units are swapped, which is a
            symmetry of no network.
        group: Group of the best swap.
        units: Units of the best swap.
        num_swaps: Number of swaps.
        num_points: Number of points of the log likelihood.
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
        """Return `best` over `reference`: 0 for a symmetry, about 1 for a swap like scrambling."""
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
    """Swap pairs of units, project, and compare log densities, in float64.

    Half of the pairs of each group are those whose projection changes the weights least, the others
    are random: the result is an upper bound of the best of all pairs.

    Args:
        model: Model with a network whose symmetries can be derived.
        part: Split of the data; at most 500 points are used, fewer for an expensive network.
        flat: Point of the density: initial values, a posterior mean, or a draw.
        spec: Symmetries of the network, if known.
        num_swaps: Number of pairs, over all groups.
        seed: Seed of the random pairs.

    Returns:
        The defect; None for a network without two units that can be swapped.

    Example:
        >>> from bnn_symm import BayesianModel, Categorical, Prior, load_dataset
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 3))
        >>> model = BayesianModel(net, Prior(), Categorical())
        >>> flat = torch.randn(model.num_parameters)
        >>> symmetry_defect(model, load_dataset("iris").train, flat).best < 1e-9
        True
    """
    spec = spec or permutation_spec(model.net, tuple(part.x.shape[1:]))
    # Constants of the network that are not buffers would keep their dtype otherwise.
    with DoublePrecision():
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

    def log_densities(point: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat(
                [double.log_likelihood(point, part.x, part.targets), double.log_prior(point)[None]]
            )

    def change_to(point: Tensor) -> float:
        return float((log_densities(point) - before).abs().sum())

    before, each = log_densities(flat), max(2, num_swaps // len(swappable))
    changes: list[tuple[float, str, tuple[int, int]]] = []
    references = []
    for name in swappable:
        pairs = _pairs(double, spec, flat, name, each, seed)
        for number, units in enumerate(pairs):
            swap = spec.transposition(name, units)
            changes.append((change_to(double.permute(flat, swap, project=True)), name, units))
            # The last pairs are random, the first ones those that projection changes least.
            if number >= len(pairs) - max(1, len(pairs) // 4):
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
    """Swap only the incoming weights of units, on the first axis of a parameter.

    If no parameter has outgoing weights on a later axis, as within attention, one of the incoming
    parameters is left unchanged.
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
    """Return the tensors that a group acts on, or a group whose blocks it owns."""
    family = [name, *(child.name for child in spec.groups.values() if child.parent == name)]
    return [tensor for member in family for tensor in spec.tensors_of(member)]


def _pairs(
    model: BayesianModel, spec: PermutationSpec, flat: Tensor, name: str, number: int, seed: int
) -> list[tuple[int, int]]:
    """Return pairs of units of one block: the cheapest to project, and random ones."""
    group = spec.groups[name]
    block = group.size // group.blocks
    cost = _projection_cost(model, spec, flat, name)
    unit = torch.arange(group.size)
    candidate = (unit[:, None] < unit) & (unit[:, None] // block == unit // block)
    pairs = candidate.nonzero()
    generator = torch_generator(seed, "swaps", name)
    shuffled = pairs[torch.randperm(len(pairs), generator=generator)]
    # Shuffled first, so that ties are broken at random.
    nearest = shuffled[cost[shuffled[:, 0], shuffled[:, 1]].argsort(stable=True)][: number // 2]
    chosen = torch.cat([nearest, shuffled])[:number]
    return list(dict.fromkeys((int(i), int(j)) for i, j in chosen))


def _projection_cost(
    model: BayesianModel, spec: PermutationSpec, flat: Tensor, name: str
) -> Tensor:
    """Return (unit, unit): the squared distance by which projection moves the swapped weights.

    At an entry that is fixed for unit i, the value of unit j arrives and is replaced. Each pair
    therefore costs the squared difference at the entries fixed for either, and twice at the entries
    between both units.
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
    """Return (unit, entry) of fixed entries and of values, for each segment with these units."""
    return [
        (segment.by_unit(~entry.free, dim, start), segment.by_unit(whole, dim, start))
        for place, dim, segment, start in spec.occurrences(name)
        if place == tensor and not segment.within
    ]
