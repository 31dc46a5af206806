"""Define the likelihoods of counts. Targets are counts."""

from typing import Literal

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.models.likelihoods.likelihood import Latents, WithoutLatents
from bnn_symm.models.pyro_distribution import PyroDistribution
from bnn_symm.settings import settings


@settings
class Poisson(WithoutLatents):
    """Model y ~ Poisson(exp(output))."""

    name: Literal["poisson"] = "poisson"
    task = "count"

    def num_net_outputs(self, num_outputs: int) -> int:
        """Return 1: the log rate."""
        return 1

    def log_prob(
        self, outputs: Float[Tensor, "*draw point 1"], y: Float[Tensor, " point"], latents: Latents
    ) -> Float[Tensor, "*draw point"]:
        """Return the Poisson log probability of the target."""
        log_rate = outputs.squeeze(-1)
        return y * log_rate - log_rate.exp() - torch.lgamma(y + 1)

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return Pyro's Poisson with rate exp(output)."""
        return dist.Poisson(outputs.squeeze(-1).exp())

    def mean(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return E[y] given each draw."""
        return outputs.squeeze(-1).exp()

    def variance(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return Var[y] given each draw, which equals the mean."""
        return self.mean(outputs, latents)

    def cdf(self, outputs: Tensor, value: Tensor, latents: Latents) -> Tensor:
        """Return P(y <= value) given each draw."""
        rate = self.mean(outputs, latents)
        count = value.floor().expand_as(rate)
        return torch.where(count < 0, 0.0, torch.special.gammaincc(count.clamp(min=0) + 1, rate))
