"""Define the interface of every likelihood.

A likelihood says how many outputs the network needs, which latent variables it adds (a learned
noise), the density of a target, as a plain function and as a Pyro distribution, and the mean, the
variance or the class probabilities of the target given one draw.
"""

import math
from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor

from bnn_symm.models.pyro_distribution import PyroDistribution

Latents = Mapping[str, Tensor]
Learned = Literal["learned"]


class Likelihood(Protocol):
    """Define the interface of every likelihood.

    Outputs are (..., point, output); results are (..., point). Everything else of the program
    follows from the members below and from `task`: `count` is a task of targets 0, 1, 2, ..., whose
    quantiles are integers and whose distribution functions have steps.

    Likelihoods of classes also have

    - `probabilities(outputs, latents) -> (..., point, class)`;
    - `num_classes`, an integer, unless the network has one output per class;
    - `is_ordered`, true if the order of the classes has a meaning.

    Likelihoods of numbers and counts also have `mean(outputs, latents)`, `variance(outputs,
    latents)`, finite for finite outputs, and `cdf(outputs, value, latents)`, P(y <= value); none of
    them needs a gradient.

    Likelihoods whose targets have a second column that is not predicted name it in `condition`:
    `event` of times (`survival`) or `exposure` of counts (`exposure`).

    Optional members are `fisher_root` (`bnn_symm.models.fisher`, for the Laplace approximation),
    and `output_names`, `canonical_outputs` and `normal_components` (`capabilities`).
    """

    name: str

    @property
    def task(self) -> str:
        """Return the task of its data sets: classification, regression, count or survival."""
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
            y: targets, (point,), or (point, column) of several columns.
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


def log_positive(value: float | Learned, name: str, latents: Latents, like: Tensor) -> Tensor:
    """Return the log of a positive number that is fixed or learned.

    Args:
        value: the number, or `learned`.
        name: of the latent variable that is its log.
        latents: latent variables, each (...).
        like: a tensor (..., point), whose shape the result has.
    """
    if value == "learned":
        return latents[name].unsqueeze(-1).expand_as(like)
    return torch.full_like(like, math.log(value))


def matrix_root(matrix: Tensor) -> Tensor:
    """Return a root R of positive semi-definite matrices, M = R^T R.

    Args:
        matrix: (..., row, row), symmetric up to rounding.
    """
    values, vectors = torch.linalg.eigh(matrix)
    return values.clamp(min=0.0).sqrt().unsqueeze(-1) * vectors.mT


def scipy_special(name: str, *arguments: Tensor) -> Tensor:
    """Return a function of `scipy.special` at tensors of one shape, in float64.

    Torch has no incomplete beta function. The result has no gradient.

    Args:
        name: of the function.
        arguments: of the function.
    """
    from scipy import special

    arrays = [value.detach().double().cpu().numpy() for value in arguments]
    return torch.from_numpy(getattr(special, name)(*arrays)).to(arguments[0].device)
