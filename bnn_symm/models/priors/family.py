"""Define the base class of families of priors: symmetric one-dimensional densities with a scale."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bnn_symm.models.pyro_distribution import PyroDistribution

HERMITE_NODES = 40
"""Number of nodes of the Gauss-Hermite rules for cross-entropies without a closed form."""


@dataclass(frozen=True)
class NormalEntries:
    """Hold independent normals and buffers of the gradient with respect to their parameters.

    Attributes:
        loc: (entry,), contiguous, as all other tensors here.
        sd: (entry,).
        loc_grad: (entry,), to which the gradient with respect to `loc` is added.
        log_scale_grad: (entry,), to which the gradient with respect to log(sd) is added.
    """

    loc: Tensor
    sd: Tensor
    loc_grad: Tensor
    log_scale_grad: Tensor


class PriorFamily(ABC):
    """Define a density of one entry of a parameter, symmetric around zero, with a scale.

    All entries are independent, and `Prior` chooses their scales. A family is a frozen dataclass
    or a settings class. It writes `log_prob`, `distribution` and `unit_variance`; variational
    inference also uses the cross-entropy with a normal distribution, which has a default.

    Attributes:
        unit_variance: the variance at scale 1, by which `scale=fan_in` chooses the scale.

    Example:
        >>> import math
        >>> import pyro.distributions as dist
        >>> from dataclasses import dataclass
        >>> from bnn_symm import Prior
        >>> @dataclass(frozen=True)
        ... class Logistic(PriorFamily):
        ...     unit_variance: float = math.pi**2 / 3
        ...
        ...     def log_prob(self, value, scale):
        ...         z = value / scale
        ...         return -z - 2 * torch.nn.functional.softplus(-z) - scale.log()
        ...
        ...     def distribution(self, loc, scale):
        ...         return dist.Logistic(loc, scale)
        >>> Prior(name=Logistic(), scale=0.5).bind({"w": 3}, {"w": 6}).log_prob(torch.zeros(6))
        tensor(-4.1589, dtype=torch.float64)
    """

    unit_variance: float

    @abstractmethod
    def log_prob(self, value: Tensor, scale: Tensor) -> Tensor:
        """Return the elementwise log density.

        Args:
            value: where to evaluate it.
            scale: of every element.

        Returns:
            The log density, in nats.
        """

    @abstractmethod
    def distribution(self, loc: Tensor, scale: Tensor) -> PyroDistribution:
        """Return the same density, moved to `loc`, as a Pyro distribution.

        Args:
            loc: center of every element.
            scale: of every element.

        Returns:
            The distribution. Its support is the whole real line.
        """

    def cross_entropy(self, loc: Tensor, sd: Tensor, scale: Tensor) -> Tensor:
        """Return -E[log p(w)] for w ~ Normal(loc, sd), elementwise, in nats.

        The default is a Gauss-Hermite rule of 40 nodes. It is accurate where log p is smooth over
        about a third of `sd`; a density with a narrow peak needs a rule of its own.

        Args:
            loc: means of the normal.
            sd: standard deviations of the normal.
            scale: of every element of the density.

        Returns:
            The cross-entropy of every element.
        """
        nodes, weights = np.polynomial.hermite_e.hermegauss(HERMITE_NODES)
        total = torch.zeros_like(loc)
        for node, weight in zip(nodes.tolist(), (weights / weights.sum()).tolist(), strict=True):
            total = total - weight * self.log_prob(loc + node * sd, scale)
        return total

    def add_cross_entropy_gradient(self, q: NormalEntries, scale: float, weight: float) -> float:
        """Return the sum of `cross_entropy` and add its gradient to two buffers.

        The default differentiates `cross_entropy`; an explicit gradient needs fewer passes over
        memory.

        Args:
            q: the normals and the buffers of their gradients.
            scale: of every entry.
            weight: factor of the gradient that is added.

        Returns:
            The sum over entries, in nats, without `weight`.
        """
        with torch.enable_grad():
            loc = q.loc.detach().requires_grad_()
            log_sd = q.sd.detach().log().requires_grad_()
            value = self.cross_entropy(loc, log_sd.exp(), torch.full_like(q.loc, scale))
            total = value.sum(dtype=torch.float64)
            of_loc, of_log_sd = torch.autograd.grad(total, (loc, log_sd))
        q.loc_grad.add_(of_loc, alpha=weight)
        q.log_scale_grad.add_(of_log_sd, alpha=weight)
        return float(total.detach())
