"""Define the likelihood of numbers with several modes. Targets are standardized."""

import math
from typing import Annotated, Literal

import numpy as np
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from bnn_symm.models.likelihoods.gaussian import LOG_SD_BOUND
from bnn_symm.models.likelihoods.likelihood import Latents, NumberLikelihood, matrix_root
from bnn_symm.models.pyro_distribution import PyroDistribution
from bnn_symm.settings import settings

# Standard deviations from the mean of every component at which intervals of the quadrature of the
# Fisher information end, and nodes in each interval.
_ENDS = (-9.0, -5.0, -3.0, -1.5, 0.0, 1.5, 3.0, 5.0, 9.0)
_NODES = 8


@settings
class GaussianMixture(NumberLikelihood):
    """Model the target by a mixture of normal distributions that depend on the inputs.

    The outputs are the means, the log standard deviations and the logits of the weights of all
    components: a mixture density network (Bishop 1994, Aston University NCRG/94/004). Components
    may be renumbered without a change of the density, which is a symmetry of the outputs that
    alignment does not remove.

    Attributes:
        num_components: number of normal components.
    """

    name: Literal["gaussian_mixture"] = "gaussian_mixture"
    num_components: Annotated[int, Field(ge=2)] = 3

    @property
    def output_names(self) -> tuple[str, ...]:
        """Return the names of the outputs, in order."""
        number = range(1, self.num_components + 1)
        return tuple(f"{name}_{k}" for name in ("mean", "log_sd", "logit") for k in number)

    def _components(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log weights, means and log standard deviations, (..., point, component)."""
        mean, log_sd, logit = outputs.unflatten(-1, (3, self.num_components)).unbind(-2)
        return logit.log_softmax(-1), mean, log_sd.clamp(-LOG_SD_BOUND, LOG_SD_BOUND)

    def log_prob(
        self,
        outputs: Float[Tensor, "*draw point output"],
        y: Float[Tensor, " point"],
        latents: Latents,
    ) -> Float[Tensor, "*draw point"]:
        """Return the log density of the mixture at the target."""
        log_weight, mean, log_sd = self._components(outputs)
        square = ((y.unsqueeze(-1) - mean) * (-log_sd).exp()).square()
        return (log_weight - 0.5 * square - log_sd).logsumexp(-1) - 0.5 * math.log(2 * math.pi)

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return Pyro's MixtureSameFamily of normal distributions."""
        log_weight, mean, log_sd = self._components(outputs)
        return dist.MixtureSameFamily(
            dist.Categorical(logits=log_weight), dist.Normal(mean, log_sd.exp())
        )

    def mean(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return E[y] given each draw."""
        log_weight, mean, _ = self._components(outputs)
        return (log_weight.exp() * mean).sum(-1)

    def variance(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return Var[y] given each draw: within and between components."""
        log_weight, mean, log_sd = self._components(outputs)
        weight = log_weight.exp()
        between = (mean - (weight * mean).sum(-1, keepdim=True)).square()
        return (weight * ((2 * log_sd).exp() + between)).sum(-1)

    def cdf(self, outputs: Tensor, value: Tensor, latents: Latents) -> Tensor:
        """Return P(y <= value) given each draw."""
        log_weight, mean, log_sd = self._components(outputs)
        below = torch.special.ndtr((value.unsqueeze(-1) - mean) * (-log_sd).exp())
        return (log_weight.exp() * below).sum(-1)

    def normal_components(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights, means and standard deviations, each (..., point, component)."""
        log_weight, mean, log_sd = self._components(outputs)
        return log_weight.exp(), mean, log_sd.exp()

    def canonical_outputs(self, outputs: Tensor) -> Tensor:
        """Return the outputs with components in the order of their means, and centered logits."""
        parts = outputs.unflatten(-1, (3, self.num_components))
        order = parts[..., :1, :].argsort(-1).expand_as(parts)
        mean, log_sd, logit = parts.gather(-1, order).unbind(-2)
        return torch.cat([mean, log_sd, logit - logit.mean(-1, keepdim=True)], dim=-1)

    def fisher_root(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return a root of E[s s^T], by Gauss-Legendre quadrature between points of components."""
        log_weight, mean, log_sd = (value.double() for value in self._components(outputs))
        ends = (mean.unsqueeze(-1) + log_sd.exp().unsqueeze(-1) * mean.new_tensor(_ENDS)).flatten(1)
        ends = ends.sort(-1).values
        nodes, weights = (
            torch.from_numpy(own).to(mean) for own in np.polynomial.legendre.leggauss(_NODES)
        )
        half = 0.5 * torch.diff(ends, dim=-1).unsqueeze(-1)
        y = (ends[:, :-1, None] + half * (1 + nodes)).flatten(1).unsqueeze(-1)
        log_weight, mean, log_sd = (v.unsqueeze(-2) for v in (log_weight, mean, log_sd))
        z = (y - mean) * (-log_sd).exp()  # (point, node, component)
        log_parts = log_weight - 0.5 * (z.square() + math.log(2 * math.pi)) - log_sd
        chance = (half * weights).flatten(1).unsqueeze(-1) * log_parts.logsumexp(-1, True).exp()
        part = log_parts.softmax(-1)
        raw = outputs.unflatten(-1, (3, self.num_components))[..., 1, :]
        is_free = (raw.abs() < LOG_SD_BOUND).to(z).unsqueeze(-2)
        scores = torch.cat(
            [
                part * z * (-log_sd).exp(),
                part * (z.square() - 1) * is_free,
                part - log_weight.exp(),
            ],
            dim=-1,
        )
        return matrix_root((chance * scores).mT @ scores).to(outputs.dtype)
