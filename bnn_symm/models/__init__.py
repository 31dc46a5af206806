"""Combine a network, a prior and a likelihood into a Pyro model and its log density.

In: a network, a `Prior` and a likelihood. Out: a `BayesianModel`. Reading order: `bayesian_model`,
`priors`, `likelihoods`, `imported`, `interchangeable_units`, `fisher`, `output_checks`,
`pyro_distribution`.
"""

from bnn_symm.models.bayesian_model import BayesianModel, Tempering
from bnn_symm.models.imported import Imported
from bnn_symm.models.likelihoods import (
    AnyLikelihood,
    Bernoulli,
    Categorical,
    Gaussian,
    GaussianMixture,
    HeteroscedasticGaussian,
    HeteroscedasticStudentT,
    LogNormal,
    MultivariateGaussian,
    NegativeBinomial,
    Ordinal,
    Poisson,
    StudentT,
    Weibull,
    ZeroInflatedNegativeBinomial,
    ZeroInflatedPoisson,
    build_likelihood,
    check_task,
    default_likelihood,
    resolve_likelihood,
)
from bnn_symm.models.priors.family import PriorFamily
from bnn_symm.models.priors.informed_mean import PriorMean
from bnn_symm.models.priors.prior import Prior, PriorOverride, check_scale_is_known
from bnn_symm.models.stochastic_parameters import stochastic_parameters

__all__ = [
    "AnyLikelihood",
    "BayesianModel",
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "GaussianMixture",
    "HeteroscedasticGaussian",
    "HeteroscedasticStudentT",
    "Imported",
    "LogNormal",
    "MultivariateGaussian",
    "NegativeBinomial",
    "Ordinal",
    "Poisson",
    "Prior",
    "PriorFamily",
    "PriorMean",
    "PriorOverride",
    "StudentT",
    "Tempering",
    "Weibull",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedPoisson",
    "build_likelihood",
    "check_scale_is_known",
    "check_task",
    "default_likelihood",
    "resolve_likelihood",
    "stochastic_parameters",
]
