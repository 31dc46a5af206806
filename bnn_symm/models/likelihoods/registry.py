"""List the likelihoods, choose one for a task, and check that one fits."""

import dataclasses
from typing import Annotated, Any, get_args

from pydantic import Field

from bnn_symm.errors import ConfigError
from bnn_symm.formatting import count
from bnn_symm.models.likelihoods.classification import Bernoulli, Categorical
from bnn_symm.models.likelihoods.counts import NegativeBinomial, Poisson
from bnn_symm.models.likelihoods.exposure import Exposed
from bnn_symm.models.likelihoods.gaussian import Gaussian, HeteroscedasticGaussian
from bnn_symm.models.likelihoods.gaussian_mixture import GaussianMixture
from bnn_symm.models.likelihoods.multivariate_gaussian import MultivariateGaussian
from bnn_symm.models.likelihoods.ordinal import Ordinal
from bnn_symm.models.likelihoods.student_t import StudentT
from bnn_symm.models.likelihoods.survival import LogNormal, Weibull
from bnn_symm.models.likelihoods.zero_inflated import (
    ZeroInflatedNegativeBinomial,
    ZeroInflatedPoisson,
)

AnyLikelihood = Annotated[
    Categorical
    | Bernoulli
    | Ordinal
    | Gaussian
    | HeteroscedasticGaussian
    | MultivariateGaussian
    | StudentT
    | GaussianMixture
    | Poisson
    | NegativeBinomial
    | ZeroInflatedPoisson
    | ZeroInflatedNegativeBinomial
    | Weibull
    | LogNormal,
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
        else ("mean", "variance", "cdf")
    )
    missing = [name for name in (*_NEEDED, *of_task) if not hasattr(likelihood, name)]
    if missing:
        raise ConfigError(
            f"likelihood: got an object of type {type(likelihood).__name__} without "
            f"{', '.join(missing)}; use {known}, or implement "
            "bnn_symm.models.likelihoods.Likelihood"
        )


_DEFAULTS = {
    "classification": Categorical,
    "regression": Gaussian,
    "count": Poisson,
    "survival": Weibull,
}


def default_likelihood(task: str) -> AnyLikelihood:
    """Return the default likelihood of a task.

    Args:
        task: `classification`, `regression`, `count` or `survival`.

    Returns:
        A categorical likelihood, a Gaussian one with learned noise, a Poisson one, or a Weibull one
        with a learned shape.
    """
    return _DEFAULTS[task]()


def resolve_likelihood(
    likelihood: AnyLikelihood | None,
    task: str,
    num_outputs: int,
    *,
    has_exposure: bool = False,
) -> AnyLikelihood:
    """Return the likelihood of a data set: the default of its task, with its number of classes.

    Args:
        likelihood: the likelihood of a configuration, or None.
        task: the task of the data set.
        num_outputs: number of classes, or of target columns, of the data set.
        has_exposure: whether the data have exposures of counts.

    Raises:
        ConfigError: if the likelihood is not for these data.
    """
    likelihood = _with_exposure(likelihood, task, has_exposure)
    several = task == "regression" and num_outputs > 1
    if likelihood is None:
        likelihood = MultivariateGaussian() if several else default_likelihood(task)
    if several and not isinstance(likelihood, MultivariateGaussian):
        raise ConfigError(
            f"likelihood {likelihood.name} is not for data with "
            f"{count(num_outputs, 'target column')}; fit one run for each column, or set "
            "likelihood.name=multivariate_gaussian, which predicts numbers together"
        )
    check_task(likelihood, task)
    if not several and isinstance(likelihood, MultivariateGaussian):
        raise ConfigError(
            f"likelihood {likelihood.name} is not for data with 1 target column; set "
            "likelihood.name=gaussian"
        )
    likelihood.num_net_outputs(num_outputs)
    if isinstance(likelihood, MultivariateGaussian):
        return dataclasses.replace(likelihood, num_columns=num_outputs)
    if isinstance(likelihood, Ordinal):
        return dataclasses.replace(likelihood, num_classes=num_outputs)
    return likelihood


def _with_exposure(
    likelihood: AnyLikelihood | None, task: str, has_exposure: bool
) -> AnyLikelihood | None:
    """Return the likelihood that reads exposures if the data have them.

    Raises:
        ConfigError: if it cannot read them, or the data have none.
    """
    if likelihood is None and not has_exposure:
        return None
    own = likelihood or default_likelihood(task)
    if has_exposure and not isinstance(own, Exposed):
        raise ConfigError(
            f"data.exposure is for likelihoods of counts, got likelihood.name={own.name}; set "
            "likelihood.name=poisson, negative_binomial or one with extra zeros, or remove "
            "data.exposure"
        )
    if isinstance(own, Exposed) and own.exposure and not has_exposure:
        raise ConfigError(
            "likelihood.exposure=true needs exposures, and the data have none; name their column "
            "in data.exposure"
        )
    return dataclasses.replace(own, exposure=True) if has_exposure else own


def check_task(likelihood: AnyLikelihood, task: str) -> None:
    """Refuse a likelihood that is not for a task.

    Args:
        likelihood: the likelihood.
        task: the task of the data set.

    Raises:
        ConfigError: if the two do not match.
    """
    if likelihood.task == task:
        return
    problem = f"likelihood {likelihood.name} is for {likelihood.task}, but the data are {task}"
    if task == "survival":
        raise ConfigError(
            f"{problem}: times, some of which may be censored; set likelihood.name=weibull or "
            f"likelihood.name=lognormal, or remove data.event and set data.task={likelihood.task}"
        )
    raise ConfigError(
        f"{problem}; set likelihood.name={_DEFAULTS[task]().name} or data.task={likelihood.task}"
    )
