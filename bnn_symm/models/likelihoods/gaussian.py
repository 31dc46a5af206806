"""Define the Gaussian likelihoods of numbers. Targets are standardized."""

import math
from abc import abstractmethod
from typing import Literal

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.models.likelihoods.likelihood import (
    Latents,
    Learned,
    NumberLikelihood,
    log_positive,
)
from bnn_symm.models.pyro_distribution import PyroDistribution
from bnn_symm.settings import Positive, settings

# exp of an extreme output overflows early in training. Beyond these bounds the noise would be below
# 5e-5 or above 2e4 standard deviations of the target, so no useful fit is affected.
LOG_SD_BOUND = 10.0


class _Gaussian(NumberLikelihood):
    """Provide what the two Gaussian likelihoods share."""

    @abstractmethod
    def _moments(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor]:
        """Return the mean and the log standard deviation of the target, each (..., point)."""

    def log_prob(
        self,
        outputs: Float[Tensor, "*draw point output"],
        y: Float[Tensor, " point"],
        latents: Latents,
    ) -> Float[Tensor, "*draw point"]:
        """Return the Gaussian log density of the target."""
        mean, log_sd = self._moments(outputs, latents)
        return -0.5 * ((y - mean) * (-log_sd).exp()).square() - log_sd - 0.5 * math.log(2 * math.pi)

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return Pyro's Normal with the moments of the target."""
        mean, log_sd = self._moments(outputs, latents)
        return dist.Normal(mean, log_sd.exp())

    def mean(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return E[y] given each draw."""
        return self._moments(outputs, latents)[0]

    def variance(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return Var[y] given each draw."""
        return (2 * self._moments(outputs, latents)[1]).exp()

    def cdf(self, outputs: Tensor, value: Tensor, latents: Latents) -> Tensor:
        """Return P(y <= value) given each draw."""
        mean, log_sd = self._moments(outputs, latents)
        return torch.special.ndtr((value - mean) * (-log_sd).exp())

    def normal_components(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor, Tensor]:
        """Return weight, mean and standard deviation of the one normal component."""
        mean, log_sd = (value.unsqueeze(-1) for value in self._moments(outputs, latents))
        return torch.ones_like(mean), mean, log_sd.exp()


@settings
class Gaussian(_Gaussian):
    """Model y ~ Normal(output, noise), with fixed or learned noise.

    Attributes:
        noise: the standard deviation in standardized units, or `learned`: then log(noise) is a
            latent variable with a normal prior, so noise itself is log-normal.
        log_noise_mean: prior mean of log(noise).
        log_noise_sd: prior standard deviation of log(noise). The defaults put 95 % of the prior on
            noise between 5 % and 260 % of the target's standard deviation.
    """

    name: Literal["gaussian"] = "gaussian"
    noise: Positive | Learned = "learned"
    log_noise_mean: float = -1.0
    log_noise_sd: Positive = 1.0

    @property
    def latents(self) -> dict[str, tuple[float, float]]:
        """Return the prior of `log_noise` if the noise is learned."""
        return (
            {"log_noise": (self.log_noise_mean, self.log_noise_sd)}
            if self.noise == "learned"
            else {}
        )

    def _moments(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor]:
        mean = outputs.squeeze(-1)
        return mean, log_positive(self.noise, "log_noise", latents, mean)

    def fisher_root(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return a root of diag(1 / sd^2, 2) of (mean, log sd)."""
        root = self.variance(outputs, latents).rsqrt()
        if not self.latents:
            return root[:, None, None]
        return torch.diag_embed(torch.stack([root, torch.full_like(root, math.sqrt(2.0))], dim=-1))


@settings
class HeteroscedasticGaussian(_Gaussian):
    """Model y ~ Normal(first output, exp(second output)), with noise predicted per point."""

    name: Literal["heteroscedastic_gaussian"] = "heteroscedastic_gaussian"
    output_names = ("mean", "log_sd")

    def _moments(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor]:
        return outputs[..., 0], outputs[..., 1].clamp(-LOG_SD_BOUND, LOG_SD_BOUND)

    def fisher_root(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return a root of diag(1 / sd^2, 2) of (mean, log sd)."""
        root = self.variance(outputs, latents).rsqrt()
        # Beyond its bounds the density does not depend on the second output.
        is_free = outputs[:, 1].abs() < LOG_SD_BOUND
        return torch.diag_embed(torch.stack([root, math.sqrt(2.0) * is_free.to(root)], dim=-1))
