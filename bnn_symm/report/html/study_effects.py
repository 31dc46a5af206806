"""Describe the effects of a study as gains: the sentences and the figure at the top of its page.

A gain over the standard network is positive where the setting is better, whichever direction of
the measure is. That of the time to the target is the share of gradients that is saved.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bnn_symm.diagnostics.measures import measure_of
from bnn_symm.formatting import count, listed, mean, mean_and_interval, sided_interval
from bnn_symm.report.html.page import Picture
from bnn_symm.report.html.study_data import StudyData
from bnn_symm.report.html.study_settings import (
    ContextView,
    estimate_of,
    replicates_text,
    side_by_side,
    unit_of_replicates,
)
from bnn_symm.report.plots.studies.gains import gains_figure
from bnn_symm.report.tables import Cell, Table, by_rows
from bnn_symm.studies.results.narrative import (
    HYPOTHESES,
    SPEED,
    Answer,
    Cause,
)

Row = Mapping[str, Any]
_ALIGNED = "aligned"
_MAIN_SCORES = ("test_nll", "test_accuracy", "test_rmse")
_MEASURES = {title: measure for measure, (title, _) in HYPOTHESES.items()}
# The figure has up to this many panels.
_MOST = 6


def gain_of(comparison: Row) -> dict[str, float | None]:
    """Return the gain of the first setting of a comparison over the second.

    Args:
        comparison: of the summary.

    Returns:
        `mean`, `low` and `high`, positive where the first is better.
    """
    ends = comparison.get("difference") or {}
    values = [ends.get(key) for key in ("mean", "low", "high")]
    if comparison["measure"] == SPEED:
        values = [None if own is None else 100 * math.expm1(own) for own in values]
    if measure_of(comparison["measure"]).better == "lower":
        first, low, high = (None if own is None else -own for own in values)
        values = [first, high, low]
    return dict(zip(("mean", "low", "high"), values, strict=True))


def unit_of(measure: str) -> str:
    """Return the unit of the gains of a measure.

    Args:
        measure: its key.

    Returns:
        The unit, or the label of a measure without one.
    """
    if measure == SPEED:
        return "% fewer gradients"
    own = measure_of(measure)
    return own.unit or own.label


def effect_cell(summary: Row, view: ContextView, conclusion: Row) -> Cell:
    """Return the gain that a conclusion is about, with its interval.

    Args:
        summary: of the study.
        view: the context.
        conclusion: of the summary.

    Returns:
        The cell, in words that say which side is better.
    """
    measure = _MEASURES.get(conclusion["title"])
    second = conclusion["setting"] if conclusion["question"] == _ALIGNED else view.baseline
    asked = (view.number, measure, conclusion["setting"], second)
    one = _by_key(summary["comparisons"]).get(asked)
    gain = {} if one is None else gain_of(one)
    value = gain.get("mean")
    if one is None or value is None:
        return Cell(text="-")
    unit = measure_of(one["measure"]).unit if one["measure"] != SPEED else unit_of(SPEED)
    size = {"mean": abs(value), "low": gain["low"], "high": gain["high"]}
    text = f"{'better' if value >= 0 else 'worse'} by {mean(size)} {unit}".strip()
    is_known = gain["low"] is not None and gain["high"] is not None
    return Cell(text=text, small=sided_interval(gain, higher=True) if is_known else "")


def lead_sentences(data: StudyData, views: Sequence[ContextView]) -> str:
    """Return up to three sentences: supported effects, other ones, and what explains them.

    Args:
        data: of the study.
        views: of its contexts.

    Returns:
        The sentences; the headline of the summary for a study without effects.
    """
    if side_by_side(views) is not None:
        return " ".join([str(data.summary["headline"]), *_best(views)])
    every = data.summary["conclusions"]
    effects = [one for one in every if one["question"] != _ALIGNED]
    if not effects or not any(own.get("measures") for own in data.summary["settings"]):
        return str(data.summary["headline"])
    by_answer = {answer: _named(effects, answer) for answer in Answer}
    supported = by_answer.pop(Answer.SUPPORTED)
    subject, verdict = _subject(data.summary, views, effects), Answer.SUPPORTED
    first = f"{subject}: no effect is {verdict}"
    if supported:
        first = f"{subject}: {verdict} {'are' if supported[1:] else 'is'} {listed(supported)}"
    aligned = [one for one in every if one["question"] == _ALIGNED]
    helps = sum(one["answer"] == Answer.SUPPORTED for one in aligned)
    if helps:
        where = f" in {helps} of {len(aligned)} contexts" if len(aligned) > 1 else ""
        first += f"; alignment lowers the barrier between standard networks{where}"
    sentences = [f"{first}."]
    others = [f"{answer}: {listed(own)}" for answer, own in by_answer.items() if own]
    if others:
        text = "; ".join(others)
        sentences.append(f"{text[0].upper()}{text[1:]}.")
    explained = _explanations(effects, views)
    if explained:
        sentences.append(explained)
    return " ".join(sentences)


def _best(views: Sequence[ContextView]) -> list[str]:
    """Return the setting with the best mean of the main scores, of settings side by side."""
    joined = side_by_side(views)
    assert joined is not None
    clauses = []
    for own in map(measure_of, _MAIN_SCORES):
        known = {
            label: estimate
            for setting, label in zip(joined.own, joined.labels, strict=True)
            if (estimate := estimate_of(setting, own)) is not None
        }
        if len({estimate["mean"] for estimate in known.values()}) > 1:
            choose = max if own.better == "higher" else min
            best = choose(known, key=lambda label: known[label]["mean"])
            direction = "highest" if own.better == "higher" else "lowest"
            value = mean_and_interval(known[best])
            clauses.append(f"the {direction} mean {own.label} has {best}, {value}")
    text = "; ".join(clauses)
    return [f"{text[0].upper()}{text[1:]}."] if text else []


def _subject(summary: Row, views: Sequence[ContextView], effects: Sequence[Row]) -> str:
    keys = list(dict.fromkeys((one["context"], one["setting"]) for one in effects))
    replicates = replicates_text(summary["settings"])
    of_seeds = f", {replicates}" if replicates else ""
    if len(keys) == 1:
        context, setting = keys[0]
        return f"{views[context].names[setting]} versus the standard network{of_seeds}"
    contexts = len({context for context, _ in keys})
    where = f" in {count(contexts, 'context')}" if contexts > 1 else ""
    return f"{len(keys)} asymmetric settings versus the standard network{where}{of_seeds}"


def _named(effects: Sequence[Row], answer: Answer) -> list[str]:
    """Return the effects with this answer by name, with their counts over several settings."""
    asked = Counter(one["title"] for one in effects)
    found = Counter(one["title"] for one in effects if one["answer"] == answer)
    names = []
    for title, size in found.items():
        name, many = _in_sentence(title, answer), asked[title]
        names.append(f"{name} ({size} of {many})" if many > 1 else name)
    return names


def _in_sentence(title: str, answer: str) -> str:
    """Return a hypothesis, or the opposite effect, in lower case and without its parentheses."""
    measure = _MEASURES.get(title)
    if measure is not None and answer == Answer.OPPOSITE:
        title = HYPOTHESES[measure][1]
    name = title.partition(" (")[0]
    return f"{name[0].lower()}{name[1:]}"


def _explanations(effects: Sequence[Row], views: Sequence[ContextView]) -> str:
    """Return which of the shown effects the symmetry explains, and which a control shows too."""
    shown = [one for one in effects if one["answer"] in (Answer.SUPPORTED, Answer.OPPOSITE)]
    clauses = []
    for causes, words in (
        ([Cause.YES], "the symmetry explains {effects}"),
        ([Cause.PARTLY], "the symmetry explains a part of {effects}"),
        ([Cause.NO], "it does not explain {effects}, which {controls} {show} as well"),
        ([Cause.INCONCLUSIVE], "whether it explains {effects} is inconclusive"),
    ):
        own = [one for one in shown if one["because_of_symmetry"] in causes]
        if not own:
            continue
        names = list(dict.fromkeys(explaining_controls(own, views)))
        text = words.format(
            effects=listed(_counted(own)),
            controls=listed(names) or "a control",
            show="show" if len(names) > 1 else "shows",
        )
        clauses.append(text if clauses else text.replace("it ", "the symmetry ", 1))
    text = "; ".join(clauses)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _counted(effects: Iterable[Row]) -> list[str]:
    found = Counter(_in_sentence(one["title"], one["answer"]) for one in effects)
    return [f"{name} ({size} times)" if size > 1 else name for name, size in found.items()]


def explaining_controls(conclusions: Iterable[Row], views: Sequence[ContextView]) -> list[str]:
    """Return the names of controls that keep the symmetry and show the effects.

    Args:
        conclusions: of the summary.
        views: of all contexts.

    Returns:
        The names.
    """
    return [
        views[one["context"]].names[setting]
        for one in conclusions
        for setting in one.get("explained_by") or []
        if setting in views[one["context"]].names
    ]


def gains_picture(data: StudyData, view: ContextView) -> Picture | None:
    """Return the gains of all settings over the standard network of a context.

    Args:
        data: of the study.
        view: the context.

    Returns:
        The figure; None without comparisons.
    """
    comparisons = _by_key(data.summary["comparisons"])
    own = [number for number in view.numbers if number != view.baseline]
    panels: list[dict[str, Any]] = []
    for one in data.summary["conclusions"]:
        measure = _MEASURES.get(one["title"])
        if one["context"] != view.number or one["question"] == _ALIGNED or measure is None:
            continue
        found = [comparisons.get((view.number, measure, number, view.baseline)) for number in own]
        gains = [gain_of(other) if other else {} for other in found]
        if any(panel["measure"] == measure for panel in panels) or not any(
            gain.get("mean") is not None for gain in gains
        ):
            continue
        panels.append(
            {
                "measure": measure,
                "title": one["title"],
                "verdict": one["answer"],
                "unit": unit_of(measure),
                "gains": gains,
            }
        )
    panels = panels[:_MOST]
    if not panels or view.baseline is None:
        return None
    labels, styles = [view.names[number] for number in own], [view.styles[number] for number in own]
    asymmetric = [number for number in own if view.settings[number]["role"] == "asymmetric"]
    if len(asymmetric) > 1:  # the verdicts differ between them, and are in the table
        panels = [{**panel, "verdict": ""} for panel in panels]
    rows = [[label, *(panel["gains"][i] for panel in panels)] for i, label in enumerate(labels)]
    header = ["setting", *(f"{panel['title']}, {panel['unit']}" for panel in panels)]
    unit = unit_of_replicates(view.settings)
    return Picture(
        figure=gains_figure(panels, labels, styles),
        narrow=gains_figure(panels, labels, styles, columns=1),
        caption="Gains over the standard network, better to the right, with 95 % confidence "
        f"intervals over {unit}s; the dotted line is no difference. An effect of the symmetry "
        "appears in the asymmetric network and not in the controls that keep the symmetry.",
        numbers=Table(caption="Numbers of this figure", columns=by_rows(header, rows)),
    )


def _by_key(comparisons: Iterable[Row]) -> dict[tuple[Any, ...], Row]:
    return {
        (one["context"], one["measure"], one["first"], one["second"]): one for one in comparisons
    }
