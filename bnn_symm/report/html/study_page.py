"""Build the page of a study: conclusions first, then their evidence, then how to repeat it."""

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.formatting import listed
from bnn_symm.report.html.page import Block, Code, Page, Picture, Section, Text, facts
from bnn_symm.report.html.study_data import StudyData
from bnn_symm.report.html.study_effects import (
    effect_cell,
    explaining_controls,
    gains_picture,
    lead_sentences,
)
from bnn_symm.report.html.study_overview import effects_picture, overview
from bnn_symm.report.html.study_sections import SECTIONS, measure_blocks
from bnn_symm.report.html.study_settings import (
    ContextView,
    context_views,
    replicates_text,
    side_by_side,
    verdict_cell,
)
from bnn_symm.report.tables import Cell, Table
from bnn_symm.runs.configuration.factories import PLACEHOLDER, study_commands
from bnn_symm.studies.results.narrative import Cause

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
    picture: Picture | None = None
    if joined is not None:
        blocks = [
            block
            for title in ("Scores", "Calibration", "Cost")
            for block in measure_blocks(data, joined, title, is_drawn=title != "Cost")
        ]
        picture = next((block for block in blocks if isinstance(block, Picture)), None)
        blocks = [block for block in blocks if block is not picture]
        middle.append(Section(title="Side by side", blocks=blocks))
    elif several:
        picture = effects_picture(data.summary, views)
        middle.append(overview(data, views))
    else:
        picture = gains_picture(data, views[0]) if views else None
    for view in views:
        parts = _parts(data, views, view, without=() if joined is None else _SIDE_BY_SIDE)
        middle += (
            [Section(title=view.title, name=f"context-{view.number + 1}", parts=parts)]
            if several
            else parts
        )
    return Page(
        title=f"{data.summary.get('name') or data.path.name}: "
        + ("symmetric and asymmetric networks" if joined is None else "settings side by side"),
        about=_about(data.summary, several),
        headline=lead_sentences(data, views),
        picture=picture,
        warnings=_warnings(data),
        sections=[*middle, *_ending(data)],
    )


def _about(summary: Mapping[str, Any], several: bool) -> str:
    counts, dataset = summary["counts"], (summary.get("provenance") or {}).get("dataset") or {}
    parts = [f"data: {dataset['name']}"] if dataset.get("name") else []
    parts.append(f"{len(summary['settings'])} settings")
    if several:
        parts.append(f"in {len(summary['contexts'])} contexts")
    parts += filter(None, [replicates_text(summary["settings"])])
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


def _parts(
    data: StudyData, views: Sequence[ContextView], view: ContextView, without: Sequence[str] = ()
) -> list[Section]:
    """Return the sections of a context, except those with the titles in `without`."""
    sections = {"Conclusions": _conclusions(data.summary, views, view.number)}
    sections |= {title: section(data, view) for title, section in SECTIONS.items()}
    end = f"-{view.number + 1}"
    return [
        Section(title=title, name=title.lower().replace(" ", "-") + end, blocks=blocks)
        for title, blocks in sections.items()
        if blocks and title not in without
    ]


def _conclusions(
    summary: Mapping[str, Any], views: Sequence[ContextView], number: int
) -> list[Block]:
    view = views[number]
    conclusions = [one for one in summary["conclusions"] if one["context"] == number]
    if not conclusions:
        return [
            Text(
                text="There are no conclusions: they require an asymmetric setting and the "
                "standard network."
            )
        ]
    # The setting is named only if there are several.
    settings = {one["setting"] for one in conclusions if one["question"] != "aligned"}
    columns = {
        "hypothesis": [
            Cell(
                text=one["title"],
                small=view.names[one["setting"]]
                if len(settings) > 1 and one["question"] != "aligned"
                else "",
            )
            for one in conclusions
        ],
        "verdict": [verdict_cell(one["answer"], _strength(one)) for one in conclusions],
        "effect (95 % interval)": [effect_cell(summary, view, one) for one in conclusions],
        "explained by the symmetry": [_cause(one, views) for one in conclusions],
        "details": [one["sentence"] for one in conclusions],
    }
    note = (
        "Evidence is strong, moderate or weak for a p-value below 0.01, 0.05 or 0.1, adjusted for "
        "the comparisons of a measure; also weak for a p-value below 0.05 before the adjustment. "
        "The symmetry explains an effect only if every control that keeps the symmetry differs "
        "significantly from the asymmetric network and shows less than half of the effect."
    )
    return [Table(caption="Conclusions of this study", columns=columns, stacked=True, notes=[note])]


def _strength(conclusion: Mapping[str, Any]) -> str:
    return "" if conclusion["strength"] == "none" else f"{conclusion['strength']} evidence"


def _cause(conclusion: Mapping[str, Any], views: Sequence[ContextView]) -> Cell:
    """Return whether the symmetry explains an effect, and the control that shows it as well."""
    cause = conclusion["because_of_symmetry"]
    names = explaining_controls([conclusion], views)
    small = f"shown by {listed(names)}" if names else ""
    return Cell(text="-" if cause == Cause.NOT_ASSESSED else cause, small=small)


def _ending(data: StudyData) -> list[Section]:
    """Return failures, settings, provenance and commands of the whole study."""
    summary = data.summary
    sections = []
    failures: Sequence[Mapping[str, Any]] = summary.get("failures") or []
    if failures:
        keys = {"task": "what", "key": "key", "error": "error"}
        columns = {name: [one[key] for one in failures] for name, key in keys.items()}
        table = Table(caption="Failed fits and pairs", columns=columns, stacked=True)
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
