"""The leapfrog integrator for a batch of chains, and kinetic energies.

Every chain has its own step size (negative: backwards in time) and its own inverse mass matrix
M^-1, diagonal (chain, parameter) or dense (chain, parameter, parameter). It is the estimate that
warm-up has of the posterior covariance.

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

# A trajectory whose energy rises by more is divergent, as in Stan: it is accepted with probability
# e^-1000.
MAX_ENERGY_ERROR = 1000.0


def velocity(momentum: Tensor, inverse_mass: Tensor) -> Float[Tensor, "chain parameter"]:
    """Return the velocity M^-1 r.

    Args:
        momentum: r.
        inverse_mass: M^-1, diagonal or dense.
    """
    if inverse_mass.dim() == momentum.dim():
        return inverse_mass * momentum
    return (inverse_mass @ momentum[..., None])[..., 0]


def kinetic_energy(momentum: Tensor, inverse_mass: Tensor) -> Float[Tensor, " chain"]:
    """Return the kinetic energy r^T M^-1 r / 2, in float64.

    Args:
        momentum: r.
        inverse_mass: M^-1, diagonal or dense.
    """
    return 0.5 * (momentum * velocity(momentum, inverse_mass)).sum(-1, dtype=torch.float64)


def momentum_from_noise(noise: Tensor, inverse_mass: Tensor) -> Float[Tensor, "chain parameter"]:
    """Return momenta with distribution Normal(0, M).

    Args:
        noise: standard normal noise.
        inverse_mass: M^-1, diagonal or dense.
    """
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
    """Return the next position, and the momentum at the middle of the step.

    Args:
        position: (chain, parameter).
        momentum: (chain, parameter).
        gradient: gradient of U at the position.
        step: (chain,) signed step sizes.
        inverse_mass: (chain, parameter[, parameter]).
    """
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
    """Take one leapfrog step of every chain.

    Args:
        evaluate: positions -> U and its gradient.
        position: (chain, parameter).
        momentum: (chain, parameter).
        gradient: gradient of U at the position.
        step: (chain,) signed step sizes.
        inverse_mass: (chain, parameter) or (chain, parameter, parameter).

    Returns:
        The position, momentum, gradient and U after the step.
    """
    position, momentum = half_step(position, momentum, gradient, step, inverse_mass)
    energy, gradient = evaluate(position)
    return position, momentum - 0.5 * step[:, None] * gradient, gradient, energy


def leapfrog_step(
    evaluate: Evaluate,
    index: Tensor,
    position: Tensor,
    momentum: Tensor,
    gradient: Tensor,
    energy: Tensor,
    step: Tensor,
    inverse_mass: Tensor,
    number: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Take one leapfrog step of the trajectories that are not complete.

    Args:
        evaluate: positions -> U and its gradient.
        index: (1,) number of the step.
        position: (chain, parameter).
        momentum: (chain, parameter).
        gradient: gradient of U at the position.
        energy: (chain,) U at the position.
        step: (chain,) signed step sizes.
        inverse_mass: (chain, parameter) or (chain, parameter, parameter).
        number: (chain,) steps of each trajectory; a chain that has completed its own takes a step
            of length zero.

    Returns:
        The position, momentum, gradient and U after the step.
    """
    signed = torch.where(index < number, step, 0.0)
    return leapfrog(evaluate, position, momentum, gradient, signed, inverse_mass)


def bind_density(
    function: Callable[..., Any],
    density: TemperedDensity,
    name: str,
    *,
    dynamic_arguments: Sequence[int] = (),
) -> Callable[..., Any]:
    """Bind a density to `function(evaluate, *tensors)`, compiled if the density allows it.

    Args:
        function: its first argument evaluates U and its gradient.
        density: the density to bind.
        name: the name of the function in warnings.
        dynamic_arguments: positions of arguments whose first axis varies from call to call.

    Returns:
        A function of the tensors.
    """
    if density.can_be_inlined:
        return Compiled(
            functools.partial(function, density.evaluate), name, dynamic_arguments=dynamic_arguments
        )
    return functools.partial(function, density)
