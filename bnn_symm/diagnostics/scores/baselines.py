"""Predict points without the network: by a constant, and by a linear model of the same features.

The constant is the distribution of the training targets: the frequencies of classes with one more
point in each (so that none has probability 0), a normal distribution with their mean and standard
deviation, a Poisson distribution with their mean per exposure, or the Weibull distribution that
fits times and censored times best. The linear models are scikit-learn's, on the standardized
features of the run, images flattened: logistic regression with C = 1 (a standard normal prior of
the weights), ridge regression with its penalty chosen by leave-one-out errors, which also give the
noise, and Poisson regression; and a Weibull regression with a standard normal prior of its weights.
Scores of a network are to be read beside these. In all of them a point of weight w counts as w
points.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Dataset, Split
from bnn_symm.diagnostics.scores.point_predictions import (
    ClassPredictions,
    ColumnPredictions,
    NumberPredictions,
    PointPredictions,
    reduce_predictive,
)
from bnn_symm.formatting import count
from bnn_symm.models import Categorical, Gaussian, Poisson, Weibull
from bnn_symm.posteriors import Predictive
from bnn_symm.randomness import numpy_generator

# Largest number of feature values to which a linear model is fitted, which takes seconds; of a
# larger training split, random points are used, but not fewer than the second.
_LARGEST, _FEWEST = 2_000_000, 500
_PENALTIES = np.logspace(-3, 6, 28)
_ITERATIONS = 200
# Standard deviations below this fraction of that of the targets are those of an exact fit.
_LEAST_NOISE = 1e-4
_LARGEST_LOG_SHAPE = 3.0


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Predictions of some points that need no network.

    Attributes:
        name: Of the model, with an article.
        predictions: At the points.
    """

    name: str
    predictions: PointPredictions


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """The baselines of a data set, in the order of increasing complexity.

    Attributes:
        models: The constant, and the linear model if there is one.
        notes: Why there is no linear model, or to which points it was fitted.
    """

    models: Sequence[Baseline]
    notes: Sequence[str] = ()


def baselines(
    dataset: Dataset, part: Split, *, seed: int = 0, is_ordered: bool = False
) -> Baselines:
    """Fit the baselines to the training split and predict the points of a part.

    Args:
        dataset: The data.
        part: At least one point of the same features.
        seed: Seed of the choice of training points, and of the randomized transform of counts.
        is_ordered: Whether the order of the classes has a meaning, so that they are scored by it.

    Returns:
        Their predictions.
    """
    dataset, part = with_numeric_features(dataset, part)
    if dataset.scaling.y_columns:
        return by_column(baselines, dataset, part, seed=seed)

    def model(name: str, predictive: Predictive) -> Baseline:
        return baseline(name, predictive, part, seed=seed, is_ordered=is_ordered)

    y = raw_targets(dataset.train)
    models = [model(*_constant(dataset, len(part)))]
    rows, notes = _rows(dataset, y, seed)
    if rows is not None:
        train = dataset.train.take(rows)
        models.append(model(*_linear(dataset, train, flat_features(part.x))))
    return Baselines(models=models, notes=notes)


def baseline(
    name: str, predictive: Predictive, part: Split, *, seed: int, is_ordered: bool
) -> Baseline:
    """Return a baseline with its predictions.

    Args:
        name: Of the model.
        predictive: At the points of the part.
        part: The points.
        seed: Seed of the randomized transform of counts.
        is_ordered: Whether the order of the classes has a meaning.
    """
    predictions = reduce_predictive(predictive, part, seed=seed)
    if isinstance(predictions, ClassPredictions):
        predictions = replace(predictions, is_ordered=is_ordered)
    return Baseline(name=name, predictions=predictions)


def by_column(
    fit: Callable[..., Baselines], dataset: Dataset, part: Split, *, seed: int
) -> Baselines:
    """Fit baselines to each of several target columns; their errors are independent.

    Args:
        fit: Fits the baselines of one target: (dataset, part, seed=seed).
        dataset: The data.
        part: At least one point of the same features.
        seed: Seed of the baselines.

    Returns:
        The predictions of all columns.
    """
    names = [column.name for column in dataset.scaling.y_columns]
    sets = [
        fit(dataset.column(number), part.column(number), seed=seed) for number in range(len(names))
    ]
    weight = None if part.weight is None else part.observations.cpu().numpy()
    models = []
    for same in zip(*(own.models for own in sets), strict=True):
        columns = {
            name: own.predictions
            for name, own in zip(names, same, strict=True)
            if isinstance(own.predictions, NumberPredictions)
        }
        log_prob = np.sum([own.log_prob for own in columns.values()], axis=0)
        joint = ColumnPredictions(columns=columns, log_prob=log_prob, weight=weight)
        models.append(Baseline(name=same[0].name, predictions=joint))
    return Baselines(models=models, notes=sets[0].notes)


def raw_targets(part: Split) -> np.ndarray:
    """Return class indices, or standardized numbers, times or counts in float64.

    Args:
        part: points.
    """
    y = part.column(0).y.cpu().numpy()
    return y.astype(np.float64) if part.y.is_floating_point() else y


def with_numeric_features(dataset: Dataset, part: Split) -> tuple[Dataset, Split]:
    """Return data with numbers in place of tokens or nodes; others are unchanged.

    These are the counts of each token that the training split has, or the features of each node,
    without those of its neighbors.

    Args:
        dataset: The data.
        part: Points of the same features.
    """
    train = dataset.train
    if train.x.is_floating_point():
        return dataset, part
    tokens, graph = train.x.unique(), dataset.graph

    def counted(split: Split) -> Split:
        if graph is not None:
            return replace(split, x=graph.features[split.x.flatten().cpu()])
        counts = torch.stack([(split.x == token).sum(1) for token in tokens], dim=1)
        return replace(split, x=counts.double())

    return replace(dataset, train=counted(train)), counted(part)


def raw_exposures(part: Split) -> Float[np.ndarray, " point"]:
    """Return the exposures of counts; ones if they have none.

    Args:
        part: points.
    """
    return part.y[:, 1].double().cpu().numpy() if part.y.dim() == 2 else np.ones(len(part))


def flat_features(x: Tensor) -> Float[np.ndarray, "point feature"]:
    """Return standardized features in float64, images flattened.

    Args:
        x: (point, *feature).
    """
    return x.flatten(1).double().cpu().numpy()


def _rows(dataset: Dataset, y: np.ndarray, seed: int) -> tuple[np.ndarray | None, list[str]]:
    """Return the training points of the linear model, and notes; None if it cannot be fitted."""
    points, features = len(y), dataset.train.x[0].numel()
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


def _constant(dataset: Dataset, size: int) -> tuple[str, Predictive]:
    """Return the name and the predictions of the distribution of the training targets."""
    y, weight = raw_targets(dataset.train), dataset.train.observations.cpu().numpy()
    if dataset.task == "survival":
        return "one Weibull distribution", weibull_predictive(
            dataset, np.zeros((len(y), 0)), np.zeros((size, 0))
        )
    if dataset.task == "classification":
        log_shares = np.log(base_rates(y, weight, dataset.num_outputs))
        return "the base rates", class_predictive(np.tile(log_shares, (size, 1)))
    name = "the mean of the training targets"
    if dataset.task == "count":
        if dataset.train.y.dim() == 2:
            name = "one rate per exposure"
        total = (weight * raw_exposures(dataset.train)).sum()
        # Targets that are all zero have a rate, too.
        rate = max((weight * y).sum() / total, 1 / (total + 1))
        return name, count_predictive(dataset, np.full(size, math.log(rate)))
    mean = float(np.average(y, weights=weight))
    sd = math.sqrt(np.average(np.square(y - mean), weights=weight))
    return name, number_predictive(dataset, np.full(size, mean), sd, y)


def _linear(dataset: Dataset, train: Split, points: np.ndarray) -> tuple[str, Predictive]:
    """Return the name and the predictions of the linear model."""
    x, y, weight = flat_features(train.x), raw_targets(train), train.observations.cpu().numpy()
    from sklearn.linear_model import LogisticRegression, PoissonRegressor, RidgeCV

    with warnings.catch_warnings(action="ignore"):  # a fit that stops early is still a baseline
        if dataset.task == "classification":
            model = LogisticRegression(max_iter=_ITERATIONS).fit(x, y, weight)
            found = model.predict_proba(points)
            return "logistic regression", with_unseen_classes(dataset, train, model.classes_, found)
        if dataset.task == "survival":
            return "Weibull regression", weibull_predictive(dataset, x, points, train)
        if dataset.task == "count":
            # Rates weighted by their exposures have the likelihood of counts.
            exposure = raw_exposures(train)
            weight = weight * exposure
            model = PoissonRegressor(alpha=1 / weight.sum(), max_iter=_ITERATIONS)
            model.fit(x, y / exposure, weight)
            log_rates = points @ model.coef_ + model.intercept_
            return "Poisson regression", count_predictive(dataset, log_rates)
        model = RidgeCV(_PENALTIES, store_cv_results=True).fit(x, y, weight)
        # Errors are squared, and multiplied by the weights.
        errors = model.cv_results_[:, list(_PENALTIES).index(model.alpha_)]
        noise = math.sqrt(errors.sum() / weight.sum())
        return "ridge regression", number_predictive(dataset, model.predict(points), noise, y)


def base_rates(y: np.ndarray, weight: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the frequencies of classes with one more point in each.

    Args:
        y: class indices.
        weight: numbers of observations for which the points stand.
        num_classes: number of classes.
    """
    totals = np.bincount(y, weights=weight, minlength=num_classes)
    return (totals + 1) / (weight.sum() + num_classes)


def with_unseen_classes(
    dataset: Dataset, train: Split, classes: np.ndarray, found: np.ndarray
) -> Predictive:
    """Return predictions in which a class without training points keeps its base rate.

    Args:
        dataset: the data.
        train: the points of the fit.
        classes: class indices that are predicted.
        found: their probabilities, (point, class).
    """
    weight = train.observations.cpu().numpy()
    shares = base_rates(raw_targets(train), weight, dataset.num_outputs)
    probabilities = np.tile(shares, (len(found), 1))
    probabilities[:, classes] = found * shares[classes].sum()
    return class_predictive(np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)))


def class_predictive(log_probabilities: np.ndarray) -> Predictive:
    """Return predictions of classes.

    Args:
        log_probabilities: (point, class).
    """
    return Predictive(
        outputs=torch.from_numpy(log_probabilities)[None, None],
        latents={},
        likelihood=Categorical(),
    )


def count_predictive(dataset: Dataset, log_rates: np.ndarray) -> Predictive:
    """Return Poisson distributions.

    Args:
        dataset: the data, which may have exposures.
        log_rates: (point,).
    """
    outputs = torch.from_numpy(log_rates)[None, None, :, None]
    likelihood = Poisson(exposure=dataset.train.y.dim() == 2)
    return Predictive(outputs=outputs, latents={}, likelihood=likelihood)


def weibull_predictive(
    dataset: Dataset, x: np.ndarray, points: np.ndarray, train: Split | None = None
) -> Predictive:
    """Return the predictions of a Weibull regression with a standard normal prior of its weights.

    Args:
        dataset: the data, for their scaling.
        x: features of the training points, (point, feature), of which there may be none.
        points: features of the points to predict.
        train: the training points; default those of the data set.
    """
    from scipy.optimize import minimize

    train = train or dataset.train
    time, weight = raw_targets(train), train.observations.cpu().numpy()
    event, log_time = train.y[:, 1].double().cpu().numpy(), np.log(time)
    design = np.concatenate([np.ones((len(x), 1)), x], axis=1)

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        z = np.exp(theta[-1]) * (log_time - design @ theta[:-1])
        hazard = np.exp(np.minimum(z, 700.0))
        value = weight @ (hazard - event * (theta[-1] + z)) + 0.5 * np.square(theta[1:-1]).sum()
        slope = weight * (hazard - event)
        gradient = np.append(-np.exp(theta[-1]) * (slope @ design), slope @ z - weight @ event)
        gradient[1:-1] += theta[1:-1]
        return float(value), gradient

    start = np.zeros(design.shape[1] + 1)
    # A single event has no finite shape of largest likelihood.
    bounds = [(None, None)] * design.shape[1] + [(-_LARGEST_LOG_SHAPE, _LARGEST_LOG_SHAPE)]
    found = minimize(objective, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    location = points @ found[1:-1] + found[0]
    return Predictive(
        outputs=torch.from_numpy(location)[None, None, :, None],
        latents={"log_shape": torch.full((1, 1), float(found[-1]), dtype=torch.float64)},
        likelihood=Weibull(),
        scale=dataset.scaling.y_scale,
    )


def number_predictive(
    dataset: Dataset, mean: np.ndarray, noise: float, y: np.ndarray
) -> Predictive:
    """Return normal distributions with one standard deviation.

    Args:
        dataset: the data, for their scaling.
        mean: (point,), standardized.
        noise: standard deviation, standardized; that of an exact fit is a little above 0.
        y: standardized training targets.
    """
    noise = max(noise, _LEAST_NOISE * (float(y.std()) or 1.0))
    return Predictive(
        outputs=torch.from_numpy(mean)[None, None, :, None],
        latents={"log_noise": torch.full((1, 1), math.log(noise), dtype=torch.float64)},
        likelihood=Gaussian(),
        location=dataset.scaling.y_mean,
        scale=dataset.scaling.y_scale,
    )
