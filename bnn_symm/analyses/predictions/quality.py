"""Describe how good the predictions of a run are: the first questions of its page.

The scores of the run stand beside those of two baselines that need no network. Whether the run is
better is decided by the NLL, by the rule of `diagnostics/scores/standing.py`; of other scores, by
the bootstrap interval of the difference over the same points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnn_symm.analyses.mixing import held_out_part
from bnn_symm.analyses.predictions.calibration import part_notes
from bnn_symm.data import Dataset, Split
from bnn_symm.diagnostics.calibration.calibration_tests import CalibrationTest, calibration_test
from bnn_symm.diagnostics.calibration.pit import PitHistogram, pit_histogram
from bnn_symm.diagnostics.calibration.reliability import (
    ClassReliability,
    NumberReliability,
    reliability_of_predictions,
)
from bnn_symm.diagnostics.measures import measure_of
from bnn_symm.diagnostics.scores.baselines import Baseline, baselines
from bnn_symm.diagnostics.scores.class_averages import confusion_matrix
from bnn_symm.diagnostics.scores.point_predictions import (
    INTERVALS,
    ClassPredictions,
    ColumnPredictions,
    NumberPredictions,
    OneTarget,
    PointPredictions,
    TimePredictions,
    predict_points,
)
from bnn_symm.diagnostics.scores.score_intervals import (
    Scores,
    score_differences,
    score_predictions,
)
from bnn_symm.diagnostics.scores.standing import Standing, nll_difference
from bnn_symm.diagnostics.statistics.bootstrap import Score
from bnn_symm.diagnostics.statistics.verdicts import Verdict
from bnn_symm.formatting import number, percent, sided_interval
from bnn_symm.randomness import numpy_generator
from bnn_symm.runs.run import Run

# Scores by which a run is compared with the baselines; the first decides.
_DECISIVE = "nll"
_POINTWISE = {
    ClassPredictions: "accuracy",
    NumberPredictions: "rmse",
    TimePredictions: "concordance",
}
# Points of the predictions beside the targets; more would hide each other.
_MOST_POINTS = 1000
_SHOWN_INTERVAL = 0.9


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A score of the run beside that of a baseline.

    Attributes:
        baseline: its name.
        measure: key of the score.
        gain: by how much the run is better; negative if it is worse.
        verdict: a `Standing` with its numbers.
    """

    baseline: str
    measure: str
    gain: Score
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class ObservedPoints:
    """Predictions beside the targets, in the target's own units.

    Attributes:
        target: the true values.
        mean: of the predicted distributions.
        low: lower ends of their central intervals.
        high: upper ends.
        level: of these intervals.
        num_points: number of all points, of which these are some.
    """

    target: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float
    num_points: int


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The quality of the predictions of a run on held-out points.

    Attributes:
        part: the split, `test` if it has points.
        scores: of the run, with intervals.
        baselines: name -> scores at the same points.
        comparisons: with every baseline by every decisive score.
        test: of the calibration.
        reliability: observed against predicted frequencies.
        pit: of numbers and counts; None for classes.
        observed: predictions beside the targets; None for classes and times.
        labels: of the classes; empty for numbers.
        confusion: numbers of points, (true class, predicted class); None without classes.
        target: name of the target.
        notes: what is unusual, or left out and why.
    """

    part: str
    scores: Scores
    baselines: Mapping[str, Scores]
    comparisons: Sequence[Comparison]
    test: CalibrationTest
    reliability: ClassReliability | NumberReliability
    pit: PitHistogram | None
    observed: ObservedPoints | None
    labels: Sequence[str]
    confusion: np.ndarray | None
    target: str
    notes: Sequence[str]

    @property
    def verdict(self) -> Verdict:
        """Return the verdict on the run: worse than the constant, or its place beside the other."""
        decisive = [own for own in self.comparisons if own.measure == _DECISIVE]
        first = decisive[0].verdict
        return first if first.kind is Standing.WORSE else decisive[-1].verdict


def describe_qualities(run: Run, *, num_resamples: int = 1000, seed: int = 0) -> list[Quality]:
    """Describe the predictions of each target column of a run, and those of baselines.

    Args:
        run: a run with a posterior.
        num_resamples: the number of bootstrap resamples, and of simulations of a calibrated model.
        seed: the seed of both.

    Returns:
        One description for each target column.

    Raises:
        InvalidRun: if the data changed since the fit, or there is no posterior.
    """
    dataset = run.dataset()
    name, part = held_out_part(dataset)
    predictions = predict_points(run.posterior, part, seed=seed)
    if not isinstance(predictions, ColumnPredictions):
        return [_quality(dataset, name, part, predictions, num_resamples, seed)]
    return [
        _quality(dataset.column(number), name, part.column(number), own, num_resamples, seed)
        for number, own in enumerate(predictions.columns.values())
    ]


def _quality(
    dataset: Dataset,
    name: str,
    part: Split,
    predictions: OneTarget,
    num_resamples: int,
    seed: int,
) -> Quality:
    """Describe predictions of one target."""
    is_classes = isinstance(predictions, ClassPredictions)
    is_ordered = is_classes and predictions.is_ordered
    others = baselines(dataset, part, seed=seed, is_ordered=is_ordered)
    options = {"num_resamples": num_resamples, "seed": seed}
    scores = score_predictions(predictions, **options)
    keys = (_DECISIVE, _POINTWISE[type(predictions)])
    by_baseline = {own.name: score_predictions(own.predictions, **options) for own in others.models}
    return Quality(
        part=name,
        scores=scores,
        baselines=by_baseline,
        comparisons=[
            comparison
            for own in others.models
            for comparison in _compare(
                predictions, scores, own, by_baseline[own.name], keys, options
            )
        ],
        test=calibration_test(predictions, num_simulations=num_resamples, seed=seed),
        reliability=reliability_of_predictions(predictions),
        pit=None if isinstance(predictions, ClassPredictions) else pit_histogram(predictions.pit),
        observed=_observed(predictions, seed),
        labels=[str(label) for label in dataset.class_labels] if is_classes else [],
        confusion=_confusion(predictions),
        target=_target(dataset),
        notes=[*part_notes(name), *scores.notes, *others.notes],
    )


def _compare(
    predictions: PointPredictions,
    scores: Scores,
    baseline: Baseline,
    their_scores: Scores,
    keys: Sequence[str],
    options: Mapping[str, int],
) -> list[Comparison]:
    differences = score_differences(predictions, baseline.predictions, keys, **options)
    return [
        _comparison(
            *(baseline.name, key, scores[key], their_scores[key]),
            *_standing(predictions, baseline, key, differences[key], scores.level),
        )
        for key in keys
    ]


def _standing(
    predictions: PointPredictions,
    baseline: Baseline,
    key: str,
    difference: Score,
    level: float,
) -> tuple[Score, Standing, str]:
    """Return by how much the run is better, what follows, and the interval in words."""
    gain = difference if measure_of(key).better == "higher" else _negative(difference)
    if key == _DECISIVE:
        others = baseline.predictions.log_prob
        paired = nll_difference(predictions.log_prob, others, predictions.weight)
        return gain, paired.kind, paired.interval
    low, high = gain.low, gain.high
    if low is None or high is None:
        return gain, Standing.ALIKE, ""
    kind = Standing.ALIKE
    if not low <= 0 <= high:
        kind = Standing.BETTER if low > 0 else Standing.WORSE
    ends = sided_interval(gain.to_dict(), higher=True)
    return gain, kind, f" ({percent(level)} interval {ends})" if ends else ""


def _comparison(
    name: str, key: str, own: Score, theirs: Score, gain: Score, kind: Standing, interval: str
) -> Comparison:
    measure = measure_of(key)
    numbers = {
        "name": name,
        "title": measure.label,
        "value": number(own.value, 4),
        "other": number(theirs.value, 4),
        "gain": number(None if gain.value is None else abs(gain.value)),
        "interval": interval,
    }
    return Comparison(baseline=name, measure=key, gain=gain, verdict=Verdict(kind, numbers))


def _negative(score: Score) -> Score:
    value, low, high = (
        None if end is None else -end for end in (score.value, score.high, score.low)
    )
    return Score(value=value, low=low, high=high, note=score.note)


def _observed(predictions: OneTarget, seed: int) -> ObservedPoints | None:
    if not isinstance(predictions, NumberPredictions):
        return None
    size = len(predictions)
    rows = np.arange(size)
    if size > _MOST_POINTS:
        generator = numpy_generator(seed, "points of predicted against observed")
        rows = np.sort(generator.choice(size, _MOST_POINTS, replace=False))
    which = INTERVALS.index(_SHOWN_INTERVAL)
    return ObservedPoints(
        target=predictions.target[rows],
        mean=predictions.mean[rows],
        low=predictions.low[which][rows],
        high=predictions.high[which][rows],
        level=_SHOWN_INTERVAL,
        num_points=size,
    )


def _confusion(predictions: OneTarget) -> np.ndarray | None:
    if not isinstance(predictions, ClassPredictions):
        return None
    return confusion_matrix(predictions.probabilities, predictions.y)


def _target(dataset: Dataset) -> str:
    return dataset.preprocessing.target or "target"
