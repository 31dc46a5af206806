"""Read the results of a study for its report: the summary, the tables and the barrier curves.

Only plain data is read, so that a report can also be written from a copy without posteriors.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bnn_symm.diagnostics.measures import FIT_MEASURES, PAIR_MEASURES
from bnn_symm.errors import InvalidRun, one_line, shell_words
from bnn_symm.io.documents import read_json
from bnn_symm.io.parquet import read_rows
from bnn_symm.report.html.summary_schema import check_summary
from bnn_symm.runs.directory.file_schemas import LARGEST, PairFile, check_file
from bnn_symm.studies.results.narrative import Answer, Cause

STUDY_SCHEMA = 1
SUMMARY = "summary.json"
# Positions to which the curves of pairs are interpolated before they are averaged.
_TAU = np.linspace(0.0, 1.0, 41)
# Required text columns of both tables.
_COLUMNS = ("key", "setting", "status")
# Numeric columns.
_NUMBERS = {*FIT_MEASURES, *PAIR_MEASURES, "fold", "seed", "other_seed"}
# Required keys of a summary.
# Words of verdicts in summaries of former versions.
_FORMER_WORDS = {
    "answer": {
        "yes": Answer.SUPPORTED,
        "the other way": Answer.OPPOSITE,
        "no": Answer.NOT_SUPPORTED,
        "cannot be told": Answer.INCONCLUSIVE,
    },
    "because_of_symmetry": {
        "cannot be told": Cause.INCONCLUSIVE,
        "not asked": Cause.NOT_ASSESSED,
    },
}
_KEYS = ("contexts", "settings", "comparisons", "conclusions", "headline", "counts")


@dataclass(frozen=True, kw_only=True)
class StudyData:
    """The results of a study.

    Attributes:
        path: of its directory.
        summary: content of `summary.json`.
        fits: one row per fit, with None for undefined values.
        pairs: one row per pair of fits.
        barriers: measurements of each pair with its curves, by key.
    """

    path: Path
    summary: Mapping[str, Any]
    fits: Sequence[Mapping[str, Any]] = ()
    pairs: Sequence[Mapping[str, Any]] = ()
    barriers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def modules(self) -> list[str]:
        """Return the names of the factories of custom networks, which must not be run."""
        named = self.summary.get("modules")
        return [str(name) for name in named] if isinstance(named, list) else []

    def pairs_of(self, setting: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the complete pairs of seeds of a setting, in the order of folds and seeds.

        Args:
            setting: of the summary.

        Returns:
            The rows of the pairs.
        """
        rows = [
            row
            for row in self.pairs
            if row["relation"] == "across_seeds"
            and row["setting"] == setting["label"] == row["other_setting"]
            and row["status"] == "complete"
        ]
        return sorted(rows, key=lambda row: (row.get("fold") or 0, row["seed"], row["other_seed"]))

    def values_of(self, setting: Mapping[str, Any], measure: str) -> list[float]:
        """Return the defined values of a measure over fits, or over pairs, in the order of seeds.

        In a study of folds, they are the means of the folds.

        Args:
            setting: of the summary.
            measure: a column of the tables.

        Returns:
            The values.
        """
        complete = [
            row
            for row in self.fits
            if row["setting"] == setting["label"] and row["status"] == "complete"
        ]
        rows = sorted(complete, key=lambda row: row["seed"])
        if not any(row.get(measure) is not None for row in rows):
            rows = self.pairs_of(setting)
        rows = [row for row in rows if row.get(measure) is not None]
        folds = sorted({row["fold"] for row in rows if row.get("fold") is not None})
        if not folds:
            return [float(row[measure]) for row in rows]
        return [
            statistics.fmean(row[measure] for row in rows if row["fold"] == fold) for fold in folds
        ]

    def curve_of(self, setting: Mapping[str, Any], way: str) -> dict[str, list[float]] | None:
        """Return mean, minimum and maximum test NLL above the chord over pairs, along the path.

        Args:
            setting: of the summary.
            way: `naive` or `aligned`.

        Returns:
            The curves by name, with the positions `tau`; None without pairs.
        """
        curves = []
        for row in self.pairs_of(setting):
            content = self.barriers.get(str(row["key"]))
            curve = None if content is None else _test_curve(content, way)
            if curve is not None:
                curves.append(_above_chord(curve))
        if not curves:
            return None
        heights = np.array(curves)
        parts = {
            "tau": _TAU,
            "mean": heights.mean(0),
            "low": heights.min(0),
            "high": heights.max(0),
        }
        return {name: [float(value) for value in values] for name, values in parts.items()}


def read_study(directory: Path) -> StudyData:
    """Read a study, which may be incomplete.

    Args:
        directory: of the study.

    Returns:
        Its results.

    Raises:
        InvalidRun: if it is not a study, is damaged, or has a newer schema.
    """
    summary = _read_json(directory / SUMMARY)
    schema = summary.get("study_schema")
    if not isinstance(schema, int):
        raise InvalidRun(
            f"{directory / SUMMARY} is not the summary of a study: it has no study_schema"
        )
    if schema > STUDY_SCHEMA:
        raise InvalidRun(
            f"{directory} has study schema {schema}, this version reads up to {STUDY_SCHEMA}; "
            "upgrade bnn_symm"
        )
    missing = [key for key in _KEYS if key not in summary]
    if missing:
        raise InvalidRun(
            f"{directory / SUMMARY} is damaged: it has no {', '.join(missing)}; "
            f"write it again: bnn-symm {shell_words('compare', '--resume', directory)}"
        )
    check_summary(directory / SUMMARY, summary)
    for conclusion in summary["conclusions"]:
        for key, words in _FORMER_WORDS.items():
            conclusion[key] = words.get(conclusion[key], conclusion[key])
    pairs = _rows(directory / "pairs.parquet")
    paths = {row["key"]: directory / "pairs" / f"{row['key']}.json" for row in pairs}
    return StudyData(
        path=directory,
        summary=summary,
        fits=_rows(directory / "cells.parquet"),
        pairs=pairs,
        # Failed pairs have no file.
        barriers={key: _read_pair(path) for key, path in paths.items() if path.exists()},
    )


def _read_pair(path: Path) -> dict[str, Any]:
    content = _read_json(path)
    check_file(path, content, PairFile)
    return content


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise InvalidRun(f"there is no {path}; `bnn-symm compare CONFIG` runs a study") from None


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table; none for a study without pairs, which has no table of them."""
    if not path.exists():
        return []
    rows = [{name: _plain(value) for name, value in row.items()} for row in read_rows(path)]
    for row in rows:
        missing = [name for name in _COLUMNS if not isinstance(row.get(name), str)]
        if missing:
            raise InvalidRun(
                f"{path} is damaged: a row has no {', '.join(missing)}; write it again with "
                "compare --resume"
            )
        for name, value in row.items():
            is_number = isinstance(value, int | float)
            if (value is not None and name in _NUMBERS and not is_number) or (
                is_number and math.isfinite(value) and abs(value) > LARGEST
            ):
                raise InvalidRun(
                    f"{path} is damaged: {one_line(name, 40)} is {one_line(value, 40)}; write it "
                    "again with compare --resume"
                )
        if not isinstance(row.get("seed"), int):
            raise InvalidRun(
                f"{path} is damaged: a row has no seed; write it again with compare --resume"
            )
    return rows


def _plain(value: Any) -> Any:
    """Return None for the NaN of missing values."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _test_curve(content: Mapping[str, Any], way: str) -> Mapping[str, Any] | None:
    if way == "naive":
        return (content.get("naive") or {}).get("test")
    return content.get("test") if content.get("aligned") else None


def _above_chord(curve: Mapping[str, Any]) -> np.ndarray:
    tau, nll = np.asarray(curve["tau"], dtype=float), np.asarray(curve["marginal_nll"], dtype=float)
    above = nll - (1 - tau) * nll[0] - tau * nll[-1]
    return np.interp(_TAU, tau, above)
