"""The page of a study, from its plain data: the conclusion first, then what it rests on, then how
to repeat it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.report.html.page import Block, Cell, Code, Page, Section, Table, Text, facts
from bnn_symm.report.html.study_barriers import barriers
from bnn_symm.report.html.study_data import StudyData
from bnn_symm.report.html.study_overview import overview
from bnn_symm.report.html.study_sections import (
    calibration,
    comparisons,
    convergence,
    cost,
    parameters,
    rhat,
    scores,
    times,
)
from bnn_symm.report.html.study_settings import ContextView, context_views, side_by_side
from bnn_symm.runs.configuration.factories import PLACEHOLDER, study_commands

# Sections of a context that are told of all settings at once where these stand side by side.
_SIDE_BY_SIDE = ("Conclusions", "Scores", "Calibration")
_MARKS = {"yes": "yes", "no": "no", "the other way": "other", "cannot be told": "open"}


def study_page(data: StudyData) -> Page:
    """All sections; those that the study has nothing to say of are left out, with the reason where
    there is one.
    """
    views = context_views(data.summary)
    several = len(views) > 1
    joined = side_by_side(views)
    middle: list[Section] = []
    if joined is not None:
        blocks = [*scores(data, joined), *calibration(data, joined), *cost(data, joined)]
        middle.append(Section(title="Side by side", blocks=blocks))
    elif several:
        middle.append(overview(data, views))
    for view in views:
        parts = _parts(data, view, without=() if joined is None else _SIDE_BY_SIDE)
        middle += (
            [Section(title=view.title, name=f"context-{view.number + 1}", parts=parts)]
            if several
            else parts
        )
    return Page(
        title=f"{data.summary.get('name') or data.path.name}: "
        + ("symmetric against asymmetric" if joined is None else "settings side by side"),
        about=_about(data.summary, several),
        headline=data.summary["headline"],
        warnings=_warnings(data),
        sections=[*middle, *_ending(data)],
    )


def _about(summary: Mapping[str, Any], several: bool) -> str:
    counts, dataset = summary["counts"], (summary.get("provenance") or {}).get("dataset") or {}
    seeds = {len(setting["seeds"]) for setting in summary["settings"]}
    parts = [f"data: {dataset['name']}"] if dataset.get("name") else []
    parts.append(f"{len(summary['settings'])} settings")
    if several:
        parts.append(f"in {len(summary['contexts'])} contexts")
    if len(seeds) == 1:
        number = seeds.pop()
        parts.append(f"{number} seed{'s' * (number != 1)} each")
    parts.append(f"{counts['cells_complete']} of {counts['cells']} fits")
    if counts.get("pairs"):
        parts.append(f"{counts['pairs_complete']} of {counts['pairs']} pairs")
    return ", ".join(parts)


def _warnings(data: StudyData) -> list[str]:
    found, summary = [], data.summary
    if summary.get("status") != "complete":
        resume = study_commands(data.path, [PLACEHOLDER] * len(data.modules))["resume"]
        found.append(f"This study is {summary.get('status', 'incomplete')}; go on with: {resume}")
    failed = len(summary.get("failures") or [])
    if failed:
        found.append(
            f"{failed} of its fits or pairs failed; they are listed below and are in no number."
        )
    return found


def _parts(data: StudyData, view: ContextView, without: Sequence[str] = ()) -> list[Section]:
    """Of one context, in the order in which a reader asks; `without` the sections of these
    titles.
    """
    sections = {
        "Conclusions": _conclusions(data.summary, view),
        "Convergence": convergence(view),
        "Time to the target": times(data.summary, view),
        "Scores": scores(data, view),
        "Barriers": barriers(data, view),
        "Calibration": calibration(data, view),
        "R-hat": rhat(view),
        "Parameters and symmetries": parameters(view),
        "All comparisons": comparisons(data.summary, view),
    }
    end = f"-{view.number + 1}"
    return [
        Section(title=title, name=title.lower().replace(" ", "-") + end, blocks=blocks)
        for title, blocks in sections.items()
        if blocks and title not in without
    ]


def _conclusions(summary: Mapping[str, Any], view: ContextView) -> list[Block]:
    own = [one for one in summary["conclusions"] if one["context"] == view.number]
    if not own:
        return [
            Text(
                text="There is nothing to conclude: it takes an asymmetric setting and the "
                "standard network."
            )
        ]
    # Whose effect it is need not be said where there is one candidate.
    several = len({one["setting"] for one in own if one["question"] != "aligned"}) > 1
    rows = []
    for one in own:
        name = view.names[one["setting"]] if several and one["question"] != "aligned" else ""
        cause = "-" if one["because_of_symmetry"] == "not asked" else one["because_of_symmetry"]
        strength = "-" if one["strength"] == "none" else one["strength"]
        answer = Cell(text=one["answer"], mark=_MARKS.get(one["answer"], ""))
        rows.append([Cell(text=one["title"], small=name), answer, strength, cause, one["sentence"]])
    return [
        Table(
            caption="What this study says",
            header=["question", "answer", "evidence", "because of the symmetry", "in words"],
            rows=rows,
            words=(0, 1, 2, 3, 4),
            stacked=True,
            notes=[
                "Evidence is strong, moderate or weak for a p-value below 0.01, 0.05 or 0.1, "
                "adjusted for the comparisons of a measure; also weak for one below 0.05 before "
                "that. An effect is because of the symmetry only if every control that keeps the "
                "symmetry was told apart and has less than half of it."
            ],
        )
    ]


def _ending(data: StudyData) -> list[Section]:
    """Failures, settings, provenance and commands, of the whole study."""
    summary = data.summary
    found = []
    failures: Sequence[Mapping[str, Any]] = summary.get("failures") or []
    if failures:
        rows = [[one["what"], one["key"], one["error"]] for one in failures]
        table = Table(
            caption="What failed",
            header=["what", "key", "error"],
            rows=rows,
            words=(0, 1, 2),
            stacked=True,
        )
        found.append(Section(title="Failures", blocks=[table]))
    config = summary.get("config")
    if config:
        found.append(
            Section(
                title="Settings", blocks=[Code(what="study.yaml, every setting of it", text=config)]
            )
        )
    provenance = summary.get("provenance")
    if provenance:
        found.append(
            Section(title="Provenance", blocks=[facts("Where the numbers come from", provenance)])
        )
    commands = study_commands(data.path, [PLACEHOLDER] * len(data.modules))
    words = {
        "repeat": "to repeat the study",
        "resume": "to go on with what is missing",
        "report": "to write this page",
    }
    blocks = [Code(what=words[name], text=text) for name, text in commands.items()]
    return [*found, Section(title="Commands", blocks=blocks)]
