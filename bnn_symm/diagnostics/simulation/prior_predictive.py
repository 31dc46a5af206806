"""Describe the functions that a prior draws, compared with the data, before any fit.

A scale of weights is hard to interpret. How much functions vary over points, and how confident they
are of a class, shows whether a prior is adequate for the data (Gelman et al. 2020, section 2.4;
Wenzel et al. 2020, appendix K, where functions drawn from a Normal(0, 1) prior put nearly all
images into one class).

References:
    Gelman et al. 2020, arXiv:2011.01808; Wenzel et al. 2020, arXiv:2002.02405.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from bnn_symm.alignment.samples import prior_draws
from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel
from bnn_symm.models.likelihoods import has_events
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.posteriors.predictive import Predictive

# A class with a larger probability is considered certain.
CERTAIN = 0.99


@dataclass(frozen=True, kw_only=True)
class PriorPredictive:
    """Statistics of functions of a prior, and of the data, in the target's own units or nats.

    Attributes:
        functions: Quantity -> its value for every function, (draw,). For numbers, over the points:
            `variation` (standard deviation of the function), `range`, `level` (mean), `noise` (root
            mean variance of the likelihood) and `targets` (standard deviation of simulated
            targets). For classes: `confidence` (mean largest probability), `entropy` (mean, in
            nats), `certain` (fraction of points with a probability above 0.99) and `classes` (exp
            of the entropy of the mean probabilities: the effective number of classes).
        data: Quantity -> its value for the targets; None if not defined. For classes, of a model
            that predicts the class frequencies.
        sd_at_points: (point,), for numbers: standard deviation over functions at every point.
        overflowing: Fraction of functions that overflow, such as rates of counts, and are excluded.
    """

    functions: dict[str, Float[np.ndarray, " draw"]]
    data: dict[str, float | None]
    sd_at_points: Float[np.ndarray, " point"] | None
    overflowing: float

    def quantiles(self, quantity: str, levels: Sequence[float]) -> list[float]:
        """Return quantiles of a quantity over functions."""
        return [float(value) for value in np.quantile(self.functions[quantity], levels)]


def prior_functions(
    model: BayesianModel, dataset: Dataset, num_draws: int, *, seed: int = 0
) -> SamplePosterior:
    """Return independent draws of the prior, with predictions in the target's own units.

    Args:
        model: Model with the prior.
        dataset: Provides the scaling of the target.
        num_draws: Number of draws.
        seed: Seed of the draws.

    Returns:
        The draws as a sample posterior.
    """
    draws = prior_draws(model, 1, num_draws, seed=seed).draws()[None]
    return SamplePosterior.from_draws(model, draws, dataset.scaling, info={"method": "prior"})


def prior_predictive(
    model: BayesianModel,
    dataset: Dataset,
    *,
    num_draws: int = 200,
    num_points: int = 500,
    seed: int = 0,
) -> PriorPredictive:
    """Draw functions from the prior and describe them at training inputs.

    The targets are used for comparison only.

    Args:
        model: Prior x likelihood x architecture.
        dataset: Its training split is used.
        num_draws: Number of functions.
        num_points: Maximum number of points of the training split, whose order is random.
        seed: Seed of the draws.

    Returns:
        Statistics of the functions and of the data.

    Raises:
        ConfigError: If there are fewer than two draws or points, or every function overflows.
    """
    part = dataset.train.take(slice(0, num_points))
    if num_draws < 2 or len(part) < 2:
        raise ConfigError(
            f"a spread needs at least two functions and points; got {num_draws} and {len(part)}"
        )
    predictive = prior_functions(model, dataset, num_draws, seed=seed).predict(part.x)
    if len(predictive.columns) > 1:
        raise ConfigError(
            f"the prior predictive describes functions of one target, the data have "
            f"{len(predictive.columns)} target columns; name one of them in data.target"
        )
    if has_events(predictive.likelihood):
        raise ConfigError(
            "the prior predictive compares functions with all values of the target, but times may "
            "be censored; for data without censored times use data.task=regression"
        )
    predictive, y = predictive.given(part.y)
    if predictive.is_classification:
        return _of_classes(predictive, part.y.cpu().numpy())
    targets = (dataset.scaling.y_mean + dataset.scaling.y_scale * y.double()).cpu().numpy()
    return _of_numbers(predictive, targets)


def _of_numbers(predictive: Predictive, targets: Float[np.ndarray, " point"]) -> PriorPredictive:
    likelihood: Any = predictive.likelihood
    means = predictive.draw_mean()[0].numpy()
    variance = likelihood.variance(predictive.outputs, predictive.latents)[0].double().numpy()
    variance = np.broadcast_to(variance * predictive.scale**2, means.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        noise = variance.mean(1)
        spread = means.var(1)
        fine = np.isfinite(spread) & np.isfinite(noise)
    if not fine.any():
        raise ConfigError(
            "every function of this prior overflows; lower prior.scale, or use prior.scale=fan_in"
        )
    means, noise, spread = means[fine], noise[fine], spread[fine]
    sd, extent = float(targets.std()), float(np.ptp(targets))
    return PriorPredictive(
        functions={
            "variation": np.sqrt(spread),
            "range": np.ptp(means, axis=1),
            "level": means.mean(1),
            "noise": np.sqrt(noise),
            "targets": np.sqrt(spread + noise),
        },
        data={
            "variation": sd,
            "range": extent,
            "level": float(targets.mean()),
            "noise": None,
            "targets": sd,
        },
        sd_at_points=means.std(0),
        overflowing=float(1 - fine.mean()),
    )


def _of_classes(predictive: Predictive, classes: np.ndarray) -> PriorPredictive:
    likelihood: Any = predictive.likelihood
    latents = {name: value.double() for name, value in predictive.latents.items()}
    probabilities = likelihood.probabilities(predictive.outputs.double(), latents)[0]
    largest = probabilities.amax(-1)
    entropy = torch.special.entr(probabilities).sum(-1)
    used = torch.special.entr(probabilities.mean(1)).sum(-1).exp()
    frequencies = torch.bincount(
        torch.from_numpy(classes), minlength=probabilities.shape[-1]
    ).double() / len(classes)
    of_frequencies = float(torch.special.entr(frequencies).sum())
    return PriorPredictive(
        functions={
            "confidence": largest.mean(1).numpy(),
            "entropy": entropy.mean(1).numpy(),
            "certain": (largest > CERTAIN).double().mean(1).numpy(),
            "classes": used.numpy(),
        },
        data={
            "confidence": float(frequencies.max()),
            "entropy": of_frequencies,
            "certain": None,
            "classes": float(np.exp(of_frequencies)),
        },
        sd_at_points=None,
        overflowing=0.0,
    )
