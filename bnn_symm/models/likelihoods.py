"""Define the likelihoods of targets given network outputs (config section `likelihood`).

Every likelihood is one settings class. It defines how many outputs the network needs, which latent
variables it adds (a learned noise), the density of a target, as a plain function and as a Pyro
distribution, and the mean, the variance or the class probabilities of the target given one draw.
Targets are in the units of training: standardized for Gaussian likelihoods, counts for Poisson,
class indices otherwise.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol, get_args

import pyro.distributions as dist
import torch
from jaxtyping import Float, Shaped
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from bnn_symm.errors import ConfigError
from bnn_symm.models.pyro_distribution import PyroDistribution
from bnn_symm.settings import Positive, settings

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


class _WithoutLatents:
    """Provide the latent variables of a likelihood that has none."""

    latents: dict[str, tuple[float, float]] = {}  # noqa: RUF012 - never changed


class _Classification(_WithoutLatents):
    """Provide what the two likelihoods of classes share."""

    task = "classification"


@settings
class Categorical(_Classification):
    """Apply a softmax over the outputs, one output per class."""

    name: Literal["categorical"] = "categorical"

    def num_net_outputs(self, num_outputs: int) -> int:
        """Return the number of classes: one output per class."""
        return num_outputs

    def log_prob(
        self,
        outputs: Float[Tensor, "*draw point output"],
        y: Shaped[Tensor, " point"],
        latents: Latents,
    ) -> Float[Tensor, "*draw point"]:
        """Return the log softmax at the target class."""
        # A sum with one nonzero term in place of `gather`: a compiler fuses it and its gradient
        # into one pass.
        is_target = y.unsqueeze(-1) == torch.arange(outputs.shape[-1], device=outputs.device)
        return torch.where(is_target, outputs, 0.0).sum(-1) - outputs.logsumexp(-1)

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return Pyro's Categorical with the outputs as logits."""
        return dist.Categorical(logits=outputs)

    def probabilities(
        self, outputs: Float[Tensor, "*draw point output"]
    ) -> Float[Tensor, "*draw point class"]:
        """Return the class probabilities given each draw."""
        return outputs.softmax(-1)


@settings
class Bernoulli(_Classification):
    """Model two classes by one output: the logit of the second class."""

    name: Literal["bernoulli"] = "bernoulli"

    def num_net_outputs(self, num_outputs: int) -> int:
        """Return 1, for a data set of exactly two classes.

        Args:
            num_outputs: number of classes of the data set.

        Raises:
            ConfigError: if the data set does not have two classes.
        """
        if num_outputs != 2:
            raise ConfigError(
                f"likelihood bernoulli needs 2 classes, the data have {num_outputs}; "
                "set likelihood.name=categorical"
            )
        return 1

    def log_prob(
        self, outputs: Float[Tensor, "*draw point 1"], y: Shaped[Tensor, " point"], latents: Latents
    ) -> Float[Tensor, "*draw point"]:
        """Return the log sigmoid of the logit, signed by the class."""
        logits = outputs.squeeze(-1)
        return logsigmoid(torch.where(y.bool(), logits, -logits))

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return Pyro's Bernoulli with the output as logit."""
        return dist.Bernoulli(logits=outputs.squeeze(-1))

    def probabilities(
        self, outputs: Float[Tensor, "*draw point 1"]
    ) -> Float[Tensor, "*draw point 2"]:
        """Return the probabilities of the first and the second class given each draw."""
        return torch.cat([torch.sigmoid(-outputs), torch.sigmoid(outputs)], dim=-1)


class _Gaussian:
    """Provide what the two Gaussian likelihoods share."""

    task = "regression"

    def _moments(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor]:
        """Return the mean and the log standard deviation of the target, each (..., point)."""
        raise NotImplementedError

    def log_prob(
        self,
        outputs: Float[Tensor, "*draw point output"],
        y: Float[Tensor, " point"],
        latents: Latents,
    ) -> Float[Tensor, "*draw point"]:
        """Return the Gaussian log density of the target."""
        mean, log_sd = self._moments(outputs, latents)
        return -0.5 * ((y - mean) * (-log_sd).exp()).square() - log_sd - 0.5 * math.log(2 * math.pi)

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return Pyro's Normal with the moments of the target."""
        mean, log_sd = self._moments(outputs, latents)
        return dist.Normal(mean, log_sd.exp())

    def mean(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return E[y] given each draw."""
        return self._moments(outputs, latents)[0]

    def variance(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return Var[y] given each draw."""
        return (2 * self._moments(outputs, latents)[1]).exp()

    def cdf(self, outputs: Tensor, value: Tensor, latents: Latents) -> Tensor:
        """Return P(y <= value) given each draw."""
        mean, log_sd = self._moments(outputs, latents)
        return torch.special.ndtr((value - mean) * (-log_sd).exp())


@settings
class Gaussian(_Gaussian):
    """Model y ~ Normal(output, noise), with fixed or learned noise.

    Attributes:
        noise: the standard deviation in standardized units, or `learned`: then log(noise) is a
            latent variable with a normal prior, so noise itself is log-normal.
        log_noise_mean: prior mean of log(noise).
        log_noise_sd: prior standard deviation of log(noise). The defaults put 95 % of the prior on
            noise between 5 % and 260 % of the target's standard deviation.
    """

    name: Literal["gaussian"] = "gaussian"
    noise: Positive | Literal["learned"] = "learned"
    log_noise_mean: float = -1.0
    log_noise_sd: Positive = 1.0

    @property
    def latents(self) -> dict[str, tuple[float, float]]:
        """Return the prior of `log_noise` if the noise is learned."""
        return (
            {"log_noise": (self.log_noise_mean, self.log_noise_sd)}
            if self.noise == "learned"
            else {}
        )

    def num_net_outputs(self, num_outputs: int) -> int:
        """Return 1: the mean of the target."""
        return 1

    def _moments(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor]:
        mean = outputs.squeeze(-1)
        if self.noise == "learned":
            return mean, latents["log_noise"].unsqueeze(-1).expand_as(mean)
        return mean, torch.full_like(mean, math.log(self.noise))


@settings
class HeteroscedasticGaussian(_WithoutLatents, _Gaussian):
    """Model y ~ Normal(first output, exp(second output)), with noise predicted per point."""

    name: Literal["heteroscedastic_gaussian"] = "heteroscedastic_gaussian"

    # exp of an extreme second output overflows early in training. Beyond these bounds the noise
    # would be below 5e-5 or above 2e4 standard deviations of the target, so no useful fit is
    # affected.
    _BOUND = 10.0

    def num_net_outputs(self, num_outputs: int) -> int:
        """Return 2: the mean and the log standard deviation."""
        return 2

    def _moments(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor]:
        return outputs[..., 0], outputs[..., 1].clamp(-self._BOUND, self._BOUND)


@settings
class Poisson(_WithoutLatents):
    """Model y ~ Poisson(exp(output))."""

    name: Literal["poisson"] = "poisson"
    task = "count"

    def num_net_outputs(self, num_outputs: int) -> int:
        """Return 1: the log rate."""
        return 1

    def log_prob(
        self, outputs: Float[Tensor, "*draw point 1"], y: Float[Tensor, " point"], latents: Latents
    ) -> Float[Tensor, "*draw point"]:
        """Return the Poisson log probability of the target."""
        log_rate = outputs.squeeze(-1)
        return y * log_rate - log_rate.exp() - torch.lgamma(y + 1)

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Return Pyro's Poisson with rate exp(output)."""
        return dist.Poisson(outputs.squeeze(-1).exp())

    def mean(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return E[y] given each draw."""
        return outputs.squeeze(-1).exp()

    def variance(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Return Var[y] given each draw, which equals the mean."""
        return self.mean(outputs, latents)

    def cdf(self, outputs: Tensor, value: Tensor, latents: Latents) -> Tensor:
        """Return P(y <= value) given each draw."""
        rate = self.mean(outputs, latents)
        count = value.floor().expand_as(rate)
        return torch.where(count < 0, 0.0, torch.special.gammaincc(count.clamp(min=0) + 1, rate))


AnyLikelihood = Annotated[
    Categorical | Bernoulli | Gaussian | HeteroscedasticGaussian | Poisson,
    Field(discriminator="name"),
]

_NEEDED = ("name", "task", "latents", "num_net_outputs", "log_prob", "distribution")
_ANY = get_args(get_args(AnyLikelihood)[0])


def check_likelihood(likelihood: Any) -> None:
    """Refuse an object that is not a likelihood.

    Likelihood classes in place of instances, and objects that lack a method, are refused too.

    Args:
        likelihood: the object.

    Raises:
        ConfigError: if it is not a likelihood; the message names what is missing.
    """
    known = ", ".join(cls.__name__ for cls in _ANY)
    if isinstance(likelihood, _ANY):
        return
    if isinstance(likelihood, type):
        raise ConfigError(
            f"likelihood: got the class {likelihood.__name__}, expected an instance; write "
            f"{likelihood.__name__}()"
        )
    of_task = (
        ("probabilities",)
        if getattr(likelihood, "task", None) == "classification"
        else ("mean", "variance")
    )
    missing = [name for name in (*_NEEDED, *of_task) if not hasattr(likelihood, name)]
    if missing:
        raise ConfigError(
            f"likelihood: got an object of type {type(likelihood).__name__} without "
            f"{', '.join(missing)}; use {known}, or implement "
            "bnn_symm.models.likelihoods.Likelihood"
        )


_DEFAULTS = {"classification": Categorical, "regression": Gaussian, "count": Poisson}


def default_likelihood(task: str) -> AnyLikelihood:
    """Return the default likelihood of a task.

    Args:
        task: `classification`, `regression` or `count`.

    Returns:
        A categorical likelihood, a Gaussian one with learned noise, or a Poisson one.
    """
    return _DEFAULTS[task]()


def check_task(likelihood: AnyLikelihood, task: str) -> None:
    """Refuse a likelihood that is not for a task.

    Args:
        likelihood: the likelihood.
        task: the task of the data set.

    Raises:
        ConfigError: if the two do not match.
    """
    if likelihood.task != task:
        raise ConfigError(
            f"likelihood {likelihood.name} is for {likelihood.task}, but the data are {task}; set "
            f"likelihood.name={_DEFAULTS[task]().name} or data.task={likelihood.task}"
        )
