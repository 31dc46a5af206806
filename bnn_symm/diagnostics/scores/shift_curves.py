"""Score predictions against the severity of a shift of the inputs.

If the uncertainty of a model is adequate, errors and entropy increase together and the calibration
error stays constant (Ovadia et al. 2019, arXiv:1906.02530).
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
# Resamples per severity; few, because the course of a curve matters more than its intervals.
_RESAMPLES = 200


@dataclass(frozen=True, kw_only=True)
class ShiftCurve:
    """Scores at every severity of one shift.

    Attributes:
        name: Name of the shift.
        severities: Degrees for `rotation`, else 1 to 5; 0 for the unshifted data.
        scores: Scores at each severity.
    """

    name: str
    severities: tuple[float | int, ...]
    scores: tuple[Scores, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the curve as JSON types."""
        return {
            "severities": list(self.severities),
            "points": self.scores[0].points,
            "level": self.scores[0].level,
            "resamples": self.scores[0].resamples,
            "scores": {
                name: [scores.values[name].to_dict() for scores in self.scores]
                for name in self.scores[0].values
            },
        }


def shifts_for(part: Split) -> tuple[str, ...]:
    """Return the shifts that apply to points: all of them for images, noise for tables.

    Args:
        part: Split of the data.

    Returns:
        Names of shifts.
    """
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
    """Score predictions, with intervals, at the severities of a shift.

    Args:
        posterior: Any posterior.
        part: At least one standardized point, with targets.
        name: One of `SHIFTS`.
        severities: Ascending; default 0, 15, ..., 180 degrees for `rotation`, else 0 to 5. 0 is no
            shift.
        scaling: Scaling that standardized the images; see `shift`.
        unshifted: Scores at severity 0, if known.
        num_resamples: Bootstrap resamples of the points; the same at every severity.
        level: Level of the intervals.
        seed: Seed of noise and resamples.

    Returns:
        The scores of `scores_with_intervals` at every severity.

    Raises:
        ConfigError: If the shift is unknown or a severity is out of range.
        InvalidData: If the shift is one of images and the data are not images.
        ValueError: If the part has no points.

    Example:
        >>> import torch
        >>> from bnn_symm import BayesianModel, Categorical, Prior, SamplePosterior, load_dataset
        >>> model = BayesianModel(torch.nn.Linear(4, 3), Prior(), Categorical())
        >>> posterior = SamplePosterior.from_draws(model, torch.randn(1, 20, 15))
        >>> shift_curve(posterior, load_dataset("iris").test, "gaussian_noise").severities
        (0, 1, 2, 3, 4, 5)
    """
    if len(part) == 0:
        raise ValueError("there are no points to shift; give a part that has points")
    if severities is None:
        severities = _ROTATIONS if name == "rotation" else _SEVERITIES
    scores = []
    for severity in severities:
        if severity == 0 and unshifted is not None:
            scores.append(unshifted)
            continue
        shifted = part if severity == 0 else shift(part, name, severity, scaling=scaling, seed=seed)
        scores.append(
            scores_with_intervals(
                posterior, shifted, num_resamples=num_resamples, level=level, seed=seed
            )
        )
    return ShiftCurve(name=name, severities=tuple(severities), scores=tuple(scores))
