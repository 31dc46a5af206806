"""The trees of the No-U-Turn sampler as tensors: one more leaf for every tree, and its subtrees.

The functions work on all chains at once, and modify the tensors of the trees in place, so that they
can be compiled and replayed (`Replayed`).
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from bnn_symm.inference.density.compiled import Compiled
from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.mcmc.integrator import (
    MAX_ENERGY_ERROR,
    Evaluate,
    bind_density,
    half_step,
    kinetic_energy,
    velocity,
)
from bnn_symm.inference.mcmc.kernel import ChainState

# What `Trees.pending` reports: whether some subtree, and whether some transition is complete.
SUBTREE_COMPLETE, TRANSITION_COMPLETE = 1, 2
# The arguments of `_add_leaf` with one entry per pair.
_PAIRS = (-2, -1)


@dataclass
class Trees:
    """The trees of all chains, (chain, ...), each within its newest subtree.

    Of the newest subtree: `position`, `momentum`, `gradient` of its last leaf; `drawn_*`, its
    sample so far; `sum` of its momenta; `log_weight`; `direction` in time; `leaf`, the index of the
    next leaf; `first_momentum`, `first_sum`, the checkpoints, the last of which is never read. Of
    the tree without it: `end_*`, both ends (backward, forward); `tree_sum`; `tree_log_weight`;
    `depth`. Its sample is the kernel's point. Of the transition: `start_energy`, `acceptance`
    summed over `leaves`, and uniform numbers `choose_leaf`, `choose_subtree`, `choose_direction`.
    `under_way`: chains with a transition. Of the last leaf: `diverging`; `joins`, whether it
    completed its subtree, which is to be joined to the tree; `starts`, whether a subtree is to be
    started; `ended`, whether the transition is complete; `pending`, of all chains.
    """

    position: Tensor
    momentum: Tensor
    gradient: Tensor
    drawn_position: Tensor
    drawn_gradient: Tensor
    drawn_energy: Tensor
    sum: Tensor
    log_weight: Tensor
    first_momentum: Tensor
    first_sum: Tensor
    end_position: Tensor
    end_momentum: Tensor
    end_gradient: Tensor
    tree_sum: Tensor
    start_energy: Tensor
    direction: Tensor
    tree_log_weight: Tensor
    choose_leaf: Tensor
    choose_subtree: Tensor
    choose_direction: Tensor
    leaf: Tensor
    depth: Tensor
    leaves: Tensor
    acceptance: Tensor
    under_way: Tensor
    diverging: Tensor
    joins: Tensor
    starts: Tensor
    ended: Tensor
    pending: Tensor

    @classmethod
    def new(cls, positions: Tensor, max_depth: int) -> "Trees":
        """Return trees of chains that have no transition.

        Args:
            positions: (chain, parameter).
            max_depth: of the trees.
        """
        chains, size = positions.shape

        def rows(*leading: int) -> Tensor:
            return positions.new_zeros(*leading, size)

        def each(dtype: torch.dtype, *shape: int) -> Tensor:
            return positions.new_zeros(*(shape or (chains,)), dtype=dtype)

        double, count, flag = torch.float64, torch.int64, torch.bool
        return cls(
            position=rows(chains),
            momentum=rows(chains),
            gradient=rows(chains),
            drawn_position=rows(chains),
            drawn_gradient=rows(chains),
            drawn_energy=each(double),
            sum=rows(chains),
            log_weight=each(double),
            first_momentum=rows(chains, max_depth),
            first_sum=rows(chains, max_depth),
            end_position=rows(2, chains),
            end_momentum=rows(2, chains),
            end_gradient=rows(2, chains),
            tree_sum=rows(chains),
            start_energy=each(double),
            direction=positions.new_ones(chains),
            tree_log_weight=each(double),
            choose_leaf=each(positions.dtype, 2**max_depth, chains),
            choose_subtree=each(double, chains, max_depth),
            choose_direction=each(double, chains, max_depth),
            leaf=each(count),
            depth=each(count),
            leaves=each(count),
            acceptance=each(double),
            under_way=each(flag),
            diverging=each(flag),
            joins=each(flag),
            starts=each(flag),
            ended=each(flag),
            pending=each(count, 1),
        )


@dataclass(frozen=True)
class Checkpoints:
    """Where leaves are stored, and what they are compared with, (leaf,) each.

    Attributes:
        stored: the checkpoint of a leaf. Odd leaves have one too, which is never read, so that all
            chains are treated alike.
        last: the checkpoint of the first leaf of the smallest subtree that a leaf ends.
        before: the number before that of the largest one. So a leaf ends `last - before` subtrees.
    """

    stored: Tensor
    last: Tensor
    before: Tensor

    @classmethod
    def of(cls, max_depth: int, device: torch.device) -> "Checkpoints":
        """Return the checkpoints of the leaves of a subtree.

        Args:
            max_depth: of the tree.
            device: of the tensors.
        """
        leaves = range(2 ** max(max_depth - 1, 0))
        last = [(leaf >> 1).bit_count() for leaf in leaves]
        columns = (
            [max_depth - 1 if leaf % 2 else last[leaf] for leaf in leaves],
            last,
            [last[leaf] - _trailing_ones(leaf) for leaf in leaves],
        )
        return cls(*(torch.tensor(column, device=device) for column in columns))


# Numbers of tensors: of the trees, with the chains, and with the checkpoints.
_TREES = len(fields(Trees))
_STATE = _TREES + len(fields(ChainState))
_ALL = _STATE + len(fields(Checkpoints))


def _trailing_ones(number: int) -> int:
    return (number ^ (number + 1)).bit_length() - 1


def compile_leaf_step(density: TemperedDensity, *, lists_pairs: bool) -> Callable[..., None]:
    """Return a leapfrog step that adds a leaf to every tree, compiled as far as the density allows.

    Args:
        density: the target density.
        lists_pairs: whether the step is called with pairs (see `_add_leaf`).

    Returns:
        A function of the tensors of `Trees`, `ChainState` and `Checkpoints`, and of the pairs.
    """
    dynamic = _PAIRS if lists_pairs else ()
    add = _add_leaf
    if density.is_compiled and not density.can_be_inlined:
        add = Compiled(_add_leaf, "the leapfrog step", dynamic_arguments=dynamic)
    return bind_density(
        functools.partial(_grow, add), density, "the leapfrog step", dynamic_arguments=dynamic
    )


def _unpack(tensors: Sequence[Tensor]) -> tuple[Trees, ChainState, Checkpoints, Sequence[Tensor]]:
    return (
        Trees(*tensors[:_TREES]),
        ChainState(*tensors[_TREES:_STATE]),
        Checkpoints(*tensors[_STATE:_ALL]),
        tensors[_ALL:],
    )


def _grow(add: Callable[..., None], evaluate: Evaluate, *tensors: Tensor) -> None:
    """Take a leapfrog step of every chain, and pass the new leaf to `add`."""
    trees, points, *_ = _unpack(tensors)
    step = trees.direction * points.step
    position, momentum = half_step(
        trees.position, trees.momentum, trees.gradient, step, points.inverse_mass
    )
    energy, gradient = evaluate(position)
    add(position, momentum - 0.5 * step[:, None] * gradient, gradient, energy, *tensors)


def _add_leaf(
    position: Tensor, momentum: Tensor, gradient: Tensor, energy: Tensor, *tensors: Tensor
) -> None:
    """Sample the new leaf of every chain from its subtree by its weight, and store it.

    The last two tensors are pairs, int64: each chain once for every subtree that its leaf ends, and
    the checkpoint of the first leaf of that subtree; others are ignored. `store_leaf` must follow.
    Without pairs, all checkpoints are compared with the leaf, and written.
    """
    trees, points, checkpoints, pairs = _unpack(tensors)
    active = trees.under_way
    leaf = torch.where(active, trees.leaf, 0)
    weight = trees.start_energy - energy - kinetic_energy(momentum, points.inverse_mass)
    weight = torch.where(torch.isnan(weight), -math.inf, weight)
    log_weight = torch.logaddexp(trees.log_weight, weight)
    take = trees.choose_leaf.gather(0, trees.leaves[None])[0] < (weight - log_weight).exp()
    row = take[:, None]
    sum = trees.sum + momentum
    last, before = checkpoints.last[leaf], checkpoints.before[leaf]
    inverse_mass = points.inverse_mass
    if not pairs:
        first, first_sum = trees.first_momentum[:, :-1], trees.first_sum[:, :-1]
        turns = is_turning(
            sum[:, None] - first_sum + first, first, momentum[:, None], inverse_mass[:, None]
        )
        number = torch.arange(first.shape[1], device=first.device)
        turned = (turns & (number <= last[:, None]) & (number > before[:, None])).any(-1)
    else:
        ending, ended = pairs
        first = trees.first_momentum[ending, ended]
        since = sum[ending] - trees.first_sum[ending, ended] + first
        turns = is_turning(since, first, momentum[ending], inverse_mass[ending])
        turns = turns & (ended <= last[ending]) & (ended > before[ending])
        turned = torch.zeros_like(leaf).index_add(0, ending, turns.long()) > 0
    diverging = weight < -MAX_ENERGY_ERROR
    ends = diverging | turned
    ended = active & ends
    joins = active & ~ends & (leaf + 1 == torch.ones_like(leaf) << trees.depth)
    pending = SUBTREE_COMPLETE * joins.any() + TRANSITION_COMPLETE * ended.any()
    if not pairs:
        levels = torch.arange(trees.first_sum.shape[1], device=position.device)
        here = (levels == checkpoints.stored[leaf][:, None])[..., None]
        trees.first_momentum.copy_(torch.where(here, momentum[:, None], trees.first_momentum))
        trees.first_sum.copy_(torch.where(here, sum[:, None], trees.first_sum))
    trees.position.copy_(position)
    trees.momentum.copy_(momentum)
    trees.gradient.copy_(gradient)
    trees.drawn_position.copy_(torch.where(row, position, trees.drawn_position))
    trees.drawn_gradient.copy_(torch.where(row, gradient, trees.drawn_gradient))
    trees.drawn_energy.copy_(torch.where(take, energy, trees.drawn_energy))
    trees.sum.copy_(sum)
    trees.log_weight.copy_(log_weight)
    trees.acceptance.copy_(trees.acceptance + torch.where(active, weight.clamp(max=0).exp(), 0.0))
    trees.leaves.copy_(trees.leaves + active)
    trees.leaf.copy_(leaf + 1)
    trees.diverging.copy_(diverging)
    trees.joins.copy_(joins)
    trees.ended.copy_(ended)
    trees.pending.copy_(pending[None])


def store_leaf(trees: Trees, checkpoints: Checkpoints) -> None:
    """Store the new leaf of every chain at its checkpoint.

    Compiled with the rest, this would copy all checkpoints.

    Args:
        trees: modified in place.
        checkpoints: for the maximum depth of the trees.
    """
    chains = torch.arange(len(trees.leaf), device=trees.leaf.device)
    stored = checkpoints.stored[trees.leaf - 1]
    trees.first_momentum[chains, stored] = trees.momentum
    trees.first_sum[chains, stored] = trees.sum


def join_and_start(*tensors: Tensor) -> None:
    """Join complete subtrees to their trees, and start the next subtrees in random directions.

    Subtrees of `joins` are joined. Subtrees of `starts`, and of joined trees that are not complete,
    are started. The samples of the trees are the positions of the chains.

    Args:
        *tensors: those of `Trees` and `ChainState`, modified in place.
    """
    trees, points = Trees(*tensors[:_TREES]), ChainState(*tensors[_TREES:])
    joins, row, max_depth = trees.joins, trees.joins[:, None], trees.choose_subtree.shape[1]
    odds = (trees.log_weight - trees.tree_log_weight).clamp(max=0).exp()
    choose = trees.choose_subtree.gather(1, trees.depth.clamp(max=max_depth - 1)[:, None])[:, 0]
    take = joins & (choose < odds)
    position = torch.where(take[:, None], trees.drawn_position, points.position)
    gradient = torch.where(take[:, None], trees.drawn_gradient, points.gradient)
    energy = torch.where(take, trees.drawn_energy, points.energy)
    total = torch.logaddexp(trees.tree_log_weight, trees.log_weight)
    sides = torch.tensor([-1.0, 1.0], device=joins.device)
    replaced = (joins & (sides[:, None] * trees.direction > 0))[..., None]
    end_position = torch.where(replaced, trees.position, trees.end_position)
    end_momentum = torch.where(replaced, trees.momentum, trees.end_momentum)
    end_gradient = torch.where(replaced, trees.gradient, trees.end_gradient)
    tree_sum = torch.where(row, trees.tree_sum + trees.sum, trees.tree_sum)
    depth = trees.depth + joins
    turning = is_turning(tree_sum, end_momentum[0], end_momentum[1], points.inverse_mass)
    complete = joins & (turning | (depth == max_depth))
    starts = trees.starts | (joins & ~complete)
    choose = trees.choose_direction.gather(1, depth.clamp(max=max_depth - 1)[:, None])[:, 0]
    forward = choose < 0.5
    side, new = forward[:, None], starts[:, None]
    ended = trees.ended | complete
    moved = [
        torch.where(new, torch.where(side, ends[1], ends[0]), values)
        for ends, values in (
            (end_position, trees.position),
            (end_momentum, trees.momentum),
            (end_gradient, trees.gradient),
        )
    ]
    points.position.copy_(position)
    points.gradient.copy_(gradient)
    points.energy.copy_(energy)
    trees.tree_log_weight.copy_(torch.where(joins, total, trees.tree_log_weight))
    trees.end_position.copy_(end_position)
    trees.end_momentum.copy_(end_momentum)
    trees.end_gradient.copy_(end_gradient)
    trees.tree_sum.copy_(tree_sum)
    trees.depth.copy_(depth)
    trees.direction.copy_(
        torch.where(starts, 2.0 * forward.to(trees.direction) - 1.0, trees.direction)
    )
    for values, value in zip((trees.position, trees.momentum, trees.gradient), moved, strict=True):
        values.copy_(value)
    trees.sum.copy_(torch.where(new, 0.0, trees.sum))
    trees.log_weight.copy_(torch.where(starts, -math.inf, trees.log_weight))
    trees.leaf.copy_(torch.where(starts, 0, trees.leaf))
    trees.ended.copy_(ended)
    trees.joins.copy_(torch.zeros_like(joins))
    trees.starts.copy_(torch.zeros_like(joins))
    trees.pending.copy_(TRANSITION_COMPLETE * ended.any()[None])


def is_turning(sum: Tensor, first: Tensor, last: Tensor, inverse_mass: Tensor) -> Tensor:
    """Return whether a trajectory makes a U-turn at one of its ends.

    Args:
        sum: sum of its momenta.
        first: momentum at one end.
        last: momentum at the other end.
        inverse_mass: M^-1, diagonal or dense.
    """
    along = velocity(sum - 0.5 * (first + last), inverse_mass)
    return ((along * first).sum(-1) <= 0) | ((along * last).sum(-1) <= 0)
