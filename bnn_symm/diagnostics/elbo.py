"""The evidence lower bound of a Gaussian posterior, in nats, with its Monte Carlo error.

    ELBO = E_q[log p(y | w)] - KL(q || p) <= log p(y),

always untempered, for the training part whole, in the target's own units (the Jacobian of standardising it
included). The KL is analytic or a quadrature; only the expected log likelihood is sampled.
"""

import math
from dataclasses import dataclass

import torch

from bnn_symm.architectures import count_flops
from bnn_symm.data import Part
from bnn_symm.posteriors import GaussianPosterior, Posterior
from bnn_symm.randomness import torch_generator

# Sampling ends at this standard error in nats, or when the work below is done, whichever comes first.
_STANDARD_ERROR = 0.005
_FLOPS = 5e10
_MIN_SAMPLES, _MAX_SAMPLES = 50, 20_000


@dataclass(frozen=True, kw_only=True)
class Elbo:
    """An estimate of the ELBO in nats.

    Attributes:
        value: expected_log_likelihood - kl.
        standard_error: Monte Carlo error of `value`.
        expected_log_likelihood: over the whole training part.
        kl: KL(q || prior).
        num_samples: draws of the weights behind it.
    """

    value: float
    standard_error: float
    expected_log_likelihood: float
    kl: float
    num_samples: int


def elbo(posterior: Posterior, train: Part, *, seed: int = 0) -> Elbo | None:
    """Estimates the ELBO; None for a posterior without a closed form, which has none.

    Where one pass over the data is too much work, every sample takes a random subset of the points, scaled up:
    still unbiased, and the subset's variance is in the standard error.
    """
    if not isinstance(posterior, GaussianPosterior):
        return None
    model = posterior.model
    size = len(train)
    train = train.to(model.device, model.dtype)
    flops = max(1, count_flops(model.net, tuple(train.x.shape[1:]), 1))
    points = min(size, max(1, int(_FLOPS / _MIN_SAMPLES / flops)))
    most = int(min(_MAX_SAMPLES, max(_MIN_SAMPLES, _FLOPS / (flops * points))))
    log_jacobian = size * math.log(posterior.scaling.y_scale)
    count, mean, square = 0, 0.0, 0.0
    with torch.inference_mode():
        loc, scale = posterior.loc, posterior.scale
        kl = float(model.cross_entropy(loc, scale).sum(dtype=torch.float64)) - posterior.entropy()
        while count < most:
            generator = torch_generator(seed, "elbo", count)
            noise = torch.randn(loc.shape, generator=generator, dtype=loc.dtype).to(loc.device)
            x, y = train.x, train.y
            if points < size:
                index = torch.randperm(size, generator=generator)[:points].to(x.device)
                x, y = x[index], y[index]
            total = model.log_likelihood(posterior.at_noise(noise), x, y).sum(dtype=torch.float64)
            value = float(total) * size / points
            count += 1
            change = value - mean
            mean += change / count
            square += change * (value - mean)
            if count >= _MIN_SAMPLES and math.sqrt(square / (count - 1) / count) <= _STANDARD_ERROR:
                break
    expected = mean - log_jacobian
    return Elbo(
        value=expected - kl,
        standard_error=math.sqrt(square / (count - 1) / count),
        expected_log_likelihood=expected,
        kl=kl,
        num_samples=count,
    )
