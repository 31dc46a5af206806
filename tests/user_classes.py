"""A likelihood and a prior as users write them; tests name them `tests.user_classes:...`."""

import math

import pyro.distributions as dist
import torch

from bnn_symm import PriorFamily
from bnn_symm.likelihoods import NumberLikelihood
from bnn_symm.settings import Positive, PositiveInt, settings


@settings
class LaplaceNoise(NumberLikelihood):
    """Numbers with Laplace noise, whose scale is learned."""

    log_scale_mean: float = -1.0
    log_scale_sd: Positive = 1.0

    @property
    def latents(self):
        return {"log_scale": (self.log_scale_mean, self.log_scale_sd)}

    def log_prob(self, outputs, y, latents):
        log_scale = latents["log_scale"].unsqueeze(-1)
        return -(y - outputs[..., 0]).abs() * (-log_scale).exp() - log_scale - math.log(2.0)

    def distribution(self, outputs, latents):
        return dist.Laplace(outputs[..., 0], latents["log_scale"].exp().unsqueeze(-1))


class _RealMixture(dist.MixtureSameFamily):
    support = dist.constraints.real


@settings
class ScaledNormals(PriorFamily):
    """Like a horseshoe: normals whose scales are quantiles of a half-Cauchy distribution."""

    num_scales: PositiveInt = 4

    def _ratios(self):
        levels = [(k + 0.5) / self.num_scales for k in range(self.num_scales)]
        return [math.tan(0.5 * math.pi * level) for level in levels]

    @property
    def unit_variance(self):
        return sum(ratio**2 for ratio in self._ratios()) / self.num_scales

    def log_prob(self, value, scale):
        parts = [
            -0.5 * (value / (ratio * scale)).square() - math.log(ratio) for ratio in self._ratios()
        ]
        constant = math.log(self.num_scales) + 0.5 * math.log(2 * math.pi)
        return torch.stack(parts).logsumexp(0) - scale.log() - constant

    def distribution(self, loc, scale):
        scales = torch.stack([ratio * scale for ratio in self._ratios()], -1)
        weights = dist.Categorical(torch.ones_like(scales))
        return _RealMixture(weights, dist.Normal(loc.unsqueeze(-1).expand_as(scales), scales))
