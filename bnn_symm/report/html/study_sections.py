"""Build the sections of a context of a study, each with a table and possibly a figure.

A section without numbers is empty, and the page leaves it out. To add one, add its function and a
line in `SECTIONS`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bnn_symm.formatting import interval, mean, mean_and_interval, number, p_value
from bnn_symm.report.html.page import Block, Cell, Picture, Table, Text
from bnn_symm.report.html.study_barriers import barriers
from bnn_symm.report.html.study_data import StudyData
from bnn_symm.report.html.study_measures import (
    MEASURES,
    estimate_cell,
    measure_of,
    present,
    reasons,
)
from bnn_symm.report.html.study_settings import ContextView, differences_text, role_text
from bnn_symm.report.plots.convergence import convergence_figure
from bnn_symm.report.plots.rhat import study_rhat_figure
from bnn_symm.report.plots.studies.measures import measures_figure
from bnn_symm.report.text.convergence import target_text

_SCORES = ("test_nll", "test_accuracy", "test_rmse", "test_ece", "elbo", "train_nll")
_DRAWN = ("test_nll", "test_accuracy", "test_rmse", "elbo")
_CALIBRATION = ("test_ece", "test_brier", "test_crps", "test_coverage_90")
_COST = ("seconds", "gradient_evaluations")
_CLOCKS = {"gradient_evaluations": "gradient evaluations", "seconds": "seconds"}
_VIEWS = ("raw", "aligned", "function")
_INTERVALS = "Small type: 95 % confidence intervals over seeds."
_RHAT = {
    "_max": "chains of one fit: largest R-hat",
    "": "two fits as two chains: median R-hat",
}


def convergence(data: StudyData, view: ContextView) -> list[Block]:
    """Return the convergence curves of all settings with their bands.

    Args:
        data: not used.
        view: of the context.

    Returns:
        The blocks of the section.
    """
    content = view.context.get("convergence")
    if content is None:
        reason = view.context.get("convergence_reason")
        return [Text(text=f"No curves: {reason}")] if reason else []
    groups = _ordered(content, view)
    figure = convergence_figure(
        {**content, "groups": groups},
        [view.styles[group["setting"]] for group in groups if group["bands"]],
    )
    notes: list[Block] = [
        Text(text=f"Note: {note}.", mark="note") for note in content.get("notes", [])
    ]
    if figure is None:
        return [Text(text="No curves: the histories of the settings share no quantity."), *notes]
    medians = [
        f"{view.names[group['setting']]} {_median_text(group['speed'].get('gradient_evaluations'))}"
        for group in groups
    ]
    quantity = content["quantity"].replace("_", " ")
    picture = Picture(
        figure=figure,
        alt=f"Curves of {quantity} over gradient evaluations and seconds, one per setting, with "
        f"bands over seeds. Median gradient evaluations to the target: {'; '.join(medians)}.",
        caption="Medians over seeds of smoothed curves; bands from the 10 % to the 90 % quantile "
        "of seeds. The marker is the median time to the target with its 95 % confidence interval.",
        numbers=_curve_table(groups, view, quantity),
    )
    return [picture, *notes]


def _ordered(content: Mapping[str, Any], view: ContextView) -> list[dict[str, Any]]:
    """Return the groups in the order of the settings, with their names."""
    by_setting = {group["setting"]: group for group in content["groups"]}
    groups = []
    for setting in view.numbers:
        if setting in by_setting:
            group = by_setting[setting]
            runs = group.get("runs") or [None] * max(
                (own["num_runs"] for own in group["speed"].values()), default=1
            )
            groups.append({**group, "label": view.names[setting], "runs": runs})
    return groups


def _curve_table(groups: Sequence[Mapping[str, Any]], view: ContextView, quantity: str) -> Table:
    """Return five points of every curve."""
    rows = []
    for group in groups:
        band = group["bands"].get("gradient_evaluations") or next(
            iter(group["bands"].values()), None
        )
        if band is None:
            continue
        count = len(band["times"])
        for i in sorted({round(share * (count - 1)) for share in (0, 0.25, 0.5, 0.75, 1)}):
            values = [number(band[key][i]) for key in ("times", "median", "low", "high")]
            rows.append([view.names[group["setting"]], *values])
    header = ["setting", "gradient evaluations", f"median {quantity}", "band from", "to"]
    return Table(
        caption="Numbers of this figure, at five points of each curve", header=header, rows=rows
    )


def times(data: StudyData, view: ContextView) -> list[Block]:
    """Return the time of each setting to the target, and its ratio to the standard network.

    Args:
        data: of the study.
        view: of the context.

    Returns:
        The blocks of the section.
    """
    content = view.context.get("convergence")
    if content is None:
        return []
    ratios = {
        one["first"]: one
        for one in data.summary["comparisons"]
        if (one["context"], one["measure"], one["second"])
        == (view.number, "gradients_to_target", view.baseline)
    }
    rows = []
    for group in _ordered(content, view):
        speeds = [group["speed"].get(clock) for clock in _CLOCKS]
        known = next((speed for speed in speeds if speed), None)
        reached = (
            "-"
            if known is None
            else f"{known['num_runs'] - known['num_censored']} of {known['num_runs']}"
        )
        ratio = ratios.get(group["setting"])
        cells = [
            Cell(text=_median_text(speed, False), small=_median_range(speed)) for speed in speeds
        ]
        row = [
            view.names[group["setting"]],
            f"{group['num_converged']} of {len(group['runs'])}",
            reached,
            *cells,
        ]
        rows.append([*row, _ratio_cell(ratio, group["setting"] == view.baseline)])
    header = [
        "setting",
        "converged",
        "reached",
        *(f"median {name}" for name in _CLOCKS.values()),
        "ratio to standard",
    ]
    target = target_text({**content, "groups": _ordered(content, view)})
    return [
        Table(
            caption=f"Time to the target: {target}",
            header=header,
            rows=rows,
            notes=[
                "Small type: 95 % confidence intervals. The ratio of gradient evaluations, paired "
                "by seed, is below 1 if the setting is faster. p is adjusted for the comparisons "
                "of this measure. Seconds depend on the machine of each fit."
            ],
        )
    ]


def _median_text(speed: Mapping[str, Any] | None, with_range: bool = True) -> str:
    if speed is None:
        return "not timed"
    value = speed["median"]["value"]
    if value is None:
        return f"more than {number(speed['tau'])}"
    spread = _median_range(speed) if with_range else ""
    return number(value) + (f" ({spread})" if spread else "")


def _median_range(speed: Mapping[str, Any] | None) -> str:
    if speed is None or speed["median"]["value"] is None or speed["median"]["low"] is None:
        return ""
    low, high = speed["median"]["low"], speed["median"]["high"]
    return f"{number(low)} or more" if high is None else f"{number(low)} to {number(high)}"


def _ratio_cell(comparison: Mapping[str, Any] | None, is_baseline: bool) -> str | Cell:
    ratio = (comparison or {}).get("ratio") or {}
    if is_baseline or comparison is None or ratio.get("value") is None:
        return "1" if is_baseline else "-"
    small = [interval(ratio), f"p {p_value(comparison['p_adjusted'])}"]
    return Cell(text=mean(ratio), small="; ".join(filter(None, small)))


def scores(data: StudyData, view: ContextView) -> list[Block]:
    """Return the scores of the settings: means over seeds with intervals.

    Args:
        data: of the study.
        view: of the context.

    Returns:
        The blocks of the section.
    """
    roles = len({setting["role"] for setting in view.own}) > 1
    return _measure_blocks(data, view, _SCORES, "Scores of predictions", drawn=_DRAWN, roles=roles)


def calibration(data: StudyData, view: ContextView) -> list[Block]:
    """Return the calibration error and proper scores of the settings.

    Args:
        data: of the study.
        view: of the context.

    Returns:
        The blocks of the section.
    """
    return _measure_blocks(
        data, view, _CALIBRATION, "Calibration of predictions", drawn=_CALIBRATION
    )


def cost(data: StudyData, view: ContextView) -> list[Block]:
    """Return the cost of a fit; seconds depend on the machine of each fit.

    Args:
        data: of the study.
        view: of the context.

    Returns:
        The blocks of the section.
    """
    return _measure_blocks(data, view, _COST, "Cost of a fit", drawn=())


def _measure_blocks(
    data: StudyData,
    view: ContextView,
    measures: Sequence[str],
    caption: str,
    *,
    drawn: Sequence[str],
    roles: bool = False,
) -> list[Block]:
    settings = view.own
    shown = present(settings, measures)
    if not shown:
        return []
    rows = [
        [
            Cell(text=label, small=role_text(setting) if roles else ""),
            _seeds_text(setting),
            *(estimate_cell(measure_of(setting, measure)) for measure in shown),
        ]
        for setting, label in zip(settings, view.labels, strict=True)
    ]
    header = ["setting", "seeds", *(_title(measure) for measure in shown)]
    notes = [_INTERVALS, *reasons(settings, view.labels, shown)]
    table = Table(caption=caption, header=header, rows=rows, notes=notes)
    visible = [measure for measure in shown if measure in drawn]
    return [table, *([_measures_picture(data, view, visible)] if visible else [])]


def _seeds_text(setting: Mapping[str, Any]) -> str:
    done, total = setting["num_complete"], len(setting["seeds"])
    return str(done) if done == total else f"{done} of {total}"


def _title(measure: str) -> str:
    return MEASURES.get(measure, measure.replace("_", " "))


def _measures_picture(data: StudyData, view: ContextView, measures: Sequence[str]) -> Picture:
    settings, labels = view.own, view.labels
    panels = []
    for measure in measures:
        rows = []
        for setting in settings:
            own = measure_of(setting, measure) or {}
            ends = {key: own.get(key) for key in ("mean", "low", "high")}
            rows.append({**ends, "values": data.values_of(setting, measure)})
        panels.append({"title": _title(measure), "rows": rows})
    descriptions = []
    for measure in measures:
        own = [
            f"{label} {mean_and_interval(measure_of(s, measure))}"
            for s, label in zip(settings, labels, strict=True)
        ]
        descriptions.append(f"{_title(measure)}: {'; '.join(own)}.")
    values = [
        [
            label,
            _title(measure),
            ", ".join(number(value, 4) for value in data.values_of(setting, measure)) or "-",
        ]
        for setting, label in zip(settings, labels, strict=True)
        for measure in measures
    ]
    return Picture(
        figure=measures_figure(panels, labels, view.own_styles),
        alt=f"Means with 95 % intervals over seeds, by setting. {' '.join(descriptions)}",
        caption="Means with 95 % confidence intervals over seeds; the ticks below are the seeds. "
        "The dotted line is the mean of the first setting.",
        numbers=Table(
            caption="Numbers of this figure by seed",
            header=["setting", "measure", "values by seed"],
            rows=values,
            words=(0, 1, 2),
        ),
    )


def rhat(data: StudyData, view: ContextView) -> list[Block]:
    """Return R-hat of raw weights, aligned weights and functions, of chains and between fits.

    Args:
        data: not used.
        view: of the context.

    Returns:
        The blocks of the section.
    """
    settings, labels = view.own, view.labels
    ends = [end for end in _RHAT if present(settings, [f"rhat_{name}{end}" for name in _VIEWS])]
    if not ends:
        return []
    panels, rows, descriptions = [], [], []
    for end in ends:
        panel: dict[str, Any] = {"title": _RHAT[end]}
        for name in _VIEWS:
            panel[name] = [measure_of(setting, f"rhat_{name}{end}") for setting in settings]
        panels.append(panel)
        for i, label in enumerate(labels):
            own = [panel[name][i] for name in _VIEWS]
            rows.append([Cell(text=label, small=_RHAT[end]), *(estimate_cell(one) for one in own)])
            pairs = zip(("raw", "aligned", "functions"), own, strict=True)
            descriptions.append(
                f"{label} {', '.join(f'{name} {mean_and_interval(one)}' for name, one in pairs)}"
            )
    table = Table(
        caption="R-hat in three views",
        header=["setting", "raw weights", "aligned weights", "functions"],
        rows=rows,
        notes=[
            _INTERVALS,
            *reasons(settings, labels, [f"rhat_{name}{end}" for end in ends for name in _VIEWS]),
        ],
    )
    picture = Picture(
        figure=study_rhat_figure(panels, labels),
        alt="R-hat of raw weights, of aligned weights and of functions, by setting. "
        f"{'; '.join(descriptions)}.",
        caption="An R-hat of 1 means that chains agree. Raw weights of a symmetric network "
        "disagree because their units are permuted. Alignment removes this part of the "
        "disagreement, and functions do not depend on it.",
        numbers=table,
    )
    return [picture]


def parameters(data: StudyData, view: ContextView) -> list[Block]:
    """Return the free parameters of the settings, their symmetry groups and certificates.

    Args:
        data: not used.
        view: of the context.

    Returns:
        The blocks of the section.
    """
    rows = []
    for setting, label in zip(view.own, view.labels, strict=True):
        rows.append(
            [
                Cell(text=label, small=role_text(setting)),
                number(setting.get("num_parameters")),
                number(setting.get("log10_order"), 4),
                setting.get("certificate") or "-",
                differences_text(setting) or "-",
            ]
        )
    header = [
        "setting",
        "free parameters",
        "log10 of the symmetry group's order",
        "certificate",
        "settings",
    ]
    return [Table(caption="Settings of the study", header=header, rows=rows, words=(0, 3, 4))]


def comparisons(data: StudyData, view: ContextView) -> list[Block]:
    """Return a folded table of all comparisons of the context.

    Args:
        data: of the study.
        view: of the context.

    Returns:
        The blocks of the section.
    """
    rows = []
    for one in data.summary["comparisons"]:
        if one["context"] != view.number:
            continue
        other = view.names[one["second"]] if one["second"] != one["first"] else "itself, naive"
        difference = one.get("difference") or {}
        values = [
            mean_and_interval(difference),
            str(one.get("n", "-")),
            p_value(one["p_value"]),
            p_value(one["p_adjusted"]),
        ]
        rows.append(
            [
                _title(one["measure"]),
                f"{view.names[one['first']]} versus {other}",
                *values,
                one["sentence"],
            ]
        )
    if not rows:
        return []
    header = ["measure", "settings", "difference (95 %)", "n", "p", "p adjusted", "details"]
    return [
        Table(
            caption=f"All {len(rows)} comparisons, paired by seed; differences of times are "
            "differences of their logarithms",
            header=header,
            rows=rows,
            words=(0, 1, 6),
            folded=True,
            stacked=True,
        )
    ]


SECTIONS: dict[str, Callable[[StudyData, ContextView], list[Block]]] = {
    "Convergence": convergence,
    "Time to the target": times,
    "Scores": scores,
    "Barriers": barriers,
    "Calibration": calibration,
    "R-hat": rhat,
    "Parameters and symmetries": parameters,
    "All comparisons": comparisons,
}
"""Title -> function, in the order of the page."""
