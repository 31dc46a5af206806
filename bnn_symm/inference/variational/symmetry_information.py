"""Mutual information between weights drawn from independent normals q and the order of their units.

With q^G the mean of all copies g # q under permutations of units, the mutual information of a
uniformly drawn g and weights drawn from g # q is

    I = E_q[log q(w) - log q^G(w)],        ELBO(q^G) = ELBO(q) + I,        0 <= I <= log |G|

For a set of n units that may be in any order, with a the weights that belong to one unit (averaged
over its flips),

    I = log n! - E_q[log perm(A)],         A[i, j] = q_j(a_i) / q_i(a_i),         a ~ q

because q^G is perm(A) / n! times q. An `InformationTerm` estimates this for each draw,
differentiable in the means, the standard deviations and the draws. Its mean is I for a single set
with all of its weights and an exact permanent, and otherwise at most I:

- Permanents of many units are bounded from above, or units are divided into blocks, with exact
  permanents. That is I of a subgroup, of the permutations that stay within the blocks.
- Sets that share weights, as neighboring layers do, follow the chain rule:
  I(g_1, g_2; w) = I(g_1; w) + I(g_2; w | g_1)
                >= I(g_1; the weights that g_2 does not permute) + I(g_2; w | g_1).

References:
    Gelberg et al. (2024), arXiv:2408.05496; Kurle et al. (2022), arXiv:2209.07157.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bnn_symm.models.interchangeable_units import UnitOrbit, unaffected_columns
from bnn_symm.symmetry.group.permanent import log_factorial, log_permanent, log_permanent_bound

PermanentMethod = Literal["permanent", "bounded permanent", "blocks"]

# Maximum number of layers that are tried as the last one.
_PIVOTS = 8


@dataclass(frozen=True)
class InformationTerm:
    """One set of units, the columns that identify them, and the method for their permanent.

    Attributes:
        units: the set.
        columns: the weights of a unit that are used to identify it.
        how: the permanent of all units, its bound, or the permanents of blocks of units.
        blocks: for all but the bound, the indices of the units of each permanent.
    """

    units: UnitOrbit
    columns: Bool[Tensor, " column"]
    how: PermanentMethod
    blocks: tuple[Tensor, ...] = ()

    @property
    def cost(self) -> float:
        """Return the approximate number of operations per draw."""
        size = len(self.units.units)
        products = 4.0 * (1 + self.units.flips) * size**2 * int(self.columns.sum())
        # Logarithms and exponentials count as twenty.
        return (
            products
            + 500.0 * size**2
            + sum(20.0 * len(block) * 2.0 ** len(block) for block in self.blocks)
        )

    def information(
        self,
        loc: Float[Tensor, " parameter"],
        scale: Float[Tensor, " parameter"],
        draws: Float[Tensor, "draw parameter"],
    ) -> Float[Tensor, " draw"]:
        """Return log q - log q^G of the set for each draw, in nats; single draws may be negative.

        Args:
            loc: means of q, in float64, on the CPU like the other arguments.
            scale: standard deviations of q.
            draws: draws from q.
        """
        log_densities, matrix = self._densities(loc, scale, draws)
        total = log_densities.sum(-1)
        if self.how == "bounded permanent":
            return total + log_factorial(log_densities.shape[-1]) - log_permanent_bound(matrix)
        for size in {len(block) for block in self.blocks}:
            same = torch.stack([block for block in self.blocks if len(block) == size])
            permanents = log_permanent(matrix[:, same[:, :, None], same[:, None, :]])
            total = total + len(same) * log_factorial(size) - permanents.sum(-1)
        return total

    def _densities(self, loc: Tensor, scale: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Return log q_i(a_i), (draw, unit), and log q_j(a_i), (draw, unit, unit), over flips.

        Both omit terms that are the same for every order.
        """
        units = self.units
        weights, loc = (units.oriented(value)[..., self.columns] for value in (draws, loc))
        scale = scale[units.index][:, self.columns]
        precision = scale.square().reciprocal()
        even = (
            -0.5 * weights.square() @ precision.T
            - 0.5 * (loc.square() * precision).sum(1)
            - scale.log().sum(1)
        )
        logs = even + weights @ (loc * precision).T
        diagonal = logs.diagonal(dim1=-2, dim2=-1)
        if units.flips:
            flipped = torch.where(units.signed[self.columns], -weights, weights)
            logs = torch.logaddexp(logs, even + flipped @ (loc * precision).T) - math.log(2)
        return diagonal, logs


def chain_rule_orders(sets: Sequence[UnitOrbit]) -> Iterator[list[int]]:
    """Yield orders of the sets: layers from both ends up to a last one, which varies.

    Args:
        sets: the sets of units.

    Yields:
        Indices of the sets. The last layer is identified by all its weights.
    """
    names = list(dict.fromkeys(units.group for units in sets))
    step = max(1, math.ceil(len(names) / _PIVOTS))
    for pivot in sorted({*range(0, len(names), step), len(names) - 1}):
        layers = [*names[:pivot], *reversed(names[pivot:])]
        yield [i for name in layers for i, units in enumerate(sets) if units.group == name]


def columns_in_order(
    sets: Sequence[UnitOrbit], order: Sequence[int]
) -> Iterator[tuple[int, Bool[Tensor, " column"]]]:
    """Yield the index of each set, in an order, and its columns that no later set permutes.

    Args:
        sets: the sets of units.
        order: indices of the sets.
    """
    for place, number in enumerate(order):
        yield (
            number,
            unaffected_columns(sets[number], [sets[later] for later in order[place + 1 :]]),
        )
