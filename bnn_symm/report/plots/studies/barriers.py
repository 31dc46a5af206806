"""Plot the mean barriers of the settings of a study over pairs of seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from bnn_symm.report.plots.axes import legend_below, panels, with_gaps
from bnn_symm.report.plots.studies.styles import Style

_TITLES = {"naive": "naive, unaligned", "aligned": "aligned over permutations"}


def barrier_curves_figure(
    curves: Mapping[str, Sequence[Mapping[str, Any] | None]],
    labels: Sequence[str],
    styles: Sequence[Style],
) -> Figure:
    """Plot the marginal test NLL above the chord along naive and aligned paths.

    Args:
        curves: `naive` and possibly `aligned`: for each setting `tau`, and `mean`, `low` and `high`
            over pairs; None for a setting without pairs.
        labels: of the settings.
        styles: of the settings.

    Returns:
        The figure.
    """
    figure, every = panels(len(curves), (4.0, 4.0), (1.2, 0.0), sharey=True)
    for axes, (way, rows) in zip(every, curves.items(), strict=True):
        for own, label, style in zip(rows, labels, styles, strict=True):
            if own is None:
                continue
            tau = own["tau"]
            mean, low, high = with_gaps(axes, own["mean"], own["low"], own["high"])
            axes.fill_between(tau, low, high, color=style.color, alpha=0.13, lw=0)
            axes.plot(tau, mean, color=style.color, ls=style.dash, lw=1.8, label=label)
            marks = {"color": style.color, "ms": 5, "mec": "white", "mew": 0.5}
            axes.plot(tau[::5], mean[::5], style.marker, **marks)
        axes.axhline(0, color="0.5", lw=0.8, zorder=0)
        axes.set_xlim(0, 1)
        axes.set_xlabel("tau, from one fit to another")
        axes.set_title(_TITLES[way], fontsize=10)
    every[0].set_ylabel("test NLL above the chord, nats per point")
    legend_below(figure)
    return figure
