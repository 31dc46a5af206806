"""Draw posteriors, their convergence and their barriers: one call for each plot.

Each function draws into `ax`, or into a new figure of `matplotlib.pyplot`, and returns the axes.
The pages and figures of the commands use the same drawings.
"""

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes

from bnn_symm.analyses.convergence.report import describe_convergence
from bnn_symm.analyses.mixing import describe_mixing
from bnn_symm.arguments import checked
from bnn_symm.data import Dataset, Split
from bnn_symm.diagnostics import Barrier
from bnn_symm.diagnostics import reliability as reliability_diagram
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import Posterior
from bnn_symm.report.plots.comparisons.barriers import draw_barrier_curves
from bnn_symm.report.plots.convergence import draw_convergence
from bnn_symm.report.plots.predictions.regression_bands import draw_regression_bands
from bnn_symm.report.plots.predictions.reliability import draw_reliability
from bnn_symm.report.plots.rhat import draw_rhat_views
from bnn_symm.runs import Run

__all__ = ["barrier", "convergence", "predictions", "reliability", "rhat"]


@checked
def convergence(
    runs: Run | Sequence[Run],
    *,
    target: str | None = None,
    clock: Literal["gradient_evaluations", "seconds"] = "gradient_evaluations",
    ax: Axes | None = None,
) -> Axes:
    """Draw the convergence of runs, with a band over the seeds of each kind.

    Runs that differ only in their seeds are one kind. The marker is the median time to the target.

    Args:
        runs: one run or more.
        target: as of `bnn-symm diagnose --target`; default: 95 % of the distance to the plateau.
        clock: the horizontal axis.
        ax: the axes to draw into; None for a new figure.

    Returns:
        The axes.

    Raises:
        ConfigError: if no run has a history with this clock.

    Example:
        >>> from bnn_symm import load_run, plots
        >>> paths = ["runs/standard-0", "runs/asymmetric-0"]
        >>> plots.convergence([load_run(path) for path in paths])  # doctest: +SKIP
    """
    content = describe_convergence([runs] if isinstance(runs, Run) else runs, target=target)
    if not any(clock in (group["bands"] or {}) for group in content["groups"]):
        raise ConfigError(f"no run has a history with the clock {clock}, so nothing can be drawn")
    axes = _axes(ax)
    draw_convergence({clock: axes}, content)
    axes.set(xscale="log", xlabel=clock.replace("_", " "))
    axes.legend(fontsize=8, frameon=False)
    return axes


@checked
def barrier(naive: Barrier, aligned: Barrier | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw the marginal test NLL along the path between two posteriors.

    Args:
        naive: the barrier without alignment.
        aligned: the barrier after alignment.
        ax: the axes to draw into; None for a new figure.

    Returns:
        The axes.

    Example:
        >>> from bnn_symm import barrier, plots
        >>> plots.barrier(barrier(first, second, data))  # doctest: +SKIP
    """
    axes = _axes(ax)
    curves = {"naive": naive, "aligned": aligned}
    draw_barrier_curves(axes, {name: own.test for name, own in curves.items() if own})
    return axes


@checked
def rhat(
    posterior: Posterior, dataset: Dataset, *, per_draw: bool = True, ax: Axes | None = None
) -> Axes:
    """Draw R-hat of every layer in every view: raw, aligned, chain by chain, and functions.

    Args:
        posterior: draws of several chains.
        dataset: its held-out points are where functions are compared.
        per_draw: whether draws are also aligned one by one, which takes longer.
        ax: the axes to draw into; None for a new figure.

    Returns:
        The axes.

    Raises:
        ConfigError: if the posterior has no chains.

    Example:
        >>> from bnn_symm import NUTS, plots
        >>> plots.rhat(NUTS().fit(model, data, seed=0), data)  # doctest: +SKIP
    """
    content, _ = describe_mixing(posterior, dataset, per_draw=per_draw)
    if "by_layer" not in (content.get("raw") or {}):
        raise ConfigError(f"R-hat needs chains: {content.get('reason', 'there are none')}")
    axes = _axes(ax)
    draw_rhat_views(axes, content)
    axes.legend(fontsize=7, frameon=False)
    return axes


@checked
def predictions(posterior: Posterior, dataset: Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the predictive mean of a regression on one input, with its two bands and the data.

    Args:
        posterior: of a regression.
        dataset: with a single input.
        ax: the axes to draw into; None for a new figure.

    Returns:
        The axes.

    Raises:
        ConfigError: if the data have more than one input, or classes.

    Example:
        >>> from bnn_symm import load_dataset, plots
        >>> plots.predictions(posterior, load_dataset("gap"))  # doctest: +SKIP
    """
    if dataset.input_shape != (1,) or dataset.task in ("classification", "survival"):
        raise ConfigError(
            f"predictions are drawn for a regression on one input; {dataset.name} is a "
            f"{dataset.task} with inputs of shape {tuple(dataset.input_shape)}"
        )
    axes = _axes(ax)
    draw_regression_bands(axes, posterior, dataset)
    return axes


@checked
def reliability(posterior: Posterior, part: Split, *, ax: Axes | None = None) -> Axes:
    """Draw observed against predicted frequencies, with the band of a calibrated model.

    Args:
        posterior: the posterior.
        part: the points, such as `dataset.test`.
        ax: the axes to draw into; None for a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: if the split has no points.

    Example:
        >>> from bnn_symm import load_run, plots
        >>> run = load_run("runs/digits")  # doctest: +SKIP
        >>> plots.reliability(run.posterior, run.dataset().test)  # doctest: +SKIP
    """
    content = reliability_diagram(posterior, part).to_dict()
    axes = _axes(ax)
    draw_reliability(axes, content)
    axes.legend(fontsize=8, frameon=False)
    return axes


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    axes: Axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")[1]
    axes.spines[["top", "right"]].set_visible(False)
    return axes
