"""Provide what the likelihoods of counts share: an exposure, which multiplies the mean.

Twice the years at risk have twice the expected count: log mean = log(exposure) + output, an offset
whose coefficient is known (McCullagh and Nelder 1989, section 6.2).
"""

import dataclasses
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.models.likelihoods.likelihood import Latents, NumberLikelihood
from bnn_symm.models.pyro_distribution import PyroDistribution
from bnn_symm.settings import settings


@settings
class Exposed(NumberLikelihood):
    """Hold whether counts have an exposure. The first output of the network is a log mean.

    Attributes:
        exposure: whether each target is a count and an exposure, (point, 2); the mean is the
            exposure times exp(output) then. Set by `data.exposure`.
    """

    exposure: bool = False
    task = "count"

    @property
    def condition(self) -> str | None:
        """Return the name of the second column of targets: `exposure`, or None without it."""
        return "exposure" if self.exposure else None

    def given(
        self, outputs: Float[Tensor, "*draw point output"], y: Tensor
    ) -> tuple[Any, Float[Tensor, "*draw point output"], Float[Tensor, " point"]]:
        """Return the likelihood, the outputs and the targets of counts without an exposure.

        Args:
            outputs: of the network.
            y: targets, (point,), or with exposures (point, 2).

        Returns:
            Likelihood, outputs and counts of the same densities.
        """
        plain = dataclasses.replace(self, exposure=False) if self.exposure else self
        return plain, *self._at_exposure(outputs, y)

    def _at_exposure(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs and the targets of counts without an exposure."""
        if not self.exposure:
            return outputs, y
        log_mean = outputs[..., :1] + y[..., 1:].log()
        return torch.cat([log_mean, outputs[..., 1:]], dim=-1), y[..., 0]

    def conditional_distribution(
        self, outputs: Tensor, latents: Latents, y: Tensor
    ) -> PyroDistribution:
        """Return Pyro's distribution of the counts of points with these exposures.

        Args:
            outputs: of the network, (..., point, output).
            latents: latent variables, each (...).
            y: targets, (point,), or with exposures (point, 2).
        """
        plain, outputs, _ = self.given(outputs, y)
        return plain.distribution(outputs, latents)
