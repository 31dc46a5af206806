"""List the likelihoods, choose one for a task, and check that one fits."""

import dataclasses
from typing import Annotated, Any

from pydantic import Field

from bnn_symm.errors import ConfigError
from bnn_symm.formatting import count
from bnn_symm.models.imported import Imported
from bnn_symm.models.likelihoods.classification import Bernoulli, Categorical
from bnn_symm.models.likelihoods.counts import NegativeBinomial, Poisson
from bnn_symm.models.likelihoods.exposure import Exposed
from bnn_symm.models.likelihoods.gaussian import Gaussian, HeteroscedasticGaussian
from bnn_symm.models.likelihoods.gaussian_mixture import GaussianMixture
from bnn_symm.models.likelihoods.likelihood import Likelihood
from bnn_symm.models.likelihoods.multivariate_gaussian import MultivariateGaussian
from bnn_symm.models.likelihoods.ordinal import Ordinal
from bnn_symm.models.likelihoods.student_t import HeteroscedasticStudentT, StudentT
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
    | HeteroscedasticStudentT
    | GaussianMixture
    | Poisson
    | NegativeBinomial
    | ZeroInflatedPoisson
    | ZeroInflatedNegativeBinomial
    | Weibull
    | LogNormal,
    Field(discriminator="name"),
]


def check_likelihood(likelihood: Any) -> None:
    """Refuse an object that is not a likelihood, and likelihood classes in place of instances.

    Args:
        likelihood: the object.

    Raises:
        ConfigError: if it is not a likelihood.
    """
    if isinstance(likelihood, Likelihood):
        return
    if isinstance(likelihood, type):
        raise ConfigError(
            f"likelihood: got the class {likelihood.__name__}, expected an instance; write "
            f"{likelihood.__name__}()"
        )
    raise ConfigError(
        f"likelihood: got an object of type {type(likelihood).__name__}, expected one of "
        "bnn_symm.likelihoods, such as Gaussian(), or of a class of your own that derives from "
        "NumberLikelihood or ClassLikelihood there"
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
    likelihood: Likelihood | None,
    task: str,
    num_outputs: int,
    *,
    has_exposure: bool = False,
) -> Likelihood:
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
    if several and not hasattr(likelihood, "marginal"):
        raise ConfigError(
            f"likelihood {likelihood.name} is not for data with "
            f"{count(num_outputs, 'target column')}; fit one run for each column, or set "
            "likelihood.name=multivariate_gaussian, which predicts numbers together"
        )
    check_task(likelihood, task)
    if not several and hasattr(likelihood, "marginal"):
        raise ConfigError(
            f"likelihood {likelihood.name} is not for data with 1 target column; set "
            "likelihood.name=gaussian"
        )
    likelihood.num_net_outputs(num_outputs)
    if not dataclasses.is_dataclass(likelihood):
        return likelihood
    own = {field.name for field in dataclasses.fields(likelihood)}
    sizes = dict.fromkeys({"num_columns", "num_classes"} & own, num_outputs)
    return dataclasses.replace(likelihood, **sizes)


def build_likelihood(likelihood: AnyLikelihood | Imported) -> Likelihood:
    """Return the likelihood of a configuration; a class of the user's own code is imported.

    Args:
        likelihood: of a configuration.

    Raises:
        ConfigError: if the class cannot be imported or built.
    """
    if isinstance(likelihood, Imported):
        return likelihood.build("likelihood", Likelihood, "noise:LaplaceNoise")
    return likelihood


def _with_exposure(
    likelihood: Likelihood | None, task: str, has_exposure: bool
) -> Likelihood | None:
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
    if isinstance(own, Exposed) and has_exposure:
        return dataclasses.replace(own, exposure=True)
    return own


def check_task(likelihood: Likelihood, task: str) -> None:
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
