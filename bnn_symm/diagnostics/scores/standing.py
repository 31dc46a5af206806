"""Decide whether predictions are better than those of a baseline.

The rule: with d the negative log likelihood of a point under the model less that under the
baseline, the model is worse if the mean of d is above two of its standard errors, better if it is
below minus two, and not distinguishable otherwise. Points are paired, so that what both find hard
cancels; the NLL is a proper score of every kind of target.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float

from bnn_symm.data import Split
from bnn_symm.diagnostics.scores.baselines import Baseline
from bnn_symm.formatting import number
from bnn_symm.summaries import Result

# Standard errors beyond which a difference counts.
_ERRORS = 2.0


class Standing(Enum):
    """Whether the predictions of a run are better than those of a baseline, with templates."""

    BETTER = "better than {name}: {title} {value} versus {other}, better by {gain}{interval}"
    ALIKE = "not distinguishable from {name}: {title} {value} versus {other}{interval}"
    WORSE = "worse than {name}: {title} {value} versus {other}, worse by {gain}{interval}"


@dataclass(frozen=True, kw_only=True)
class NLLDifference(Result):
    """The NLL of a model beside that of a baseline, at the same points, in nats per point.

    Attributes:
        nll: of the baseline.
        difference: NLL of the model less that of the baseline; None if both are infinite.
        standard_error: of the difference; None for one point, or if a term is infinite.
        standing: `better`, `alike` (not distinguishable) or `worse`.
    """

    _keys = ("nll", "difference", "standard_error", "standing")

    nll: float
    difference: float | None
    standard_error: float | None
    kind: Standing

    @property
    def standing(self) -> str:
        """Return the name of the kind."""
        return self.kind.name.lower()

    @property
    def interval(self) -> str:
        """Return two standard errors in words, for a sentence; empty if there are none."""
        if self.standard_error is None:
            return ""
        half = number(_ERRORS * self.standard_error, 2)
        return f" (+- {half}, two standard errors of the difference)"


def nll_difference(
    log_prob: Float[np.ndarray, " point"],
    baseline: Float[np.ndarray, " point"],
    weight: Float[np.ndarray, " point"] | None = None,
) -> NLLDifference:
    """Compare a model with a baseline by the rule of this module.

    The standard error is that over points, also where a point stands for several observations.

    Args:
        log_prob: log probabilities or densities of the targets under the model, in nats.
        baseline: those under the baseline, at the same points.
        weight: numbers of observations for which the points stand; None for one each.

    Returns:
        The difference and what follows from it.
    """
    if weight is not None:
        counted = weight > 0
        log_prob, baseline, weight = log_prob[counted], baseline[counted], weight[counted]
        if not len(weight):
            kind = Standing.ALIKE
            return NLLDifference(nll=math.nan, difference=None, standard_error=None, kind=kind)
    with np.errstate(invalid="ignore"):
        differences = baseline - log_prob
    mean, number = float(np.average(differences, weights=weight)), len(differences)
    error = None
    if number > 1 and np.isfinite(differences).all():
        shares = np.full(number, 1 / number) if weight is None else weight / weight.sum()
        squares = float(np.square(shares * (differences - mean)).sum())
        error = math.sqrt(squares * number / (number - 1))
    # One infinite term decides; without a standard error nothing else does.
    limit = _ERRORS * error if error is not None else math.inf
    kind = Standing.ALIKE
    if mean > limit or mean == math.inf:
        kind = Standing.WORSE
    elif mean < -limit or mean == -math.inf:
        kind = Standing.BETTER
    return NLLDifference(
        nll=-float(np.average(baseline, weights=weight)),
        difference=None if math.isnan(mean) else mean,
        standard_error=error,
        kind=kind,
    )


def compare_with_baselines(
    log_prob: Float[np.ndarray, " point"], models: Sequence[Baseline], part: Split
) -> dict[str, NLLDifference]:
    """Return the standing of a model beside each baseline, by the name of the baseline.

    Args:
        log_prob: log probabilities or densities of the targets under the model, in nats.
        models: baselines that predict the same points.
        part: the points.
    """
    weight = None if part.weight is None else part.observations.cpu().numpy()
    return {own.name: nll_difference(log_prob, own.predictions.log_prob, weight) for own in models}


def baseline_warnings(
    nll: float, compared: dict[str, NLLDifference], points: str = "test"
) -> list[str]:
    """Return a sentence for each baseline that the model does not beat.

    Args:
        nll: of the model, in nats per point.
        compared: the standing by the name of the baseline.
        points: name of the part of the data.
    """
    words = {Standing.WORSE: "worse than", Standing.ALIKE: "not distinguishable from"}
    return [
        f"on the {points} data this model is {words[own.kind]} {name}: NLL {number(nll, 4)} versus "
        f"{number(own.nll, 4)}{own.interval}"
        for name, own in compared.items()
        if own.kind in words
    ]
