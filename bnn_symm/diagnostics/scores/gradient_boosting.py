"""Predict points by gradient-boosted trees: a strong baseline for tables, on request.

The models are scikit-learn's histogram-based gradient boosting with its default settings, on the
features of the run: class probabilities; for numbers a mean with the squared loss, and a normal
residual whose standard deviation is that of cross-validated residuals, because residuals of
training points of trees are far too small; for counts a rate with the Poisson loss. Trees do not
extrapolate and, unlike a posterior, have no uncertainty about their function.
"""

import math
import warnings

import numpy as np

from bnn_symm.data import Dataset, Split
from bnn_symm.diagnostics.scores.baselines import (
    Baselines,
    baseline,
    by_column,
    count_predictive,
    flat_features,
    number_predictive,
    raw_exposures,
    raw_targets,
    with_numeric_features,
    with_unseen_classes,
)
from bnn_symm.formatting import count
from bnn_symm.posteriors import Predictive

_NAME = "gradient boosting"
_FOLDS = 5
# Trees need some points on both sides of a split.
_FEWEST = 2 * _FOLDS


def gradient_boosting(
    dataset: Dataset, part: Split, *, seed: int = 0, is_ordered: bool = False
) -> Baselines:
    """Fit gradient-boosted trees to the training split and predict the points of a part.

    Args:
        dataset: The data.
        part: At least one point of the same features.
        seed: Seed of the folds and of the model.
        is_ordered: Whether the order of the classes has a meaning, so that they are scored by it.

    Returns:
        Its predictions; no model, but a note, if it cannot be fitted.
    """
    dataset, part = with_numeric_features(dataset, part)
    if dataset.scaling.y_columns:
        return by_column(gradient_boosting, dataset, part, seed=seed)
    y = raw_targets(dataset.train)
    note = ""
    if len(y) < _FEWEST:
        note = f"there is no gradient boosting of {count(len(y), 'training point')}"
    elif dataset.task == "classification" and len(np.unique(y)) < 2:
        note = "there is no gradient boosting, because all training points have one class"
    elif dataset.task == "survival":
        note = "there is no gradient boosting of times, some of which may be censored"
    elif dataset.task == "count" and not y.any():
        note = "there is no gradient boosting, because all training targets are 0"
    if note:
        return Baselines(models=[], notes=[note])
    with warnings.catch_warnings(action="ignore"):  # of classes with fewer points than folds
        predictive = _predictive(dataset, flat_features(part.x), seed % 2**32)
    return Baselines(models=[baseline(_NAME, predictive, part, seed=seed, is_ordered=is_ordered)])


def _predictive(dataset: Dataset, points: np.ndarray, seed: int) -> Predictive:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.model_selection import KFold, cross_val_predict

    train = dataset.train
    x, y, weight = flat_features(train.x), raw_targets(train), train.observations.cpu().numpy()
    if dataset.task == "classification":
        model = HistGradientBoostingClassifier(random_state=seed).fit(x, y, weight)
        return with_unseen_classes(dataset, train, model.classes_, model.predict_proba(points))
    if dataset.task == "count":
        exposure = raw_exposures(train)
        model = HistGradientBoostingRegressor(loss="poisson", random_state=seed)
        rates = model.fit(x, y / exposure, weight * exposure).predict(points)
        return count_predictive(dataset, np.log(np.maximum(rates, np.finfo(float).tiny)))
    folds = KFold(_FOLDS, shuffle=True, random_state=seed)
    model = HistGradientBoostingRegressor(random_state=seed)
    residuals = y - cross_val_predict(model, x, y, cv=folds, params={"sample_weight": weight})
    noise = math.sqrt(np.average(np.square(residuals), weights=weight))
    return number_predictive(dataset, model.fit(x, y, weight).predict(points), noise, y)
