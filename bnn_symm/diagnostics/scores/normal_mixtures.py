"""Represent predictive mixtures whose draws are normal distributions, or mixtures of them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.models.likelihoods import normal_components
from bnn_symm.posteriors import Predictive


@dataclass(frozen=True, kw_only=True)
class NormalMixture:
    """The components of a predictive mixture, in units in which a mixture is standardized.

    Attributes:
        weight: Of each component, with sum 1.
        mean: Of each component.
        sd: Standard deviation of each component.
    """

    weight: Float[Tensor, "component point"]
    mean: Float[Tensor, "component point"]
    sd: Float[Tensor, "component point"]

    @classmethod
    def of(cls, own: Predictive, units: Predictive | None = None) -> "NormalMixture | None":
        """Return the components of all draws, or None if the likelihood has none.

        Args:
            own: A predictive mixture.
            units: The mixture whose standardized units are used; default its own.
        """
        units = own if units is None else units
        parts = normal_components(own.likelihood, own.outputs, own.latents)
        if parts is None:
            return None
        # (chain, draw, point, component) -> (component of all draws, point)
        weight, mean, sd = (
            part.double().flatten(0, 1).movedim(-1, 1).flatten(0, 1) for part in parts
        )
        ratio = own.scale / units.scale
        shift = (own.location - units.location) / units.scale
        return cls(weight=weight / own.num_draws, mean=mean * ratio + shift, sd=sd * ratio)

    def take(self, points: Int[Tensor, " chosen"]) -> "NormalMixture":
        """Return the mixture at some points.

        Args:
            points: Their numbers.
        """
        return NormalMixture(
            weight=self.weight[:, points], mean=self.mean[:, points], sd=self.sd[:, points]
        )

    def below(self, t: Float[Tensor, " point"]) -> tuple[Tensor, Tensor]:
        """Return P(y <= t) and E max(t - y, 0).

        Args:
            t: One value per point.
        """
        distance = t - self.mean
        z = distance / self.sd
        cdf = torch.special.ndtr(z)
        density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
        area = distance * cdf + self.sd * density
        return (self.weight * cdf).sum(0), (self.weight * area).sum(0)
