"""Calibrate intervals and sets of classes on held-out points: split conformal prediction.

Scores of n held-out points say how far each target is outside of what the posterior predicts. The
region of a new point is all targets whose score is at most the k-th smallest of them,
k = ceil((n + 1) level). If the new point and the held-out points are exchangeable, it contains the
target with probability at least `level`, whether the model is right or not (Vovk et al. 2005). The
probability is over held-out and new points together: given the held-out points, coverage follows a
Beta(k, n + 1 - k) distribution. It is an average over inputs, not a promise for each of them.

Numbers and counts: conformalized quantile regression (Romano, Patterson & Candes 2019,
arXiv:1905.03222) with the central interval [low, high] of the posterior predictive distribution at
this level and the score max(low - y, y - high) / width, in units of the width of the interval
(CQR-r of Sesia & Candes 2020, arXiv:1909.05433; of counts, the number of counts in it), so that an
interval of an uncertain point is changed by more. Ends are low - q width and high + q width; where
q < 0 closes an interval, it is its middle.

Classes: adaptive prediction sets (Romano, Sesia & Candes 2020, arXiv:2006.02544), randomized: the
score of a class is the probability of all classes that are more probable, plus u times its own. The
uniform number u is a hash of the input, so that a point has the same set in whatever file it is.
The most probable class is always in the set, so that no set is empty, which can only add coverage.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bnn_symm.advice import advise, advise_setting
from bnn_symm.data import Split
from bnn_symm.errors import ConfigError, InvalidData
from bnn_symm.formatting import count, percent
from bnn_symm.models.likelihoods import condition, has_events, num_columns
from bnn_symm.posteriors import Posterior, Predictive
from bnn_symm.summaries import Result

_METHODS = {
    "numbers": "conformalized quantile regression, in units of interval width",
    "classes": "adaptive prediction sets, randomized by the input",
}


@dataclass(frozen=True, kw_only=True)
class Conformal(Result):
    """Regions of a level, calibrated on held-out points.

    Attributes:
        level: of the regions.
        kind: `numbers` or `classes`.
        points: number of held-out points.
        threshold: score up to which a target is in the region.
    """

    _keys = ("conclusion", "method", "level", "points", "threshold", "coverage_sd")

    level: float
    kind: Literal["numbers", "classes"]
    points: int
    threshold: float

    @property
    def method(self) -> str:
        """Return the name of the method."""
        return _METHODS[self.kind]

    @property
    def coverage_sd(self) -> float:
        """Return the standard deviation of the coverage over sets of held-out points."""
        k, total = rank(self.points, self.level), self.points + 1
        return math.sqrt(k * (total - k) / (total**2 * (total + 1)))

    @property
    def conclusion(self) -> str:
        """Return what is guaranteed, in a sentence."""
        regions, truth = ("intervals", "value")
        if self.kind == "classes":
            regions, truth = ("sets of classes", "class")
        return (
            f"conformal {regions}, calibrated on {count(self.points, 'validation point')}, contain "
            f"the true {truth} with at least {percent(self.level)} probability, with a standard "
            f"deviation of {percent(self.coverage_sd, 1)} over choices of these points"
        )

    def intervals(
        self, predictive: Predictive
    ) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
        """Return the ends of the intervals, in the target's own units.

        Args:
            predictive: of numbers or counts.
        """
        low, high, width = _interval(predictive, self.level)
        low, high = low - self.threshold * width, high + self.threshold * width
        if _is_count(predictive):
            low, high = low.ceil().clamp(min=0), high.floor()
        middle = 0.5 * (low + high)
        middle = middle.round().clamp(min=0) if _is_count(predictive) else middle
        closed = low > high
        return torch.where(closed, middle, low), torch.where(closed, middle, high)

    def sets(
        self, predictive: Predictive, x: Float[Tensor, "point *feature"]
    ) -> Bool[np.ndarray, "point class"]:
        """Return which classes are in the set of each point.

        Args:
            predictive: of classes.
            x: the encoded inputs that are predicted.
        """
        probabilities = predictive.probabilities().numpy()
        inside = _class_scores(probabilities, uniform_of_inputs(x)) <= self.threshold
        inside[np.arange(len(inside)), probabilities.argmax(1)] = True
        return inside


def calibrate(posterior: Posterior, part: Split, level: float) -> Conformal:
    """Calibrate regions on held-out points.

    Args:
        posterior: any posterior.
        part: points that were not fitted, such as the validation split; each counts once, whatever
            its weight.
        level: probability with which the region of a new point contains its target.

    Returns:
        The calibrated regions.

    Raises:
        ConfigError: if the level is not between 0 and 1, or there are several targets.
        InvalidData: if there are too few points for the level.

    Example:
        >>> import torch
        >>> from bnn_symm import BayesianModel, Prior, SamplePosterior
        >>> from bnn_symm.likelihoods import Gaussian
        >>> model = BayesianModel(torch.nn.Linear(2, 1), Prior(), Gaussian(noise=0.1))
        >>> posterior = SamplePosterior.from_draws(model, torch.zeros(1, 5, 3))
        >>> part = Split(x=torch.randn(20, 2), y=torch.randn(20))
        >>> calibrate(posterior, part, 0.9).points
        20
    """
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise ConfigError(
            f"{advise('--conformal', 'level')}: got {level!r}, expected a number between 0 and 1, "
            "such as 0.9"
        )
    likelihood = posterior.model.likelihood
    if has_events(likelihood):
        raise ConfigError(
            "conformal prediction needs the times of all events, but some may be censored; leave "
            f"out {advise('--conformal', 'conformal')}"
        )
    if num_columns(likelihood) > 1 and condition(likelihood) is None:
        raise ConfigError("conformal prediction is for one target, but there are several")
    check_size(len(part), level)
    scores, start, kind = [], 0, "numbers"
    for predictive in posterior.iter_predict(part.x):
        rows = slice(start, start + predictive.outputs.shape[2])
        start = rows.stop
        x = part.x[rows]
        predictive, y = predictive.given(part.y[rows].cpu())
        if predictive.is_classification:
            kind = "classes"
            every = _class_scores(predictive.probabilities().numpy(), uniform_of_inputs(x))
            scores.append(every[np.arange(len(y)), y.numpy()])
        else:
            low, high, width = _interval(predictive, level)
            target = predictive.location + predictive.scale * y.double()
            scores.append((torch.maximum(low - target, target - high) / width).numpy())
    threshold = conformal_quantile(np.concatenate(scores), level)
    return Conformal(level=level, kind=kind, points=len(part), threshold=threshold)


def rank(points: int, level: float) -> int:
    """Return k = ceil((n + 1) level), up to rounding.

    Args:
        points: n.
        level: of the regions.
    """
    return math.ceil((points + 1) * level - 1e-9)


def conformal_quantile(scores: Float[np.ndarray, " point"], level: float) -> float:
    """Return the k-th smallest score.

    Args:
        scores: of held-out points, at least k.
        level: of the regions.
    """
    return float(np.sort(scores)[rank(len(scores), level) - 1])


def check_size(points: int, level: float) -> None:
    """Check that there are enough held-out points for a level.

    Args:
        points: number of held-out points.
        level: of the regions.

    Raises:
        InvalidData: if k is above n, so that only the region of all targets would do.
    """
    if rank(points, level) <= points:
        return
    needed = math.ceil(level / (1 - level) - 1e-9)
    setting = advise_setting("data.validation_fraction=0.2")
    raise InvalidData(
        f"conformal regions of level {level:g} need at least {count(needed, 'validation point')}, "
        f"got {points}; fit with more of them, such as {setting}, or use a lower level"
    )


def uniform_of_inputs(x: Float[Tensor, "point *feature"]) -> Float[np.ndarray, " point"]:
    """Return a number of [0, 1) for each input, which depends on the input alone.

    Args:
        x: encoded inputs.
    """
    rows = np.ascontiguousarray(x.cpu().numpy()).reshape(len(x), -1)
    digests = [hashlib.sha256(row.tobytes()).digest() for row in rows]
    return np.array([int.from_bytes(own[:8], "big") >> 11 for own in digests]) / 2.0**53


def smallest_sets(
    probabilities: Float[np.ndarray, "point class"], level: float
) -> Bool[np.ndarray, "point class"]:
    """Return the smallest sets of classes of at least a predictive probability.

    They are the Bayesian counterpart of conformal sets.

    Args:
        probabilities: class probabilities.
        level: least probability of a set.
    """
    before = _class_scores(probabilities, np.zeros(len(probabilities)))
    return before < level - 1e-12


def _class_scores(
    probabilities: Float[np.ndarray, "point class"], uniform: Float[np.ndarray, " point"]
) -> Float[np.ndarray, "point class"]:
    """Return the probability of more probable classes, plus that of the class times `uniform`."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, axis=1)
    before = np.cumsum(ordered, axis=1) - ordered
    scores = np.empty_like(ordered)
    np.put_along_axis(scores, order, before + uniform[:, None] * ordered, axis=1)
    return scores


def central_levels(level: float) -> Sequence[float]:
    """Return the levels of the ends of a central interval.

    Args:
        level: of the interval.
    """
    return ((1 - level) / 2, (1 + level) / 2)


def _is_count(predictive: Predictive) -> bool:
    return predictive.likelihood.task == "count"


def _interval(predictive: Predictive, level: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the central interval and its width: of counts, the number of counts in it."""
    low, high = predictive.quantiles(central_levels(level))
    return low, high, high - low + (1 if _is_count(predictive) else 0)
