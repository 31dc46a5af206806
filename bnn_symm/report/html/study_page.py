"""Build the page of a study: conclusions first, then their evidence, then how to repeat it."""

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.report.html.page import Block, Cell, Code, Page, Section, Table, Text, facts
from bnn_symm.report.html.study_data import StudyData
from bnn_symm.report.html.study_overview import overview
from bnn_symm.report.html.study_sections import SECTIONS, calibration, cost, scores
from bnn_symm.report.html.study_settings import (
    ContextView,
    context_views,
    side_by_side,
    verdict_cell,
)
from bnn_symm.runs.configuration.factories import PLACEHOLDER, study_commands
from bnn_symm.studies.results.narrative import CAUSES

# Sections of a context that are replaced by joint ones where all settings are shown side by side.
_SIDE_BY_SIDE = ("Conclusions", "Scores", "Calibration")


def study_page(data: StudyData) -> Page:
    """Build the page of a study, without empty sections.

    Args:
        data: of the study.

    Returns:
        The page.
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
        + ("symmetric and asymmetric networks" if joined is None else "settings side by side"),
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
    warnings, summary = [], data.summary
    if summary.get("status") != "complete":
        resume = study_commands(data.path, [PLACEHOLDER] * len(data.modules))["resume"]
        status = summary.get("status", "incomplete")
        warnings.append(f"This study is {status}; resume it with: {resume}")
    failed = len(summary.get("failures") or [])
    if failed:
        warnings.append(
            f"{failed} of its fits or pairs failed; they are listed below and excluded from all "
            "numbers."
        )
    return warnings


def _parts(data: StudyData, view: ContextView, without: Sequence[str] = ()) -> list[Section]:
    """Return the sections of a context, except those with the titles in `without`."""
    sections = {"Conclusions": _conclusions(data.summary, view)}
    sections |= {title: section(data, view) for title, section in SECTIONS.items()}
    end = f"-{view.number + 1}"
    return [
        Section(title=title, name=title.lower().replace(" ", "-") + end, blocks=blocks)
        for title, blocks in sections.items()
        if blocks and title not in without
    ]


def _conclusions(summary: Mapping[str, Any], view: ContextView) -> list[Block]:
    conclusions = [
        conclusion for conclusion in summary["conclusions"] if conclusion["context"] == view.number
    ]
    if not conclusions:
        return [
            Text(
                text="There are no conclusions: they require an asymmetric setting and the "
                "standard network."
            )
        ]
    # The setting is named only if there are several.
    several = (
        len(
            {
                conclusion["setting"]
                for conclusion in conclusions
                if conclusion["question"] != "aligned"
            }
        )
        > 1
    )
    rows = []
    for conclusion in conclusions:
        name = (
            view.names[conclusion["setting"]]
            if several and conclusion["question"] != "aligned"
            else ""
        )
        cause = CAUSES.get(conclusion["because_of_symmetry"], conclusion["because_of_symmetry"])
        strength = "-" if conclusion["strength"] == "none" else conclusion["strength"]
        verdict, sentence = verdict_cell(conclusion["answer"]), conclusion["sentence"]
        rows.append(
            [Cell(text=conclusion["title"], small=name), verdict, strength, cause, sentence]
        )
    return [
        Table(
            caption="Conclusions of this study",
            header=["hypothesis", "verdict", "evidence", "explained by the symmetry", "details"],
            rows=rows,
            words=(0, 1, 2, 3, 4),
            stacked=True,
            notes=[
                "Evidence is strong, moderate or weak for a p-value below 0.01, 0.05 or 0.1, "
                "adjusted for the comparisons of a measure; also weak for a p-value below 0.05 "
                "before the adjustment. The symmetry explains an effect only if every control that "
                "keeps the symmetry differs significantly from the asymmetric network and shows "
                "less than half of the effect."
            ],
        )
    ]


def _ending(data: StudyData) -> list[Section]:
    """Return failures, settings, provenance and commands of the whole study."""
    summary = data.summary
    sections = []
    failures: Sequence[Mapping[str, Any]] = summary.get("failures") or []
    if failures:
        rows = [[one["what"], one["key"], one["error"]] for one in failures]
        table = Table(
            caption="Failed fits and pairs",
            header=["task", "key", "error"],
            rows=rows,
            words=(0, 1, 2),
            stacked=True,
        )
        sections.append(Section(title="Failures", blocks=[table]))
    config = summary.get("config")
    if config:
        code = Code(what="study.yaml with all settings", text=config)
        sections.append(Section(title="Settings", blocks=[code]))
    provenance = summary.get("provenance")
    if provenance:
        table = facts("Provenance of the numbers", provenance)
        sections.append(Section(title="Provenance", blocks=[table]))
    commands = study_commands(data.path, [PLACEHOLDER] * len(data.modules))
    purposes = {
        "repeat": "to repeat the study",
        "resume": "to resume the study",
        "report": "to write this page",
    }
    blocks = [Code(what=purposes[name], text=text) for name, text in commands.items()]
    return [*sections, Section(title="Commands", blocks=blocks)]
