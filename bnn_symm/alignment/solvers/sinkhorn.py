"""Match by the entropic relaxation of a sum of bilinear assignments, annealed and then rounded.

    max_P  f(P) + T sum_g H(P_g)        P_g doubly stochastic

With all other groups fixed, the objective is linear in one group, and its best matrix is the
Sinkhorn balancing of exp(gain / T). Groups therefore take turns at each temperature, and no
gradient passes through the balancing. As T falls, matrices become permutations. If units can flip,
each pair of units has two entries, one per sign.

References:
    Peña et al. (2023), Re-basin via implicit Sinkhorn differentiation, arXiv:2212.12042, the
    relaxation and its cost without data; Gold and Rangarajan (1996), doi:10.1109/34.491619, the
    turns; Sinkhorn (1967), doi:10.2307/2314570.
"""

import torch
from torch import Tensor

from bnn_symm.alignment.objective import Objective
from bnn_symm.alignment.solvers.assignment import movable_groups
from bnn_symm.alignment.solvers.coordinate import coordinate
from bnn_symm.alignment.solvers.gains import Gain
from bnn_symm.alignment.solvers.relaxation import (
    Relaxed,
    can_relax,
    halfway_to_center,
    relaxed_gain,
)
from bnn_symm.symmetry import Component, Permutation, SymmetryGroup

# Temperatures, in standard deviations of the gains at the start: from where matrices are nearly
# uniform to where they are nearly permutations.
_HOTTEST, _COLDEST, _TEMPERATURES = 1.0, 0.1, 20
# Rounds of balancing per turn, and the tolerance of column sums that ends them.
_ROUNDS, _BALANCED = 10, 1e-3


def sinkhorn(
    objective: Objective, group: SymmetryGroup, start: Permutation, *key: int | str
) -> tuple[Permutation, float]:
    """Relax all groups, anneal them, and round to a permutation.

    The relaxation begins at the midpoint between the start and the center, and ends with
    `coordinate` from the rounded permutation.

    Args:
        objective: to be maximized.
        group: to stay in.
        start: an element of it.
        key: of the random orders of the last ascent.

    Returns:
        An element of the group, and its objective.
    """
    cells = movable_groups(group)
    if not can_relax(objective, cells):
        return coordinate(objective, group, start, *key)
    point = halfway_to_center(start, cells)
    scale = max(
        float(relaxed_gain(objective, name, start, point).best().std(correction=0))
        for name in cells
    )
    for temperature in (
        torch.logspace(0, 1, _TEMPERATURES, base=_COLDEST / _HOTTEST).tolist() if scale > 0 else ()
    ):
        for name, components in cells.items():
            gain = relaxed_gain(objective, name, start, point)
            for component in components:
                _spread(point, name, component, gain, _HOTTEST * temperature * scale)
    return coordinate(objective, group, point.nearest(start, cells), *key)


def _spread(
    point: Relaxed, name: str, component: Component, gain: Gain, temperature: float
) -> None:
    """Set the matrix of one cell to the best one at a temperature."""
    units = torch.tensor(component.units[name])
    square = (units[:, None], units)
    logits = gain.unsigned[square] / temperature
    mean_sign = torch.ones_like(logits)
    if gain.signed is not None:
        signed = gain.signed[square] / temperature
        if component.kind == "interchangeable, with signs":
            logits, mean_sign = logits + torch.logaddexp(signed, -signed), torch.tanh(signed)
        else:
            signs = torch.tensor(component.orientation or [1] * len(units), dtype=torch.float32)
            mean_sign = torch.outer(signs, signs)
            logits = logits + mean_sign * signed
    point.unsigned[name][square] = balanced(logits)
    if name in point.signed:
        point.signed[name][square] = mean_sign * point.unsigned[name][square]


def balanced(logits: Tensor) -> Tensor:
    """Return diag(a) exp(logits) diag(b), whose rows sum to one, and columns nearly so.

    Args:
        logits: (unit, unit).

    Returns:
        The matrix after Sinkhorn's balancing.
    """
    columns = torch.zeros(len(logits))
    for _ in range(_ROUNDS):
        matrix = torch.softmax(logits + columns, dim=1)
        total = matrix.sum(0)
        if float((total - 1).abs().max()) < _BALANCED:
            break
        # A column that no row prefers has a total that vanishes in single precision.
        columns -= total.clamp(min=1e-30).log()
    return torch.softmax(logits + columns, dim=1)
