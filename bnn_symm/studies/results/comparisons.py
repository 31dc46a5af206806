"""What the settings of a study reached, with intervals over seeds, and how they compare in pairs,
as plain data.

Compared are every asymmetric setting and every control with the standard network of its context,
and every asymmetric setting with every control; of a control also how much of the asymmetric
setting's effect it has. P-values are adjusted for the comparisons of a context and a measure
(Holm). Times to the target, of which some may be censored, are compared as
`convergence_comparisons` does; where every run got there, by a paired t-test of their logarithms.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.diagnostics.convergence.time_to_target import adjusted
from bnn_symm.diagnostics.statistics.paired_comparison import (
    Share,
    estimate,
    pair_estimate,
    paired_difference,
    share_of_effect,
)
from bnn_symm.studies.results import narrative as words

Row = Mapping[str, Any]
Key = tuple[int, str, int, int]
"""Context, measure, first and second setting."""

SPEED = "gradients_to_target"
ALIGNED = "aligned_less_naive"
"""Measure of the aligned barrier against the naive one of the same setting."""

_OF_CELLS = (
    *(
        "test_nll",
        "test_accuracy",
        "test_rmse",
        "test_ece",
        "test_brier",
        "test_crps",
        "test_coverage_90",
    ),
    *(
        "train_nll",
        "validation_nll",
        "elbo",
        "kl",
        "expected_log_likelihood",
        SPEED,
        "gradient_evaluations",
        "seconds",
    ),
    *("rhat_raw_max", "rhat_aligned_max", "rhat_function_max", "ess_function_min"),
)
_OF_PAIRS = (
    *("naive", "aligned", "naive_midpoint", "aligned_midpoint", "naive_error", "aligned_error"),
    *("naive_train", "aligned_train", "distance_before", "distance_after"),
    *("rhat_raw", "rhat_aligned", "rhat_function"),
)
_HIGHER = ("elbo", "test_accuracy")
_COMPARED = (
    *("test_nll", "test_accuracy", "test_rmse", "test_ece", "test_brier", "test_crps", "elbo"),
    *("rhat_raw_max", "rhat_aligned_max", "rhat_function_max"),
    *(
        "naive",
        "aligned",
        "naive_error",
        "aligned_error",
        "rhat_raw",
        "rhat_aligned",
        "rhat_function",
    ),
)
MODERATE = 0.05
"""Below so large a p-value an effect is moderately told."""
_ENDS = (("value", "mean"), ("low", "low"), ("high", "high"))


def summarize_settings(
    settings: Sequence[Row], cell_rows: Sequence[Row], pair_rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """Settings with `measures`: name -> mean over seeds with its interval, of every measure that
    there is.

    Args:
        settings: with their `label`.
        cell_rows: one a fit; only complete ones are read.
        pair_rows: one a pair of fits; only those of two seeds of one setting are.
    """
    values = _Values(settings, cell_rows, pair_rows)
    result = []
    for number, setting in enumerate(settings):
        measures = {}
        for measure in (*_OF_CELLS, *_OF_PAIRS):
            own = values.of(number, measure)
            if own:
                found = pair_estimate(own) if measure in _OF_PAIRS else estimate(own.values())
                measures[measure] = dataclasses.asdict(found)
        late = len(values.censored(number))
        if late and SPEED in measures:
            reason = f"{late} of {measures[SPEED]['n']} never reach the target: see the time to the target"
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
    cell_rows: Sequence[Row],
    pair_rows: Sequence[Row],
    *,
    contexts: Sequence[Row] = (),
) -> list[dict[str, Any]]:
    """Every asymmetric setting and control against the baseline of its context, and asymmetric ones
    against controls.

    Args:
        settings: with `label`, `context` (its number) and `role`.
        cell_rows: one a fit.
        pair_rows: one a pair of fits.
        contexts: with `convergence`, of which speeds are taken; without them speeds are not
            compared.

    Returns:
        Comparisons of `first` against `second`, on what both have. `share`, of an asymmetric
        setting against a control, says how much of its effect the control has. A speed is a `ratio`
        of times, its `difference` the logarithm.
    """
    values = _Values(settings, cell_rows, pair_rows)
    result = []
    for context in sorted({setting["context"] for setting in settings}):
        own = Context(settings, contexts, context)
        families = [
            [_compared(values, own, pair, measure) for pair in own.pairs()] for measure in _COMPARED
        ]
        families.append([_alignment(values, context, number) for number in own.alignable])
        if context < len(contexts):
            families.append(_speeds(values, own, contexts[context].get("convergence")))
        for family in families:
            told = [comparison for comparison in family if comparison is not None]
            for comparison, p in zip(told, adjusted([one["p_value"] for one in told]), strict=True):
                comparison["p_adjusted"], comparison["num_comparisons"] = p, len(told)
                names = [own.name(comparison[side]) for side in ("first", "second")]
                comparison["sentence"] = words.comparison_sentence(names, comparison)
            result += told
    return result


class Context:
    """Settings that differ in nothing but the symmetry, by role."""

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
        # Of which alignment says what is due to the symmetry.
        blocks = [i for i in self.keeps if settings[i]["kind"] == "block_fixed"]
        self.alignable = ([] if self.baseline is None else [self.baseline]) + blocks

    def pairs(self) -> list[tuple[int, int]]:
        """Which settings are compared."""
        controls = [*self.keeps, *self.breaks]
        against = (
            []
            if self.baseline is None
            else [(i, self.baseline) for i in (*self.asymmetric, *controls)]
        )
        return [*against, *((i, j) for i in self.asymmetric for j in controls)]

    def name(self, number: int) -> str:
        """Label of a setting, without what all of its context share."""
        label = str(self.settings[number]["label"])
        return label.removeprefix(f"{self.label}, ") if self.label else label


class _Values:
    """Numbers of complete rows, by setting: of fits by seed, of pairs by their two seeds, the
    smaller one first.
    """

    def __init__(self, settings: Sequence[Row], cell_rows: Sequence[Row], pair_rows: Sequence[Row]):
        places = {setting["label"]: i for i, setting in enumerate(settings)}
        self._cells: dict[int, dict[int, Row]] = {i: {} for i in places.values()}
        self._pairs: dict[int, dict[tuple[int, int], Row]] = {i: {} for i in places.values()}
        for row in cell_rows:
            if row["status"] == "complete" and row["setting"] in places:
                self._cells[places[row["setting"]]][int(row["seed"])] = row
        for row in pair_rows:
            is_own = row["relation"] == "across_seeds" and row["other_setting"] == row["setting"]
            if is_own and row["status"] == "complete" and row["setting"] in places:
                first, second = sorted((int(row["seed"]), int(row["other_seed"])))
                self._pairs[places[row["setting"]]][(first, second)] = row

    def of(self, setting: int, measure: str) -> dict[Any, float]:
        """Seed, or pair of seeds -> value, of those that have one."""
        rows: Mapping[Any, Row] = (self._pairs if measure in _OF_PAIRS else self._cells)[setting]
        found = {unit: _number(row.get(measure)) for unit, row in sorted(rows.items())}
        return {unit: value for unit, value in found.items() if value is not None}

    def censored(self, setting: int) -> set[int]:
        """Seeds that never reached the target."""
        return {
            seed
            for seed, row in self._cells[setting].items()
            if _number(row.get("to_target_censored")) == 1.0
        }

    def log_times(self, setting: int) -> dict[int, float]:
        """Logarithms of the times to the target; empty if a run never got there."""
        times = {} if self.censored(setting) else self.of(setting, SPEED)
        return {seed: math.log(time) for seed, time in times.items() if time > 0}


def _number(value: Any) -> float | None:
    """Tables have NaN where there is nothing."""
    return float(value) if isinstance(value, numbers.Real) and not math.isnan(value) else None


def _compared(
    values: _Values, own: Context, pair: tuple[int, int], measure: str
) -> dict[str, Any] | None:
    """None if one of the two has no value."""
    first, second = (values.of(number, measure) for number in pair)
    if not first or not second:
        return None
    better = "higher" if measure in _HIGHER else "lower"
    comparison = _comparison(own.number, measure, pair, better, first, second)
    if own.baseline not in (None, pair[1]):
        comparison["share"] = _share(second, first, values.of(own.baseline, measure))
    return comparison


def _alignment(values: _Values, context: int, number: int) -> dict[str, Any] | None:
    """Aligned against naive barriers of the same pairs."""
    aligned, naive = (values.of(number, measure) for measure in ("aligned", "naive"))
    return (
        _comparison(context, ALIGNED, (number, number), "lower", aligned, naive)
        if aligned and naive
        else None
    )


def _comparison(
    context: int,
    measure: str,
    pair: tuple[int, int],
    better: str,
    first: Mapping[Any, float],
    second: Mapping[Any, float],
) -> dict[str, Any]:
    both = sorted(first.keys() & second.keys())
    found = dataclasses.asdict(paired_difference(first, second))
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
            "better": better,
        },
        **{"first_mean": means[0], "second_mean": means[1]},
        "difference": {key: found.pop(key) for key in ("mean", "low", "high")},
        **found,
        **{"ratio": None, "share": None},
    }


def _share(
    control: Mapping[Any, float], treatment: Mapping[Any, float], baseline: Mapping[Any, float]
) -> Row:
    above, below = (
        {unit: own[unit] - baseline[unit] for unit in own.keys() & baseline.keys()}
        for own in (control, treatment)
    )
    return dataclasses.asdict(share_of_effect(above, below))


def _speeds(values: _Values, own: Context, convergence: Row | None) -> list[dict[str, Any] | None]:
    """Times to the target, of which some may be censored, as `convergence_comparisons` compares
    them.
    """
    tests: dict[tuple[int, int], dict[str, Any]] = {}
    for test in (convergence or {}).get("comparisons", []):
        if test["clock"] == "gradient_evaluations":
            first, second = (
                (convergence or {})["groups"][test[side]]["setting"] for side in ("first", "second")
            )
            tests[first, second], tests[second, first] = dict(test), _turned(test)
    result = []
    for pair in own.pairs():
        if pair not in tests:
            result.append(None)
            continue
        comparison = _speed(own.number, pair, tests[pair]) | _of_known_times(values, pair)
        if own.baseline not in (None, pair[1]):
            times = [values.log_times(number) for number in (pair[1], pair[0], own.baseline)]
            effects = [tests.get((number, own.baseline)) for number in (pair[1], pair[0])]
            comparison["share"] = _share(*times) if all(times) else _share_of_ratios(*effects)
        result.append(comparison)
    return result


def _of_known_times(values: _Values, pair: tuple[int, int]) -> dict[str, Any]:
    """Where every run got there, the paired t-test of logarithms: few sign flips cannot tell what
    few seeds can.
    """
    found = paired_difference(values.log_times(pair[0]), values.log_times(pair[1]))
    if found.p_value is None or found.mean is None:
        return {}
    ends = {"mean": found.mean, "low": found.low, "high": found.high}
    ratio = {key: None if ends[end] is None else math.exp(ends[end]) for key, end in _ENDS}
    return {"n": found.n, "p_value": found.p_value, "difference": ends, "ratio": ratio}


def _turned(test: Row) -> dict[str, Any]:
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
        reached = any(test["reached"].values())
        reason = "all of their times are equal" if reached else "neither ever reaches the target"
    elif ratio["low"] is None:
        reason = "too few runs for an interval, or runs that never got there"
    runs = min(test["reached"][side] + test["num_censored"][side] for side in ("first", "second"))
    return {
        **{
            "context": context,
            "measure": SPEED,
            "first": pair[0],
            "second": pair[1],
            "better": "lower",
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
    """Of restricted means: without an interval."""
    reason, value = "runs that never reach the target: no interval", None
    if (
        treatment is None
        or control is None
        or not treatment["ratio"]["value"]
        or not control["ratio"]["value"]
    ):
        reason = "a time to the target is missing"
    elif treatment["p_value"] is None or treatment["p_value"] >= MODERATE:
        reason = "the effect itself is not told from zero"
    else:
        value = math.log(control["ratio"]["value"]) / math.log(treatment["ratio"]["value"])
    return dataclasses.asdict(Share(value=value, low=None, high=None, n=0, reason=reason))
