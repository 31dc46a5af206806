"""Build the section of a study on barriers: heights, mean curves, and matrices of seed pairs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.diagnostics.measures import PAIR_MEASURES
from bnn_symm.formatting import mean_and_interval, number, with_error
from bnn_symm.report.html.page import Block, Picture
from bnn_symm.report.html.study_data import StudyData
from bnn_symm.report.html.study_settings import (
    ContextView,
    estimate_of,
    present,
    reasons,
    unit_of_replicates,
)
from bnn_symm.report.plots.comparisons.matrices import barrier_matrix_figure
from bnn_symm.report.plots.studies.barriers import barrier_curves_figure
from bnn_symm.report.tables import Table, by_rows

_HEIGHTS = [PAIR_MEASURES[key] for key in ("naive", "aligned", "naive_error", "aligned_error")]
_WAYS = ("naive", "aligned")


def barriers(data: StudyData, view: ContextView) -> list[Block]:
    """Return the barriers between fits, without and with alignment over permutations.

    Args:
        data: of the study.
        view: of the context.

    Returns:
        The blocks of the section.
    """
    parts = (_heights, _curves, _matrices, _within_seeds)
    blocks = [part(data, view) for part in parts]
    return [block for block in blocks if block is not None]


def _heights(data: StudyData, view: ContextView) -> Table | None:
    shown = present(view.own, _HEIGHTS)
    if not shown:
        return None
    pairs = [data.pairs_of(setting) for setting in view.own]
    columns: dict[str, list[Any]] = {
        "setting": view.labels,
        "pairs of seeds": [len(rows) for rows in pairs],
        **{own.title: [estimate_of(setting, own) for setting in view.own] for own in shown},
        "units moved by alignment": [_moved(rows) for rows in pairs],
    }
    unit = unit_of_replicates(view.own)
    note = (
        f"Small type: 95 % confidence intervals over {unit}s. A network without symmetry has no "
        "units to align."
    )
    return Table(
        caption="Barriers: maximum of the test NLL above the chord between two fits",
        columns=columns,
        notes=[note, *reasons(view.own, view.labels, shown)],
    )


def _moved(pairs: Sequence[Mapping[str, Any]]) -> str:
    keys = ("num_moved", "num_movable")
    known = [row for row in pairs if all(row.get(key) is not None for key in keys)]
    if not known:
        return "-"
    if not any(row["num_movable"] for row in known):
        return "no units to align"
    moved = sum(row["num_moved"] for row in known) / len(known)
    return f"{number(moved)} of {number(known[0]['num_movable'])}"


def _curves(data: StudyData, view: ContextView) -> Picture | None:
    curves = {way: [data.curve_of(setting, way) for setting in view.own] for way in _WAYS}
    curves = {way: own for way, own in curves.items() if any(own)}
    if not curves:
        return None
    rows = []
    for way, every in curves.items():
        for setting, label, own in zip(view.own, view.labels, every, strict=True):
            if own is not None:
                height = estimate_of(setting, PAIR_MEASURES[way])
                # tau = 0, 0.25, 0.5, 0.75, 1 of 41 positions
                rows.append([label, way, height, *own["mean"][::10], max(own["high"])])
    header = ["setting", "path", "height", "tau = 0", "0.25", "0.5", "0.75", "1", "highest pair"]
    return Picture(
        figure=barrier_curves_figure(curves, view.labels, view.own_styles),
        caption="Marginal test NLL along the path between two fits minus the chord between its "
        "ends: mean over pairs of seeds; bands from the lowest to the highest pair. Below 0 the "
        "path is better than its ends.",
        numbers=Table(
            caption="Numbers of this figure, at five positions of the path",
            columns=by_rows(header, rows),
        ),
    )


def _matrices(data: StudyData, view: ContextView) -> Picture | None:
    if unit_of_replicates(view.own) == "fold":  # a pair of seeds has one barrier in each fold
        return None
    matrices, rows = [], []
    for setting, label in zip(view.own, view.labels, strict=True):
        pairs = data.pairs_of(setting)
        ends = [(row["seed"], row["other_seed"]) for row in pairs]
        heights = {
            way: [
                (*seeds, row[way])
                for seeds, row in zip(ends, pairs, strict=True)
                if row.get(way) is not None
            ]
            for way in _WAYS
        }
        if not heights["naive"]:
            continue
        seeds = sorted({*setting["seeds"], *(seed for own in ends for seed in own)})
        matrices.append({"label": label, "seeds": seeds, **heights})
        rows += [
            [label, f"{first} and {second}", *(_height(row, way) for way in _WAYS)]
            for (first, second), row in zip(ends, pairs, strict=True)
        ]
    if not matrices:
        return None
    return Picture(
        figure=barrier_matrix_figure(matrices),
        caption="Barriers between all pairs of seeds: unaligned above the diagonal, aligned below "
        "it.",
        numbers=Table(
            caption="Numbers of this figure, with their standard errors over draws and points",
            columns=by_rows(["setting", "seeds", *_WAYS], rows),
        ),
    )


def _height(row: Mapping[str, Any], way: str) -> str:
    return with_error(row.get(way), row.get(f"{way}_standard_error"))


def _within_seeds(data: StudyData, view: ContextView) -> Table | None:
    """Return the mean barriers between settings with equal seeds, at least one in this context."""
    names = {str(view.settings[number]["label"]): view.names[number] for number in view.numbers}
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in data.pairs:
        is_own = (
            row["relation"] == "within_seed"
            and row["status"] == "complete"
            and row["setting"] in names
        )
        if is_own and row.get("naive") is not None:
            other = str(row["other_setting"])
            pair = f"{names[row['setting']]} and {names.get(other, other)}"
            groups.setdefault(pair, []).append(row)
    if not groups:
        return None
    columns = {
        "settings": list(groups),
        "seeds": [len(rows) for rows in groups.values()],
        "naive, mean (lowest to highest)": [_mean(rows, "naive") for rows in groups.values()],
        "aligned": [_mean(rows, "aligned") for rows in groups.values()],
    }
    return Table(
        caption="Barriers between settings with equal seeds",
        columns=columns,
        folded=len(groups) > 6,
    )


def _mean(rows: Sequence[Mapping[str, Any]], way: str) -> str:
    values = [float(row[way]) for row in rows if row.get(way) is not None]
    if not values:
        return "-"
    mean = math.fsum(values) / len(values)
    ends = {"low": min(values), "high": max(values)} if len(values) > 1 else {}
    return mean_and_interval({"mean": mean, **ends})
