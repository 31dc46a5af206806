"""Posteriors in closed form: independent normals."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.posteriors.gaussian_family import ClosedFormPosterior
from bnn_symm.symmetry import Permutation


class GaussianPosterior(ClosedFormPosterior):
    """Independent normals over the flat vector: the result of mean-field variational inference.

    Its arguments are those of every closed form: means `loc` and standard deviations `scale`,
        (parameter,).
    """

    kind = "gaussian"

    def reparameterize(
        self, noise: Float[Tensor, "*draw parameter"]
    ) -> Float[Tensor, "*draw parameter"]:
        """The draws of standard normal noise; of a permuted posterior the permuted draws of the
        same noise.
        """
        return self._independent(noise)

    def standard_deviation(self) -> Float[Tensor, " parameter"]:
        """`scale`."""
        return self.scale

    def log_prob(self, flat: Float[Tensor, "*draw parameter"]) -> Float[Tensor, "*draw"]:
        """Log density in nats, in float64."""
        scale = self.scale.double()
        squares = ((flat.double() - self.loc.double()) / scale).square().sum(-1)
        return -0.5 * squares - scale.log().sum() - 0.5 * math.log(2 * math.pi) * len(scale)

    def permute(self, permutation: Permutation) -> "GaussianPosterior":
        """The posterior of the permuted network: the same function, draw by draw.

        Raises:
            NotRepresentable: if the permutation moves what is fixed of the network.
        """
        return GaussianPosterior(self.model, self.scaling, **self._permuted(permutation))

    def entropy_by_tensor(self) -> dict[str, float]:
        """Name -> its entropy in nats."""
        entropy = self.scale.double().log() + 0.5 * math.log(2 * math.pi * math.e)
        return {
            name: float(torch.sum(entropy[where])) for name, where in self.model.slices().items()
        }
