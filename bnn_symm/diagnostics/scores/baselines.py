"""Predict points without the network: by a constant, and by a linear model of the same features.

The constant is the distribution of the training targets: the frequencies of classes with one more
point in each (so that none has probability 0), a normal distribution with their mean and standard
deviation, or a Poisson distribution with their mean. The linear models are scikit-learn's, on the
standardized features of the run, images flattened: logistic regression with C = 1 (a standard
normal prior of the weights), ridge regression with its penalty chosen by leave-one-out errors,
which also give the noise, and Poisson regression. Scores of a network are to be read beside these.
In all of them a point of weight w counts as w points.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Dataset, Split
from bnn_symm.diagnostics.scores.point_predictions import (
    ClassPredictions,
    NumberPredictions,
    reduce_predictive,
)
from bnn_symm.formatting import count
from bnn_symm.models import Categorical, Gaussian, Poisson
from bnn_symm.posteriors import Predictive
from bnn_symm.randomness import numpy_generator

# Largest number of feature values to which a linear model is fitted, which takes seconds; of a
# larger training split, random points are used, but not fewer than the second.
_LARGEST, _FEWEST = 2_000_000, 500
_PENALTIES = np.logspace(-3, 6, 28)
_ITERATIONS = 200
# Standard deviations below this fraction of that of the targets are those of an exact fit.
_LEAST_NOISE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Predictions of some points that need no network.

    Attributes:
        name: Of the model, with an article.
        predictions: At the points.
    """

    name: str
    predictions: ClassPredictions | NumberPredictions


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """The baselines of a data set, in the order of increasing complexity.

    Attributes:
        models: The constant, and the linear model if there is one.
        notes: Why there is no linear model, or to which points it was fitted.
    """

    models: Sequence[Baseline]
    notes: Sequence[str] = ()


def baselines(dataset: Dataset, part: Split, *, seed: int = 0) -> Baselines:
    """Fit the baselines to the training split and predict the points of a part.

    Args:
        dataset: The data.
        part: At least one point of the same features.
        seed: Seed of the choice of training points, and of the randomized transform of counts.

    Returns:
        Their predictions.
    """

    def model(name: str, predictive: Predictive) -> Baseline:
        predictions = reduce_predictive(predictive, part, seed=seed)
        return Baseline(name=name, predictions=predictions)

    y, weight = _targets(dataset.train), dataset.train.observations.cpu().numpy()
    models = [model(*_constant(dataset, y, weight, len(part)))]
    rows, notes = _rows(dataset, y, seed)
    if rows is not None:
        train = dataset.train.take(rows)
        models.append(model(*_linear(dataset, train, _flat(part.x))))
    return Baselines(models=models, notes=notes)


def _targets(part: Split) -> np.ndarray:
    y = part.y.cpu().numpy()
    return y.astype(np.float64) if part.y.is_floating_point() else y


def _flat(x: Tensor) -> Float[np.ndarray, "point feature"]:
    return x.flatten(1).double().cpu().numpy()


def _rows(dataset: Dataset, y: np.ndarray, seed: int) -> tuple[np.ndarray | None, list[str]]:
    """Return the training points of the linear model, and notes; None if it cannot be fitted."""
    points, features = len(y), math.prod(dataset.input_shape)
    if dataset.task == "classification" and len(np.unique(y)) < 2:
        return None, ["there is no linear model, because all training points have one class"]
    if points < 3:
        return None, [f"there is no linear model of {count(points, 'training point')}"]
    most = _LARGEST // features
    if points <= most:
        return np.arange(points), []
    if most < _FEWEST:
        return None, [
            f"there is no linear model, because its fit to {count(features, 'feature')} of "
            f"{count(points, 'point')} takes long"
        ]
    chosen = numpy_generator(seed, "points of the linear model").choice(points, most, replace=False)
    note = f"the linear model is fitted to {most:,} of the {points:,} training points"
    return np.sort(chosen), [note]


def _constant(
    dataset: Dataset, y: np.ndarray, weight: np.ndarray, size: int
) -> tuple[str, Predictive]:
    """Return the name and the predictions of the distribution of the training targets."""
    if dataset.task == "classification":
        log_shares = np.log(_base_rates(y, weight, dataset.num_outputs))
        return "the base rates", _of_classes(np.tile(log_shares, (size, 1)))
    name = "the mean of the training targets"
    mean = float(np.average(y, weights=weight))
    if dataset.task == "count":
        rate = max(mean, 1 / (weight.sum() + 1))  # targets that are all zero have a rate, too
        return name, _of_counts(np.full(size, math.log(rate)))
    sd = math.sqrt(np.average(np.square(y - mean), weights=weight))
    return name, _of_numbers(dataset, np.full(size, mean), sd, y)


def _linear(dataset: Dataset, train: Split, points: np.ndarray) -> tuple[str, Predictive]:
    """Return the name and the predictions of the linear model."""
    x, y, weight = _flat(train.x), _targets(train), train.observations.cpu().numpy()
    from sklearn.linear_model import LogisticRegression, PoissonRegressor, RidgeCV

    with warnings.catch_warnings(action="ignore"):  # a fit that stops early is still a baseline
        if dataset.task == "classification":
            model = LogisticRegression(max_iter=_ITERATIONS).fit(x, y, weight)
            # A class without training points keeps its base rate.
            shares = _base_rates(y, weight, dataset.num_outputs)
            probabilities = np.tile(shares, (len(points), 1))
            seen = shares[model.classes_].sum()
            probabilities[:, model.classes_] = model.predict_proba(points) * seen
            least = np.finfo(np.float64).tiny
            return "logistic regression", _of_classes(np.log(np.maximum(probabilities, least)))
        if dataset.task == "count":
            model = PoissonRegressor(alpha=1 / weight.sum(), max_iter=_ITERATIONS)
            model.fit(x, y, weight)
            return "Poisson regression", _of_counts(points @ model.coef_ + model.intercept_)
        model = RidgeCV(_PENALTIES, store_cv_results=True).fit(x, y, weight)
        # Errors are squared, and multiplied by the weights.
        errors = model.cv_results_[:, list(_PENALTIES).index(model.alpha_)]
        noise = math.sqrt(errors.sum() / weight.sum())
        return "ridge regression", _of_numbers(dataset, model.predict(points), noise, y)


def _base_rates(y: np.ndarray, weight: np.ndarray, num_classes: int) -> np.ndarray:
    totals = np.bincount(y, weights=weight, minlength=num_classes)
    return (totals + 1) / (weight.sum() + num_classes)


def _of_classes(log_probabilities: np.ndarray) -> Predictive:
    return Predictive(
        outputs=torch.from_numpy(log_probabilities)[None, None],
        latents={},
        likelihood=Categorical(),
    )


def _of_counts(log_rates: np.ndarray) -> Predictive:
    outputs = torch.from_numpy(log_rates)[None, None, :, None]
    return Predictive(outputs=outputs, latents={}, likelihood=Poisson())


def _of_numbers(dataset: Dataset, mean: np.ndarray, noise: float, y: np.ndarray) -> Predictive:
    noise = max(noise, _LEAST_NOISE * (float(y.std()) or 1.0))
    return Predictive(
        outputs=torch.from_numpy(mean)[None, None, :, None],
        latents={"log_noise": torch.full((1, 1), math.log(noise), dtype=torch.float64)},
        likelihood=Gaussian(),
        location=dataset.scaling.y_mean,
        scale=dataset.scaling.y_scale,
    )
