"""Likelihoods: distributions of a target given the outputs of a network.

Example:
    >>> from bnn_symm.likelihoods import Gaussian
    >>> Gaussian(noise=0.1).noise
    0.1
"""

from bnn_symm.models.likelihoods import (
    Bernoulli,
    Categorical,
    ClassLikelihood,
    Gaussian,
    GaussianMixture,
    HeteroscedasticGaussian,
    HeteroscedasticStudentT,
    Likelihood,
    LogNormal,
    MultivariateGaussian,
    NegativeBinomial,
    NumberLikelihood,
    Ordinal,
    Poisson,
    StudentT,
    Weibull,
    ZeroInflatedNegativeBinomial,
    ZeroInflatedPoisson,
)

__all__ = [
    "Bernoulli",
    "Categorical",
    "ClassLikelihood",
    "Gaussian",
    "GaussianMixture",
    "HeteroscedasticGaussian",
    "HeteroscedasticStudentT",
    "Likelihood",
    "LogNormal",
    "MultivariateGaussian",
    "NegativeBinomial",
    "NumberLikelihood",
    "Ordinal",
    "Poisson",
    "StudentT",
    "Weibull",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedPoisson",
]
