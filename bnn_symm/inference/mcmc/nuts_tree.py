"""A leaf more for the trees of all chains: the part of the No-U-Turn sampler that is tensors alone,
and compiled.
"""

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

# Of the arguments of `_add_leaf`, those with an entry a pair.
_PAIRS = (-2, -1)


def compile_leaf_step(density: TemperedDensity) -> Callable[..., tuple[Tensor, ...]]:
    """A leapfrog step and what `_add_leaf` makes of it, compiled in one piece or around the density,
    as it allows.
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
    """A leaf more for every chain; `subtree` is what `take_in` wants besides."""
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
    """The rest of a leapfrog step; the leaf is drawn from its subtree with the probability of its
    weight.

    Momenta come from the middle of the step. Leaves are kept at their (chain,) `checkpoint`, in
    place. Chains whose leaf ends a subtree are in `ending`, (pair,), once for each that it ends,
    with the checkpoint of the subtree's first leaf in `ended`. Besides what has changed of the
    trees, the (chain,) log weights of the leaves are returned, and (pair,) whether the ended
    subtrees turn.
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


def is_turning(sum: Tensor, one: Tensor, other: Tensor, inverse_mass: Tensor) -> Tensor:
    """Whether a trajectory with this sum of momenta turns back at one of its ends, whose momenta
    are given.
    """
    along = velocity(sum - 0.5 * (one + other), inverse_mass)
    return ((along * one).sum(-1) <= 0) | ((along * other).sum(-1) <= 0)
