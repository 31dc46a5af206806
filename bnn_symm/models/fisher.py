r"""Fisher information of a target: how sharply its density depends on what the network says.

Of the outputs of the network and the likelihood's own latent variables together, called z,

    F(z) = E[s s^T],   s = d log p(y | z) / dz,   y ~ p(y | z).

Where z are natural parameters (categorical, Bernoulli, Poisson, Gaussian with fixed noise) F is the
Hessian of -log p for every y, so that J^T F J, J = dz/dw, is the generalized Gauss-Newton matrix.
For noise that is learned or predicted the Hessian has negative eigenvalues away from the truth; F
is its expectation and has none.

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
    """A root R of the Fisher information of every point, F = R^T R.

    Args:
        likelihood: of the targets.
        outputs: of the network.
        latents: the likelihood's own variables, scalars.

    Returns:
        One matrix a point; its columns are the outputs and then the latent variables, in their
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
            of_mean = likelihood.variance(outputs, latents).rsqrt()
            if not latents and isinstance(likelihood, Gaussian):
                return of_mean[:, None, None]
            log_scale_grad = torch.full_like(of_mean, math.sqrt(2.0))
            if isinstance(likelihood, HeteroscedasticGaussian):
                # Beyond its bounds the density does not depend on the second output.
                log_scale_grad = log_scale_grad * (outputs[:, 1].abs() < likelihood._BOUND)
            return torch.diag_embed(torch.stack([of_mean, log_scale_grad], dim=-1))
