"""Define the interface of every likelihood.

A likelihood says how many outputs the network needs, which latent variables it adds (a learned
noise), the density of a target, as a plain function and as a Pyro distribution, and the mean, the
variance or the class probabilities of the target given one draw.
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from bnn_symm.models.pyro_distribution import PyroDistribution

Latents = Mapping[str, Tensor]


class Likelihood(Protocol):
    """Define the interface of every likelihood.

    Outputs are (..., point, output); results are (..., point).
    """

    name: str

    @property
    def task(self) -> str:
        """Return the task of the data sets that it fits: classification, regression or count."""
        ...

    @property
    def latents(self) -> dict[str, tuple[float, float]]:
        """Return name -> (mean, standard deviation) of the normal prior of each latent scalar."""
        ...

    def num_net_outputs(self, num_outputs: int) -> int:
        """Return how many outputs the network must have.

        Args:
            num_outputs: number of classes, or of target columns, of the data set.

        Returns:
            The number of outputs of the network.
        """
        ...

    def log_prob(self, outputs: Tensor, y: Tensor, latents: Latents) -> Tensor:
        """Return the log density of the target given the outputs, in nats.

        Args:
            outputs: of the network, (..., point, output).
            y: targets, (point,).
            latents: latent variables, each (...).

        Returns:
            One value per point, (..., point).
        """
        ...

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return the same density as a Pyro distribution with batch shape (..., point).

        Args:
            outputs: of the network, (..., point, output).
            latents: latent variables, each (...).

        Returns:
            The distribution of the target.
        """
        ...


class WithoutLatents:
    """Provide the latent variables of a likelihood that has none."""

    latents: dict[str, tuple[float, float]] = {}  # noqa: RUF012 - never changed
