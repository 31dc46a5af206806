"""Compute roots of the Fisher information of a target given the outputs of a network.

Let z be the outputs of the network together with the likelihood's own latent variables. Then

    F(z) = E[s s^T],   s = d log p(y | z) / dz,   y ~ p(y | z).

Where z are natural parameters (categorical, Bernoulli, Poisson, Gaussian with fixed noise) F is the
Hessian of -log p for every y, so that J^T F J, J = dz/dw, is the generalized Gauss-Newton matrix.
For learned or predicted noise the Hessian has negative eigenvalues away from the truth; F is its
expectation and is positive semi-definite. Each likelihood has its own root, `fisher_root`. Where
times are censored, F is the information gathered up to each time (`censored_fisher_root`), whose
expectation is the Fisher information.

References:
    Martens 2020, arXiv:1412.1193, sections 8 and 9.
"""

from typing import Any

from jaxtyping import Float, Shaped
from torch import Tensor

from bnn_symm.errors import ConfigError
from bnn_symm.models.likelihoods import Latents, has_events, without_exposure


def fisher_root(
    likelihood: Any,
    outputs: Float[Tensor, "point output"],
    latents: Latents,
    y: Shaped[Tensor, "point *column"] | None = None,
) -> Float[Tensor, "point row variable"]:
    """Return a root R of the Fisher information of every point, F = R^T R.

    Args:
        likelihood: of the targets.
        outputs: of the network.
        latents: the likelihood's own variables, scalars.
        y: targets of the points, of which exposures and censored times are used; other
            likelihoods do not need them.

    Returns:
        One matrix per point; its columns are the outputs followed by the latent variables, in their
        order.

    Raises:
        ConfigError: if the likelihood does not have it.
    """
    if y is not None and has_events(likelihood):
        root = getattr(likelihood, "censored_fisher_root", None)
        if root is not None:
            return root(outputs, y, latents)
    if y is not None:
        likelihood, outputs, _ = without_exposure(likelihood, outputs, y)
    root = getattr(likelihood, "fisher_root", None)
    if root is None:
        raise ConfigError(
            f"likelihood {likelihood.name} has no fisher_root(outputs, latents), which the Laplace "
            "approximation needs; implement it (bnn_symm.models.fisher), or use another method"
        )
    return root(outputs, latents)
