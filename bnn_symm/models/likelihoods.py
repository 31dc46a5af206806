"""Likelihoods: what the outputs of a network mean for a target (config section `likelihood`).

Every likelihood is one settings class. It says how many outputs the network needs, which latent
variables of its own it has (a learned noise), and gives the density of a target, as a plain
function and as a Pyro distribution, and the mean, the variance or the class probabilities of the
target given one draw. Targets are in the units of training: standardized for Gaussian likelihoods,
counts for Poisson, class indices otherwise.
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
    """What every likelihood offers. Outputs are (..., point, output); results are (..., point)."""

    name: str

    @property
    def task(self) -> str:
        """The task of the data sets that it fits: classification, regression or count."""
        ...

    @property
    def latents(self) -> dict[str, tuple[float, float]]:
        """Name -> (mean, standard deviation) of the normal prior of each scalar latent variable."""
        ...

    def num_net_outputs(self, num_outputs: int) -> int:
        """How many outputs the network must have for a data set with `num_outputs`."""
        ...

    def log_prob(self, outputs: Tensor, y: Tensor, latents: Latents) -> Tensor:
        """Log density of the target given the outputs, in nats."""
        ...

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """The same as a Pyro distribution with batch shape (..., point)."""
        ...


class _Classification:
    """What the two likelihoods of classes share."""

    task = "classification"
    latents: dict[str, tuple[float, float]] = {}  # noqa: RUF012 - never changed


@settings
class Categorical(_Classification):
    """Softmax over the outputs, one output a class."""

    name: Literal["categorical"] = "categorical"

    def num_net_outputs(self, num_outputs: int) -> int:
        """One a class."""
        return num_outputs

    def log_prob(
        self,
        outputs: Float[Tensor, "*draw point output"],
        y: Shaped[Tensor, " point"],
        latents: Latents,
    ) -> Float[Tensor, "*draw point"]:
        """Log softmax at the target class."""
        # A sum with one term that is not 0, where `gather` would do: a compiler makes one pass of
        # it and its gradient.
        is_target = y.unsqueeze(-1) == torch.arange(outputs.shape[-1], device=outputs.device)
        return torch.where(is_target, outputs, 0.0).sum(-1) - outputs.logsumexp(-1)

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Pyro's Categorical."""
        return dist.Categorical(logits=outputs)

    def probabilities(
        self, outputs: Float[Tensor, "*draw point output"]
    ) -> Float[Tensor, "*draw point class"]:
        """Class probabilities given each draw."""
        return outputs.softmax(-1)


@settings
class Bernoulli(_Classification):
    """Two classes, one output: the logit of the second class."""

    name: Literal["bernoulli"] = "bernoulli"

    def num_net_outputs(self, num_outputs: int) -> int:
        """One output, for exactly two classes."""
        if num_outputs != 2:
            raise ConfigError(
                f"likelihood bernoulli needs 2 classes, the data have {num_outputs}; "
                f"use `--set likelihood.name=categorical`"
            )
        return 1

    def log_prob(
        self, outputs: Float[Tensor, "*draw point 1"], y: Shaped[Tensor, " point"], latents: Latents
    ) -> Float[Tensor, "*draw point"]:
        """Log sigmoid of the logit, signed by the class."""
        logits = outputs.squeeze(-1)
        return logsigmoid(torch.where(y.bool(), logits, -logits))

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Pyro's Bernoulli."""
        return dist.Bernoulli(logits=outputs.squeeze(-1))

    def probabilities(
        self, outputs: Float[Tensor, "*draw point 1"]
    ) -> Float[Tensor, "*draw point 2"]:
        """Probabilities of the first and of the second class given each draw."""
        return torch.cat([torch.sigmoid(-outputs), torch.sigmoid(outputs)], dim=-1)


class _Gaussian:
    """What the two Gaussian likelihoods share."""

    task = "regression"

    def _moments(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the target, each (..., point)."""
        raise NotImplementedError

    def log_prob(
        self,
        outputs: Float[Tensor, "*draw point output"],
        y: Float[Tensor, " point"],
        latents: Latents,
    ) -> Float[Tensor, "*draw point"]:
        """Gaussian log density."""
        mean, log_sd = self._moments(outputs, latents)
        return -0.5 * ((y - mean) * (-log_sd).exp()).square() - log_sd - 0.5 * math.log(2 * math.pi)

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Pyro's Normal."""
        mean, log_sd = self._moments(outputs, latents)
        return dist.Normal(mean, log_sd.exp())

    def mean(self, outputs: Tensor, latents: Latents) -> Tensor:
        """E[y] given each draw."""
        return self._moments(outputs, latents)[0]

    def variance(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Var[y] given each draw."""
        return (2 * self._moments(outputs, latents)[1]).exp()

    def cdf(self, outputs: Tensor, value: Tensor, latents: Latents) -> Tensor:
        """P(y <= value) given each draw."""
        mean, log_sd = self._moments(outputs, latents)
        return torch.special.ndtr((value - mean) * (-log_sd).exp())


@settings
class Gaussian(_Gaussian):
    """y ~ Normal(output, noise), with noise fixed or learned.

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
        """`log_noise` when the noise is learned."""
        return (
            {"log_noise": (self.log_noise_mean, self.log_noise_sd)}
            if self.noise == "learned"
            else {}
        )

    def num_net_outputs(self, num_outputs: int) -> int:
        """One: the mean."""
        return 1

    def _moments(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor]:
        mean = outputs.squeeze(-1)
        if self.noise == "learned":
            return mean, latents["log_noise"].unsqueeze(-1).expand_as(mean)
        return mean, torch.full_like(mean, math.log(self.noise))


@settings
class HeteroscedasticGaussian(_Gaussian):
    """y ~ Normal(first output, exp(second output)): the network predicts the noise of every
    point.
    """

    name: Literal["heteroscedastic_gaussian"] = "heteroscedastic_gaussian"

    # exp of a wild second output overflows in early training; beyond these bounds the noise would
    # be below 5e-5 or above 2e4 standard deviations of the target, so no fit that means anything is
    # cut off.
    _BOUND = 10.0

    @property
    def latents(self) -> dict[str, tuple[float, float]]:
        """None: the noise comes from the network."""
        return {}

    def num_net_outputs(self, num_outputs: int) -> int:
        """Two: mean and log standard deviation."""
        return 2

    def _moments(self, outputs: Tensor, latents: Latents) -> tuple[Tensor, Tensor]:
        return outputs[..., 0], outputs[..., 1].clamp(-self._BOUND, self._BOUND)


@settings
class Poisson:
    """y ~ Poisson(exp(output))."""

    name: Literal["poisson"] = "poisson"
    task = "count"

    @property
    def latents(self) -> dict[str, tuple[float, float]]:
        """None."""
        return {}

    def num_net_outputs(self, num_outputs: int) -> int:
        """One: the log rate."""
        return 1

    def log_prob(
        self, outputs: Float[Tensor, "*draw point 1"], y: Float[Tensor, " point"], latents: Latents
    ) -> Float[Tensor, "*draw point"]:
        """Poisson log probability."""
        log_rate = outputs.squeeze(-1)
        return y * log_rate - log_rate.exp() - torch.lgamma(y + 1)

    def distribution(self, outputs: Tensor, latents: Latents) -> PyroDistribution:
        """Pyro's Poisson."""
        return dist.Poisson(outputs.squeeze(-1).exp())

    def mean(self, outputs: Tensor, latents: Latents) -> Tensor:
        """E[y] given each draw."""
        return outputs.squeeze(-1).exp()

    def variance(self, outputs: Tensor, latents: Latents) -> Tensor:
        """Var[y] given each draw, equal to the mean."""
        return self.mean(outputs, latents)

    def cdf(self, outputs: Tensor, value: Tensor, latents: Latents) -> Tensor:
        """P(y <= value) given each draw."""
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
    """Refuse what is not a likelihood: another type, the class in place of its settings, or one
    that lacks methods.

    Raises:
        ConfigError: which names what is missing.
    """
    known = ", ".join(cls.__name__ for cls in _ANY)
    if isinstance(likelihood, _ANY):
        return
    if isinstance(likelihood, type):
        raise ConfigError(
            f"likelihood: got the class {likelihood.__name__}, expected an object of it; write "
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
            f"{', '.join(missing)}; use {known}, or give your own what "
            "bnn_symm.models.likelihoods.Likelihood lists"
        )


_DEFAULTS = {"classification": Categorical, "regression": Gaussian, "count": Poisson}


def default_likelihood(task: str) -> AnyLikelihood:
    """The likelihood for a task when none was named: categorical, gaussian with learned noise, or
    poisson.
    """
    return _DEFAULTS[task]()


def check_task(likelihood: AnyLikelihood, task: str) -> None:
    """Raises ConfigError when a likelihood is not one for this task."""
    if likelihood.task != task:
        raise ConfigError(
            f"likelihood {likelihood.name} is for {likelihood.task}, but the data are {task}; use "
            f"`--set likelihood.name={_DEFAULTS[task]().name}` or `--set "
            f"data.task={likelihood.task}`"
        )
