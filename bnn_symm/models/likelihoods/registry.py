"""List the likelihoods, choose one for a task, and check that one fits."""

from typing import Annotated, Any, get_args

from pydantic import Field

from bnn_symm.errors import ConfigError
from bnn_symm.models.likelihoods.classification import Bernoulli, Categorical
from bnn_symm.models.likelihoods.counts import Poisson
from bnn_symm.models.likelihoods.gaussian import Gaussian, HeteroscedasticGaussian

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
