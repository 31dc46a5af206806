"""Describe the calibration of a run: the key `calibration` of `bnn-symm diagnose --json`."""

from typing import Any

from bnn_symm.analyses.mixing import held_out_part
from bnn_symm.analyses.predictions.stored_regions import stored_regions
from bnn_symm.diagnostics.calibration.calibration_tests import calibration_test
from bnn_symm.diagnostics.calibration.reliability import reliability_of_predictions
from bnn_symm.diagnostics.scores.loo import loo
from bnn_symm.diagnostics.scores.point_predictions import (
    ClassPredictions,
    ColumnPredictions,
    predict_points,
)
from bnn_symm.diagnostics.scores.score_intervals import score_predictions
from bnn_symm.runs.run import Run


def describe_calibration(run: Run, *, num_resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Return scores with intervals, reliability, a test of calibration, and PSIS-LOO.

    Args:
        run: a run with a posterior.
        num_resamples: the number of bootstrap resamples, and of simulations of a calibrated model.
        seed: the seed of both.

    Returns:
        `conclusion` in words; `calibrated`; `part`, `kind` (`classes` or `numbers`), and the
        results of the diagnostics of the same names: `scores`, `test`, `reliability`, `loo`,
        `notes`; `conformal`, the regions of stored evaluations. Of several target columns, `test`
        and `reliability` are in `columns`, by name.

    Raises:
        InvalidRun: if the data changed since the fit, or there is no posterior.
    """
    dataset = run.dataset()
    name, part = held_out_part(dataset)
    predictions = predict_points(run.posterior, part, seed=seed)
    scores = score_predictions(predictions, num_resamples=num_resamples, seed=seed)
    several = isinstance(predictions, ColumnPredictions)
    columns = predictions.columns if several else {"": predictions}
    tests = {
        column: calibration_test(own, num_simulations=num_resamples, seed=seed)
        for column, own in columns.items()
    }
    by_column = {
        column: {
            "test": tests[column].to_dict(),
            "reliability": reliability_of_predictions(own).to_dict(),
        }
        for column, own in columns.items()
    }
    verdicts = [
        f"{column}: {test.verdict}" if column else test.verdict for column, test in tests.items()
    ]
    return {
        "conclusion": f"{name} split: {'; '.join(verdicts)}",
        "calibrated": all(test.is_calibrated for test in tests.values()),
        "part": name,
        "kind": "classes" if isinstance(predictions, ClassPredictions) else "numbers",
        "scores": scores.to_dict(),
        **({"columns": by_column} if several else by_column[""]),
        "conformal": [own.to_dict() for own in stored_regions(run)],
        "loo": loo(run.posterior, dataset.train).to_dict(),
        "notes": [*part_notes(name), *scores.notes],
    }


def part_notes(name: str) -> list[str]:
    """Return a note if predictions are not those of the test split.

    Args:
        name: of the split.

    Returns:
        The note, or nothing.
    """
    if name == "test":
        return []
    fitted = (
        ", to which it was fitted, so that every score is optimistic" if name == "train" else ""
    )
    return [f"there are no test points: this is the {name} split{fitted}"]
