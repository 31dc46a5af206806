"""Scores against the severity of a shift: does a posterior know less where its inputs are spoiled?

Of a model that knows what it does not know, errors and entropy rise together and the calibration
error stays (Ovadia et al. 2019, arXiv:1906.02530).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bnn_symm.arguments import checked
from bnn_symm.data import SHIFTS, Scaling, Split, shift
from bnn_symm.diagnostics.scores.score_intervals import Scores, scores_with_intervals
from bnn_symm.posteriors import Posterior

# Degrees of the rotation; other shifts have five severities. 0 is no shift.
_ROTATIONS = tuple(range(0, 181, 15))
_SEVERITIES = tuple(range(6))
# Of each severity; a curve is read by its course more than by its intervals.
_RESAMPLES = 200


@dataclass(frozen=True, kw_only=True)
class ShiftCurve:
    """Scores at every severity of one shift.

    Attributes:
        name: of the shift.
        severities: degrees for `rotation`, else 1 to 5; 0 is the data as they are.
        scores: at each.
    """

    name: str
    severities: tuple[float | int, ...]
    scores: tuple[Scores, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "severities": list(self.severities),
            "points": self.scores[0].num_points,
            "level": self.scores[0].level,
            "resamples": self.scores[0].num_resamples,
            "scores": {
                name: [own.values[name].to_dict() for own in self.scores]
                for name in self.scores[0].values
            },
        }


def shifts_for(part: Split) -> tuple[str, ...]:
    """The shifts that points can undergo: all of them for images, noise for tables."""
    return SHIFTS if part.x.ndim == 4 else ("gaussian_noise",)


@checked
def shift_curve(
    posterior: Posterior,
    part: Split,
    name: str,
    *,
    severities: Sequence[float | int] | None = None,
    scaling: Scaling | None = None,
    unshifted: Scores | None = None,
    num_resamples: int = _RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> ShiftCurve:
    """Every score of `scores_with_intervals` at the severities of a shift.

    Args:
        posterior: any.
        part: at least one standardized point, with targets.
        name: one of `SHIFTS`.
        severities: ascending; default 0, 15, ..., 180 degrees for `rotation`, else 0 to 5. 0 is no
            shift.
        scaling: that standardized the images; see `shift`.
        unshifted: scores at severity 0, if they are there already.
        num_resamples: of the points, for the intervals; the same resamples at every severity.
        level: of the intervals.
        seed: of noise and resamples.

    Raises:
        ConfigError: for an unknown shift or a severity out of range.
        InvalidData: for a shift of images on data that are not images.
        ValueError: for a part without points.
    """
    if len(part) == 0:
        raise ValueError("there are no points to shift; give a part that has some")
    if severities is None:
        severities = _ROTATIONS if name == "rotation" else _SEVERITIES
    scores = []
    for severity in severities:
        if severity == 0 and unshifted is not None:
            scores.append(unshifted)
            continue
        own = part if severity == 0 else shift(part, name, severity, scaling=scaling, seed=seed)
        scores.append(
            scores_with_intervals(
                posterior, own, num_resamples=num_resamples, level=level, seed=seed
            )
        )
    return ShiftCurve(name=name, severities=tuple(severities), scores=tuple(scores))
