r"""Define the likelihoods of positive times, some of which are right-censored.

Accelerated failure time models: log T = output + sigma W. Features shift the log of the time, so
they stretch the time itself; W has one distribution for all points, and sigma is one number.

    log p = d (log f_W(z) - log sigma - log t) + (1 - d) log S_W(z),   z = (log t - output) / sigma

with d = 1 if the event was seen at t, and 0 if it comes later. This assumes that, given the
features, censoring does not depend on the time of the event. Kalbfleisch and Prentice 2002,
chapter 3 (doi:10.1002/9781118032985).
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from bnn_symm.models.likelihoods.likelihood import (
    Latents,
    Learned,
    NumberLikelihood,
    log_positive,
    matrix_root,
)
from bnn_symm.models.pyro_distribution import PyroDistribution
from bnn_symm.settings import Positive, settings

# Nodes of the integral over the cumulative hazard in the information of log-normal times, and the
# power of the nodes that resolves its logarithmic singularity at zero.
_NODES, _POWER = 48, 4


@dataclass(frozen=True)
class _StandardNoise:
    """Describe the distribution of W.

    Attributes:
        log_density: of W.
        log_survival: log P(W > z).
        quantile: of W at a level.
    """

    log_density: Callable[[Tensor], Tensor]
    log_survival: Callable[[Tensor], Tensor]
    quantile: Callable[[float], float]


class _FailureTime(NumberLikelihood):
    """Provide what likelihoods of times share."""

    task = "survival"
    condition = "event"
    _noise: ClassVar[_StandardNoise]

    @abstractmethod
    def _log_sigma(self, latents: Latents, like: Tensor) -> Tensor:
        """Return log(sigma), (..., point)."""

    def _standardized(self, outputs: Tensor, time: Tensor, latents: Latents) -> tuple[Any, ...]:
        """Return z, log(sigma) and log(t), each (..., point)."""
        location = outputs.squeeze(-1)
        log_sigma = self._log_sigma(latents, location)
        log_time = time.clamp(min=torch.finfo(location.dtype).tiny).log()
        return (log_time - location) * (-log_sigma).exp(), log_sigma, log_time

    def log_prob(
        self, outputs: Float[Tensor, "*draw point 1"], y: Float[Tensor, "point 2"], latents: Latents
    ) -> Float[Tensor, "*draw point"]:
        """Return the log density of times with an event, and log P(T > t) of censored ones.

        Args:
            outputs: of the network.
            y: times and events, 1 or 0.
            latents: latent variables, each (...).
        """
        z, log_sigma, log_time = self._standardized(outputs, y[..., 0], latents)
        density = self._noise.log_density(z) - log_sigma - log_time
        return torch.where(y[..., 1] > 0, density, self._noise.log_survival(z))

    def log_survival(self, outputs: Tensor, value: Tensor, latents: Latents) -> Tensor:
        """Return log P(T > value) given each draw.

        Args:
            outputs: of the network, (..., point, 1).
            value: times, (..., point).
            latents: latent variables, each (...).
        """
        z = self._standardized(outputs, value, latents)[0]
        return torch.where(value > 0, self._noise.log_survival(z), 0.0)

    def cdf(self, outputs: Tensor, value: Tensor, latents: Latents) -> Tensor:
        """Return P(T <= value) given each draw."""
        return -torch.expm1(self.log_survival(outputs, value, latents))

    def quantile(self, outputs: Tensor, level: float, latents: Latents) -> Tensor:
        """Return the time before which the event comes with a probability, given each draw.

        Args:
            outputs: of the network, (..., point, 1).
            level: the probability, between 0 and 1.
            latents: latent variables, each (...).
        """
        location = outputs.squeeze(-1)
        sigma = self._log_sigma(latents, location).exp()
        return (location + sigma * self._noise.quantile(level)).exp()

    def conditional_distribution(
        self, outputs: Tensor, latents: Latents, y: Tensor
    ) -> PyroDistribution:
        """Return a distribution of times whose density at a censored time is P(T > t).

        Args:
            outputs: of the network, (..., point, 1).
            latents: latent variables, each (...).
            y: times and events, (point, 2).
        """
        return _RightCensored(
            self.distribution(outputs, latents),
            y[..., 1] > 0,
            lambda time: self.log_survival(outputs, time, latents),
        )


class _RightCensored(TorchDistribution):
    """A distribution of times, some of which are censored; samples are those of the events."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - never changed
    support: Any = dist.constraints.positive

    def __init__(self, base: Any, event: Tensor, log_survival: Callable[[Tensor], Tensor]):
        self._base, self._event, self._log_survival_at = base, event, log_survival
        super().__init__(base.batch_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_RightCensored":
        """Return the distribution with a larger batch shape.

        Args:
            batch_shape: the shape.
        """
        base = self._base.expand(batch_shape)
        return _RightCensored(base, self._event, self._log_survival_at)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Return times of events.

        Args:
            sample_shape: shape of independent samples.
        """
        return self._base.sample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of events, and the log probability of a later event.

        Args:
            value: times.
        """
        return torch.where(self._event, self._base.log_prob(value), self._log_survival_at(value))


def _log_normal_survival(z: Tensor) -> Tensor:
    """Return log P(W > z) of a standard normal W.

    The function log_ndtr of torch cannot be vectorized over chains. Each branch is finite beyond
    its range too, with finite gradients.
    """
    scaled = z / math.sqrt(2)
    near = torch.log1p(-0.5 * torch.erfc(-scaled.clamp(max=1.0)))
    upper = scaled.clamp(min=0.5)
    far = (0.5 * torch.special.erfcx(upper)).log() - upper.square()
    return torch.where(scaled < 1, near, far)


# The log of an exponential time has the distribution of the smallest extreme value.
_EXTREME_VALUE = _StandardNoise(
    log_density=lambda z: z - z.exp(),
    log_survival=lambda z: -z.exp(),
    quantile=lambda level: math.log(-math.log1p(-level)),
)
_NORMAL = _StandardNoise(
    log_density=lambda z: -0.5 * z.square() - 0.5 * math.log(2 * math.pi),
    log_survival=_log_normal_survival,
    quantile=lambda level: float(torch.special.ndtri(torch.tensor(level, dtype=torch.float64))),
)


@settings
class Weibull(_FailureTime):
    """Model times T = exp(output) E^(1 / shape), with E exponential.

    Above shape 1 the hazard increases with time, below it decreases, and shape 1 is the exponential
    distribution. The model is also one of proportional hazards: the hazard is multiplied by
    exp(-shape * output).

    Attributes:
        shape: a positive number, or `learned`: then its log is a latent variable with a normal
            prior.
        log_shape_mean: prior mean of log(shape).
        log_shape_sd: prior standard deviation of log(shape). The defaults put 95 % of the prior on
            shapes between 0.25 and 4.
    """

    name: Literal["weibull"] = "weibull"
    shape: Positive | Learned = "learned"
    log_shape_mean: float = 0.0
    log_shape_sd: Positive = 0.7
    _noise = _EXTREME_VALUE

    @property
    def latents(self) -> dict[str, tuple[float, float]]:
        """Return the prior of `log_shape` if it is learned."""
        is_learned = self.shape == "learned"
        return {"log_shape": (self.log_shape_mean, self.log_shape_sd)} if is_learned else {}

    def _log_sigma(self, latents: Latents, like: Tensor) -> Tensor:
        return -log_positive(self.shape, "log_shape", latents, like)

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return the Weibull distribution of uncensored times."""
        location = outputs.squeeze(-1)
        return dist.Weibull(location.exp(), (-self._log_sigma(latents, location)).exp())

    def mean(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return E[T] given each draw."""
        location = outputs.squeeze(-1)
        sigma = self._log_sigma(latents, location).exp()
        return (location + torch.lgamma(1 + sigma)).exp()

    def variance(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return Var[T] given each draw."""
        location = outputs.squeeze(-1)
        sigma = self._log_sigma(latents, location).exp()
        ratio = torch.lgamma(1 + 2 * sigma) - 2 * torch.lgamma(1 + sigma)
        return self.mean(outputs, latents).square() * torch.expm1(ratio)

    def censored_fisher_root(self, outputs: Tensor, y: Tensor, latents: Latents) -> Tensor:
        """Return a root of the information that was gathered up to each time.

        It is the integral of h s s^T with the hazard h and s the gradient of log h, whose
        expectation is the Fisher information for any censoring. With the cumulative hazard
        H = exp(z), its root has the rows sqrt(H) (shape, -z) and sqrt(H) (0, 1) in the output and
        log(shape).

        Args:
            outputs: of the network, (point, 1).
            y: times and events, (point, 2).
            latents: latent variables, scalars.
        """
        z, log_sigma, _ = self._standardized(outputs, y[:, 0], latents)
        root, shape = (0.5 * z).exp(), (-log_sigma).exp()
        if not self.latents:
            return (root * shape)[:, None, None]
        rows = [torch.stack([shape, -z], -1), torch.stack([torch.zeros_like(z), z**0], -1)]
        return root[:, None, None] * torch.stack(rows, dim=1)


@settings
class LogNormal(_FailureTime):
    """Model times whose log is normal: log T ~ Normal(output, noise). The hazard falls in the end.

    Attributes:
        noise: standard deviation of log T, or `learned`: then log(noise) is a latent variable with
            a normal prior.
        log_noise_mean: prior mean of log(noise).
        log_noise_sd: prior standard deviation of log(noise). The defaults put 95 % of the prior on
            standard deviations between 0.25 and 4.
    """

    name: Literal["lognormal"] = "lognormal"
    noise: Positive | Learned = "learned"
    log_noise_mean: float = 0.0
    log_noise_sd: Positive = 0.7
    _noise = _NORMAL

    @property
    def latents(self) -> dict[str, tuple[float, float]]:
        """Return the prior of `log_noise` if it is learned."""
        is_learned = self.noise == "learned"
        return {"log_noise": (self.log_noise_mean, self.log_noise_sd)} if is_learned else {}

    def _log_sigma(self, latents: Latents, like: Tensor) -> Tensor:
        return log_positive(self.noise, "log_noise", latents, like)

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return the log-normal distribution of uncensored times."""
        location = outputs.squeeze(-1)
        return dist.LogNormal(location, self._log_sigma(latents, location).exp())

    def mean(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return E[T] given each draw."""
        location = outputs.squeeze(-1)
        return (location + 0.5 * (2 * self._log_sigma(latents, location)).exp()).exp()

    def variance(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return Var[T] given each draw."""
        location = outputs.squeeze(-1)
        square = (2 * self._log_sigma(latents, location)).exp()
        return self.mean(outputs, latents).square() * torch.expm1(square)

    def censored_fisher_root(self, outputs: Tensor, y: Tensor, latents: Latents) -> Tensor:
        """Return a root of the information that was gathered up to each time.

        It is that of `Weibull`, as an integral over the cumulative hazard, by quadrature.

        Args:
            outputs: of the network, (point, 1).
            y: times and events, (point, 2).
            latents: latent variables, scalars.
        """
        import numpy as np

        z, log_sigma, _ = (v.double() for v in self._standardized(outputs, y[:, 0], latents))
        nodes, weights = (
            torch.from_numpy(v).to(z) for v in np.polynomial.legendre.leggauss(_NODES)
        )
        unit = 0.5 * (nodes + 1)
        hazard = -self._noise.log_survival(z)[:, None] * unit**_POWER
        weight = (
            -self._noise.log_survival(z)[:, None] * 0.5 * weights * _POWER * unit ** (_POWER - 1)
        )
        small, large = (
            torch.special.ndtri(-torch.expm1(-hazard)),
            -torch.special.ndtri((-hazard).exp()),
        )
        v = torch.where(hazard < 0.5, small, large)
        # The hazard of a normal variable less its value, which is the slope of the log hazard.
        slope = (self._noise.log_density(v) - self._noise.log_survival(v)).exp() - v
        gradients = [-slope * (-log_sigma).exp()[:, None], -v * slope - 1]
        rows = torch.stack(gradients[: 1 + len(self.latents)], dim=-1)
        information = torch.einsum("pn,pni,pnj->pij", weight, rows, rows)
        return matrix_root(information).to(outputs.dtype)
