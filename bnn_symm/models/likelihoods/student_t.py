"""Define the likelihood of numbers with heavy-tailed noise. Targets are standardized."""

import math
from typing import Annotated, Literal

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from bnn_symm.models.likelihoods.likelihood import (
    Latents,
    Learned,
    NumberLikelihood,
    log_positive,
    matrix_root,
    scipy_special,
)
from bnn_symm.models.pyro_distribution import PyroDistribution
from bnn_symm.settings import Positive, settings


@settings
class StudentT(NumberLikelihood):
    """Model y = output + noise * t, with t of Student's distribution: outliers move fits little.

    The degrees of freedom are above 2, so that the variance is finite: predictions have a standard
    deviation, and rmse and intervals a meaning. Learned ones are 2 + exp(latent), where the latent
    variable has a normal prior. As a model of outliers: Lange, Little and Taylor 1989
    (doi:10.1080/01621459.1989.10478852).

    Attributes:
        noise: the scale of the noise in standardized units, or `learned`, as for `gaussian`. Its
            standard deviation is sqrt(df / (df - 2)) times as large.
        log_noise_mean: prior mean of log(noise).
        log_noise_sd: prior standard deviation of log(noise).
        degrees_of_freedom: a number above 2, or `learned`.
        log_excess_mean: prior mean of log(degrees of freedom - 2).
        log_excess_sd: prior standard deviation of log(degrees of freedom - 2). The defaults put
            95 % of the prior on degrees of freedom between 2.6 and 34.
    """

    name: Literal["student_t"] = "student_t"
    noise: Positive | Learned = "learned"
    log_noise_mean: float = -1.0
    log_noise_sd: Positive = 1.0
    degrees_of_freedom: Annotated[float, Field(gt=2)] | Learned = "learned"
    log_excess_mean: float = 1.5
    log_excess_sd: Positive = 1.0

    @property
    def latents(self) -> dict[str, tuple[float, float]]:
        """Return the priors of `log_noise` and `log_excess` if they are learned."""
        result = {}
        if self.noise == "learned":
            result["log_noise"] = (self.log_noise_mean, self.log_noise_sd)
        if self.degrees_of_freedom == "learned":
            result["log_excess"] = (self.log_excess_mean, self.log_excess_sd)
        return result

    def _parameters(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean, the log scale and the degrees of freedom, each (..., point)."""
        mean = outputs.squeeze(-1)
        fixed = self.degrees_of_freedom
        excess = fixed if fixed == "learned" else fixed - 2
        log_excess = log_positive(excess, "log_excess", latents, mean)
        return mean, log_positive(self.noise, "log_noise", latents, mean), 2 + log_excess.exp()

    def log_prob(
        self, outputs: Float[Tensor, "*draw point 1"], y: Float[Tensor, " point"], latents: Latents
    ) -> Float[Tensor, "*draw point"]:
        """Return the log density of Student's distribution at the target."""
        mean, log_scale, df = self._parameters(outputs, latents)
        # In float64, because the two terms cancel for many degrees of freedom.
        wide = df.double()
        constant = torch.lgamma(0.5 * (wide + 1)) - torch.lgamma(0.5 * wide)
        constant = constant - 0.5 * (math.pi * wide).log()
        square = ((y - mean) * (-log_scale).exp()).square()
        return constant.to(mean.dtype) - log_scale - 0.5 * (df + 1) * torch.log1p(square / df)

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return Pyro's StudentT."""
        mean, log_scale, df = self._parameters(outputs, latents)
        return dist.StudentT(df, mean, log_scale.exp())

    def mean(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return E[y] given each draw."""
        return outputs.squeeze(-1)

    def variance(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return Var[y] given each draw, which is more than the square of the scale."""
        _, log_scale, df = self._parameters(outputs, latents)
        return (2 * log_scale).exp() * df / (df - 2)

    def cdf(self, outputs: Tensor, value: Tensor, latents: Latents) -> Tensor:
        """Return P(y <= value) given each draw."""
        mean, log_scale, df = self._parameters(outputs, latents)
        return scipy_special("stdtr", df, (value - mean) * (-log_scale).exp())

    def fisher_root(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return a root of the information of (mean, log scale, log excess), if these are learned.

        The mean is orthogonal to the other two (Lange, Little and Taylor 1989, appendix B).
        """
        _, log_scale, df = (value.double() for value in self._parameters(outputs, latents))
        of_mean = (df + 1) / (df + 3) * (-2 * log_scale).exp()
        of_scale = 2 * df / (df + 3)
        trigamma = [torch.special.polygamma(1, 0.5 * (df + shift)) for shift in (0, 1)]
        of_df = 0.25 * (trigamma[0] - trigamma[1]) - (df + 5) / (2 * df * (df + 1) * (df + 3))
        mixed = -2 / ((df + 1) * (df + 3))
        rows = [[of_scale, mixed * (df - 2)], [mixed * (df - 2), of_df * (df - 2).square()]]
        latent = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
        keep = [i for i, name in enumerate(("log_noise", "log_excess")) if name in self.latents]
        information = latent.new_zeros(*df.shape, 1 + len(keep), 1 + len(keep))
        information[..., 0, 0] = of_mean
        information[..., 1:, 1:] = latent[..., keep, :][..., keep]
        return matrix_root(information).to(outputs.dtype)
