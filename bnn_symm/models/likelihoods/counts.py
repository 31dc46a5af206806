"""Define the likelihoods of counts. Targets are counts 0, 1, 2, ..."""

from collections.abc import Iterator
from typing import Literal

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from bnn_symm.models.likelihoods.exposure import Exposed
from bnn_symm.models.likelihoods.likelihood import (
    Latents,
    Learned,
    log_positive,
    matrix_root,
    scipy_special,
)
from bnn_symm.models.pyro_distribution import PyroDistribution
from bnn_symm.settings import Positive, settings

# Maximum number of intervals of counts in sums over counts, and how many of them have one count.
_INTERVALS, _SINGLE = 4096, 2048


@settings
class Poisson(Exposed):
    """Model y ~ Poisson(exp(output))."""

    name: Literal["poisson"] = "poisson"

    def log_prob(
        self,
        outputs: Float[Tensor, "*draw point 1"],
        y: Float[Tensor, "point *column"],
        latents: Latents,
    ) -> Float[Tensor, "*draw point"]:
        """Return the Poisson log probability of the target."""
        outputs, y = self._at_exposure(outputs, y)
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

    def fisher_root(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return the square root of the rate."""
        return (0.5 * outputs).exp().unsqueeze(-1)

    def information(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return the Fisher information of (log rate), (point, 1, 1)."""
        return outputs.exp().unsqueeze(-1)

    def score_of_zero(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return the gradient of log P(y = 0) in (log rate), (point, 1)."""
        return -outputs.exp()


@settings
class Dispersed(Exposed):
    """Hold the dispersion of the negative binomial likelihoods.

    Attributes:
        dispersion: a positive number, or `learned`: then its log is a latent variable with a normal
            prior.
        log_dispersion_mean: prior mean of log(dispersion).
        log_dispersion_sd: prior standard deviation of log(dispersion). The defaults put 95 % of the
            prior on dispersions between 0.02 and 7.
    """

    dispersion: Positive | Learned = "learned"
    log_dispersion_mean: float = -1.0
    log_dispersion_sd: Positive = 1.5

    @property
    def latents(self) -> dict[str, tuple[float, float]]:
        """Return the prior of `log_dispersion` if it is learned."""
        return (
            {"log_dispersion": (self.log_dispersion_mean, self.log_dispersion_sd)}
            if self.dispersion == "learned"
            else {}
        )


@settings
class NegativeBinomial(Dispersed):
    """Model counts of mean m = exp(output) and variance m + dispersion * m^2.

    A Poisson rate that varies from point to point beyond what the features explain gives these
    counts, if it has a gamma distribution. Dispersion 0 is Poisson. The second kind of Cameron and
    Trivedi 1986 (doi:10.1002/jae.3950010104).
    """

    name: Literal["negative_binomial"] = "negative_binomial"

    def _parameters(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor]:
        """Return the log mean and the log dispersion, each (..., point)."""
        log_mean = outputs.squeeze(-1)
        return log_mean, log_positive(self.dispersion, "log_dispersion", latents, log_mean)

    def log_prob(
        self,
        outputs: Float[Tensor, "*draw point 1"],
        y: Float[Tensor, "point *column"],
        latents: Latents,
    ) -> Float[Tensor, "*draw point"]:
        """Return the log probability of the target."""
        outputs, y = self._at_exposure(outputs, y)
        log_mean, log_dispersion = self._parameters(outputs, latents)
        # In float64, because the two terms of a small dispersion cancel.
        size = (-log_dispersion.double()).exp()
        counted = torch.lgamma(y + size) - torch.lgamma(size) - torch.lgamma(y.double() + 1)
        logit = log_mean + log_dispersion
        failures = size.to(logit.dtype) * logsigmoid(-logit)
        return counted.to(logit.dtype) + y * logsigmoid(logit) + failures

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return Pyro's NegativeBinomial."""
        log_mean, log_dispersion = self._parameters(outputs, latents)
        return dist.NegativeBinomial((-log_dispersion).exp(), logits=log_mean + log_dispersion)

    def mean(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return E[y] given each draw."""
        return self._parameters(outputs, latents)[0].exp()

    def variance(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return Var[y] given each draw."""
        log_mean, log_dispersion = self._parameters(outputs, latents)
        return log_mean.exp() + (2 * log_mean + log_dispersion).exp()

    def cdf(self, outputs: Tensor, value: Tensor, latents: Latents) -> Tensor:
        """Return P(y <= value) given each draw."""
        log_mean, log_dispersion = (v.double() for v in self._parameters(outputs, latents))
        count = value.floor().expand_as(log_mean)
        success = torch.sigmoid(-log_mean - log_dispersion)
        below = scipy_special("betainc", (-log_dispersion).exp(), count.clamp(min=0) + 1, success)
        return torch.where(count < 0, 0.0, below)

    def information(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return the Fisher information of (log mean, log dispersion), (point, row, row).

        The two are orthogonal; the information of the size r = 1 / dispersion is a sum over counts
        (Lawless 1987, doi:10.2307/3314912, equation 2.9).
        """
        log_mean, log_dispersion = (v.double() for v in self._parameters(outputs, latents))
        mean, size = log_mean.exp(), (-log_dispersion).exp()
        of_mean = mean * size / (size + mean)
        if not self.latents:
            return of_mean[:, None, None]
        total = -mean / (size * (size + mean))
        highest = count_bound(mean, self.variance(outputs, latents).double()).ceil()
        for first, last in count_intervals(torch.zeros_like(mean), highest):
            middle = (first + last) / 2
            above = 1 - self.cdf(outputs, middle, latents)
            total = total + (last - first + 1) * above / (size + middle).square()
        of_dispersion = (size.square() * total).clamp(min=0.0)
        return torch.diag_embed(torch.stack([of_mean, of_dispersion], dim=-1))

    def score_of_zero(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return the gradient of log P(y = 0) in (log mean, log dispersion), (point, row)."""
        log_mean, log_dispersion = (v.double() for v in self._parameters(outputs, latents))
        size, logit = (-log_dispersion).exp(), log_mean + log_dispersion
        of_mean = -size * torch.sigmoid(logit)
        parts = [of_mean, of_mean + size * softplus(logit)]
        return torch.stack(parts if self.latents else parts[:1], dim=-1)

    def fisher_root(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return a root of the information of the log mean and a learned log dispersion."""
        return matrix_root(self.information(outputs, latents)).to(outputs.dtype)


def count_bound(mean: Tensor, variance: Tensor) -> Tensor:
    """Return counts above which the mass of a distribution of counts is negligible.

    They are ten standard deviations above the mean, and more where the tail is that of a geometric
    distribution, as for a large dispersion.

    Args:
        mean: of the distribution.
        variance: of the distribution.
    """
    ratio = (variance / mean.clamp(min=torch.finfo(mean.dtype).tiny)).clamp(min=1.0)
    return mean + 10 * variance.sqrt() + 30 * ratio


def count_intervals(
    lowest: Float[Tensor, " point"], highest: Float[Tensor, " point"]
) -> Iterator[tuple[Float[Tensor, " point"], Float[Tensor, " point"]]]:
    """Yield the first and last counts of intervals, which cover 0 to the highest count of a point.

    Counts below the lowest one are one interval. From there on, each of some thousands of counts
    is an interval; if there are more, the first 2,048 are, and the widths of the others grow
    geometrically. The intervals of a point do not depend on other points. Those of a point that
    has fewer than others are filled up with empty ones, whose last count is before the first.

    Args:
        lowest: counts below which a distribution function is constant.
        highest: counts at which it has reached one.
    """
    lowest, highest = lowest.double(), highest.double()
    width = highest - lowest + 1
    yield torch.zeros_like(lowest), lowest - 1
    first = torch.zeros_like(lowest)
    for number in range(1, int(width.max().clamp(max=_INTERVALS)) + 1):
        end = width.clamp(max=number)
        if number > _SINGLE:
            share = (number - _SINGLE) / (_INTERVALS - _SINGLE)
            growing = (_SINGLE * (width / _SINGLE) ** share).floor()
            end = torch.where(width > _INTERVALS, growing, end)
        yield lowest + first, lowest + end - 1
        first = end
