"""Define the likelihoods of targets given network outputs (config section `likelihood`).

Every likelihood is one settings class. Targets are in the units of training: standardized for
regression, counts for counts, class indices for classes.

Reading order: `likelihood` (the interface), `gaussian`, `classification`, `counts`, `registry`
(all of them, the default of each task, checks).
"""

from bnn_symm.models.likelihoods.classification import Bernoulli, Categorical
from bnn_symm.models.likelihoods.counts import Poisson
from bnn_symm.models.likelihoods.gaussian import Gaussian, HeteroscedasticGaussian
from bnn_symm.models.likelihoods.likelihood import Latents, Likelihood
from bnn_symm.models.likelihoods.registry import (
    AnyLikelihood,
    check_likelihood,
    check_task,
    default_likelihood,
)

__all__ = [
    "AnyLikelihood",
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "HeteroscedasticGaussian",
    "Latents",
    "Likelihood",
    "Poisson",
    "check_likelihood",
    "check_task",
    "default_likelihood",
]
