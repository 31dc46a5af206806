"""Build the overview of a study with several contexts: all verdicts and gains by context."""

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.diagnostics.measures import measure_of
from bnn_symm.report.html.page import Picture, Section, value_as_text
from bnn_symm.report.html.study_data import StudyData
from bnn_symm.report.html.study_effects import gain_of, unit_of
from bnn_symm.report.html.study_settings import ContextView, unit_of_replicates, verdict_cell
from bnn_symm.report.plots.studies.effects import effects_figure
from bnn_symm.report.plots.studies.styles import Style
from bnn_symm.report.tables import Cell, Table, by_rows
from bnn_symm.studies.results.narrative import HYPOTHESES, Cause

# Short titles of the hypotheses.
_QUESTIONS = {
    "speed": "faster",
    "elbo": "higher ELBO",
    "nll": "lower NLL",
    "calibration": "lower ECE",
    "accuracy": "more accurate",
    "connected": "lower naive barrier",
    "mixing": "better mixing",
    "aligned": "alignment lowers the standard barrier",
}
_EFFECTS = (
    "gradients_to_target",
    "elbo",
    "test_nll",
    "test_ece",
    "test_accuracy",
    "test_rmse",
    "naive",
)


def overview(data: StudyData, views: Sequence[ContextView]) -> Section:
    """Return the section with the verdicts of all contexts.

    Args:
        data: of the study.
        views: of the contexts.

    Returns:
        The section.
    """
    verdicts = _verdicts(data.summary, views)
    return Section(title="Overview", blocks=[] if verdicts is None else [verdicts])


def _verdicts(summary: Mapping[str, Any], views: Sequence[ContextView]) -> Table | None:
    by_row: dict[tuple[int, str], dict[str, Mapping[str, Any]]] = {}
    for one in summary["conclusions"]:
        if one["question"] != "aligned":
            name = views[one["context"]].names[one["setting"]]
            by_row.setdefault((one["context"], name), {})[one["question"]] = one
    # The effect of alignment on the standard network is shown with the first asymmetric setting.
    for one in summary["conclusions"]:
        if one["question"] == "aligned":
            row = next(
                (key for key in by_row if key[0] == one["context"]), (one["context"], "standard")
            )
            by_row.setdefault(row, {})["aligned"] = one
    questions = [key for key in _QUESTIONS if any(key in own for own in by_row.values())]
    if not questions:
        return None
    rows = sorted(by_row.items(), key=lambda item: item[0][0])
    columns: dict[str, list[Any]] = {
        "context": [Cell(text=views[context].title, small=name) for (context, name), _ in rows]
    }
    for key in questions:
        columns[_QUESTIONS[key]] = [
            _verdict_cell(own[key]) if key in own else "" for _, own in rows
        ]
    return Table(
        caption="All verdicts, with the strength of the evidence and whether the symmetry "
        "explains the effect",
        columns=columns,
    )


def _verdict_cell(conclusion: Mapping[str, Any]) -> Cell:
    parts = [] if conclusion["strength"] == "none" else [str(conclusion["strength"])]
    cause = conclusion["because_of_symmetry"]
    if cause != Cause.NOT_ASSESSED and conclusion["question"] != "aligned":
        parts.append(f"explained by the symmetry: {cause}")
    return verdict_cell(conclusion["answer"], "; ".join(parts))


def effects_picture(summary: Mapping[str, Any], views: Sequence[ContextView]) -> Picture | None:
    """Return the gains of asymmetric settings over the standard network of their context.

    Args:
        summary: of the study.
        views: of the contexts.

    Returns:
        The figure; None without comparisons.
    """
    differences: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    styles: dict[str, Style] = {}
    for one in summary["comparisons"]:
        view = views[one["context"]]
        if view.settings[one["first"]]["role"] != "asymmetric" or one["second"] != view.baseline:
            continue
        name = view.names[one["first"]]
        differences[one["measure"], name, view.number] = gain_of(one)
        styles[name] = view.styles[one["first"]]
    contexts = [_context_name(view) for view in views]
    panels, rows = [], []
    for own in map(measure_of, _EFFECTS):
        points = {
            name: [differences.get((own.key, name, view.number)) for view in views]
            for name in styles
        }
        points = {
            name: row
            for name, row in points.items()
            if any(point and point.get("mean") is not None for point in row)
        }
        title, unit = HYPOTHESES[own.key][0], unit_of(own.key)
        if points:
            lines = [
                {"label": name, "style": styles[name], "points": row}
                for name, row in points.items()
            ]
            panels.append({"title": title, "unit": f"better by, {unit}", "lines": lines})
            rows += [[name, f"{title}, {unit}", *row] for name, row in points.items()]
    if not panels:
        return None
    keys = dict.fromkeys(key for view in views for key in view.context.get("differences") or {})
    unit = unit_of_replicates(summary["settings"])
    return Picture(
        figure=effects_figure(panels, contexts, name=", ".join(keys)),
        narrow=effects_figure(panels, contexts, name=", ".join(keys), columns=1),
        caption="Gains of asymmetric networks over the standard network of the same context, "
        f"better upwards: means with 95 % confidence intervals over {unit}s. The dotted line is no "
        "difference.",
        numbers=Table(
            caption="Numbers of this figure",
            columns=by_rows(["setting", "measure", *contexts], rows),
        ),
    )


def _context_name(view: ContextView) -> str:
    """Return the values that distinguish a context from the others."""
    values = list((view.context.get("differences") or {}).values())
    return ", ".join(value_as_text(value) for value in values) if values else view.title
