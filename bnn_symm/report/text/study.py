"""Format a study: the headline, a table of settings for each context, and the conclusions."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.diagnostics.measures import Measure, measure_of
from bnn_symm.formatting import number, plus_minus, shortened, with_error
from bnn_symm.report.html.study_settings import (
    ContextView,
    context_views,
    estimate_of,
    present,
    side_by_side,
    unit_of_replicates,
)
from bnn_symm.report.tables import Table

_WIDTH = 120
# Maximum number of characters of the name of a setting.
_NAME = 34
_SCORES = ("test_nll", "test_accuracy", "test_rmse", "test_ece")
# Columns of a study that compares nothing but scores.
_SIDE_BY_SIDE = (*_SCORES, "test_coverage_90", "seconds")
_OVER_SEEDS = "+-: half of a 95 % confidence interval over seeds"
_OVER_FOLDS = "+-: standard error over folds; they share training points, so that it is optimistic"
_BARRIERS = ("naive", "aligned")


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
        is_seeds = unit_of_replicates(summary["settings"]) == "seed"
        blocks.append(_OVER_SEEDS if is_seeds else _OVER_FOLDS)
    failures: Sequence[Mapping[str, Any]] = summary.get("failures") or []
    blocks += (
        ["\n".join(_wrapped(f"failed: {one['what']}: {one['error']}") for one in failures)]
        if failures
        else []
    )
    return "\n\n".join(blocks)


def _scores(view: ContextView) -> str:
    return Table(caption="", columns=_names(view) | _estimates(view, _SIDE_BY_SIDE)).text()


def _settings(view: ContextView) -> str:
    """Return one table, or two if one is too wide, the second with speed and barriers."""
    facts = {
        "parameters": [setting.get("num_parameters") for setting in view.own],
        "log10 modes": [setting.get("log10_order") for setting in view.own],
    }
    speeds = _speeds(view)
    first = facts | _estimates(view, _SCORES)
    second = {"gradients to target": speeds} if any(speeds) else {}
    second |= _estimates(view, _BARRIERS)
    whole = Table(caption="", columns=_names(view) | first | second).text()
    if max(map(len, whole.splitlines())) <= _WIDTH or not second:
        return whole
    parts = (Table(caption="", columns=_names(view) | part).text() for part in (first, second))
    return "\n\n".join(parts)


def _names(view: ContextView) -> dict[str, Sequence[Any]]:
    return {"setting": shortened(view.labels, _NAME)}


def _estimates(view: ContextView, keys: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Return a column for each measure that a setting has."""
    return {
        measure.label: [_estimate(setting, measure) for setting in view.own]
        for measure in present(view.own, [measure_of(key) for key in keys])
    }


def _estimate(setting: Mapping[str, Any], measure: Measure) -> str:
    """Return the mean with half of its interval, or over folds with its standard error."""
    estimate = estimate_of(setting, measure)
    error = (estimate or {}).get("standard_error")
    if estimate is None or unit_of_replicates([setting]) == "seed" or not error:
        return plus_minus(estimate)
    return with_error(estimate["mean"], error)


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
    settings = {one["setting"] for one in conclusions if one["question"] != "aligned"}
    several = len(settings) > 1
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
    verdict = f"{conclusion['title']}: {conclusion['answer']}{strength}"
    return _wrapped(f"{verdict}. {conclusion['sentence']}")


def _wrapped(text: str) -> str:
    return "\n".join(
        textwrap.wrap(
            text, _WIDTH, subsequent_indent="  ", break_long_words=True, break_on_hyphens=False
        )
    )
