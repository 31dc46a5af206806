"""Format and draw calibration, out-of-distribution detection and scores under shifts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn_symm.analyses.predictions.other_data import OtherDistribution
from bnn_symm.diagnostics.measures import measure_of
from bnn_symm.diagnostics.scores.shift_curves import ShiftCurve
from bnn_symm.formatting import count, number, percent, with_error
from bnn_symm.report.plots.predictions.reliability import plot_reliability
from bnn_symm.report.plots.predictions.shift_curves import plot_shift_curve
from bnn_symm.report.tables import Table
from bnn_symm.report.text.tables import table

_UNCERTAINTIES = {"confidence": "1 - confidence"}
_CURVE_SCORES = (
    ("accuracy", "nll", "ece", "brier", "entropy", "mutual_information"),
    ("rmse", "nll", "crps", "coverage_90", "sd", "epistemic_sd"),
)


def calibration_text(content: Mapping[str, Any]) -> str:
    """Return the conclusion, scores with intervals, regions, leave-one-out predictions and notes.

    Args:
        content: of `describe_calibration`; for a run without a posterior, a `conclusion`.

    Returns:
        The text.
    """
    lines = [f"calibration: {content['conclusion']}"]
    if "scores" not in content:
        return lines[0]
    scores = calibration_table(content)
    lines += ["", scores.caption, scores.text(), ""]
    notes = [*content["notes"]]
    if content["conformal"]:
        regions = stored_regions_table(content["conformal"])
        lines += [regions.caption, regions.text(), ""]
        notes += regions.notes
    lines.append(loo_text(content["loo"]))
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def calibration_table(content: Mapping[str, Any]) -> Table:
    """Return a table with one row per score.

    Args:
        content: of `describe_calibration`, with scores.

    Returns:
        The table, with the notes of scores that have some.
    """
    scores = content["scores"]
    values = scores["values"]
    columns: dict[str, list[Any]] = {
        "score": [measure_of(name).title for name in values],
        f"value ({percent(scores['level'])} interval)": list(values.values()),
    }
    if any(score["note"] for score in values.values()):
        columns["note"] = [score["note"] or "" for score in values.values()]
    points = count(scores["points"], "point")
    return Table(caption=f"Scores of the {content['part']} part, {points}", columns=columns)


def regions_table(content: Mapping[str, Any]) -> Table:
    """Return a table of the coverage and size of Bayesian and conformal regions.

    Args:
        content: `conformal` of an evaluation.

    Returns:
        The table.
    """
    own = [content["bayesian"], content["conformal"]]
    is_numbers = "interval" in own[0]["region"]
    columns = {
        f"{percent(content['level'])} regions": ["Bayesian", "conformal"],
        "coverage": [each["coverage"] for each in own],
        "mean width" if is_numbers else "mean number of classes": [each["size"] for each in own],
    }
    return Table(caption="", columns=columns)


def stored_regions_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of the coverage and size of regions on the points of several evaluations.

    Args:
        found: at least one of `StoredRegions`, as plain data.

    Returns:
        The table, with the notes of all.
    """
    rows: dict[str, list[Any]] = {}
    for own in found:
        level, *measures = regions_table(own["regions"]).columns.items()
        columns = {
            "evaluation": [own["evaluation"]] * 2,
            "points": [own["points"]] * 2,
            "regions": [f"{kind}, {level[0].removesuffix(' regions')}" for kind in level[1]],
            **dict(measures),
        }
        for name, values in columns.items():
            rows.setdefault(name, []).extend(values)
    return Table(
        caption="Coverage and size of regions, by stored evaluation",
        columns=rows,
        notes=list(dict.fromkeys(note for own in found for note in own["notes"])),
    )


def loo_text(loo: Mapping[str, Any]) -> str:
    """Return a sentence on leave-one-out predictions, and its notes.

    Args:
        loo: `Loo` as plain data.

    Returns:
        The text.
    """
    if loo["elpd"] is None:
        return f"PSIS-LOO: {loo['notes'][0]}"
    elpd, points, bad = loo["elpd"], loo["num_points"], loo["num_bad"]
    lines = [
        f"PSIS-LOO: elpd {with_error(elpd, loo['standard_error'])} nats over "
        f"{count(points, 'training point')} ({number(elpd / points)} per point), p_loo "
        f"{number(loo['p_loo'])}, Pareto k above 0.7 at {count(bad, 'point')}"
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in loo["notes"])])


def out_of_distribution_text(result: OtherDistribution, *, inside: str, outside: str) -> str:
    """Return how well each measure of uncertainty separates two sets of points.

    Args:
        result: of `describe_out_of_distribution`.
        inside: name of the in-distribution points.
        outside: name of the out-of-distribution points.

    Returns:
        The text.
    """
    rows = []
    for name, own in result.by.items():
        scores = (own.auroc, own.aupr_out, own.aupr_in, own.fpr95)
        label = _UNCERTAINTIES.get(name, measure_of(name).label)
        cells = [score.to_dict() for score in scores]
        rows.append([label, *cells, own.inside.value, own.outside.value])
    header = [
        "uncertainty",
        "AUROC",
        "AUPR, out",
        "AUPR, in",
        "FPR at 95 %",
        "mean inside",
        "mean outside",
    ]
    lines = [
        f"{outside} ({result.outside_points} points) versus {inside} "
        f"({result.inside_points} points): {result.conclusion}",
        "",
        table(header, rows),
        f"(with {percent(result.level)} intervals; outside is the positive class)",
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in result.notes)])


def shifts_text(curves: Mapping[str, ShiftCurve]) -> str:
    """Return a table of scores by severity for each shift.

    Args:
        curves: of `describe_shifts`.

    Returns:
        The text.
    """
    blocks = []
    for name, curve in curves.items():
        shown = _CURVE_SCORES[0] if "accuracy" in curve.scores[0].values else _CURVE_SCORES[1]
        rows = [
            [severity, *(scores[key].value for key in shown)]
            for severity, scores in zip(curve.severities, curve.scores, strict=True)
        ]
        unit = "degrees" if name == "rotation" else "severity"
        names = [measure_of(score).label for score in shown]
        blocks.append(f"{name.replace('_', ' ')}\n{table([unit, *names], rows)}")
    return "\n\n".join(blocks)


def draw_calibration(content: Mapping[str, Any], folder: Path, *, title: str) -> list[Path]:
    """Draw the reliability diagram, if there is one; one for each of several target columns.

    Args:
        content: of `describe_calibration`.
        folder: of the figure.
        title: of the figure.

    Returns:
        The paths of the figures.
    """
    if "reliability" in content:
        path = folder / "reliability.png"
        plot_reliability(content["reliability"], path, title=title)
        return [path]
    paths = []
    for place, (column, own) in enumerate(content.get("columns", {}).items(), start=1):
        paths.append(folder / f"reliability_{place}.png")
        plot_reliability(own["reliability"], paths[-1], title=f"{title}: {column}")
    return paths


def draw_shifts(
    curves: Mapping[str, ShiftCurve], folder: Path, *, stem: str, title: str
) -> list[Path]:
    """Draw one figure per shift.

    Args:
        curves: of `describe_shifts`.
        folder: of the figures.
        stem: start of their file names.
        title: of the figures.

    Returns:
        The paths of the figures.
    """
    paths = []
    for name, curve in curves.items():
        paths.append(folder / f"{stem}-{name}.png")
        plot_shift_curve(curve, paths[-1], name=name, title=title)
    return paths
