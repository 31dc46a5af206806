"""Score the predictions of a posterior, with bootstrap intervals over points.

`score` (the content of `metrics.json`) is the short list without intervals; common scores are equal
in both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnn_symm.arguments import checked
from bnn_symm.data import Split
from bnn_symm.diagnostics.measures import FURTHER_SCORES, SCORES
from bnn_symm.diagnostics.scores.classification import (
    CALIBRATION_ERRORS,
    class_notes,
    class_reasons,
    class_statistics,
)
from bnn_symm.diagnostics.scores.point_predictions import (
    ClassPredictions,
    NumberPredictions,
    PointPredictions,
    TimePredictions,
    predict_points,
)
from bnn_symm.diagnostics.scores.regression import (
    CALIBRATION_DISTANCES,
    column_notes,
    column_statistics,
    number_notes,
    number_statistics,
)
from bnn_symm.diagnostics.scores.survival import time_notes, time_statistics
from bnn_symm.diagnostics.statistics.bootstrap import Score, Statistics, bootstrap_scores
from bnn_symm.posteriors import Posterior
from bnn_symm.summaries import Result


@dataclass(frozen=True, kw_only=True)
class Scores(Result):
    """Scores of one split of the data.

    Attributes:
        points: Number of points.
        level: Level of the intervals.
        resamples: Number of resamples of the intervals.
        values: Name -> score, with the names of `class_statistics` and `number_statistics`. Empty
            without points.
        notes: Notes on unusual points.
    """

    points: int
    level: float
    resamples: int
    values: Mapping[str, Score]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Score:
        return self.values[name]


@checked
def scores_with_intervals(
    posterior: Posterior,
    part: Split,
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Scores:
    """Score the predictions of a posterior at the points of a part, with intervals.

    Args:
        posterior: Any posterior.
        part: Standardized points with their targets; without points there are no scores, but a
            note.
        num_resamples: Bootstrap resamples of the points; 0 for no intervals.
        level: Level of the intervals.
        seed: Seed of the resamples, and of the randomized transform of counts.

    Returns:
        Every score with its interval.

    Raises:
        ValueError: If the level or the number of resamples is out of range.

    Example:
        >>> import torch
        >>> from bnn_symm import BayesianModel, Categorical, Prior, SamplePosterior, load_dataset
        >>> model = BayesianModel(torch.nn.Linear(4, 3), Prior(), Categorical())
        >>> posterior = SamplePosterior.from_draws(model, torch.randn(1, 20, 15))
        >>> accuracy = scores_with_intervals(posterior, load_dataset("iris").test)["accuracy"]
        >>> accuracy.low <= accuracy.value <= accuracy.high
        True
    """
    if len(part) == 0:
        return Scores(
            values={},
            points=0,
            resamples=num_resamples,
            level=level,
            notes=("there are no points",),
        )
    return score_predictions(
        predict_points(posterior, part, seed=seed),
        num_resamples=num_resamples,
        level=level,
        seed=seed,
    )


def score_predictions(
    predictions: PointPredictions,
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Scores:
    """Score given predictions, as `scores_with_intervals` does.

    Args:
        predictions: Predictions at the points.
        num_resamples: Bootstrap resamples of the points; 0 for no intervals.
        level: Level of the intervals.
        seed: Seed of the resamples.

    Returns:
        Every score with its interval.
    """
    if isinstance(predictions, ClassPredictions):
        reasons = class_reasons(predictions)
        errors, notes = CALIBRATION_ERRORS, class_notes(predictions)
    elif isinstance(predictions, NumberPredictions):
        reasons = {"r2": "all targets are equal"}
        errors, notes = CALIBRATION_DISTANCES, number_notes(predictions)
    elif isinstance(predictions, TimePredictions):
        reasons = {"concordance": "no two times can be ordered"}
        errors, notes = CALIBRATION_DISTANCES, time_notes(predictions)
    else:
        reasons = {}
        errors, notes = CALIBRATION_DISTANCES, column_notes(predictions)
    if predictions.weight is not None:
        notes.append(
            "scores count a point of weight w as w points; the calibration test and diagrams count "
            "each point once"
        )
    values = bootstrap_scores(
        _statistics(predictions),
        (len(predictions),),
        reasons=reasons,
        inflated=errors,
        num_resamples=num_resamples,
        level=level,
        seed=seed,
    )
    return Scores(
        values=values,
        points=len(predictions),
        resamples=num_resamples,
        level=level,
        notes=tuple(notes),
    )


def short_scores(predictions: PointPredictions) -> dict[str, Any]:
    """Return the scores of `score` for predictions that are no mixture over draws.

    Args:
        predictions: Predictions at the points.

    Returns:
        Name -> value.
    """
    values = score_predictions(predictions, num_resamples=0).values
    names = [name for name in (*SCORES, *FURTHER_SCORES) if name in values]
    scores = {name: values[name].value for name in names}
    return {"points": len(predictions), **scores, "expected_nll": scores["nll"]}


def score_differences(
    first: PointPredictions,
    second: PointPredictions,
    names: Sequence[str],
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Score]:
    """Return differences of scores of two predictions of the same points, resampled together.

    Args:
        first: Predictions at the points.
        second: Other predictions at the same points.
        names: Of the scores.
        num_resamples: Bootstrap resamples of the points; 0 for no intervals.
        level: Level of the intervals.
        seed: Seed of the resamples.

    Returns:
        Name -> score of `first` minus that of `second`.

    Raises:
        ValueError: If the two predict different numbers of points.
    """
    if len(first) != len(second):
        raise ValueError(f"got predictions of {len(first)} and of {len(second)} points")
    one, other = _statistics(first), _statistics(second)

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        own, theirs = one(weights), other(weights)
        with np.errstate(invalid="ignore"):  # infinite minus infinite is not defined
            return {name: own[name] - theirs[name] for name in names}

    return bootstrap_scores(
        difference, (len(first),), num_resamples=num_resamples, level=level, seed=seed
    )


def _statistics(predictions: PointPredictions) -> Statistics:
    """Return the scores as functions of counts; a point of weight w counts as w points."""
    if isinstance(predictions, ClassPredictions):
        statistics = class_statistics(predictions)
    elif isinstance(predictions, NumberPredictions):
        statistics = number_statistics(predictions)
    elif isinstance(predictions, TimePredictions):
        statistics = time_statistics(predictions)
    else:
        statistics = column_statistics(predictions)
    weight = predictions.weight
    if weight is None:
        return statistics
    if (weight != np.round(weight)).any():
        # Scores do not depend on the unit of weights, but `aurc` counts whole points.
        weight = weight / weight.mean()
    return lambda counts: statistics(counts * weight)
