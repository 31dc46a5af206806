"""Likelihoods: distributions of a target given the outputs of a network.

Example:
    >>> from bnn_symm.likelihoods import Gaussian
    >>> Gaussian(noise=0.1).noise
    0.1
"""

from bnn_symm.models.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    GaussianMixture,
    HeteroscedasticGaussian,
    Likelihood,
    LogNormal,
    MultivariateGaussian,
    NegativeBinomial,
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
    "Gaussian",
    "GaussianMixture",
    "HeteroscedasticGaussian",
    "Likelihood",
    "LogNormal",
    "MultivariateGaussian",
    "NegativeBinomial",
    "Ordinal",
    "Poisson",
    "StudentT",
    "Weibull",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedPoisson",
]
