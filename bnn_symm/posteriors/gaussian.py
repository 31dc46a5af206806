"""Define posteriors in closed form: independent normals."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.posteriors.gaussian_family import ClosedFormPosterior
from bnn_symm.symmetry import Permutation


class GaussianPosterior(ClosedFormPosterior):
    """Represent independent normals over the flat vector: the result of mean-field VI.

    Its arguments are those of `ClosedFormPosterior`: means `loc` and standard deviations `scale`,
    (parameter,).
    """

    kind = "gaussian"

    def reparameterize(
        self, noise: Float[Tensor, "*draw parameter"]
    ) -> Float[Tensor, "*draw parameter"]:
        """Return the draws that standard normal noise gives, one value per coordinate."""
        return self._independent(noise)

    def standard_deviation(self) -> Float[Tensor, " parameter"]:
        """Return `scale`, the standard deviations."""
        return self.scale

    def log_prob(self, flat: Float[Tensor, "*draw parameter"]) -> Float[Tensor, "*draw"]:
        """Return the log density of each vector in nats, in float64."""
        scale = self.scale.double()
        squares = ((flat.double() - self.loc.double()) / scale).square().sum(-1)
        return -0.5 * squares - scale.log().sum() - 0.5 * math.log(2 * math.pi) * len(scale)

    def permute(self, permutation: Permutation) -> "GaussianPosterior":
        """Return the posterior of the permuted network, as `Posterior.permute`."""
        return GaussianPosterior(
            self.model.permuted(permutation), self.scaling, **self._permuted(permutation)
        )

    def entropy_by_tensor(self) -> dict[str, float]:
        """Return name -> entropy of the tensor, in nats."""
        entropy = self.scale.double().log() + 0.5 * math.log(2 * math.pi * math.e)
        return {
            name: float(torch.sum(entropy[where])) for name, where in self.model.slices().items()
        }
