"""The sections of one context of a study: each a table, and a figure where there is something to
see.

A section without any numbers is empty, and left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.diagnostics.convergence.interpretation import number
from bnn_symm.report.html.page import Block, Cell, Picture, Table, Text
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
from bnn_symm.report.plots.studies.measures import measures_figure
from bnn_symm.report.plots.studies.rhat import study_rhat_figure
from bnn_symm.report.text.convergence import target_text
from bnn_symm.report.text.intervals import interval_text

_SCORES = ("test_nll", "test_accuracy", "test_rmse", "test_ece", "elbo", "train_nll")
_DRAWN = ("test_nll", "test_accuracy", "test_rmse", "elbo")
_CALIBRATION = ("test_ece", "test_brier", "test_crps", "test_coverage_90")
_COST = ("seconds", "gradient_evaluations")
_CLOCKS = {"gradient_evaluations": "gradient evaluations", "seconds": "seconds"}
_VIEWS = ("raw", "aligned", "function")
_INTERVALS = "Small: 95 % intervals over seeds."
_RHAT = {
    "_max": "chains of one fit: largest R-hat",
    "": "two fits, each taken for a chain: median R-hat",
}


def convergence(view: ContextView) -> list[Block]:
    """Curves of all settings with their bands, and what they are timed to."""
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
        return [Text(text="No curves: no history has a row that all settings share."), *notes]
    told = [
        f"{view.names[group['setting']]} {_median_text(group['speed'].get('gradient_evaluations'))}"
        for group in groups
    ]
    quantity = content["quantity"].replace("_", " ")
    drawn = Picture(
        figure=figure,
        alt=f"Curves of {quantity} over gradient evaluations and seconds, one a setting, with "
        "bands over seeds. "
        f"Median gradient evaluations to the target: {'; '.join(told)}.",
        caption="Medians over seeds of smoothed curves; bands: from the 10 % to the 90 % quantile "
        "of seeds. The marker is the median time to the target, with its 95 % interval.",
        numbers=_curve_table(groups, view, quantity),
    )
    return [drawn, *notes]


def _ordered(content: Mapping[str, Any], view: ContextView) -> list[dict[str, Any]]:
    """Groups in the order of the settings, called as these are."""
    by_setting = {group["setting"]: group for group in content["groups"]}
    found = []
    for setting in view.numbers:
        if setting in by_setting:
            group = by_setting[setting]
            runs = group.get("runs") or [None] * max(
                (own["num_runs"] for own in group["speed"].values()), default=1
            )
            found.append({**group, "label": view.names[setting], "runs": runs})
    return found


def _curve_table(groups: Sequence[Mapping[str, Any]], view: ContextView, quantity: str) -> Table:
    """A few points of every curve."""
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
        caption="Numbers of this figure, at five places of each curve", header=header, rows=rows
    )


def times(summary: Mapping[str, Any], view: ContextView) -> list[Block]:
    """How long each setting takes to the target, and its ratio to the standard network."""
    content = view.context.get("convergence")
    if content is None:
        return []
    ratios = {
        one["first"]: one
        for one in summary["comparisons"]
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
        *(f"median {words}" for words in _CLOCKS.values()),
        "ratio to standard",
    ]
    aim = target_text({**content, "groups": _ordered(content, view)})
    return [
        Table(
            caption=f"Time to {aim}",
            header=header,
            rows=rows,
            notes=[
                "Small: 95 % intervals. A ratio below 1 is faster; it is of gradient evaluations, "
                "paired by seed. p is adjusted for the comparisons of this measure. Seconds are "
                "those of the machines that fitted."
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
    known = ratio.get("low") is not None and ratio.get("high") is not None
    spread = f"{ratio['low']:.2f} to {ratio['high']:.2f}; " if known else ""
    return Cell(text=f"{ratio['value']:.2f}", small=f"{spread}p {p_text(comparison['p_adjusted'])}")


def scores(data: StudyData, view: ContextView) -> list[Block]:
    """How well the settings predict: means over seeds with intervals; calibration errors beside
    it.
    """
    roles = len({setting["role"] for setting in view.own}) > 1
    return _measured(data, view, _SCORES, "How well they predict", drawn=_DRAWN, roles=roles)


def calibration(data: StudyData, view: ContextView) -> list[Block]:
    """Calibration error and proper scores."""
    return _measured(
        data, view, _CALIBRATION, "How far probabilities can be trusted", drawn=_CALIBRATION
    )


def cost(data: StudyData, view: ContextView) -> list[Block]:
    """What a fit took; seconds are those of the machines that fitted."""
    return _measured(data, view, _COST, "What a fit took", drawn=())


def _measured(
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
    header = ["setting", "seeds", *(_words(measure) for measure in shown)]
    notes = [_INTERVALS, *reasons(settings, view.labels, shown)]
    table = Table(caption=caption, header=header, rows=rows, notes=notes)
    visible = [measure for measure in shown if measure in drawn]
    return [table, *([_measures_picture(data, view, visible)] if visible else [])]


def _seeds_text(setting: Mapping[str, Any]) -> str:
    done, all_of_them = setting["num_complete"], len(setting["seeds"])
    return str(done) if done == all_of_them else f"{done} of {all_of_them}"


def _words(measure: str) -> str:
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
        panels.append({"title": _words(measure), "rows": rows})
    told = []
    for measure in measures:
        own = [
            f"{label} {interval_text(measure_of(s, measure))}"
            for s, label in zip(settings, labels, strict=True)
        ]
        told.append(f"{_words(measure)}: {'; '.join(own)}.")
    values = [
        [
            label,
            _words(measure),
            ", ".join(f"{value:.4g}" for value in data.values_of(setting, measure)) or "-",
        ]
        for setting, label in zip(settings, labels, strict=True)
        for measure in measures
    ]
    return Picture(
        figure=measures_figure(panels, labels, view.own_styles),
        alt=f"Means with 95 % intervals over seeds, by setting. {' '.join(told)}",
        caption="Means with 95 % intervals over seeds; every seed is a tick beneath. Dotted: the "
        "first setting.",
        numbers=Table(
            caption="Numbers of this figure, seed by seed",
            header=["setting", "measure", "values by seed"],
            rows=values,
            words=(0, 1, 2),
        ),
    )


def rhat(view: ContextView) -> list[Block]:
    """R-hat of weights raw and aligned and of functions, of chains of one fit and of fits taken for
    chains.
    """
    settings, labels = view.own, view.labels
    ends = [end for end in _RHAT if present(settings, [f"rhat_{name}{end}" for name in _VIEWS])]
    if not ends:
        return []
    panels, rows, told = [], [], []
    for end in ends:
        panel: dict[str, Any] = {"title": _RHAT[end]}
        for name in _VIEWS:
            panel[name] = [measure_of(setting, f"rhat_{name}{end}") for setting in settings]
        panels.append(panel)
        for i, label in enumerate(labels):
            own = [panel[name][i] for name in _VIEWS]
            rows.append([Cell(text=label, small=_RHAT[end]), *(estimate_cell(one) for one in own)])
            pairs = zip(("raw", "aligned", "functions"), own, strict=True)
            told.append(
                f"{label} {', '.join(f'{name} {interval_text(one)}' for name, one in pairs)}"
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
    drawn = Picture(
        figure=study_rhat_figure(panels, labels),
        alt="R-hat of raw weights, of aligned weights and of functions, by setting. "
        f"{'; '.join(told)}.",
        caption="1 means that chains agree. Raw weights of a symmetric network disagree because "
        "units are numbered otherwise; what alignment takes away is due to that, and functions do "
        "not know of it.",
        numbers=table,
    )
    return [drawn]


def parameters(view: ContextView) -> list[Block]:
    """What is free, how large the group is that is left, and by what that is certified."""
    rows = []
    for setting, label in zip(view.own, view.labels, strict=True):
        order = setting.get("log10_order")
        free = setting.get("num_parameters")
        rows.append(
            [
                Cell(text=label, small=role_text(setting)),
                "-" if free is None else f"{free:,}",
                "-" if order is None else f"{order:.1f}",
                setting.get("certificate") or "-",
                differences_text(setting) or "-",
            ]
        )
    header = [
        "setting",
        "free parameters",
        "log10 of the symmetry group's order",
        "certificate",
        "what differs",
    ]
    return [Table(caption="What each setting is", header=header, rows=rows, words=(0, 3, 4))]


def comparisons(summary: Mapping[str, Any], view: ContextView) -> list[Block]:
    """Every comparison of the context, folded."""
    rows = []
    for one in summary["comparisons"]:
        if one["context"] != view.number:
            continue
        against = view.names[one["second"]] if one["second"] != one["first"] else "itself, naive"
        difference = one.get("difference") or {}
        values = [
            interval_text(difference),
            str(one.get("n", "-")),
            p_text(one["p_value"]),
            p_text(one["p_adjusted"]),
        ]
        rows.append(
            [
                _words(one["measure"]),
                f"{view.names[one['first']]} against {against}",
                *values,
                one["sentence"],
            ]
        )
    if not rows:
        return []
    header = ["measure", "what", "difference (95 %)", "n", "p", "p adjusted", "in words"]
    return [
        Table(
            caption=f"All {len(rows)} comparisons, paired by seed; of times, differences are of "
            "their logarithms",
            header=header,
            rows=rows,
            words=(0, 1, 6),
            folded=True,
            stacked=True,
        )
    ]


def p_text(value: float | None) -> str:
    """A p-value in as many digits as matter."""
    return (
        "-"
        if value is None
        else "< 0.001"
        if value < 0.001
        else f"{value:.3f}"
        if value < 0.1
        else f"{value:.2f}"
    )
