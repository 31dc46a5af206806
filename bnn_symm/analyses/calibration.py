"""How well a run is calibrated, as plain data: the key `calibration` of `bnn-symm diagnose --json`.

Also what `bnn-symm evaluate` tells of points from elsewhere (`describe_out_of_distribution`) and of
shifted ones (`describe_shifts`).
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from bnn_symm.analyses.mixing import held_out
from bnn_symm.data import Split
from bnn_symm.diagnostics.calibration.calibration_tests import calibration_test
from bnn_symm.diagnostics.calibration.reliability import reliability_of
from bnn_symm.diagnostics.scores.loo import loo
from bnn_symm.diagnostics.scores.out_of_distribution import out_of_distribution
from bnn_symm.diagnostics.scores.point_predictions import ClassPredictions, predict_points
from bnn_symm.diagnostics.scores.score_intervals import scores_of, scores_with_intervals
from bnn_symm.diagnostics.scores.shift_curves import shift_curve, shifts_for
from bnn_symm.diagnostics.statistics.bootstrap import Score
from bnn_symm.runs.run import Run

# Resamples at every severity of a shift.
_SHIFT_RESAMPLES = 200


def describe_calibration(run: Run, *, num_resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Scores with intervals, reliability, whether errors are chance, and leave-one-out predictions.

    Args:
        run: with a posterior.
        num_resamples: behind the intervals, and simulations of a calibrated model.
        seed: of both.

    Returns:
        `conclusion` in words; `calibrated`; `part`, `kind` (`classes` or `numbers`), and what the
        diagnostics of the same names say: `scores`, `test`, `reliability`, `loo`, `notes`.

    Raises:
        InvalidRun: if the data changed since the fit, or there is no posterior.
    """
    dataset = run.dataset()
    name, part = held_out(dataset)
    predictions = predict_points(run.posterior, part, seed=seed)
    scores = scores_of(predictions, num_resamples=num_resamples, seed=seed)
    test = calibration_test(predictions, num_simulations=num_resamples, seed=seed)
    notes = list(scores.notes)
    if name != "test":
        fitted = (
            ", which it was fitted to, so that every score is too good" if name == "train" else ""
        )
        notes.insert(0, f"there are no test points: these are the {name} part{fitted}")
    return {
        "conclusion": f"{name} part: {test.verdict}",
        "calibrated": test.is_calibrated,
        "part": name,
        "kind": "classes" if isinstance(predictions, ClassPredictions) else "numbers",
        "scores": scores.to_dict(),
        "test": test.to_dict(),
        "reliability": reliability_of(predictions).to_dict(),
        "loo": loo(run.posterior, dataset.train).to_dict(),
        "notes": notes,
    }


def describe_out_of_distribution(
    run: Run,
    inside: Split,
    outside: Float[Tensor, "point *feature"],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """How well the uncertainty of a run tells points from elsewhere from its own, and a sentence
    that says so.

    Args:
        run: with a posterior.
        inside: points of the kind that it was fitted to; not empty.
        outside: inputs of another kind, standardized as those of the run; not empty.
        num_resamples: behind the intervals.
        seed: of the resamples.
    """
    found = out_of_distribution(
        run.posterior, inside.x, outside, num_resamples=num_resamples, seed=seed
    )
    # Those whose interval leaves out guessing come first: they decide whether anything separates
    # the two.
    best = max(
        found.by,
        key=lambda name: (_separates(found.by[name].auroc), found.by[name].auroc.value or 0.0),
    )
    score = found.by[best].auroc
    words = best.replace("_", " ")
    if score.value is None:
        conclusion = (
            f"whether any kind of uncertainty separates the two is not known: AUROC is {score.note}"
        )
    elif _separates(score):
        conclusion = (
            f"by {words}, a point from outside looks less certain than one from inside in "
            f"{score.value:.1%} of pairs ({found.level:.0%} interval {score.low:.1%} to "
            f"{score.high:.1%})"
        )
    else:
        beside = (
            f"no interval: {score.note or 'none was computed'}"
            if score.low is None
            else f"{found.level:.0%} interval {score.low:.3g} to {score.high:.3g}, not above 0.5"
        )
        conclusion = f"no kind of uncertainty separates the two: the best, {words}, has an AUROC of {score.value:.3g} ({beside})"
    return {"conclusion": conclusion, "best": best, **found.to_dict()}


def _separates(auroc: Score) -> bool:
    """Return whether the interval of an AUROC lies above guessing."""
    return auroc.low is not None and auroc.low > 0.5


def describe_shifts(
    run: Run, part: Split, names: Sequence[str] | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Curves of every score against severity: name of the shift -> curve.

    Args:
        run: with a posterior.
        part: points to shift; not empty.
        names: of shifts; default, all that the points can undergo.
        seed: of noise and resamples.

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
        ).to_dict()
        for name in names
    }
