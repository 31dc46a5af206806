"""Leapfrog steps of a batch of chains, and the energies that they keep.

Every chain has a step size of its own (negative: backwards in time) and an inverse mass matrix
    M^-1, diagonal
(chain, parameter) or dense (chain, parameter, parameter): the covariance of the posterior, as far
    as warm-up knows it.

References:
    Neal 2011, arXiv:1206.1901, equations 5.18 to 5.20.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.inference.density.compiled import Compiled
from bnn_symm.inference.density.density import TemperedDensity

# A trajectory whose energy rises by more has diverged: e^-1000 is the odds of its end (as Stan's).
MAX_ENERGY_ERROR = 1000.0


def velocity(momentum: Tensor, inverse_mass: Tensor) -> Float[Tensor, "chain parameter"]:
    """M^-1 r."""
    if inverse_mass.dim() == momentum.dim():
        return inverse_mass * momentum
    return (inverse_mass @ momentum[..., None])[..., 0]


def kinetic_energy(momentum: Tensor, inverse_mass: Tensor) -> Float[Tensor, " chain"]:
    """r^T M^-1 r / 2, in float64."""
    return 0.5 * (momentum * velocity(momentum, inverse_mass)).sum(-1, dtype=torch.float64)


def momentum_from_noise(noise: Tensor, inverse_mass: Tensor) -> Float[Tensor, "chain parameter"]:
    """Normal(0, M) from standard normal noise."""
    if inverse_mass.dim() == noise.dim():
        return noise / inverse_mass.sqrt()
    # M^-1 = L L^T, so r = L^-T z has covariance (L L^T)^-1 = M.
    root = torch.linalg.cholesky(inverse_mass)
    return torch.linalg.solve_triangular(root.mT, noise[..., None], upper=True)[..., 0]


# Positions -> U and its gradient.
Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]


def half_step(
    position: Tensor, momentum: Tensor, gradient: Tensor, step: Tensor, inverse_mass: Tensor
) -> tuple[Tensor, Tensor]:
    """The next position, and the momentum at half of the step, from where the gradient is known."""
    momentum = momentum - 0.5 * step[:, None] * gradient
    return position + step[:, None] * velocity(momentum, inverse_mass), momentum


def leapfrog(
    evaluate: Evaluate,
    position: Tensor,
    momentum: Tensor,
    gradient: Tensor,
    step: Tensor,
    inverse_mass: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step of every chain.

    Args:
        evaluate: positions -> U and its gradient.
        position: (chain, parameter).
        momentum: (chain, parameter).
        gradient: of U at the position.
        step: (chain,), with its sign.
        inverse_mass: (chain, parameter) or (chain, parameter, parameter).

    Returns:
        Position, momentum, gradient and U after it.
    """
    position, momentum = half_step(position, momentum, gradient, step, inverse_mass)
    energy, gradient = evaluate(position)
    return position, momentum - 0.5 * step[:, None] * gradient, gradient, energy


def bind_density(
    function: Callable[..., Any],
    density: TemperedDensity,
    name: str,
    *,
    dynamic_arguments: Sequence[int] = (),
) -> Callable[..., Any]:
    """`function(evaluate, *tensors)` as a function of the tensors, compiled as a whole where the
    density allows it.
    """
    if density.can_be_inlined:
        return Compiled(
            functools.partial(function, density.evaluate), name, dynamic_arguments=dynamic_arguments
        )
    return functools.partial(function, density)
