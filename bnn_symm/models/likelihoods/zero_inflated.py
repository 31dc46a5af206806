"""Define likelihoods of counts with more zeros than their base distribution has."""

from typing import Any, Literal

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from bnn_symm.models.likelihoods.counts import Dispersed, NegativeBinomial, Poisson
from bnn_symm.models.likelihoods.exposure import Exposed
from bnn_symm.models.likelihoods.likelihood import Latents, matrix_root
from bnn_symm.models.pyro_distribution import PyroDistribution
from bnn_symm.settings import settings


class _ZeroInflated(Exposed):
    """Mix a distribution of counts, which reads the first output, with extra zeros.

    The second output is the logit of the probability of an extra zero, point by point.
    """

    output_names = ("log_mean", "extra_zero_logit")
    _base: Any

    def log_prob(
        self,
        outputs: Float[Tensor, "*draw point 2"],
        y: Float[Tensor, "point *column"],
        latents: Latents,
    ) -> Float[Tensor, "*draw point"]:
        """Return the log probability of the target."""
        outputs, y = self._at_exposure(outputs, y)
        logit = outputs[..., 1]
        counted = logsigmoid(-logit) + self._base.log_prob(outputs[..., :1], y, latents)
        return torch.where(y == 0, torch.logaddexp(logsigmoid(logit), counted), counted)

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return Pyro's ZeroInflatedDistribution."""
        counts = self._base.distribution(outputs[..., :1], latents)
        return dist.ZeroInflatedDistribution(counts, gate_logits=outputs[..., 1])

    def mean(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return E[y] given each draw."""
        return torch.sigmoid(-outputs[..., 1]) * self._base.mean(outputs[..., :1], latents)

    def variance(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return Var[y] given each draw."""
        logit, first = outputs[..., 1], outputs[..., :1]
        mean, variance = self._base.mean(first, latents), self._base.variance(first, latents)
        return torch.sigmoid(-logit) * (variance + torch.sigmoid(logit) * mean.square())

    def moments_of_counts(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the counts that are no extra zeros, given each draw."""
        first = outputs[..., :1]
        return self._base.mean(first, latents), self._base.variance(first, latents)

    def cdf(self, outputs: Tensor, value: Tensor, latents: Latents) -> Tensor:
        """Return P(y <= value) given each draw."""
        below = self._base.cdf(outputs[..., :1], value, latents)
        extra = torch.sigmoid(outputs[..., 1])
        return torch.where(value < 0, 0.0, extra + (1 - extra) * below)

    def fisher_root(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return a root of the information of (log mean, logit, latents).

        Zeros have the score of their total probability. The others have that of their base, of
        which the zeros are taken out, and lose the probability of an extra zero.
        """
        first, extra = outputs[..., :1], torch.sigmoid(outputs[:, 1].double())
        zeros = torch.zeros(len(outputs), device=outputs.device, dtype=outputs.dtype)
        counted = (1 - extra) * self._base.log_prob(first, zeros, latents).double().exp()
        zero = extra + counted
        score, information = (
            member(first, latents).double()
            for member in (self._base.score_of_zero, self._base.information)
        )
        counted, chance = counted.unsqueeze(-1), (1 - extra).unsqueeze(-1)
        of_others = -extra.unsqueeze(-1)
        of_zero = extra.unsqueeze(-1) * (chance - counted) / zero.unsqueeze(-1)
        # E[s s^T], with the base's E[s] = 0: the cross terms are those of its zeros.
        total = zero.unsqueeze(-1)
        own = score * counted / total
        rows = torch.cat([own[:, :1], of_zero, own[:, 1:]], dim=1)
        result = total.unsqueeze(-1) * rows.unsqueeze(-1) * rows.unsqueeze(-2)
        places = [0, *range(2, rows.shape[1])]
        others = torch.zeros_like(result)
        outer = score.unsqueeze(-1) * score.unsqueeze(-2)
        base = chance.unsqueeze(-1) * information - counted.unsqueeze(-1) * outer
        for i, row in enumerate(places):
            for j, column in enumerate(places):
                others[:, row, column] = base[:, i, j]
            mixed = -counted[:, 0] * score[:, i] * of_others[:, 0]
            others[:, row, 1] = others[:, 1, row] = mixed
        others[:, 1, 1] = ((chance - counted) * of_others.square())[:, 0]
        return matrix_root(result + others).to(outputs.dtype)


@settings
class ZeroInflatedPoisson(_ZeroInflated):
    """Model counts that are 0 with probability sigmoid(second output), else Poisson(exp(first)).

    Lambert 1992 (doi:10.2307/1269547).
    """

    name: Literal["zero_inflated_poisson"] = "zero_inflated_poisson"
    _base = Poisson()


@settings
class ZeroInflatedNegativeBinomial(_ZeroInflated, Dispersed):
    """Model counts that are 0 with probability sigmoid(second output), else `negative_binomial`.

    The mean of the negative binomial distribution is exp(first output). Greene 1994 (SSRN 1293115).
    """

    name: Literal["zero_inflated_negative_binomial"] = "zero_inflated_negative_binomial"

    def __post_init__(self) -> None:
        base = NegativeBinomial(
            dispersion=self.dispersion,
            log_dispersion_mean=self.log_dispersion_mean,
            log_dispersion_sd=self.log_dispersion_sd,
        )
        object.__setattr__(self, "_base", base)
