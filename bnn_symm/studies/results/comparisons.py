"""Summarize the settings of a study with intervals over seeds or folds, and compare them in pairs.

The replicates of a setting are its seeds. In a study of folds they are its folds, each with the
mean over its seeds, and over the pairs of its seeds: seeds of one fold share all data, so they are
no further replicates. Settings are compared on the fits that both have.

Every asymmetric setting and every control is compared with the standard network of its context, and
every asymmetric setting with every control. The latter comparison includes the control's share of
the asymmetric setting's effect. P-values are adjusted by Holm's method for the comparisons of a
context and a measure. Times to the target, which may be censored, are compared as in
`analyses.convergence.comparisons`; if every run reached the target, by a paired t-test of their
logarithms.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.diagnostics.convergence.time_to_target import adjusted
from bnn_symm.diagnostics.measures import FIT_MEASURES, PAIR_MEASURES, measure_of
from bnn_symm.diagnostics.statistics.paired_comparison import (
    Kind,
    Share,
    estimate,
    pair_estimate,
    paired_difference,
    share_of_effect,
)
from bnn_symm.studies.results import narrative
from bnn_symm.studies.results.values import SPEED, Row, Values

Key = tuple[int, str, int, int]
"""Context, measure, first and second setting."""

ALIGNED = "aligned_less_naive"
"""Measure that compares the aligned with the naive barrier of one setting."""

MODERATE = 0.05
"""P-value below which the evidence of an effect is moderate."""
_ENDS = (("value", "mean"), ("low", "low"), ("high", "high"))


def summarize_settings(
    settings: Sequence[Row], fit_rows: Sequence[Row], pair_rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """Return the settings with the mean and the interval over seeds or folds of every measure.

    Args:
        settings: with their `label`.
        fit_rows: one row per fit; only complete fits are used.
        pair_rows: one row per pair of fits; only pairs of seeds of one setting are used.

    Returns:
        The settings, each with `measures`: a dictionary from the measure to its estimate.
    """
    values = Values(settings, fit_rows, pair_rows)
    result = []
    for number, setting in enumerate(settings):
        measures = {}
        for measure in (*FIT_MEASURES, *PAIR_MEASURES):
            unit_values = values.by_unit(number, measure)
            if unit_values:
                is_pair = measure in PAIR_MEASURES and values.kind == "seeds"
                summary = (
                    pair_estimate(unit_values)
                    if is_pair
                    else estimate(unit_values.values(), values.kind)
                )
                measures[measure] = dataclasses.asdict(summary)
        late = len(values.censored(number))
        if late and SPEED in measures:
            count = f"{late} of {measures[SPEED]['n']}"
            reason = f"{count} never reach the target: see the time to the target"
            measures[SPEED] |= {
                "mean": None,
                "sd": None,
                "low": None,
                "high": None,
                "reason": reason,
            }
        result.append({**setting, "measures": measures})
    return result


def compare_settings(
    settings: Sequence[Row],
    fit_rows: Sequence[Row],
    pair_rows: Sequence[Row],
    *,
    contexts: Sequence[Row] = (),
) -> list[dict[str, Any]]:
    """Compare asymmetric settings and controls with the baseline of their context, and each other.

    Args:
        settings: with `label`, `context` (its number) and `role`.
        fit_rows: one row per fit.
        pair_rows: one row per pair of fits.
        contexts: with `convergence`, which contains the times to the target; without it speeds are
            not compared.

    Returns:
        Comparisons of `first` with `second` on their common seeds or pairs. For an asymmetric
        setting and a control, `share` is the control's share of the effect. A speed is a `ratio` of
        times, and its `difference` is the logarithm.
    """
    values = Values(settings, fit_rows, pair_rows)
    result = []
    for number in sorted({setting["context"] for setting in settings}):
        context = Context(settings, contexts, number)
        families = [
            [_compare(values, context, pair, measure.key) for pair in context.pairs()]
            for measure in (*FIT_MEASURES.values(), *PAIR_MEASURES.values())
            if measure.is_compared
        ]
        families.append([_compare_aligned(values, number, i) for i in context.alignable])
        if number < len(contexts):
            families.append(_compare_speeds(values, context, contexts[number].get("convergence")))
        for family in families:
            defined = [comparison for comparison in family if comparison is not None]
            p_values = adjusted([comparison["p_value"] for comparison in defined])
            for comparison, p in zip(defined, p_values, strict=True):
                comparison["p_adjusted"], comparison["num_comparisons"] = p, len(defined)
                names = [context.name(comparison[side]) for side in ("first", "second")]
                comparison["sentence"] = narrative.comparison_sentence(names, comparison)
            result += defined
    return result


class Context:
    """The settings that differ only in the symmetry, by role.

    Attributes:
        settings: all settings of the study.
        number: of the context.
        label: of the context.
        baseline: number of the standard network, if there is one.
        asymmetric: numbers of the asymmetric settings.
        keeps: numbers of the controls that keep the symmetry.
        breaks: numbers of the controls that break the symmetry.
        alignable: numbers of the settings whose barriers are compared with and without alignment.
    """

    def __init__(self, settings: Sequence[Row], contexts: Sequence[Row], number: int):
        self.settings, self.number = settings, number
        self.label = str(contexts[number]["label"]) if number < len(contexts) else ""
        own = [i for i, setting in enumerate(settings) if setting["context"] == number]
        by_role = {
            role: [i for i in own if settings[i]["role"] == role]
            for role in {settings[i]["role"] for i in own}
        }
        self.baseline: int | None = next(iter(by_role.get("baseline", [])), None)
        self.asymmetric = by_role.get("asymmetric", [])
        self.keeps = by_role.get("keeps_symmetry", [])
        self.breaks = by_role.get("breaks_symmetry", [])
        blocks = [i for i in self.keeps if settings[i]["kind"] == "block_fixed"]
        self.alignable = ([] if self.baseline is None else [self.baseline]) + blocks

    def pairs(self) -> list[tuple[int, int]]:
        """Return the pairs of settings that are compared."""
        controls = [*self.keeps, *self.breaks]
        with_baseline = (
            []
            if self.baseline is None
            else [(i, self.baseline) for i in (*self.asymmetric, *controls)]
        )
        return [*with_baseline, *((i, j) for i in self.asymmetric for j in controls)]

    def name(self, number: int) -> str:
        """Return the label of a setting without the label of its context."""
        label = str(self.settings[number]["label"])
        return label.removeprefix(f"{self.label}, ") if self.label else label


def _compare(
    values: Values, context: Context, pair: tuple[int, int], measure: str
) -> dict[str, Any] | None:
    """Return the comparison of two settings; None if one of them has no value."""
    if not all(values.by_unit(number, measure) for number in pair):
        return None
    first, second = values.matched(measure, *pair)
    comparison = _comparison(context.number, measure, pair, first, second, values.kind)
    if context.baseline not in (None, pair[1]):
        first, second, baseline = values.matched(measure, *pair, context.baseline)
        comparison["share"] = _share(second, first, baseline)
    return comparison


def _compare_aligned(values: Values, context: int, number: int) -> dict[str, Any] | None:
    """Return the comparison of aligned with naive barriers of the same pairs."""
    aligned, naive = (values.by_unit(number, measure) for measure in ("aligned", "naive"))
    return (
        _comparison(context, ALIGNED, (number, number), aligned, naive, values.kind)
        if aligned and naive
        else None
    )


def _comparison(
    context: int,
    measure: str,
    pair: tuple[int, int],
    first: Mapping[Any, float],
    second: Mapping[Any, float],
    kind: Kind,
) -> dict[str, Any]:
    both = sorted(first.keys() & second.keys())
    difference = dataclasses.asdict(paired_difference(first, second, kind))
    means = [
        math.fsum(own[unit] for unit in both) / len(both) if both else None
        for own in (first, second)
    ]
    return {
        **{
            "context": context,
            "measure": measure,
            "first": pair[0],
            "second": pair[1],
            "better": measure_of(measure).better,
        },
        **{"first_mean": means[0], "second_mean": means[1]},
        "difference": {key: difference.pop(key) for key in ("mean", "low", "high")},
        **difference,
        **{"ratio": None, "share": None},
    }


def _share(
    control: Mapping[Any, float], treatment: Mapping[Any, float], baseline: Mapping[Any, float]
) -> Row:
    control_effect, treatment_effect = (
        {unit: own[unit] - baseline[unit] for unit in own.keys() & baseline.keys()}
        for own in (control, treatment)
    )
    return dataclasses.asdict(share_of_effect(control_effect, treatment_effect))


def _compare_speeds(
    values: Values, context: Context, convergence: Row | None
) -> list[dict[str, Any] | None]:
    """Return the comparisons of times to the target, which may be censored."""
    tests: dict[tuple[int, int], dict[str, Any]] = {}
    for test in (convergence or {}).get("comparisons", []):
        if test["clock"] == "gradient_evaluations":
            first, second = (
                (convergence or {})["groups"][test[side]]["setting"] for side in ("first", "second")
            )
            tests[first, second], tests[second, first] = dict(test), _swapped(test)
    result = []
    for pair in context.pairs():
        if pair not in tests:
            result.append(None)
            continue
        comparison = _speed(context.number, pair, tests[pair]) | _log_time_test(values, pair)
        if context.baseline not in (None, pair[1]):
            times = [values.log_times(number) for number in (pair[1], pair[0], context.baseline)]
            effects = [tests.get((number, context.baseline)) for number in (pair[1], pair[0])]
            comparison["share"] = _share(*times) if all(times) else _share_of_ratios(*effects)
        result.append(comparison)
    return result


def _log_time_test(values: Values, pair: tuple[int, int]) -> dict[str, Any]:
    """Return the paired t-test of log times where every run reached the target, else nothing.

    For few seeds it has more power than the sign-flip test.
    """
    test = paired_difference(values.log_times(pair[0]), values.log_times(pair[1]))
    if test.p_value is None or test.mean is None:
        return {}
    ends = {"mean": test.mean, "low": test.low, "high": test.high}
    ratio = {key: None if ends[end] is None else math.exp(ends[end]) for key, end in _ENDS}
    return {"n": test.n, "p_value": test.p_value, "difference": ends, "ratio": ratio}


def _swapped(test: Row) -> dict[str, Any]:
    """Return the comparison with the two sides exchanged."""
    ratio = {
        "value": test["ratio"]["value"],
        "low": test["ratio"]["high"],
        "high": test["ratio"]["low"],
    }
    ends = {
        side: {"first": test[side]["second"], "second": test[side]["first"]}
        for side in ("reached", "num_censored")
    }
    return {
        **test,
        **ends,
        "ratio": {key: None if not value else 1 / value for key, value in ratio.items()},
    }


def _speed(context: int, pair: tuple[int, int], test: Row) -> dict[str, Any]:
    ratio, reason = test["ratio"], None
    if test["p_value"] is None:
        has_times = any(test["reached"].values())
        reason = "all times are equal" if has_times else "neither ever reaches the target"
    elif ratio["low"] is None:
        reason = "too few runs for an interval, or runs that never reach the target"
    runs = min(test["reached"][side] + test["num_censored"][side] for side in ("first", "second"))
    return {
        **{
            "context": context,
            "measure": SPEED,
            "first": pair[0],
            "second": pair[1],
            "better": measure_of(SPEED).better,
        },
        **{"first_mean": None, "second_mean": None},
        "difference": {
            end: math.log(ratio[key]) if ratio[key] else None
            for end, key in (("mean", "value"), ("low", "low"), ("high", "high"))
        },
        **{
            "n": test["num_pairs"] if test["paired"] else runs,
            "kind": "seeds",
            "p_value": test["p_value"],
        },
        "sign_flip_p": test["p_value"] if test["paired"] else None,
        "smallest_sign_flip_p": test["smallest_p"],
        **{"reason": reason, "ratio": dict(ratio), "share": None},
    }


def _share_of_ratios(control: Row | None, treatment: Row | None) -> Row:
    """Return the share of an effect from ratios of restricted means, without an interval."""
    reason, value = "no interval, since some runs never reach the target", None
    if (
        treatment is None
        or control is None
        or not treatment["ratio"]["value"]
        or not control["ratio"]["value"]
    ):
        reason = "a time to the target is missing"
    elif treatment["p_value"] is None or treatment["p_value"] >= MODERATE:
        reason = "the effect itself is not significant"
    else:
        value = math.log(control["ratio"]["value"]) / math.log(treatment["ratio"]["value"])
    return dataclasses.asdict(Share(value=value, low=None, high=None, n=0, reason=reason))
