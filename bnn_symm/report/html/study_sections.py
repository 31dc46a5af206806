"""Build the sections of a context of a study, each with a table and possibly a figure.

A section without numbers is empty, and the page leaves it out. To add one, add its function and a
line in `SECTIONS`. Every function takes the data of the study and a context.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bnn_symm.diagnostics.measures import FIT_MEASURES, VIEWS, Measure, measure_of
from bnn_symm.formatting import interval, number, p_value, with_error
from bnn_symm.report.html.page import Block, Picture, Text
from bnn_symm.report.html.study_barriers import barriers
from bnn_symm.report.html.study_data import StudyData
from bnn_symm.report.html.study_settings import (
    ContextView,
    differences_text,
    estimate_of,
    intervals_note,
    num_fits,
    present,
    reasons,
    role_text,
    unit_of_replicates,
)
from bnn_symm.report.plots.convergence import convergence_figure
from bnn_symm.report.plots.rhat import study_rhat_figure
from bnn_symm.report.plots.studies.measures import measures_figure
from bnn_symm.report.tables import Cell, Table, by_rows
from bnn_symm.report.text.convergence import target_text

_CLOCKS = {"gradient_evaluations": "gradient evaluations", "seconds": "seconds"}
_VIEWS = ("raw", "aligned", "function")
_RHAT = {
    "_max": "chains of one fit: largest R-hat",
    "": "two fits as two chains: median R-hat",
}


def _convergence(data: StudyData, view: ContextView) -> list[Block]:
    """Return the convergence curves of all settings with their bands."""
    content = view.context.get("convergence")
    if content is None:
        reason = view.context.get("convergence_reason")
        return [Text(text=f"No curves: {reason}")] if reason else []
    groups = _ordered(content, view)
    styles = [view.styles[group["setting"]] for group in groups if group["bands"]]
    content = {**content, "groups": groups}
    figure = convergence_figure(content, styles)
    notes: list[Block] = [
        Text(text=f"Note: {note}.", mark="note") for note in content.get("notes", [])
    ]
    if figure is None:
        return [Text(text="No curves: the histories of the settings share no quantity."), *notes]
    rows = []
    for group in groups:
        bands = group["bands"]
        if bands:
            band = bands.get("gradient_evaluations") or next(iter(bands.values()))
            rows += [
                [group["label"], *(band[key][i] for key in ("times", "median", "low", "high"))]
                for i in positions(len(band["times"]))
            ]
    median = f"median {content['quantity'].replace('_', ' ')}"
    header = ["setting", "gradient evaluations", median, "band from", "to"]
    numbers = Table(
        caption="Numbers of this figure, at five points of each curve",
        columns=by_rows(header, rows),
    )
    caption = (
        "Medians over seeds of smoothed curves; bands from the 10 % to the 90 % quantile of seeds. "
        "The marker is the median time to the target with its 95 % confidence interval."
    )
    narrow = convergence_figure(content, styles, columns=1) if _is_only(data) else None
    return [Picture(figure=figure, narrow=narrow, caption=caption, numbers=numbers), *notes]


def _is_only(data: StudyData) -> bool:
    """Return whether there is one context: figures for narrow screens double the size of a page."""
    return len(data.summary["contexts"]) == 1


def positions(count: int) -> list[int]:
    """Return five positions of a curve, from the first to the last.

    Args:
        count: number of points of the curve.

    Returns:
        The indices.
    """
    return sorted({round(share * (count - 1)) for share in (0, 0.25, 0.5, 0.75, 1)})


def _ordered(content: Mapping[str, Any], view: ContextView) -> list[dict[str, Any]]:
    """Return the groups in the order of the settings, with their names."""
    by_setting = {group["setting"]: group for group in content["groups"]}
    groups = []
    for setting in (own for own in view.numbers if own in by_setting):
        group = by_setting[setting]
        runs = group.get("runs") or [None] * max(
            (own["num_runs"] for own in group["speed"].values()), default=1
        )
        groups.append({**group, "label": view.names[setting], "runs": runs})
    return groups


def _times(data: StudyData, view: ContextView) -> list[Block]:
    """Return the time of each setting to the target, and its ratio to the standard network."""
    content = view.context.get("convergence")
    if content is None:
        return []
    groups = _ordered(content, view)
    ratios = {
        one["first"]: one
        for one in data.summary["comparisons"]
        if (one["context"], one["measure"], one["second"])
        == (view.number, "gradients_to_target", view.baseline)
    }
    columns: dict[str, list[Any]] = {
        "setting": [group["label"] for group in groups],
        "converged": [f"{group['num_converged']} of {len(group['runs'])}" for group in groups],
        "reached": [_num_reached(group["speed"]) for group in groups],
    }
    for clock, name in _CLOCKS.items():
        columns[f"median {name}"] = [_median(group["speed"].get(clock)) for group in groups]
    columns["ratio to standard"] = [
        "1" if group["setting"] == view.baseline else _ratio(ratios.get(group["setting"]))
        for group in groups
    ]
    note = (
        "Small type: 95 % confidence intervals. The ratio of gradient evaluations, paired by seed, "
        "is below 1 if the setting is faster. p is adjusted for the comparisons of this measure. "
        "Seconds depend on the machine of each fit."
    )
    caption = f"Time to the target: {target_text({**content, 'groups': groups})}"
    return [Table(caption=caption, columns=columns, notes=[note])]


def _num_reached(speeds: Mapping[str, Any]) -> str:
    known = next((speed for speed in map(speeds.get, _CLOCKS) if speed), None)
    if known is None:
        return "-"
    return f"{known['num_runs'] - known['num_censored']} of {known['num_runs']}"


def _median(speed: Mapping[str, Any] | None) -> Cell:
    if speed is None:
        return Cell(text="not timed")
    median = speed["median"]
    if median["value"] is None:
        return Cell(text=f"more than {number(speed['tau'])}")
    is_open = median["low"] is not None and median["high"] is None
    ends = [number(median[end]) for end in ("low", "high") if median[end] is not None]
    small = f"{ends[0]} or more" if is_open else " to ".join(ends) if ends[1:] else ""
    return Cell(text=number(median["value"]), small=small)


def _ratio(comparison: Mapping[str, Any] | None) -> Cell | None:
    ratio = (comparison or {}).get("ratio") or {}
    if comparison is None or ratio.get("value") is None:
        return None
    small = [interval(ratio), f"p {p_value(comparison['p_adjusted'])}"]
    return Cell(text=number(ratio["value"]), small="; ".join(filter(None, small)))


def measure_blocks(
    data: StudyData, view: ContextView, title: str, *, is_drawn: bool = True
) -> list[Block]:
    """Return a table of the measures of a section, and a figure of those that it is the first of.

    Args:
        data: of the study.
        view: of the settings.
        title: of the section, as the registry of measures names it.
        is_drawn: whether there is a figure.

    Returns:
        The blocks; none without numbers.
    """
    shown = present(view.own, [own for own in FIT_MEASURES.values() if title in own.sections])
    if not shown:
        return []
    unit = unit_of_replicates(view.own)
    roles = len({setting["role"] for setting in view.own}) > 1 and title == "Scores"
    columns: dict[str, list[Any]] = {
        "setting": [
            Cell(text=label, small=role_text(setting) if roles else "")
            for setting, label in zip(view.own, view.labels, strict=True)
        ],
        ("fits" if unit == "fold" else "seeds"): [_fits_text(setting) for setting in view.own],
    }
    columns |= {own.title: [_estimate(setting, own, unit) for setting in view.own] for own in shown}
    notes = [intervals_note(view.own), *reasons(view.own, view.labels, shown)]
    table = Table(caption=f"{title}: means over {unit}s", columns=columns, notes=notes)
    drawn = [own for own in shown if own.sections[0] == title and is_drawn]
    return [table, *([_measures_picture(data, view, drawn)] if drawn else [])]


def _fits_text(setting: Mapping[str, Any]) -> str:
    done, total = setting["num_complete"], num_fits(setting)
    return str(done) if done == total else f"{done} of {total}"


def _estimate(setting: Mapping[str, Any], measure: Measure, unit: str) -> Any:
    """Return the mean with its interval, and over folds with its standard error."""
    estimate = estimate_of(setting, measure)
    if unit == "seed" or estimate is None or not estimate.get("standard_error"):
        return estimate
    error = with_error(estimate["mean"], estimate["standard_error"])
    return Cell(text=error, small=interval(estimate))


def _measures_picture(data: StudyData, view: ContextView, measures: Sequence[Measure]) -> Picture:
    panels: list[dict[str, Any]] = []
    unit = unit_of_replicates(view.own)
    columns: dict[str, list[Any]] = {"setting": view.labels}
    for own in measures:
        estimates = [estimate_of(setting, own) or {} for setting in view.own]
        values = [data.values_of(setting, own.key) for setting in view.own]
        ends = [{key: row.get(key) for key in ("mean", "low", "high")} for row in estimates]
        rows = [{**row, "values": seeds} for row, seeds in zip(ends, values, strict=True)]
        panels.append({"title": own.title, "rows": rows})
        columns[own.title] = estimates
        columns[f"{own.label} by {unit}"] = [
            ", ".join(number(value, 4) for value in seeds) or "-" for seeds in values
        ]
    parts = (panels, view.labels, view.own_styles)
    return Picture(
        figure=measures_figure(*parts),
        narrow=measures_figure(*parts, columns=1) if _is_only(data) else None,
        caption=f"Means with 95 % confidence intervals over {unit}s; the ticks below are the "
        f"{unit}s. The dotted line is the mean of the first setting.",
        numbers=Table(caption=f"Numbers of this figure by {unit}", columns=columns),
    )


def _rhat(data: StudyData, view: ContextView) -> list[Block]:
    """Return R-hat of raw weights, aligned weights and functions, of chains and between fits."""
    keys = {end: [measure_of(f"rhat_{name}{end}") for name in _VIEWS] for end in _RHAT}
    keys = {end: own for end, own in keys.items() if present(view.own, own)}
    if not keys:
        return []
    panels: list[dict[str, Any]] = []
    rows = []
    for end, measures in keys.items():
        estimates = [[estimate_of(setting, own) for setting in view.own] for own in measures]
        panels.append({"title": _RHAT[end], **dict(zip(_VIEWS, estimates, strict=True))})
        rows += [
            [Cell(text=label, small=_RHAT[end]), *own]
            for label, *own in zip(view.labels, *estimates, strict=True)
        ]
    every = [own for measures in keys.values() for own in measures]
    table = Table(
        caption="R-hat in three views",
        columns=by_rows(["setting", *(VIEWS[name] for name in _VIEWS)], rows),
        notes=[intervals_note(view.own), *reasons(view.own, view.labels, every)],
    )
    caption = (
        "An R-hat of 1 means that chains agree. Raw weights of a symmetric network disagree "
        "because their units are permuted. Alignment removes this part of the disagreement, and "
        "functions do not depend on it."
    )
    return [Picture(figure=study_rhat_figure(panels, view.labels), caption=caption, numbers=table)]


def _parameters(data: StudyData, view: ContextView) -> list[Block]:
    """Return the free parameters of the settings, their symmetry groups and certificates."""
    columns: dict[str, list[Any]] = {
        "setting": [
            Cell(text=label, small=role_text(setting))
            for setting, label in zip(view.own, view.labels, strict=True)
        ]
    }
    for key in ("num_parameters", "log10_order"):
        columns[measure_of(key).title] = [setting.get(key) for setting in view.own]
    columns["certificate"] = [setting.get("certificate") for setting in view.own]
    columns["settings"] = [differences_text(setting) or None for setting in view.own]
    return [Table(caption="Settings of the study", columns=columns)]


def _comparisons(data: StudyData, view: ContextView) -> list[Block]:
    """Return a folded table of all comparisons of the context."""
    own = [one for one in data.summary["comparisons"] if one["context"] == view.number]
    if not own:
        return []
    columns: dict[str, list[Any]] = {
        "measure": [measure_of(one["measure"]).title for one in own],
        "settings": [
            f"{view.names[one['first']]} versus "
            + (view.names[one["second"]] if one["second"] != one["first"] else "itself, naive")
            for one in own
        ],
        "difference (95 %)": [one.get("difference") or {} for one in own],
        "n": [one.get("n") for one in own],
        "p": [p_value(one["p_value"]) for one in own],
        "p adjusted": [p_value(one["p_adjusted"]) for one in own],
        "details": [one["sentence"] for one in own],
    }
    unit = unit_of_replicates(view.own)
    caption = (
        f"All {len(own)} comparisons, paired by {unit}; differences of times are differences of "
        "their logarithms"
    )
    return [Table(caption=caption, columns=columns, folded=True, stacked=True)]


SECTIONS: dict[str, Callable[[StudyData, ContextView], list[Block]]] = {
    "Convergence": _convergence,
    "Time to the target": _times,
    "Scores": lambda data, view: measure_blocks(data, view, "Scores"),
    "Barriers": barriers,
    "Calibration": lambda data, view: measure_blocks(data, view, "Calibration"),
    "R-hat": _rhat,
    "Parameters and symmetries": _parameters,
    "All comparisons": _comparisons,
}
"""Title -> function, in the order of the page."""
