"""Distributions of SciPy that the likelihoods of numbers and counts stand for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats
from torch import Tensor

from bnn_symm.models import (
    Gaussian,
    GaussianMixture,
    HeteroscedasticGaussian,
    HeteroscedasticStudentT,
    LogNormal,
    NegativeBinomial,
    Ordinal,
    Poisson,
    StudentT,
    Weibull,
    ZeroInflatedNegativeBinomial,
    ZeroInflatedPoisson,
)


@dataclass(frozen=True)
class Sum:
    """A weighted sum of distributions; weights and distributions have a first axis of parts."""

    weights: np.ndarray
    parts: Any

    def logpdf(self, y):
        return np.log((self.weights * self.parts.pdf(y)).sum(0))

    def cdf(self, y):
        return (self.weights * self.parts.cdf(y)).sum(0)

    def mean(self):
        return (self.weights * self.parts.mean()).sum(0)

    def var(self):
        square = self.parts.var() + self.parts.mean() ** 2
        return (self.weights * square).sum(0) - self.mean() ** 2


@dataclass(frozen=True)
class ExtraZeros:
    """A distribution of counts with extra zeros."""

    share: np.ndarray
    base: Any

    def logpmf(self, y):
        return np.log(self.share * (np.asarray(y) == 0) + (1 - self.share) * self.base.pmf(y))

    def cdf(self, y):
        return self.share * (np.asarray(y) >= 0) + (1 - self.share) * self.base.cdf(y)

    def mean(self):
        return (1 - self.share) * self.base.mean()

    def var(self):
        square = self.base.var() + self.base.mean() ** 2
        return (1 - self.share) * square - self.mean() ** 2


def reference(
    likelihood: Any, outputs: Tensor, latents: dict[str, Tensor], location=0.0, scale=1.0
) -> Any:
    """SciPy's distribution (draw, point) for outputs (draw, point, output), latents (draw,)."""
    o = outputs.numpy()
    z = {name: value.numpy()[:, None] for name, value in latents.items()}

    def positive(fixed, name):
        return np.exp(z[name]) if fixed == "learned" else fixed

    match likelihood:
        case Gaussian():
            noise = positive(likelihood.noise, "log_noise")
            return stats.norm(location + scale * o[..., 0], scale * noise)
        case HeteroscedasticGaussian():
            return stats.norm(location + scale * o[..., 0], scale * np.exp(o[..., 1]))
        case StudentT():
            fixed = likelihood.degrees_of_freedom
            df = 2 + np.exp(z["log_excess"]) if fixed == "learned" else fixed
            noise = positive(likelihood.noise, "log_noise")
            return stats.t(df, location + scale * o[..., 0], scale * noise)
        case HeteroscedasticStudentT():
            fixed = likelihood.degrees_of_freedom
            df = 2 + np.exp(z["log_excess"]) if fixed == "learned" else fixed
            return stats.t(df, location + scale * o[..., 0], scale * np.exp(o[..., 1]))
        case GaussianMixture():
            k = likelihood.num_components
            mean, log_sd, logit = (np.moveaxis(o[..., i * k : i * k + k], -1, 0) for i in range(3))
            parts = stats.norm(location + scale * mean, scale * np.exp(log_sd))
            return Sum(special.softmax(logit, axis=0), parts)
        case Poisson():
            return stats.poisson(np.exp(o[..., 0]))
        case NegativeBinomial() | ZeroInflatedNegativeBinomial():
            size = 1 / positive(likelihood.dispersion, "log_dispersion")
            base = stats.nbinom(size, size / (size + np.exp(o[..., 0])))
            inflated = isinstance(likelihood, ZeroInflatedNegativeBinomial)
            return ExtraZeros(special.expit(o[..., 1]), base) if inflated else base
        case ZeroInflatedPoisson():
            return ExtraZeros(special.expit(o[..., 1]), stats.poisson(np.exp(o[..., 0])))
        case Weibull():
            shape = positive(likelihood.shape, "log_shape")
            return stats.weibull_min(shape, scale=scale * np.exp(o[..., 0]))
        case LogNormal():
            noise = positive(likelihood.noise, "log_noise")
            return stats.lognorm(noise, scale=scale * np.exp(o[..., 0]))
    raise AssertionError(f"no reference of {likelihood}")


def ordinal_probabilities(
    likelihood: Ordinal, outputs: Tensor, latents: dict[str, Tensor]
) -> np.ndarray:
    """Class probabilities (draw, point, class): differences of logistic distribution functions."""
    gaps = np.exp(np.stack([latents[name].numpy() for name in likelihood.latents], -1))
    cutpoints = np.concatenate([np.zeros_like(gaps[:, :1]), gaps.cumsum(-1)], -1)
    cutpoints = cutpoints - cutpoints.mean(-1, keepdims=True)
    below = stats.logistic(outputs.numpy()).cdf(cutpoints[:, None])
    edge = np.zeros_like(below[..., :1])
    return np.diff(below, axis=-1, prepend=edge, append=edge + 1)
