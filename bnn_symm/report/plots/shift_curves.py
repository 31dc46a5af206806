"""Plot scores over the severity of a shift."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bnn_symm.report.plots.figures.png import save_png

# For classification and regression: the label of each panel, and its curves.
_CLASS_PANELS = (
    ("accuracy, confidence", ("accuracy", "confidence")),
    ("NLL, nats per point", ("nll",)),
    ("expected calibration error", ("ece",)),
    ("uncertainty, nats", ("entropy", "mutual_information")),
)
_NUMBER_PANELS = (
    ("error, units of the target", ("rmse", "crps")),
    ("NLL, nats per point", ("nll",)),
    ("coverage", ("coverage_90", "coverage_50")),
    ("standard deviation, units of the target", ("sd", "epistemic_sd")),
)
_NAMES = {
    "crps": "CRPS",
    "rmse": "RMSE",
    "nll": "NLL",
    "ece": "ECE",
    "sd": "predictive",
    "epistemic_sd": "epistemic",
    "coverage_90": "of the 90 % interval",
    "coverage_50": "of the 50 % interval",
}
_STYLES = (("#0b3c5d", "-", "o"), ("#d08770", "--", "s"))
# Nominal values, which a calibrated model attains under every shift.
_NOMINAL = {"coverage_90": 0.9, "coverage_50": 0.5}


def plot_shift_curve(curve: Mapping[str, Any], path: Path, *, name: str, title: str) -> None:
    """Plot errors, NLL, calibration and uncertainty with their intervals in four panels.

    Args:
        curve: `ShiftCurve` as plain data.
        path: of the PNG.
        name: of the shift.
        title: of the figure.
    """
    scores = dict(curve["scores"])
    if "overconfidence" in scores:
        scores["confidence"] = _confidence(scores)
    panels = _CLASS_PANELS if "accuracy" in scores else _NUMBER_PANELS
    severities = curve["severities"]
    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    for axes, (label, names) in zip(figure.subplots(2, 2, sharex=True).flat, panels, strict=True):
        for score, (color, dash, marker) in zip(names, _STYLES, strict=False):
            value, low, high = (_numbers(scores[score], key) for key in ("value", "low", "high"))
            axes.fill_between(severities, low, high, color=color, alpha=0.18, lw=0)
            text = _NAMES.get(score, score.replace("_", " "))
            axes.plot(severities, value, dash, color=color, marker=marker, ms=4, lw=1.4, label=text)
            if score in _NOMINAL:
                axes.axhline(_NOMINAL[score], color="0.4", ls=":", lw=1.0)
        axes.set_ylabel(label, fontsize=9)
        axes.set_xticks(severities if len(severities) < 8 else severities[::2])
        axes.grid(axis="y", color="0.9", lw=0.6)
        if len(names) > 1:
            axes.legend(fontsize=8, frameon=False)
    unit = ", degrees" if name == "rotation" else ", severity (0: unchanged)"
    figure.supxlabel(f"{name.replace('_', ' ')}{unit}", fontsize=9)
    figure.suptitle(f"{title} (bands: {curve['level']:.0%} intervals over points)", fontsize=10)
    save_png(figure, path)


def _confidence(scores: Mapping[str, Any]) -> list[dict[str, float | None]]:
    """Return the mean confidence, which is the accuracy plus the overconfidence."""
    return [
        {"value": own["value"] + gap["value"], "low": None, "high": None}
        for own, gap in zip(scores["accuracy"], scores["overconfidence"], strict=True)
    ]


def _numbers(rows: list[Mapping[str, Any]], key: str) -> np.ndarray:
    """Return the values to plot; an infinite score leaves a gap."""
    values = np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=float)
    return np.where(np.isfinite(values), values, np.nan)
