"""Define the base classes of every likelihood.

A likelihood says how many outputs the network needs, which latent variables it adds (a learned
noise), the density of a target, as a plain function and as a Pyro distribution, and the mean, the
variance or the class probabilities of the target given one draw.
"""

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from bnn_symm.errors import ConfigError
from bnn_symm.models.pyro_distribution import PyroDistribution

Latents = Mapping[str, Tensor]
Learned = Literal["learned"]

_MOST_SUMMED = 4096  # largest count up to which probabilities are summed


def class_name(cls: type) -> str:
    """Return the name of a class in a configuration, `package.module:Class`.

    Args:
        cls: the class.
    """
    return f"{cls.__module__}:{cls.__qualname__}"


class Likelihood(ABC):
    """Define the interface of every likelihood, and the members that most of them share.

    Outputs are (..., point, output); results are (..., point). A likelihood is a settings class
    derived from `NumberLikelihood` or `ClassLikelihood`. It writes `log_prob`, `distribution` and,
    if it has variables of its own, `latents`; all other members have a default. Everything else of
    the program follows from the members and from `task`: `count` is a task of targets 0, 1, 2, ...,
    whose quantiles are integers and whose distribution functions have steps.

    Some members exist for certain kinds of targets only, and a likelihood without them does not
    have the attribute:

    - `marginal(column, latents)` of several target columns, with `num_columns`;
    - `conditional_distribution(outputs, latents, y)` of targets whose second column is not
      predicted; `condition` names that column;
    - `log_survival` and `quantile` of times, `given` of counts with an exposure;
    - `fisher_root` (`bnn_symm.models.fisher`), for the Laplace approximation;
    - `normal_components`, for scores in closed form.

    Attributes:
        name: of the configuration; of a class outside this package `package.module:Class`.
        task: of its data sets: classification, regression, count or survival.
        latents: name -> (mean, standard deviation) of the normal prior of each latent scalar. The
            variables take values on the whole real line, such as the log of a noise.
        output_names: names of the outputs of the network, in order; empty for numbers.
        condition: `event` of times, `exposure` of counts, or None if all columns are predicted.
        num_columns: number of target columns; None for one.
    """

    name: str
    task: str
    latents: Mapping[str, tuple[float, float]] = MappingProxyType({})
    output_names: tuple[str, ...] = ()
    condition: str | None = None
    num_columns: int | None = None

    def __init_subclass__(cls, **keywords: Any):
        super().__init_subclass__(**keywords)
        if "name" not in cls.__dict__:
            cls.name = class_name(cls)

    def num_net_outputs(self, num_outputs: int) -> int:
        """Return how many outputs the network must have: one for each of `output_names`, or one.

        Args:
            num_outputs: number of classes, or of target columns, of the data set.

        Returns:
            The number of outputs of the network.
        """
        return len(self.output_names) or 1

    @abstractmethod
    def log_prob(self, outputs: Tensor, y: Tensor, latents: Latents) -> Tensor:
        """Return the log density of the target given the outputs, in nats.

        Fits differentiate, vectorize and compile it, so it is written in functions of torch.

        Args:
            outputs: of the network, (..., point, output).
            y: targets, (point,), or (point, column) of several columns.
            latents: latent variables, each (...).

        Returns:
            One value per point, (..., point).
        """

    @abstractmethod
    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return the same density as a Pyro distribution with batch shape (..., point).

        Args:
            outputs: of the network, (..., point, output).
            latents: latent variables, each (...).

        Returns:
            The distribution of the target.
        """

    def canonical_outputs(self, outputs: Tensor) -> Tensor:
        """Return functions of the outputs that are equal wherever the predicted distribution is.

        Logits of classes, for example, are centered: a common shift has no effect.

        Args:
            outputs: of the network, (..., output).

        Returns:
            (..., output); by default the outputs themselves.
        """
        return outputs


class NumberLikelihood(Likelihood):
    """Define the interface of likelihoods of numbers, counts and times.

    `mean`, `variance` and `cdf` are by default those of `distribution`. They are finite for finite
    outputs, and need no gradient.

    Example:
        >>> from math import log
        >>> import pyro.distributions as dist
        >>> from bnn_symm.settings import Positive, settings
        >>> @settings
        ... class LaplaceNoise(NumberLikelihood):
        ...     scale: Positive = 0.5
        ...
        ...     def log_prob(self, outputs, y, latents):
        ...         return -(y - outputs[..., 0]).abs() / self.scale - log(2 * self.scale)
        ...
        ...     def distribution(self, outputs, latents):
        ...         return dist.Laplace(outputs[..., 0], self.scale)
        >>> LaplaceNoise(scale=2.0).variance(torch.zeros(1, 1), {})
        tensor([8.])
    """

    task = "regression"

    def mean(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return E[y] given each draw.

        Args:
            outputs: of the network, (..., point, output).
            latents: latent variables, each (...).
        """
        return self._of_distribution(outputs, latents, lambda target: target.mean, "mean")

    def variance(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return Var[y] given each draw.

        Args:
            outputs: of the network, (..., point, output).
            latents: latent variables, each (...).
        """
        return self._of_distribution(outputs, latents, lambda target: target.variance, "variance")

    def cdf(self, outputs: Tensor, value: Tensor, latents: Latents) -> Tensor:
        """Return P(y <= value) given each draw.

        Args:
            outputs: of the network, (..., point, output).
            value: (point,), in the units of training.
            latents: latent variables, each (...).

        Raises:
            ConfigError: if neither the distribution nor the likelihood has a distribution function,
                and the target is not a count.
        """
        if self.task == "count":
            return self._summed(outputs, value, latents)
        return self._of_distribution(outputs, latents, lambda target: target.cdf(value), "cdf")

    def _of_distribution(
        self, outputs: Tensor, latents: Latents, member: Callable[[Any], Tensor], name: str
    ) -> Tensor:
        """Return a member of the Pyro distribution, (..., point)."""
        with without_validation():
            target = self.distribution(outputs, latents)
            try:
                return member(target).expand(target.batch_shape + target.event_shape)
            except NotImplementedError:
                raise ConfigError(
                    f"likelihood {self.name} has no {name}: its distribution "
                    f"{type(target).__name__} does not provide it; write the method {name}"
                ) from None

    def _summed(self, outputs: Tensor, value: Tensor, latents: Latents) -> Tensor:
        """Return the sum of the probabilities of all counts up to a value."""
        highest = int(value.max()) if len(value) else 0
        if highest > _MOST_SUMMED:
            raise ConfigError(
                f"likelihood {self.name} has no cdf, and a sum over counts up to {highest} takes "
                "too long; write the method cdf"
            )
        total = torch.zeros_like(outputs[..., 0])
        for count in range(highest + 1):
            y = torch.full_like(value, count)
            total = total + self.log_prob(outputs, y, latents).exp() * (value >= count)
        return total.clamp(max=1.0)


class ClassLikelihood(Likelihood):
    """Define the interface of likelihoods of classes. Targets are class indices.

    Attributes:
        num_classes: the only number of classes that it is for; None if the network has one output
            per class.
        is_ordered: whether the order of the classes has a meaning.
    """

    task = "classification"
    num_classes: int | None = None
    is_ordered = False

    def num_net_outputs(self, num_outputs: int) -> int:
        """Return the number of classes: one output per class.

        Args:
            num_outputs: number of classes of the data set.
        """
        return num_outputs

    def probabilities(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return the class probabilities given each draw, (..., point, class).

        By default they are the exponentials of `log_prob` of every class.

        Args:
            outputs: of the network, (..., point, output).
            latents: latent variables, each (...).
        """
        classes = torch.arange(self.num_classes or outputs.shape[-1], device=outputs.device)
        by_class = [
            self.log_prob(outputs, label.expand(outputs.shape[-2]), latents) for label in classes
        ]
        return torch.stack(by_class, dim=-1).exp()


@contextlib.contextmanager
def without_validation() -> Iterator[None]:
    """Build distributions without checks of their arguments, which cannot be vectorized."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


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
