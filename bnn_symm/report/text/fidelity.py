"""Format and draw the results of `bnn-symm fidelity`."""

from pathlib import Path
from typing import Any

from bnn_symm.diagnostics.measures import measure_of
from bnn_symm.formatting import count, number, percent
from bnn_symm.report.plots.comparisons.fidelity import plot_fidelity
from bnn_symm.report.text.tables import table

_FLOOR = "reference, half against half"


def fidelity_text(content: dict[str, Any]) -> str:
    """Return the table of all methods, nearest first, and what the reference is.

    Args:
        content: of `fidelity.json`.

    Returns:
        The text.
    """
    methods, floor = content["methods"], content["floor"]
    measures = list(methods[0]["values"])
    header = ["method", "seeds", *(measure_of(name).title for name in measures)]
    rows = [_row(own["label"], len(own["each"]), own["values"]) for own in methods]
    if floor is not None:
        rows.append(_row(_FLOOR, "", floor))
    kind = "class probabilities" if content["kind"] == "classes" else "predicted targets"
    lines = [
        _reference_text(content["reference"]),
        f"distances of {kind} at {count(content['points'], 'test point')}; in parentheses "
        f"{percent(content['level'])} intervals over points",
        table(header, rows),
    ]
    several = [own for own in methods if any(_has_interval(own["over_seeds"], m) for m in measures)]
    if several:
        rows = [
            [
                own["label"],
                len(own["each"]),
                *(own["over_seeds"].get(name) for name in measures),
            ]
            for own in several
        ]
        lines += ["", "the same with 95 % intervals over seeds", table(header, rows)]
    if content["kind"] == "classes":
        lines.append("W1 is between the draws of class probabilities")
    else:
        lines.append("W1 is between predictive distributions, in the units of the target")
    return "\n".join(lines)


def _row(label: str, seeds: int | str, values: dict[str, Any]) -> list[Any]:
    return [label, seeds, *(own if own["value"] is not None else None for own in values.values())]


def _has_interval(over_seeds: dict[str, Any], name: str) -> bool:
    return name in over_seeds and over_seeds[name]["low"] is not None


def _reference_text(reference: dict[str, Any]) -> str:
    if reference["run"] is None:
        return f"reference: {reference['probabilities']}"
    text = (
        f"reference: {reference['run']} ({reference['method']}, "
        f"{count(reference['chains'], 'chain')} of {count(reference['draws'], 'draw')})"
    )
    function = reference["function"]
    if function is None or function["rhat_max"] is None:
        return text
    return (
        f"{text}; functions at {count(function['points'], 'point')}: R-hat at most "
        f"{number(function['rhat_max'], 4)}, bulk ESS at least {number(function['ess_bulk_min'])}, "
        f"tail ESS at least {number(function['ess_tail_min'])}"
    )


def draw_fidelity(content: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the figure of a comparison.

    Args:
        content: of `fidelity.json`.
        folder: of the figures.

    Returns:
        The paths of the figures.
    """
    folder.mkdir()
    path = folder / "fidelity.png"
    plot_fidelity(content, path)
    return [path]
