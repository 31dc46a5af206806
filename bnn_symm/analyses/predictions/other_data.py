"""Describe the predictions of a run on other data: the parts of `bnn-symm evaluate`.

Out-of-distribution points (`describe_out_of_distribution`), and shifted points (`describe_shifts`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Split
from bnn_symm.diagnostics.scores.out_of_distribution import Separation, out_of_distribution
from bnn_symm.diagnostics.scores.score_intervals import scores_with_intervals
from bnn_symm.diagnostics.scores.shift_curves import ShiftCurve, shift_curve, shifts_for
from bnn_symm.diagnostics.statistics.bootstrap import Score
from bnn_symm.formatting import number, percent
from bnn_symm.runs.run import Run
from bnn_symm.summaries import Result

# Bootstrap resamples at every severity of a shift.
_SHIFT_RESAMPLES = 200


@dataclass(frozen=True, kw_only=True)
class OtherDistribution(Result):
    """Hold how well each kind of uncertainty separates two sets of points; see `OutOfDistribution`.

    Attributes:
        conclusion: a sentence.
        best: the kind of uncertainty that separates best.
    """

    conclusion: str
    best: str
    inside_points: int
    outside_points: int
    level: float
    by: Mapping[str, Separation]
    notes: tuple[str, ...]


def describe_out_of_distribution(
    run: Run,
    inside: Split,
    outside: Float[Tensor, "point *feature"],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> OtherDistribution:
    """Describe how well the uncertainty of a run separates out-of-distribution points from its own.

    Args:
        run: a run with a posterior.
        inside: in-distribution points; not empty.
        outside: inputs of another distribution, standardized as those of the run; not empty.
        num_resamples: the number of bootstrap resamples.
        seed: the seed of the resamples.

    Returns:
        The separation.
    """
    result = out_of_distribution(
        run.posterior, inside.x, outside, num_resamples=num_resamples, seed=seed
    )
    # Kinds whose interval excludes 0.5 come first: they decide whether the two are separated.
    best = max(
        result.by,
        key=lambda name: (_separates(result.by[name].auroc), result.by[name].auroc.value or 0.0),
    )
    score = result.by[best].auroc
    kind = best.replace("_", " ")
    if score.value is None:
        conclusion = (
            f"inconclusive whether any kind of uncertainty separates the two: AUROC is {score.note}"
        )
    elif _separates(score):
        conclusion = (
            f"by {kind}, a point from outside looks less certain than one from inside in "
            f"{percent(score.value, 1)} of pairs ({percent(result.level)} interval "
            f"{percent(score.low, 1)} to {percent(score.high, 1)})"
        )
    else:
        interval = (
            f"no interval: {score.note or 'none was computed'}"
            if score.low is None
            else f"{percent(result.level)} interval {number(score.low)} to {number(score.high)}, "
            "not above 0.5"
        )
        conclusion = (
            f"no kind of uncertainty separates the two: the best, {kind}, has an AUROC of "
            f"{number(score.value)} ({interval})"
        )
    return OtherDistribution(conclusion=conclusion, best=best, **vars(result))


def _separates(auroc: Score) -> bool:
    """Return whether the interval of an AUROC lies above 0.5."""
    return auroc.low is not None and auroc.low > 0.5


def describe_shifts(
    run: Run, part: Split, names: Sequence[str] | None = None, *, seed: int = 0
) -> dict[str, ShiftCurve]:
    """Return curves of every score against severity, by name of the shift.

    Args:
        run: a run with a posterior.
        part: points to shift; not empty.
        names: names of shifts; default: all that apply to the points.
        seed: the seed of noise and resamples.

    Raises:
        InvalidData: for a shift of images on data that are not images.
    """
    names = shifts_for(part) if names is None else names
    unshifted = scores_with_intervals(
        run.posterior, part, num_resamples=_SHIFT_RESAMPLES, seed=seed
    )
    scaling = run.preprocessing.scaling
    return {
        name: shift_curve(
            run.posterior,
            part,
            name,
            scaling=scaling,
            unshifted=unshifted,
            num_resamples=_SHIFT_RESAMPLES,
            seed=seed,
        )
        for name in names
    }
