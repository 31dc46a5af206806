"""Format a study: the headline, a table of settings for each context, and the conclusions."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.formatting import number, plus_minus
from bnn_symm.report.html.study_settings import ContextView, context_views, side_by_side
from bnn_symm.report.text.tables import table
from bnn_symm.studies.results.narrative import VERDICTS

_WIDTH = 120
# Maximum number of characters of the name of a setting.
_NAME = 34
_SCORES = {
    "test_nll": "test NLL",
    "test_accuracy": "accuracy",
    "test_rmse": "RMSE",
    "test_ece": "ECE",
}
# Columns of a study that compares nothing but scores.
_SIDE_BY_SIDE = {**_SCORES, "test_coverage_90": "90 % coverage", "seconds": "seconds"}
_BARRIERS = {"naive": "naive barrier", "aligned": "aligned barrier"}
_BASE = ("parameters", "log10 modes")


def study_text(summary: Mapping[str, Any]) -> str:
    """Return the results of a study in lines of up to 120 characters.

    Args:
        summary: content of `summary.json`.

    Returns:
        The text.
    """
    blocks = [_wrapped(summary["headline"])]
    views = context_views(summary)
    joined = side_by_side(views)
    if joined is not None:
        blocks.append(_scores(joined))
        views = []
    for view in views:
        lines = [view.title] if len(views) > 1 else []
        lines += [_settings(view)]
        own = [one for one in summary["conclusions"] if one["context"] == view.number]
        blocks.append("\n".join([*lines, *_conclusions(own, view)]))
    if any("+-" in block for block in blocks):
        blocks.append("+-: half of a 95 % confidence interval over seeds")
    failures: Sequence[Mapping[str, Any]] = summary.get("failures") or []
    blocks += (
        ["\n".join(_wrapped(f"failed: {one['what']}: {one['error']}") for one in failures)]
        if failures
        else []
    )
    return "\n\n".join(blocks)


def _scores(view: ContextView) -> str:
    scores = [name for name in _SIDE_BY_SIDE if any(_known(setting, name) for setting in view.own)]
    texts = [[plus_minus(_known(setting, name)) for setting in view.own] for name in scores]
    columns = list(zip((_SIDE_BY_SIDE[name] for name in scores), texts, strict=True))
    return _table([_short(label) for label in view.labels], columns)


def _settings(view: ContextView) -> str:
    """Return one table, or two if one is too wide, the second with speed and barriers."""
    own = view.own
    scores = [name for name in _SCORES if any(_known(setting, name) for setting in own)]
    barriers = [name for name in _BARRIERS if any(_known(setting, name) for setting in own)]
    speeds = _speeds(view)
    columns: list[tuple[str, list[Any]]] = [
        (_BASE[0], [setting.get("num_parameters") for setting in own]),
        (_BASE[1], [setting.get("log10_order") for setting in own]),
    ]
    columns += [
        (_SCORES[name], [plus_minus(_known(setting, name)) for setting in own]) for name in scores
    ]
    split = len(columns)
    if any(speeds):
        columns.append(("gradients to target", [speed or "-" for speed in speeds]))
    columns += [
        (_BARRIERS[name], [plus_minus(_known(setting, name)) for setting in own])
        for name in barriers
    ]
    names = [_short(label) for label in view.labels]
    whole = _table(names, columns)
    if max(map(len, whole.splitlines())) <= _WIDTH or split == len(columns):
        return whole
    return "\n\n".join([_table(names, columns[:split]), _table(names, columns[split:])])


def _short(label: str) -> str:
    return label if len(label) <= _NAME else f"{label[: _NAME - 3]}..."


def _table(names: Sequence[str], columns: Sequence[tuple[str, Sequence[Any]]]) -> str:
    rows = [[name, *(values[i] for _, values in columns)] for i, name in enumerate(names)]
    return table(["setting", *(title for title, _ in columns)], rows)


def _known(setting: Mapping[str, Any], measure: str) -> Mapping[str, Any] | None:
    estimate = (setting.get("measures") or {}).get(measure)
    return estimate if estimate and estimate.get("mean") is not None else None


def _speeds(view: ContextView) -> list[str | None]:
    """Return the median gradient evaluations to the target, by setting."""
    groups = (view.context.get("convergence") or {}).get("groups", [])
    speeds = {group["setting"]: group["speed"].get("gradient_evaluations") for group in groups}
    return [_speed(speeds.get(setting)) for setting in view.numbers]


def _speed(speed: Mapping[str, Any] | None) -> str | None:
    if speed is None:
        return None
    value = speed["median"]["value"]
    return f"> {number(speed['tau'])}" if value is None else number(value)


def _conclusions(conclusions: Sequence[Mapping[str, Any]], view: ContextView) -> list[str]:
    """Return the conclusions, under the name of their setting if there are several."""
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
    lines: list[str] = []
    last = None
    for conclusion in conclusions:
        # The effect of alignment concerns the standard network only.
        setting = None if conclusion["question"] == "aligned" else conclusion["setting"]
        if not lines or (several and setting != last):
            lines += ["", f"{view.names[setting]}:"] if several and setting is not None else [""]
        last = setting
        lines.append(_conclusion(conclusion))
    return lines


def _conclusion(conclusion: Mapping[str, Any]) -> str:
    strength = "" if conclusion["strength"] == "none" else f" ({conclusion['strength']} evidence)"
    verdict = VERDICTS.get(conclusion["answer"], conclusion["answer"])
    return _wrapped(f"{conclusion['title']}: {verdict}{strength}. {conclusion['sentence']}")


def _wrapped(text: str) -> str:
    return "\n".join(
        textwrap.wrap(
            text, _WIDTH, subsequent_indent="  ", break_long_words=True, break_on_hyphens=False
        )
    )
