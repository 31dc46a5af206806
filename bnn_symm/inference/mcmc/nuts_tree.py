"""The tensor part of the No-U-Turn sampler, which is compiled: one more leaf for every tree."""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from bnn_symm.inference.density.compiled import Compiled
from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.mcmc.integrator import (
    Evaluate,
    bind_density,
    half_step,
    kinetic_energy,
    velocity,
)

# The arguments of `_add_leaf` with one entry per pair.
_PAIRS = (-2, -1)


def compile_leaf_step(density: TemperedDensity) -> Callable[..., tuple[Tensor, ...]]:
    """Return a leapfrog step that adds a leaf to every tree, compiled as far as the density allows.

    Args:
        density: the target density.
    """
    add_leaf = _add_leaf
    if density.is_compiled and not density.can_be_inlined:
        add_leaf = Compiled(_add_leaf, "the leapfrog step", dynamic_arguments=_PAIRS)
    return bind_density(
        functools.partial(_leaf_step, add_leaf),
        density,
        "the leapfrog step",
        dynamic_arguments=_PAIRS,
    )


def _leaf_step(
    add_leaf: Callable[..., tuple[Tensor, ...]],
    evaluate: Evaluate,
    position: Tensor,
    momentum: Tensor,
    gradient: Tensor,
    step: Tensor,
    inverse_mass: Tensor,
    *subtree: Tensor,
) -> tuple[Tensor, ...]:
    """Take a leapfrog step of every chain, and pass the new leaf with `subtree` to `add_leaf`."""
    position, momentum = half_step(position, momentum, gradient, step, inverse_mass)
    energy, gradient = evaluate(position)
    return add_leaf(position, momentum, gradient, energy, step, inverse_mass, *subtree)


def _add_leaf(
    position: Tensor,
    momentum: Tensor,
    gradient: Tensor,
    energy: Tensor,
    step: Tensor,
    inverse_mass: Tensor,
    start_energy: Tensor,
    log_weight: Tensor,
    uniform: Tensor,
    drawn_position: Tensor,
    drawn_gradient: Tensor,
    drawn_energy: Tensor,
    sum: Tensor,
    first_momentum: Tensor,
    first_sum: Tensor,
    checkpoint: Tensor,
    ending: Tensor,
    ended: Tensor,
) -> tuple[Tensor, ...]:
    """Complete a leapfrog step, and sample the leaf from its subtree by its weight.

    Momenta are those of the middle of the step. Leaves are stored in place at their (chain,)
    `checkpoint`. `ending`, (pair,), has each chain once for every subtree that its leaf ends, and
    `ended` the checkpoint of the first leaf of that subtree. Besides the changed parts of the
    trees, the (chain,) log weights of the leaves are returned, and whether each ended subtree
    turns, (pair,).
    """
    momentum = momentum - 0.5 * step[:, None] * gradient
    weight = start_energy - energy - kinetic_energy(momentum, inverse_mass)
    weight = torch.where(torch.isnan(weight), -math.inf, weight)
    log_weight = torch.logaddexp(log_weight, weight)
    take = uniform < (weight - log_weight).exp()
    drawn_position = torch.where(take[:, None], position, drawn_position)
    drawn_gradient = torch.where(take[:, None], gradient, drawn_gradient)
    drawn_energy = torch.where(take, energy, drawn_energy)
    sum = sum + momentum
    first = first_momentum[ending, ended]
    since = sum[ending] - first_sum[ending, ended] + first
    ended_turn = is_turning(since, first, momentum[ending], inverse_mass[ending])
    chains = torch.arange(len(position), device=position.device)
    first_momentum[chains, checkpoint] = momentum
    first_sum[chains, checkpoint] = sum
    return (
        position,
        momentum,
        gradient,
        drawn_position,
        drawn_gradient,
        drawn_energy,
        sum,
        log_weight,
        weight,
        ended_turn,
    )


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
