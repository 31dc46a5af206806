"""Compute roots of the Fisher information of a target given the outputs of a network.

Let z be the outputs of the network together with the likelihood's own latent variables. Then

    F(z) = E[s s^T],   s = d log p(y | z) / dz,   y ~ p(y | z).

Where z are natural parameters (categorical, Bernoulli, Poisson, Gaussian with fixed noise) F is the
Hessian of -log p for every y, so that J^T F J, J = dz/dw, is the generalized Gauss-Newton matrix.
For learned or predicted noise the Hessian has negative eigenvalues away from the truth; F is its
expectation and is positive semi-definite.

References:
    Martens 2020, arXiv:1412.1193, sections 8 and 9.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.models.likelihoods import (
    AnyLikelihood,
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    Latents,
    Poisson,
)


def fisher_root(
    likelihood: AnyLikelihood, outputs: Float[Tensor, "point output"], latents: Latents
) -> Float[Tensor, "point row variable"]:
    """Return a root R of the Fisher information of every point, F = R^T R.

    Args:
        likelihood: of the targets.
        outputs: of the network.
        latents: the likelihood's own variables, scalars.

    Returns:
        One matrix per point; its columns are the outputs followed by the latent variables, in their
        order.
    """
    match likelihood:
        case Categorical():
            probabilities = outputs.softmax(-1)
            unit = torch.eye(outputs.shape[-1], dtype=outputs.dtype, device=outputs.device)
            # diag(p) - p p^T = sum_c p_c (e_c - p)(e_c - p)^T
            return probabilities.sqrt().unsqueeze(-1) * (unit - probabilities.unsqueeze(-2))
        case Bernoulli():
            log_variance = torch.nn.functional.logsigmoid(outputs) + torch.nn.functional.logsigmoid(
                -outputs
            )
            return (0.5 * log_variance).exp().unsqueeze(-1)
        case Poisson():
            return (0.5 * outputs).exp().unsqueeze(-1)
        case Gaussian() | HeteroscedasticGaussian():
            # Of (mean, log sd): diag(1 / sd^2, 2).
            mean_root = likelihood.variance(outputs, latents).rsqrt()
            if not latents and isinstance(likelihood, Gaussian):
                return mean_root[:, None, None]
            log_sd_root = torch.full_like(mean_root, math.sqrt(2.0))
            if isinstance(likelihood, HeteroscedasticGaussian):
                # Beyond its bounds the density does not depend on the second output.
                log_sd_root = log_sd_root * (outputs[:, 1].abs() < likelihood._BOUND)
            return torch.diag_embed(torch.stack([mean_root, log_sd_root], dim=-1))
