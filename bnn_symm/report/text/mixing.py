"""Format and draw how chains mix."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn_symm.diagnostics.measures import VIEWS, measure_of
from bnn_symm.formatting import number, percent
from bnn_symm.report.plots.rhat import plot_rhat_views
from bnn_symm.report.plots.traces import plot_traces
from bnn_symm.report.tables import Table
from bnn_symm.report.text.tables import table


def mixing_text(mixing: Mapping[str, Any]) -> str:
    """Return a table of the views, a verdict for each, sampler statistics and advice.

    Args:
        mixing: of `describe_mixing`.

    Returns:
        The text.
    """
    lines = [f"mixing: {mixing['conclusion']}"]
    if mixing.get("next"):
        lines.append(f"next: {mixing['next']}")
    views = mixing_table(mixing)
    if views is not None:
        lines += ["", views.text(), ""]
    for name in VIEWS:
        view = mixing.get(name) or {}
        if "verdict" in view:
            lines.append(f"{VIEWS[name]}: {view['verdict']}")
        if name == "aligned_per_draw" and view.get("common") is not None:
            lines.append(
                f"{VIEWS[name]}: {percent(view['common'], 1)} in common; for draws of the prior, "
                f"aligned in the same way, {percent(view['null_common'], 1)} and an R-hat of up to "
                f"{number(view['null_rhat_max'], 4)}"
            )
    if mixing.get("part") == "train":
        lines.append("note: no points are held out: functions are compared at training points")
    lines += _modes(mixing)
    lines += _sampler(mixing)
    return "\n".join(lines)


def mixing_table(mixing: Mapping[str, Any]) -> Table | None:
    """Return a table of the views in which chains are compared.

    Args:
        mixing: of `describe_mixing`.

    Returns:
        The table; None without chains to compare.
    """
    views = {name: mixing[name] for name in VIEWS if (mixing.get(name) or {}).get("num_draws")}
    if not views:
        return None
    columns: dict[str, list[Any]] = {
        "view": [VIEWS[name] for name in views],
        "status": [own["status"] for own in views.values()],
    }
    for key in ("rhat_max", "rhat_median", "ess_bulk_min", "ess_tail_min"):
        columns[measure_of(key).title] = [own[key] for own in views.values()]
    columns["above"] = [percent(own["share_above"], 1) for own in views.values()]
    columns["draws"] = [own["num_chains"] * own["num_draws"] for own in views.values()]
    return Table(caption="Mixing by view", columns=columns)


def _modes(mixing: Mapping[str, Any]) -> list[str]:
    modes = mixing.get("modes") or {}
    counts = {name: modes_of["count"] for name, modes_of in modes.items() if modes_of is not None}
    if not counts or len(next(own for own in modes.values() if own)["labels"]) == 1:
        return []
    names = {"raw": "unaligned", "aligned": "modulo symmetry", "function": "as functions"}
    return [
        "modes of the chains: "
        + ", ".join(f"{count} {names[name]}" for name, count in counts.items())
    ]


def _sampler(mixing: Mapping[str, Any]) -> list[str]:
    sampler = mixing.get("sampler")
    if not sampler:
        return []
    columns = {
        "divergences": "diverged",
        "ebfmi": "E-BFMI",
        "acceptance_rate": "accepted",
        "tree_depth": "tree depth",
        "at_max_depth": "at max depth",
        "step_size": "step size",
        "n_steps": "steps per draw",
    }
    shown = [key for key in columns if sampler[key] is not None]
    if not shown:
        return []
    rows = [
        [str(chain), *own]
        for chain, own in enumerate(zip(*(sampler[key] for key in shown), strict=True))
    ]
    lines = ["", table(["chain", *(columns[key] for key in shown)], rows)]
    return [*lines, *(f"problem: {problem}" for problem in sampler["problems"])]


def draw_mixing(
    mixing: Mapping[str, Any], traces: Sequence[Mapping[str, Any]], folder: Path, *, title: str
) -> list[Path]:
    """Draw traces and R-hat, where they are defined.

    Args:
        mixing: of `describe_mixing`.
        traces: panels of `plot_traces`.
        folder: of the figures.
        title: of the figures.

    Returns:
        The paths of the figures.
    """
    paths = []
    if traces:
        paths.append(folder / "traces.png")
        plot_traces(traces, paths[-1], title=title)
    function = mixing.get("function")
    if function and function["rhat_max"] is not None:
        paths.append(folder / "rhat.png")
        plot_rhat_views(mixing, paths[-1], title=title)
    return paths
