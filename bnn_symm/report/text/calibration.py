"""Texts and pictures of calibration, of points from elsewhere and of shifts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn_symm.report.plots.reliability import plot_reliability
from bnn_symm.report.plots.shift_curves import plot_shift_curve
from bnn_symm.report.text.tables import format_number, table

# Name of a score -> in words, and the group it is shown in.
_WORDS = {
    "accuracy": "accuracy",
    "nll": "NLL, nats a point",
    "brier": "Brier score",
    "ece": "ECE, equal width",
    "aece": "ECE, equal mass",
    "cwce": "ECE, class-wise",
    "mce": "MCE",
    "overconfidence": "confidence - accuracy",
    "auroc_errors": "AUROC of errors",
    "aupr_errors": "AUPR of errors",
    "aurc": "AURC",
    "entropy": "entropy, nats",
    "mutual_information": "mutual information, nats",
    "rmse": "RMSE",
    "mae": "MAE",
    "crps": "CRPS",
    "coverage_50": "coverage of 50 %",
    "coverage_90": "coverage of 90 %",
    "coverage_95": "coverage of 95 %",
    "qce": "quantile calibration error",
    "pit_distance": "PIT, distance to uniform",
    "pit_mean": "PIT, mean (0.5 if unshifted)",
    "sd": "predictive sd",
    "epistemic_sd": "epistemic sd",
    "width_50": "width of 50 %",
    "width_90": "width of 90 %",
    "width_95": "width of 95 %",
}
_UNCERTAINTIES = {"confidence": "1 - confidence"}
_CURVE_SCORES = (
    ("accuracy", "nll", "ece", "brier", "entropy", "mutual_information"),
    ("rmse", "nll", "crps", "coverage_90", "sd", "epistemic_sd"),
)


def calibration_text(content: Mapping[str, Any]) -> str:
    """The verdict, scores with their intervals, leave-one-out predictions and what to mind.

    Args:
        content: of `describe_calibration`; of a run without a posterior a `conclusion` is enough.
    """
    lines = [f"calibration: {content['conclusion']}"]
    if "scores" not in content:
        return lines[0]
    scores = content["scores"]
    lines += ["", scores_text(scores), "", loo_text(content["loo"])]
    return "\n".join([*lines, *(f"note: {note}" for note in content["notes"])])


def scores_text(scores: Mapping[str, Any]) -> str:
    """One row a score.

    Args:
        scores: `Scores` as plain data.
    """
    values = scores["values"]
    rows = [[_WORDS[name], *_value(score), score["note"] or ""] for name, score in values.items()]
    header = ["score", "value", f"{scores['level']:.0%} interval", ""]
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    return f"{scores['points']} points\n{table(header, rows)}"


def loo_text(loo: Mapping[str, Any]) -> str:
    """Leave-one-out predictions in a sentence, and what to mind.

    Args:
        loo: `Loo` as plain data.
    """
    if loo["elpd"] is None:
        return f"PSIS-LOO: {loo['notes'][0]}"
    elpd, points, bad = loo["elpd"], loo["num_points"], loo["num_bad"]
    lines = [
        f"PSIS-LOO: elpd {elpd:.5g} +- {loo['standard_error']:.2g} nats over {points} training "
        "points "
        f"({elpd / points:.3g} a point), p_loo {loo['p_loo']:.3g}, Pareto k above 0.7 at {bad} "
        "points"
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in loo["notes"])])


def out_of_distribution_text(content: Mapping[str, Any], *, inside: str, outside: str) -> str:
    """How well each kind of uncertainty tells two sets apart.

    Args:
        content: of `describe_out_of_distribution`.
        inside: what the inner points are called.
        outside: what the outer points are called.
    """
    rows = []
    for name, own in content["by"].items():
        cells = [_with_interval(own[key]) for key in ("auroc", "aupr_out", "aupr_in", "fpr95")]
        rows.append(
            [
                _UNCERTAINTIES.get(name, name.replace("_", " ")),
                *cells,
                *(format_number(own[key]["value"]) for key in ("inside", "outside")),
            ]
        )
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
        f"{outside} ({content['outside_points']} points) against {inside} "
        f"({content['inside_points']} points): {content['conclusion']}",
        "",
        table(header, rows),
        f"(with {content['level']:.0%} intervals; outside counts as positive)",
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in content["notes"])])


def shifts_text(curves: Mapping[str, Any]) -> str:
    """A table of scores against severity for each shift.

    Args:
        curves: of `describe_shifts`.
    """
    blocks = []
    for name, curve in curves.items():
        shown = _CURVE_SCORES[0] if "accuracy" in curve["scores"] else _CURVE_SCORES[1]
        rows = [
            [severity, *(curve["scores"][score][i]["value"] for score in shown)]
            for i, severity in enumerate(curve["severities"])
        ]
        unit = "degrees" if name == "rotation" else "severity"
        words = [score.replace("_", " ") for score in shown]
        blocks.append(f"{name.replace('_', ' ')}\n{table([unit, *words], rows)}")
    return "\n\n".join(blocks)


def draw_calibration(content: Mapping[str, Any], folder: Path, *, title: str) -> list[Path]:
    """Writes the reliability diagram, if there is one; returns where it is."""
    if "reliability" not in content:
        return []
    path = folder / "reliability.png"
    plot_reliability(content["reliability"], path, title=title)
    return [path]


def draw_shifts(curves: Mapping[str, Any], folder: Path, *, stem: str, title: str) -> list[Path]:
    """Writes one picture a shift; returns where they are."""
    paths = []
    for name, curve in curves.items():
        paths.append(folder / f"{stem}-{name}.png")
        plot_shift_curve(curve, paths[-1], name=name, title=title)
    return paths


def _value(score: Mapping[str, Any]) -> Sequence[str]:
    interval = (
        "-"
        if score["low"] is None
        else f"[{format_number(score['low'])}, {format_number(score['high'])}]"
    )
    return format_number(score["value"]), interval


def _with_interval(score: Mapping[str, Any]) -> str:
    if score["low"] is None:
        return format_number(score["value"])
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
