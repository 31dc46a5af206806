"""The isokinetic integrator of microcanonical dynamics, for a batch of chains.

A particle moves with unit speed, so that only the direction u of its velocity changes:

    dx = s u dt,    du = -(1 - u u^T) s grad U / (d - 1) dt,

with d the number of parameters and s the scale of each parameter (the square root of a diagonal
inverse mass matrix). Stationary density of the position is exp(-U), whatever the step size of
time-reversible steps that are corrected for their energy error. Both parts of a step have exact
solutions: a shift of the position, and, with the gradient constant, a rotation of the direction
towards its descent (`turn`). The step of minimal norm evaluates two gradients and has a third of
the energy error of two leapfrog steps.

References:
    Robnik, De Luca, Silverstein & Seljak 2023, arXiv:2212.08549 (dynamics, appendix of the
    integrator); Robnik & Seljak 2024, arXiv:2303.18221 (partial refreshment); Omelyan,
    Mryglod & Folk 2003, doi:10.1016/S0010-4655(02)00754-3 (step of minimal norm).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.inference.mcmc.integrator import Evaluate

# The part of a step that the first and the last turn take each.
_OUTER = 0.1931833275037836


def turn(
    direction: Float[Tensor, "chain parameter"],
    gradient: Float[Tensor, "chain parameter"],
    time: Float[Tensor, " chain"],
) -> tuple[Float[Tensor, "chain parameter"], Float[Tensor, " chain"]]:
    """Turn directions towards descent, for a time with a constant gradient.

    With e = -gradient / |gradient|, c = u.e and z = exp(-time |gradient| / (d - 1)),

        u' = (2 z u + (1 - z) (1 + z + c (1 - z)) e) / (1 + c + (1 - c) z^2).

    Args:
        direction: u, unit vectors.
        gradient: of U, in units of the scales.
        time: (chain,) in float64; negative times reverse the turn.

    Returns:
        The new unit vectors, and the change of the kinetic energy (chain,) in nats, float64.
    """
    inertia = direction.shape[-1] - 1
    norm = gradient.square().sum(-1, dtype=torch.float64).sqrt().clamp(min=1e-150)
    along = -(direction * gradient).sum(-1, dtype=torch.float64) / norm
    angle = time * norm / inertia
    decay, rest = torch.exp(-angle), -torch.expm1(-angle)
    length = 1 + along + (1 - along) * decay.square()
    keep = (2 * decay / length).to(direction)
    add = (rest * (1 + decay + along * rest) / length / norm).to(direction)
    turned = keep[:, None] * direction - add[:, None] * gradient
    return turned, inertia * (angle - math.log(2.0) + length.log())


def minimal_norm_step(
    evaluate: Evaluate,
    position: Float[Tensor, "chain parameter"],
    direction: Float[Tensor, "chain parameter"],
    gradient: Float[Tensor, "chain parameter"],
    energy: Float[Tensor, " chain"],
    step: Float[Tensor, " chain"],
    scale: Float[Tensor, "chain parameter"],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Take one step of every chain, with two gradients.

    Args:
        evaluate: positions -> U and its gradient.
        position: x.
        direction: u, unit vectors.
        gradient: of U at the position.
        energy: U at the position, float64.
        step: step sizes, float64.
        scale: s.

    Returns:
        The position, direction, gradient and U after the step, and the energy error (chain,), the
        change of the sum of kinetic and potential energy, float64.
    """
    half = (0.5 * step).to(position)[:, None] * scale
    direction, first = turn(direction, scale * gradient, _OUTER * step)
    position = position + half * direction
    direction, second = turn(direction, scale * evaluate(position)[1], (1 - 2 * _OUTER) * step)
    position = position + half * direction
    new_energy, gradient = evaluate(position)
    direction, third = turn(direction, scale * gradient, _OUTER * step)
    return position, direction, gradient, new_energy, first + second + third + new_energy - energy


def refresh(
    direction: Float[Tensor, "chain parameter"],
    noise: Float[Tensor, "chain parameter"],
    step: Float[Tensor, " chain"],
    length: Float[Tensor, " chain"],
) -> Float[Tensor, "chain parameter"]:
    """Refresh directions in part, so that they decorrelate over a path of a given length.

    Args:
        direction: u, unit vectors.
        noise: standard normal noise.
        step: step sizes, float64.
        length: the decoherence length, in units of the steps, float64; infinity keeps u.

    Returns:
        Unit vectors (u + n z) / |u + n z| with n^2 = (exp(2 step / length) - 1) / d.
    """
    size = (torch.expm1(2 * step / length) / direction.shape[-1]).sqrt().to(direction)
    return normalized(direction + size[:, None] * noise)


def normalized(vectors: Float[Tensor, "chain parameter"]) -> Float[Tensor, "chain parameter"]:
    """Return unit vectors.

    Args:
        vectors: their directions.
    """
    return vectors / vectors.norm(dim=-1, keepdim=True)
