"""Build the section of a study on barriers: heights, mean curves, and matrices of seed pairs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.formatting import mean_and_interval, number, with_error
from bnn_symm.report.html.page import Block, Picture, Table
from bnn_symm.report.html.study_data import StudyData
from bnn_symm.report.html.study_measures import (
    MEASURES,
    estimate_cell,
    measure_of,
    present,
    reasons,
)
from bnn_symm.report.html.study_settings import ContextView
from bnn_symm.report.plots.comparisons.matrices import barrier_matrix_figure
from bnn_symm.report.plots.studies.barriers import barrier_curves_figure

_HEIGHTS = ("naive", "aligned", "naive_error", "aligned_error")
_WAYS = ("naive", "aligned")


def barriers(data: StudyData, view: ContextView) -> list[Block]:
    """Return the barriers between fits, without and with alignment over permutations.

    Args:
        data: of the study.
        view: of the context.

    Returns:
        The blocks of the section.
    """
    blocks: list[Block] = []
    shown = present(view.own, _HEIGHTS)
    if shown:
        blocks.append(_heights(data, view, shown))
    for picture in (_curves(data, view), _matrices(data, view)):
        blocks += [] if picture is None else [picture]
    within = _within_seeds(data, view)
    return [*blocks, *([] if within is None else [within])]


def _heights(data: StudyData, view: ContextView, shown: Sequence[str]) -> Table:
    rows = []
    for setting, label in zip(view.own, view.labels, strict=True):
        cells = [estimate_cell(measure_of(setting, measure)) for measure in shown]
        pairs = data.pairs_of(setting)
        rows.append([label, str(len(pairs)), *cells, _moved(pairs)])
    header = [
        "setting",
        "pairs of seeds",
        *(MEASURES[measure] for measure in shown),
        "units moved by alignment",
    ]
    return Table(
        caption="Barriers: maximum of the test NLL above the chord between two fits",
        header=header,
        rows=rows,
        notes=[
            "Small type: 95 % confidence intervals over seeds. A network without symmetry has no "
            "units to align.",
            *reasons(view.own, view.labels, shown),
        ],
    )


def _moved(pairs: Sequence[Mapping[str, Any]]) -> str:
    known = [
        row
        for row in pairs
        if row.get("num_movable") is not None and row.get("num_moved") is not None
    ]
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
    rows, descriptions = [], []
    for way, every in curves.items():
        for setting, label, own in zip(view.own, view.labels, every, strict=True):
            if own is None:
                continue
            positions = [0, 10, 20, 30, 40]  # tau = 0, 0.25, 0.5, 0.75, 1 of 41 positions
            rows.append(
                [
                    label,
                    way,
                    *(number(own["mean"][position]) for position in positions),
                    number(max(own["high"])),
                ]
            )
            height = mean_and_interval(measure_of(setting, way))
            descriptions.append(f"{label}, {way}: height {height}")
    return Picture(
        figure=barrier_curves_figure(curves, view.labels, view.own_styles),
        alt="Test NLL above the chord along the path between two fits, mean over pairs of seeds. "
        f"{'; '.join(descriptions)}.",
        caption="Marginal test NLL along the path between two fits minus the chord between its "
        "ends: mean over pairs of seeds; bands from the lowest to the highest pair. Below 0 the "
        "path is better than its ends.",
        numbers=Table(
            caption="Numbers of this figure, at five positions of the path",
            header=[
                "setting",
                "path",
                "tau = 0",
                "0.25",
                "0.5",
                "0.75",
                "1",
                "highest of all pairs",
            ],
            rows=rows,
            words=(0, 1),
        ),
    )


def _matrices(data: StudyData, view: ContextView) -> Picture | None:
    matrices, rows, descriptions = [], [], []
    for setting, label in zip(view.own, view.labels, strict=True):
        pairs = data.pairs_of(setting)
        heights = {
            way: [
                (row["seed"], row["other_seed"], row[way])
                for row in pairs
                if row.get(way) is not None
            ]
            for way in _WAYS
        }
        if not heights["naive"]:
            continue
        matrices.append({"label": label, "seeds": _seeds(setting, pairs), **heights})
        for row in pairs:
            rows.append(
                [
                    label,
                    f"{row['seed']} and {row['other_seed']}",
                    _height(row, "naive"),
                    _height(row, "aligned"),
                ]
            )
        ends = [value for *_, value in heights["naive"]]
        descriptions.append(f"{label}: naive from {number(min(ends))} to {number(max(ends))}")
    if not matrices:
        return None
    return Picture(
        figure=barrier_matrix_figure(matrices),
        alt="Matrices of barriers between all pairs of seeds, by setting. "
        f"{'; '.join(descriptions)}.",
        caption="Barriers between all pairs of seeds: unaligned above the diagonal, aligned below "
        "it.",
        numbers=Table(
            caption="Numbers of this figure, with their standard errors over draws and points",
            header=["setting", "seeds", "naive", "aligned"],
            rows=rows,
            words=(0, 1),
        ),
    )


def _seeds(setting: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> list[int]:
    return sorted(
        {*setting["seeds"], *(row[key] for row in pairs for key in ("seed", "other_seed"))}
    )


def _height(row: Mapping[str, Any], way: str) -> str:
    return with_error(row.get(way), row.get(f"{way}_standard_error"))


def _within_seeds(data: StudyData, view: ContextView) -> Table | None:
    """Return the mean barriers between settings with equal seeds, at least one in this context."""
    names = {str(view.settings[number]["label"]): view.names[number] for number in view.numbers}
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in data.pairs:
        is_own = (
            row["relation"] == "within_seed"
            and row["status"] == "complete"
            and row["setting"] in names
        )
        if is_own and row.get("naive") is not None:
            other = str(row["other_setting"])
            groups.setdefault((names[row["setting"]], names.get(other, other)), []).append(row)
    if not groups:
        return None
    rows = [
        [f"{first} and {second}", str(len(own)), *(_mean(own, way) for way in _WAYS)]
        for (first, second), own in groups.items()
    ]
    return Table(
        caption="Barriers between settings with equal seeds",
        header=["settings", "seeds", "naive, mean (lowest to highest)", "aligned"],
        rows=rows,
        folded=len(rows) > 6,
    )


def _mean(rows: Sequence[Mapping[str, Any]], way: str) -> str:
    values = [float(row[way]) for row in rows if row.get(way) is not None]
    if not values:
        return "-"
    mean = math.fsum(values) / len(values)
    return mean_and_interval({"mean": mean, "low": min(values), "high": max(values)})
