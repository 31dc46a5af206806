"""Plot convergence curves over work and time, with bands over seeds and times to the target.

If the target is a fraction of the distance to the plateau, the remaining fraction is plotted on a
logarithmic scale, on which exponential convergence and its noise floor are visible. Otherwise the
quantity itself is plotted.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_symm.diagnostics.convergence.convergence import QUANTITIES
from bnn_symm.diagnostics.measures import measure_of
from bnn_symm.formatting import count
from bnn_symm.report.plots.axes import finite, legend_below, panels, set_limits, with_gaps
from bnn_symm.report.plots.figures.png import save_png
from bnn_symm.report.plots.studies.styles import Style, styles_of
from bnn_symm.report.text.convergence import target_text

_CLOCKS = ("gradient_evaluations", "seconds")
# Smallest plotted fraction of the distance to the plateau.
_FLOOR = 1e-3
# Maximum number of plotted kinds of runs; the text has all of them.
_MOST = 6
_STYLES = styles_of([("standard", ""), *((str(number), "") for number in range(1, _MOST))])
# Characters of the legend that fit into one line.
_LEGEND = 130


def plot_convergence(content: dict[str, Any], path: Path) -> bool:
    """Plot the curves of the first six kinds of runs.

    Args:
        content: of `analyses.convergence.report.describe_convergence`.
        path: of the PNG.

    Returns:
        Whether a figure was written, which requires a history.
    """
    shown = [group for group in content["groups"] if group["bands"]][:_MOST]
    figure = convergence_figure({**content, "groups": shown})
    if figure is None:
        return False
    save_png(figure, path)
    return True


def convergence_figure(
    content: dict[str, Any], styles: Sequence[Style] = _STYLES, *, columns: int = 0
) -> Figure | None:
    """Plot the curves of all groups, with one panel for gradient evaluations and one for seconds.

    Args:
        content: of `analyses.convergence.report.describe_convergence`.
        styles: of the groups, at least as many.
        columns: maximum number of panels in a row; 0 for a single row.

    Returns:
        The figure; None without a history.
    """
    groups = [group for group in content["groups"] if group["bands"]]
    clocks = [
        clock for clock in _CLOCKS if groups and all(clock in group["bands"] for group in groups)
    ]
    if not clocks:
        return None
    title = f"target: {target_text(content)}"
    cell, extra = ((4.4, 4.0), (1.2, 0.0)) if columns != 1 else ((4.6, 3.4), (0.0, 0.4))
    figure, every = panels(len(clocks), cell, extra, columns=columns, title=title, sharey=True)
    draw_convergence(dict(zip(clocks, every, strict=True)), content, styles)
    legend_below(figure, width=_LEGEND if columns != 1 else _LEGEND // 2)
    return figure


def draw_convergence(
    every: Mapping[str, Axes], content: Mapping[str, Any], styles: Sequence[Style] = _STYLES
) -> None:
    """Draw the curves of all groups that have a history.

    Args:
        every: one panel for each clock, the quantity along the first one's vertical axis.
        content: of `analyses.convergence.report.describe_convergence`.
        styles: of the groups, at least as many.
    """
    drawn = [
        (group, style)
        for group, style in zip(content["groups"], styles, strict=False)
        if group["bands"]
    ]
    groups = [group for group, _ in drawn]
    first = next(iter(every.values()))
    shares = all(
        group["target"]["kind"] == "fraction" and group["target"]["value"] is not None
        for group in groups
    )
    medians: list[np.ndarray] = []
    for clock, axes in every.items():
        medians += [_draw(axes, group, clock, style, shares) for group, style in drawn]
        _target(axes, groups, shares)
        axes.set_xscale("log")
        axes.set_xlabel(measure_of(clock).title)
    quantity = QUANTITIES[content["quantity"]]
    first.set_ylabel(
        f"{quantity.label}: remaining fraction of the distance" if shares else quantity.title
    )
    if shares:
        first.set_yscale("log")
        first.set_ylim(_FLOOR, 1.6 * np.nanmax([1.0, *np.concatenate(medians)]))
    else:
        # Without the first tenth of the medians: a steep start would flatten the rest.
        seen = [median[len(median) // 10 :] for median in medians]
        set_limits(first, "y", *seen, *map(_ends, groups), below=0.08, above=0.08)


def _draw(axes: Axes, group: dict[str, Any], clock: str, style: Style, shares: bool) -> np.ndarray:
    """Draw the band and the median time of a kind of runs, and return the plotted median."""
    band, aim = group["bands"][clock], group["target"]
    curves = with_gaps(axes, *(band[key] for key in ("median", "low", "high")))
    if shares:
        curves = [np.maximum(_shares(values, aim), _FLOOR / 2) for values in curves]
    median, low, high = curves
    runs = count(len(group["runs"]), "run")
    axes.fill_between(band["times"], low, high, color=style.color, alpha=0.18, lw=0)
    label = (
        _shortened(f"{group['label']} ({runs})")
        if len(group["runs"]) > 1 or group["differences"]
        else "the run, smoothed"
    )
    axes.plot(band["times"], median, color=style.color, ls=style.dash, lw=1.7, label=label)
    speed = group["speed"].get(clock)
    if speed is None or speed["median"]["value"] is None or aim["kind"] == "band":
        return median
    # The median time, with its interval, at the height of the target.
    height = _share(aim) if shares else aim["value"]
    time = speed["median"]
    ends = [time["value"] if time[end] is None else time[end] for end in ("low", "high")]
    axes.plot(finite(ends), [height, height], color=style.color, lw=3.0, solid_capstyle="butt")
    axes.plot(
        [time["value"]], [height], style.marker, color=style.color, mec="white", ms=8, zorder=5
    )
    return median


def _shares(values: Any, aim: dict[str, Any]) -> Any:
    """Return the remaining fraction: 1 at the start of the runs, 0 on the best plateau."""
    return (np.asarray(values) - aim["level"]) / (aim["start"] - aim["level"])


def _share(aim: dict[str, Any]) -> float:
    return float(_shares(aim["value"], aim))


def _shortened(label: str) -> str:
    return label if len(label) <= _LEGEND else label[: _LEGEND - 3] + "..."


def _target(axes: Axes, groups: Sequence[dict[str, Any]], shares: bool) -> None:
    """Draw the target, and the plateau or the stationary band."""
    label = "target; the marker is the median time to it"
    if shares:
        axes.axhline(
            _share(groups[0]["target"]), color="0.4", lw=0.9, ls=(0, (4, 3)), zorder=0, label=label
        )
        return
    named: set[str] = set()

    def once(text: str) -> str:
        """Return a label, with an underscore after the first time, which hides it in legends."""
        is_new = text not in named
        named.add(text)
        return text if is_new else f"_{text}"

    for aim in {str(group["target"]): group["target"] for group in groups}.values():
        if aim["kind"] == "band":
            low, high = aim["level"] - aim["half_width"], aim["level"] + aim["half_width"]
            label_of_band = once("stationary band")
            axes.axhspan(
                low, high, fc="none", ec="0.75", hatch="///", lw=0, zorder=0, label=label_of_band
            )
        elif aim["value"] is not None:
            axes.axhline(
                aim["value"], color="0.4", lw=0.9, ls=(0, (4, 3)), zorder=0, label=once(label)
            )
            if aim["level"] is not None:
                axes.axhline(
                    aim["level"], color="0.7", lw=0.9, ls=":", zorder=0, label=once("best plateau")
                )


def _ends(group: dict[str, Any]) -> list[float]:
    """Return the ends of the target, without which there are none."""
    aim = group["target"]
    half = aim["half_width"] or 0.0
    return [] if aim["value"] is None else [aim["value"] - half, aim["value"] + half]
