"""What a study left on disk, read for its report: the summary, one row a fit and a pair, and the
curves of pairs.

Only plain data is read, so that a report can be made again anywhere, from a copy without posteriors
too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bnn_symm.errors import InvalidRun, shell_words
from bnn_symm.io.documents import read_json
from bnn_symm.io.parquet import read_rows
from bnn_symm.runs.directory.file_schemas import PairFile, SummaryFile, check_file

STUDY_SCHEMA = 1
SUMMARY = "summary.json"
# Positions at which curves of several pairs, each with its own, are averaged.
_TAU = np.linspace(0.0, 1.0, 41)
# Columns of both tables, which are texts in every row.
_COLUMNS = ("key", "setting", "status")
# What a summary has at least.
_KEYS = ("contexts", "settings", "comparisons", "conclusions", "headline", "counts")


@dataclass(frozen=True, kw_only=True)
class StudyData:
    """A study as its report sees it.

    Attributes:
        path: of its directory.
        summary: content of `summary.json`.
        cells: one row a fit; what is undefined is None.
        pairs: one row a pair of fits.
        barriers: key of a pair -> what was measured, with its curves.
    """

    path: Path
    summary: Mapping[str, Any]
    cells: Sequence[Mapping[str, Any]] = ()
    pairs: Sequence[Mapping[str, Any]] = ()
    barriers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def modules(self) -> list[str]:
        """Return the names of the factories of the user's own networks; what a directory names is
        not to be run.
        """
        named = self.summary.get("modules")
        return [str(name) for name in named] if isinstance(named, list) else []

    def pairs_of(self, setting: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Complete pairs of two seeds of one setting, by seeds."""
        rows = [
            row
            for row in self.pairs
            if row["relation"] == "across_seeds"
            and row["setting"] == setting["label"] == row["other_setting"]
            and row["status"] == "complete"
        ]
        return sorted(rows, key=lambda row: (row["seed"], row["other_seed"]))

    def values_of(self, setting: Mapping[str, Any], measure: str) -> list[float]:
        """Of the complete fits of a setting, or of its pairs, by seed; only what is defined."""
        cells = [
            row
            for row in self.cells
            if row["setting"] == setting["label"] and row["status"] == "complete"
        ]
        rows = sorted(cells, key=lambda row: row["seed"])
        if not any(row.get(measure) is not None for row in rows):
            rows = self.pairs_of(setting)
        return [float(row[measure]) for row in rows if row.get(measure) is not None]

    def curve_of(self, setting: Mapping[str, Any], way: str) -> dict[str, list[float]] | None:
        """Mean, lowest and highest marginal test NLL above the chord over pairs of seeds, along the
        path.

        Args:
            setting: of the summary.
            way: `naive` or `aligned`.
        """
        curves = []
        for row in self.pairs_of(setting):
            content = self.barriers.get(str(row["key"]))
            own = None if content is None else _test_curve(content, way)
            if own is not None:
                curves.append(_above_chord(own))
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
    """Reads a study, complete or not.

    Raises:
        InvalidRun: if it is none, or damaged, or of a newer schema.
    """
    summary = _read_json(directory / SUMMARY)
    schema = summary.get("study_schema")
    if not isinstance(schema, int):
        raise InvalidRun(
            f"{directory / SUMMARY} is not a summary of a study of bnn_symm: it has no study_schema"
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
    check_file(directory / SUMMARY, summary, SummaryFile)
    pairs = _rows(directory / "pairs.parquet")
    paths = {row["key"]: directory / "pairs" / f"{row['key']}.json" for row in pairs}
    return StudyData(
        path=directory,
        summary=summary,
        cells=_rows(directory / "cells.parquet"),
        pairs=pairs,
        # Failed pairs have no file; numbers without curves are still worth a report.
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
        raise InvalidRun(f"there is no {path}; `bnn-symm compare CONFIG` makes a study") from None


def _rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a table, or none: a study whose pairs were not asked for has no table of them."""
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
    return rows


def _plain(value: Any) -> Any:
    """Of tables None where there is nothing."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _test_curve(content: Mapping[str, Any], way: str) -> Mapping[str, Any] | None:
    if way == "naive":
        return (content.get("naive") or {}).get("test")
    return content.get("test") if content.get("aligned") else None


def _above_chord(curve: Mapping[str, Any]) -> np.ndarray:
    tau, nll = np.asarray(curve["tau"], dtype=float), np.asarray(curve["marginal_nll"], dtype=float)
    above = nll - (1 - tau) * nll[0] - tau * nll[-1]
    return np.interp(_TAU, tau, above)
