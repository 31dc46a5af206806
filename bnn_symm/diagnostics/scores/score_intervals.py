"""Every score of a posterior's predictions, with bootstrap intervals over points: the front door of
calibration.

`score` (the content of `metrics.json`) is the short list without intervals; where both have a
score, it is the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bnn_symm.arguments import checked
from bnn_symm.data import Split
from bnn_symm.diagnostics.scores.classification import (
    CALIBRATION_ERRORS,
    class_notes,
    class_reasons,
    class_statistics,
)
from bnn_symm.diagnostics.scores.point_predictions import (
    ClassPredictions,
    NumberPredictions,
    predict_points,
)
from bnn_symm.diagnostics.scores.regression import (
    CALIBRATION_DISTANCES,
    number_notes,
    number_statistics,
)
from bnn_symm.diagnostics.statistics.bootstrap import Score, bootstrap_scores
from bnn_symm.posteriors import Posterior


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of one part of the data.

    Attributes:
        values: name -> score; the names are in `class_statistics` and `number_statistics`. Empty
            without points.
        num_points: that they are of.
        num_resamples: behind the intervals.
        level: of the intervals.
        notes: what is unusual of the points.
    """

    values: Mapping[str, Score]
    num_points: int
    num_resamples: int
    level: float
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Score:
        return self.values[name]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "points": self.num_points,
            "level": self.level,
            "resamples": self.num_resamples,
            "values": {name: score.to_dict() for name, score in self.values.items()},
            "notes": list(self.notes),
        }


@checked
def scores_with_intervals(
    posterior: Posterior,
    part: Split,
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Scores:
    """Scores of a posterior's predictions at the points of a part.

    Args:
        posterior: any.
        part: standardized points with their targets; without any there are no scores, and a note
            says so.
        num_resamples: of the points, for the intervals; 0 for none.
        level: of the intervals.
        seed: of the resamples, and of the randomized transform of counts.

    Raises:
        ValueError: for a level or a number of resamples out of range.
    """
    if len(part) == 0:
        return Scores(
            values={},
            num_points=0,
            num_resamples=num_resamples,
            level=level,
            notes=("there are no points",),
        )
    return scores_of(
        predict_points(posterior, part, seed=seed),
        num_resamples=num_resamples,
        level=level,
        seed=seed,
    )


def scores_of(
    predictions: ClassPredictions | NumberPredictions,
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Scores:
    """As `scores_with_intervals`, of predictions that are there already."""
    if isinstance(predictions, ClassPredictions):
        statistics, reasons = class_statistics(predictions), class_reasons(predictions)
        errors, notes = CALIBRATION_ERRORS, class_notes(predictions)
    else:
        statistics, reasons = number_statistics(predictions), {}
        errors, notes = CALIBRATION_DISTANCES, number_notes(predictions)
    values = bootstrap_scores(
        statistics,
        (len(predictions),),
        reasons=reasons,
        inflated=errors,
        num_resamples=num_resamples,
        level=level,
        seed=seed,
    )
    return Scores(
        values=values,
        num_points=len(predictions),
        num_resamples=num_resamples,
        level=level,
        notes=tuple(notes),
    )
