"""The overview of a study with several contexts: all answers in one table, and effects against what
varies.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.report.html.page import Block, Cell, Picture, Section, Table, said
from bnn_symm.report.html.study_data import StudyData
from bnn_symm.report.html.study_measures import MEASURES
from bnn_symm.report.html.study_settings import ContextView
from bnn_symm.report.plots.studies.effects import effects_figure
from bnn_symm.report.text.intervals import interval_text

# Of each question, shortened.
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
_MARKS = {"yes": "yes", "no": "no", "the other way": "other", "cannot be told": "open"}
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
    """What was found, context by context."""
    blocks: list[Block] = []
    answers = _answers(data.summary, views)
    if answers is not None:
        blocks.append(answers)
    drawn = _effects(data.summary, views)
    if drawn is not None:
        blocks.append(drawn)
    return Section(title="Overview", blocks=blocks)


def _answers(summary: Mapping[str, Any], views: Sequence[ContextView]) -> Table | None:
    found: dict[tuple[int, str], dict[str, Mapping[str, Any]]] = {}
    for one in summary["conclusions"]:
        if one["question"] != "aligned":
            name = views[one["context"]].names[one["setting"]]
            found.setdefault((one["context"], name), {})[one["question"]] = one
    # Of the standard network of the context, said beside its first asymmetric one.
    for one in summary["conclusions"]:
        if one["question"] == "aligned":
            place = next(
                (key for key in found if key[0] == one["context"]), (one["context"], "standard")
            )
            found.setdefault(place, {})["aligned"] = one
    asked = [question for question in _QUESTIONS if any(question in own for own in found.values())]
    if not asked:
        return None
    rows = []
    for (context, name), own in sorted(found.items(), key=lambda item: item[0][0]):
        cells = []
        for question in asked:
            one = own.get(question)
            cells.append("" if one is None else _answer(one))
        rows.append([Cell(text=views[context].title, small=name), *cells])
    return Table(
        caption="Every answer; how strong the evidence is, and whether it is because of the "
        "symmetry",
        header=["context", *(_QUESTIONS[question] for question in asked)],
        rows=rows,
        words=tuple(range(len(asked) + 1)),
    )


def _answer(one: Mapping[str, Any]) -> Cell:
    parts = [] if one["strength"] == "none" else [str(one["strength"])]
    if one["because_of_symmetry"] != "not asked" and one["question"] != "aligned":
        parts.append(f"symmetry: {one['because_of_symmetry']}")
    return Cell(text=one["answer"], small="; ".join(parts), mark=_MARKS.get(one["answer"], ""))


def _effects(summary: Mapping[str, Any], views: Sequence[ContextView]) -> Picture | None:
    """Differences of asymmetric settings to the standard network of their context."""
    found: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    styles, labels = {}, {}
    for one in summary["comparisons"]:
        view = views[one["context"]]
        if view.settings[one["first"]]["role"] != "asymmetric" or one["second"] != view.baseline:
            continue
        name = view.names[one["first"]]
        found[one["measure"], name, view.number] = one.get("difference") or {}
        styles[name], labels[name] = view.styles[one["first"]], name
    places = [_place(view) for view in views]
    panels, rows, told = [], [], []
    for measure in _EFFECTS:
        lines = []
        for name in labels:
            points = [found.get((measure, name, view.number)) for view in views]
            if not any(point and point.get("mean") is not None for point in points):
                continue
            lines.append({"label": name, "style": styles[name], "points": points})
            texts = [interval_text(point) for point in points]
            rows.append([name, _title(measure), *texts])
            told.append(f"{name}, {_title(measure)}: " + ", ".join(map(_pair, places, texts)))
        if lines:
            panels.append({"title": _title(measure), "lines": lines})
    if not panels:
        return None
    keys = list(
        dict.fromkeys(key for view in views for key in view.context.get("differences") or {})
    )
    return Picture(
        figure=effects_figure(panels, places, name=", ".join(keys)),
        alt=f"Differences to the standard network against {', '.join(keys) or 'contexts'}. "
        f"{'; '.join(told)}.",
        caption="What asymmetric networks have above the standard network of the same context: "
        "means with 95 % intervals over seeds. At the dotted line there is no difference.",
        numbers=Table(
            caption="Numbers of this figure",
            header=["setting", "measure", *places],
            rows=rows,
            words=(0, 1),
        ),
    )


def _pair(place: str, text: str) -> str:
    return f"{place} {text}"


def _title(measure: str) -> str:
    return (
        "log ratio of gradients to the target"
        if measure == "gradients_to_target"
        else MEASURES[measure]
    )


def _place(view: ContextView) -> str:
    """The values that tell a context from the others."""
    values = list((view.context.get("differences") or {}).values())
    return ", ".join(said(value) for value in values) if values else view.title
