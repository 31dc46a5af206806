"""Plot scores over the severity of a shift."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bnn_symm.diagnostics.measures import measure_of
from bnn_symm.diagnostics.scores.shift_curves import ShiftCurve
from bnn_symm.diagnostics.statistics.bootstrap import Score
from bnn_symm.formatting import percent
from bnn_symm.report.plots.axes import NAVY, ORANGE, finite, panels, with_gaps
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
_STYLES = ((NAVY, "-", "o"), (ORANGE, "--", "s"))
# Nominal values, which a calibrated model attains under every shift.
_NOMINAL = {"coverage_90": 0.9, "coverage_50": 0.5}


def plot_shift_curve(curve: ShiftCurve, path: Path, *, name: str, title: str) -> None:
    """Plot errors, NLL, calibration and uncertainty with their intervals in four panels.

    Args:
        curve: of the shift.
        path: of the PNG.
        name: of the shift.
        title: of the figure.
    """
    scores = {key: [own[key] for own in curve.scores] for key in curve.scores[0].values}
    if "overconfidence" in scores:
        scores["confidence"] = _confidence(scores)
    contents = _CLASS_PANELS if "accuracy" in scores else _NUMBER_PANELS
    severities = curve.severities
    title = f"{title} (bands: {percent(curve.scores[0].level)} intervals over points)"
    figure, every = panels(4, (4.2, 2.6), columns=2, title=title, sharex=True)
    for axes, (label, names) in zip(every, contents, strict=True):
        for score, (color, dash, marker) in zip(names, _STYLES, strict=False):
            value, low, high = with_gaps(
                axes,
                *([getattr(row, key) for row in scores[score]] for key in ("value", "low", "high")),
            )
            axes.fill_between(severities, low, high, color=color, alpha=0.18, lw=0)
            text = measure_of(score).label
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
    save_png(figure, path)


def _confidence(scores: Mapping[str, Sequence[Score]]) -> list[Score]:
    """Return the mean confidence, which is the accuracy plus the overconfidence."""
    return [
        Score(value=float(np.sum(finite([own.value, gap.value]))))
        for own, gap in zip(scores["accuracy"], scores["overconfidence"], strict=True)
    ]
