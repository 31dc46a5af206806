"""Define the likelihoods of numbers with heavy-tailed noise. Targets are standardized."""

import math
from abc import abstractmethod
from typing import Annotated, Literal

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from bnn_symm.models.likelihoods.gaussian import LOG_SD_BOUND
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

# Nodes of a table of the CDF, and the largest |asinh(z)|: beyond, less than 1e-13 is left.
_NODES = 1025
_LARGEST = 16.0


class _StudentT(NumberLikelihood):
    """Provide what the two likelihoods share.

    Attributes:
        degrees_of_freedom: a number above 2, or `learned`.
        log_excess_mean: prior mean of log(degrees of freedom - 2).
        log_excess_sd: prior standard deviation of log(degrees of freedom - 2).
    """

    degrees_of_freedom: float | Learned
    log_excess_mean: float
    log_excess_sd: float

    @abstractmethod
    def _location_and_log_scale(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor]:
        """Return the mean and the log scale of the target, each (..., point)."""

    def _parameters(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean, the log scale and the degrees of freedom, each (..., point)."""
        mean, log_scale = self._location_and_log_scale(outputs, latents)
        return mean, log_scale, self._degrees_of_freedom(latents, mean).expand_as(mean)

    def _degrees_of_freedom(self, latents: Latents, like: Tensor) -> Tensor:
        """Return the degrees of freedom of all points, (..., 1)."""
        if self.degrees_of_freedom == "learned":
            return 2 + latents["log_excess"].exp().unsqueeze(-1)
        return like.new_full((1,), self.degrees_of_freedom)

    def _excess_prior(self) -> dict[str, tuple[float, float]]:
        """Return the prior of `log_excess` if it is learned."""
        if self.degrees_of_freedom != "learned":
            return {}
        return {"log_excess": (self.log_excess_mean, self.log_excess_sd)}

    def log_prob(
        self,
        outputs: Float[Tensor, "*draw point output"],
        y: Float[Tensor, " point"],
        latents: Latents,
    ) -> Float[Tensor, "*draw point"]:
        """Return the log density of Student's distribution at the target."""
        mean, log_scale = self._location_and_log_scale(outputs, latents)
        df = self._degrees_of_freedom(latents, mean)
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
        return self._location_and_log_scale(outputs, latents)[0]

    def variance(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return Var[y] given each draw, which is more than the square of the scale."""
        _, log_scale, df = self._parameters(outputs, latents)
        return (2 * log_scale).exp() * df / (df - 2)

    def cdf(self, outputs: Tensor, value: Tensor, latents: Latents) -> Tensor:
        """Return P(y <= value) given each draw."""
        mean, log_scale = self._location_and_log_scale(outputs, latents)
        z = (value - mean) * (-log_scale).exp()
        return _cdf(self._degrees_of_freedom(latents, mean), z)

    def _information(self, log_scale: Tensor, df: Tensor) -> Tensor:
        """Return the information of (mean, log scale, log excess), (point, 3, 3), in float64.

        The mean is orthogonal to the other two (Lange, Little and Taylor 1989, appendix B).
        """
        log_scale, df = log_scale.double(), df.double()
        of_mean = (df + 1) / (df + 3) * (-2 * log_scale).exp()
        of_scale = 2 * df / (df + 3)
        trigamma = [torch.special.polygamma(1, 0.5 * (df + shift)) for shift in (0, 1)]
        of_df = 0.25 * (trigamma[0] - trigamma[1]) - (df + 5) / (2 * df * (df + 1) * (df + 3))
        mixed = -2 / ((df + 1) * (df + 3))
        information = df.new_zeros(*df.shape, 3, 3)
        information[..., 0, 0], information[..., 1, 1] = of_mean, of_scale
        information[..., 1, 2] = information[..., 2, 1] = mixed * (df - 2)
        information[..., 2, 2] = of_df * (df - 2).square()
        return information


def _cdf(df: Float[Tensor, "*draw 1"], z: Float[Tensor, "*draw point"]) -> Tensor:
    """Return P(t <= z) in float64, with an error of at most 1e-8.

    The points of a draw share their degrees of freedom, so that for many points a table for each
    draw takes a tenth of the time: values and slopes on a grid of asinh(z), and cubic polynomials
    between them.
    """
    if z.shape[-1] <= 2 * _NODES:
        return scipy_special("stdtr", df, z)
    grid = torch.linspace(-_LARGEST, _LARGEST, _NODES, dtype=torch.float64, device=z.device)
    step = 2 * _LARGEST / (_NODES - 1)
    df = df.detach().double()
    at, root = grid.sinh(), grid.cosh()
    constant = torch.lgamma(0.5 * (df + 1)) - torch.lgamma(0.5 * df) - 0.5 * (math.pi * df).log()
    slope = step * root * (constant - 0.5 * (df + 1) * torch.log1p(at.square() / df)).exp()
    height = scipy_special("stdtr", df, at)
    place = (z.detach().double().asinh().clamp(-_LARGEST, _LARGEST) + _LARGEST) / step
    left = place.long().clamp(max=_NODES - 2)
    t = place - left
    table = torch.stack([height[..., :-1], height.diff(), slope[..., :-1], slope[..., 1:]])
    start, rise, first, last = table.expand(4, *z.shape[:-1], -1).gather(
        -1, left.expand(4, *left.shape)
    )
    # Hermite's polynomial with these ends and slopes.
    return start + t * (first + t * (3 * rise - 2 * first - last + t * (first + last - 2 * rise)))


@settings
class StudentT(_StudentT):
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
        noise = {"log_noise": (self.log_noise_mean, self.log_noise_sd)}
        return {**(noise if self.noise == "learned" else {}), **self._excess_prior()}

    def _location_and_log_scale(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor]:
        mean = outputs.squeeze(-1)
        return mean, log_positive(self.noise, "log_noise", latents, mean)

    def fisher_root(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return a root of the information of the mean and, if learned, (log scale, log excess)."""
        _, log_scale, df = self._parameters(outputs, latents)
        known = {"log_noise": 1, "log_excess": 2}
        keep = [0, *(index for name, index in known.items() if name in self.latents)]
        information = self._information(log_scale, df)[..., keep, :][..., keep]
        return matrix_root(information).to(outputs.dtype)


@settings
class HeteroscedasticStudentT(_StudentT):
    """Model y = first output + exp(second output) * t, with heavy tails and noise of each point.

    The degrees of freedom are those of all points.

    Attributes:
        degrees_of_freedom: a number above 2, or `learned`, as for `student_t`.
        log_excess_mean: prior mean of log(degrees of freedom - 2).
        log_excess_sd: prior standard deviation of log(degrees of freedom - 2).
    """

    name: Literal["heteroscedastic_student_t"] = "heteroscedastic_student_t"
    degrees_of_freedom: Annotated[float, Field(gt=2)] | Learned = "learned"
    log_excess_mean: float = 1.5
    log_excess_sd: Positive = 1.0
    output_names = ("mean", "log_scale")

    @property
    def latents(self) -> dict[str, tuple[float, float]]:
        """Return the prior of `log_excess` if it is learned."""
        return self._excess_prior()

    def _location_and_log_scale(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor]:
        return outputs[..., 0], outputs[..., 1].clamp(-LOG_SD_BOUND, LOG_SD_BOUND)

    def fisher_root(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return a root of the information of (mean, log scale, log excess if it is learned)."""
        _, log_scale, df = self._parameters(outputs, latents)
        size = 2 + len(self.latents)
        information = self._information(log_scale, df)[..., :size, :size]
        # Beyond its bounds the density does not depend on the second output.
        is_free = (outputs[..., 1].abs() < LOG_SD_BOUND).to(information)
        information[..., 1, :] *= is_free[..., None]
        information[..., :, 1] *= is_free[..., None]
        return matrix_root(information).to(outputs.dtype)
