"""The values of the measures of a study, by setting and replicate."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.diagnostics.measures import PAIR_MEASURES
from bnn_symm.diagnostics.statistics.paired_comparison import Kind

Row = Mapping[str, Any]
SPEED = "gradients_to_target"


class Values:
    """Values of complete rows by setting and replicate.

    Without folds, a replicate is a seed, or an ordered pair of seeds. With folds, it is a fold.

    Args:
        settings: with their `label`.
        fit_rows: one row per fit.
        pair_rows: one row per pair of fits.

    Attributes:
        kind: unit of the values of fits, `seeds` or `folds`.
    """

    def __init__(self, settings: Sequence[Row], fit_rows: Sequence[Row], pair_rows: Sequence[Row]):
        indices = {setting["label"]: i for i, setting in enumerate(settings)}
        has_folds = any(row.get("fold") is not None for row in fit_rows)
        self.kind: Kind = "folds" if has_folds else "seeds"
        self._fits: dict[int, dict[Any, Row]] = {i: {} for i in indices.values()}
        self._pairs: dict[int, dict[Any, Row]] = {i: {} for i in indices.values()}
        for row in fit_rows:
            if row["status"] == "complete" and row["setting"] in indices:
                self._fits[indices[row["setting"]]][self._cell(row, int(row["seed"]))] = row
        for row in pair_rows:
            is_own = row["relation"] == "across_seeds" and row["other_setting"] == row["setting"]
            if is_own and row["status"] == "complete" and row["setting"] in indices:
                first, second = sorted((int(row["seed"]), int(row["other_seed"])))
                self._pairs[indices[row["setting"]]][self._cell(row, (first, second))] = row

    def _cell(self, row: Row, seeds: int | tuple[int, int]) -> Any:
        return (int(row["fold"]), seeds) if self.kind == "folds" else seeds

    def by_unit(self, setting: int, measure: str) -> dict[Any, float]:
        """Return the defined values of a measure, by seed or pair of seeds, or by fold.

        Args:
            setting: number of the setting.
            measure: key of the measure.
        """
        return self.matched(measure, setting)[0]

    def matched(self, measure: str, *settings: int) -> list[dict[Any, float]]:
        """Return the values of several settings; those of a fold are of its common fits.

        Args:
            measure: key of the measure.
            settings: numbers of the settings.
        """
        cells = [self._cells(setting, measure) for setting in settings]
        if self.kind == "seeds":
            return cells
        common = set.intersection(*map(set, cells))
        return [_by_fold({cell: own[cell] for cell in sorted(common)}) for own in cells]

    def _cells(self, setting: int, measure: str) -> dict[Any, float]:
        rows = (self._pairs if measure in PAIR_MEASURES else self._fits)[setting]
        values = {cell: defined_number(row.get(measure)) for cell, row in sorted(rows.items())}
        return {cell: value for cell, value in values.items() if value is not None}

    def censored(self, setting: int) -> set[int]:
        """Return the seeds whose runs never reached the target.

        Args:
            setting: number of the setting.
        """
        return {
            seed
            for seed, row in self._fits[setting].items()
            if defined_number(row.get("to_target_censored")) == 1.0
        }

    def log_times(self, setting: int) -> dict[int, float]:
        """Return the logarithms of the times to the target; empty if one is censored.

        Args:
            setting: number of the setting.
        """
        times = {} if self.censored(setting) else self.by_unit(setting, SPEED)
        return {seed: math.log(time) for seed, time in times.items() if time > 0}


def _by_fold(values: Mapping[tuple[int, Any], float]) -> dict[int, float]:
    """Return the mean over the seeds, or the pairs of seeds, of each fold."""
    folds: dict[int, list[float]] = {}
    for (fold, _), value in values.items():
        folds.setdefault(fold, []).append(value)
    return {fold: math.fsum(own) / len(own) for fold, own in folds.items()}


def defined_number(value: Any) -> float | None:
    """Return a number; None for the NaN that tables have for missing values.

    Args:
        value: from a table.
    """
    return float(value) if isinstance(value, numbers.Real) and not math.isnan(value) else None
