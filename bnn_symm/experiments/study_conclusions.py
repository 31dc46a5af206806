"""What a study says: means over seeds, paired comparisons, and a conclusion for each question, as plain data.

An effect is what an asymmetric setting has against the standard network of its context, which differs in nothing but
the symmetry. It is told, strongly, moderately or weakly, for a p-value below 0.01, 0.05 or 0.1 after Holm's adjustment
for the comparisons of its context and measure (weakly also for one below 0.05 before). An effect that is not told is
absent ("no") only if the 95 % interval excludes a gain of practical size (`_MARGINS`); else it "cannot be told".

Whether it is because of the symmetry is for controls to say. A share is how much of the effect a control has.

- A control that keeps the symmetry, is told from the baseline in the same direction and has at least half of the effect
  explains it: "no".
- "yes" wants that all three controls that keep the symmetry were run, told apart from the asymmetric setting, and have
  less than half; that none has a fifth or more of it with certainty; and that no control without the symmetry lacks the
  effect.
- "partly" if all of them were told apart, but some have a part, or breaking the symmetry alone is not enough.
- "cannot be told" otherwise: without such a control, or with too few seeds.

A barrier that fixed entries equal by blocks do not lower may be due to their lower rank; only what alignment inside the
blocks takes away is due to the symmetry, so that half of the gap has to be. Gates (`sigma_asymmetric`) have no control
that shares them and keeps the symmetry.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.diagnostics.seed_statistics import (
    Share,
    estimate,
    pair_estimate,
    paired_difference,
    share_of_effect,
)
from bnn_symm.diagnostics.speed_tests import adjusted
from bnn_symm.experiments import study_words as words

Row = Mapping[str, Any]
Key = tuple[int, str, int, int]
"""Context, measure, first and second setting."""

SPEED = "gradients_to_target"
ALIGNED = "aligned_less_naive"
"""Measure of the aligned barrier against the naive one of the same setting."""

_OF_CELLS = (
    *("test_nll", "test_accuracy", "test_rmse", "test_ece", "test_brier", "test_crps", "train_nll", "validation_nll"),
    *("elbo", "kl", "expected_log_likelihood", SPEED, "gradient_evaluations", "seconds"),
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
    *("naive", "aligned", "naive_error", "aligned_error", "rhat_raw", "rhat_aligned", "rhat_function"),
)
# Gains that matter: a share of the baseline's value, and at least so much; by measure.
_MARGINS = {"elbo": (0.01, 0.0), "test_accuracy": (0.0, 0.01), "rhat_function_max": (0.0, 0.01), "naive": (0.1, 0.01)}
_MARGIN = (0.1, 0.0)
QUESTIONS = {
    "speed": (SPEED,),
    "elbo": ("elbo",),
    "nll": ("test_nll",),
    "calibration": ("test_ece",),
    "accuracy": ("test_accuracy", "test_rmse"),
    "connected": ("naive",),
    "mixing": ("rhat_function_max",),
}
"""Question -> measures that answer it, of which the first that there is does."""
_STRONG, _MODERATE, _WEAK = 0.01, 0.05, 0.1
# Of an effect: what explains it, and what is a part of it.
_EXPLAINS, _PART = 0.5, 0.2
_ENDS = (("value", "mean"), ("low", "low"), ("high", "high"))
_CONTROLS = ("init_matched", "parameter_matched", "block_fixed")


def summarise_settings(
    settings: Sequence[Row], cell_rows: Sequence[Row], pair_rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """Settings with `measures`: name -> mean over seeds with its interval, of every measure that there is.

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
            measures[SPEED] |= {"mean": None, "sd": None, "low": None, "high": None, "reason": reason}
        result.append({**setting, "measures": measures})
    return result


def compare_settings(
    settings: Sequence[Row], cell_rows: Sequence[Row], pair_rows: Sequence[Row], *, contexts: Sequence[Row] = ()
) -> list[dict[str, Any]]:
    """Every asymmetric setting and control against the baseline of its context, and asymmetric ones against controls.

    Args:
        settings: with `label`, `context` (its number) and `role`.
        cell_rows: one a fit.
        pair_rows: one a pair of fits.
        contexts: with `convergence`, of which speeds are taken; without them speeds are not compared.

    Returns:
        Comparisons of `first` against `second`, on what both have. `share`, of an asymmetric setting against a control,
        says how much of its effect the control has. A speed is a `ratio` of times, its `difference` the logarithm.
    """
    values = _Values(settings, cell_rows, pair_rows)
    result = []
    for context in sorted({setting["context"] for setting in settings}):
        own = _Context(settings, contexts, context)
        families = [[_compared(values, own, pair, measure) for pair in own.pairs()] for measure in _COMPARED]
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


def conclude(
    settings: Sequence[Row], contexts: Sequence[Row], comparisons: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], str]:
    """An answer to each question that the study asks, and one or two sentences for all of them.

    Args:
        settings: of `summarise_settings`.
        contexts: with `label`, `convergence` and `convergence_reason`.
        comparisons: of `compare_settings`.
    """
    found: dict[Key, dict[str, Any]] = {
        (one["context"], one["measure"], one["first"], one["second"]): one for one in comparisons
    }
    conclusions = []
    for number in range(len(contexts)):
        own = _Context(settings, contexts, number)
        for setting in own.asymmetric:
            asked = [_concluded(found, own, setting, question, contexts[number]) for question in QUESTIONS]
            conclusions += [one for one in asked if one is not None]
        conclusions += [one for one in [_aligned(found, own)] if one is not None]
    names = [_Context(settings, contexts, setting["context"]).name(i) for i, setting in enumerate(settings)]
    return conclusions, words.headline(settings, names, conclusions, comparisons)


class _Context:
    """Settings that differ in nothing but the symmetry, by role."""

    def __init__(self, settings: Sequence[Row], contexts: Sequence[Row], number: int):
        self.settings, self.number = settings, number
        self.label = str(contexts[number]["label"]) if number < len(contexts) else ""
        own = [i for i, setting in enumerate(settings) if setting["context"] == number]
        by_role = {role: [i for i in own if settings[i]["role"] == role] for role in {settings[i]["role"] for i in own}}
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
        against = [] if self.baseline is None else [(i, self.baseline) for i in (*self.asymmetric, *controls)]
        return [*against, *((i, j) for i in self.asymmetric for j in controls)]

    def name(self, number: int) -> str:
        """Label of a setting, without what all of its context share."""
        label = str(self.settings[number]["label"])
        return label.removeprefix(f"{self.label}, ") if self.label else label


class _Values:
    """Numbers of complete rows, by setting: of fits by seed, of pairs by their two seeds, the smaller one first."""

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
        return {seed for seed, row in self._cells[setting].items() if _number(row.get("to_target_censored")) == 1.0}

    def log_times(self, setting: int) -> dict[int, float]:
        """Logarithms of the times to the target; empty if a run never got there."""
        times = {} if self.censored(setting) else self.of(setting, SPEED)
        return {seed: math.log(time) for seed, time in times.items() if time > 0}


def _number(value: Any) -> float | None:
    """Tables have NaN where there is nothing."""
    return float(value) if isinstance(value, numbers.Real) and not math.isnan(value) else None


def _compared(values: _Values, own: _Context, pair: tuple[int, int], measure: str) -> dict[str, Any] | None:
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
    return _comparison(context, ALIGNED, (number, number), "lower", aligned, naive) if aligned and naive else None


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
    means = [math.fsum(own[unit] for unit in both) / len(both) if both else None for own in (first, second)]
    return {
        **{"context": context, "measure": measure, "first": pair[0], "second": pair[1], "better": better},
        **{"first_mean": means[0], "second_mean": means[1]},
        "difference": {key: found.pop(key) for key in ("mean", "low", "high")},
        **found,
        **{"ratio": None, "share": None},
    }


def _share(control: Mapping[Any, float], treatment: Mapping[Any, float], baseline: Mapping[Any, float]) -> Row:
    above, below = (
        {unit: own[unit] - baseline[unit] for unit in own.keys() & baseline.keys()} for own in (control, treatment)
    )
    return dataclasses.asdict(share_of_effect(above, below))


def _speeds(values: _Values, own: _Context, convergence: Row | None) -> list[dict[str, Any] | None]:
    """Times to the target, of which some may be censored, as `convergence_comparisons` compares them."""
    tests: dict[tuple[int, int], dict[str, Any]] = {}
    for test in (convergence or {}).get("comparisons", []):
        if test["clock"] == "gradient_evaluations":
            first, second = ((convergence or {})["groups"][test[side]]["setting"] for side in ("first", "second"))
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
    """Where every run got there, the paired t-test of logarithms: few sign flips cannot tell what few seeds can."""
    found = paired_difference(values.log_times(pair[0]), values.log_times(pair[1]))
    if found.p_value is None or found.mean is None:
        return {}
    ends = {"mean": found.mean, "low": found.low, "high": found.high}
    ratio = {key: None if ends[end] is None else math.exp(ends[end]) for key, end in _ENDS}
    return {"n": found.n, "p_value": found.p_value, "difference": ends, "ratio": ratio}


def _turned(test: Row) -> dict[str, Any]:
    ratio = {"value": test["ratio"]["value"], "low": test["ratio"]["high"], "high": test["ratio"]["low"]}
    ends = {
        side: {"first": test[side]["second"], "second": test[side]["first"]} for side in ("reached", "num_censored")
    }
    return {**test, **ends, "ratio": {key: None if not value else 1 / value for key, value in ratio.items()}}


def _speed(context: int, pair: tuple[int, int], test: Row) -> dict[str, Any]:
    ratio, reason = test["ratio"], None
    if test["p_value"] is None:
        reached = any(test["reached"].values())
        reason = "all of their times are equal" if reached else "neither ever reaches the target"
    elif ratio["low"] is None:
        reason = "too few runs for an interval, or runs that never got there"
    runs = min(test["reached"][side] + test["num_censored"][side] for side in ("first", "second"))
    return {
        **{"context": context, "measure": SPEED, "first": pair[0], "second": pair[1], "better": "lower"},
        **{"first_mean": None, "second_mean": None},
        "difference": {
            end: math.log(ratio[key]) if ratio[key] else None
            for end, key in (("mean", "value"), ("low", "low"), ("high", "high"))
        },
        **{"n": test["num_pairs"] if test["paired"] else runs, "kind": "seeds", "p_value": test["p_value"]},
        "sign_flip_p": test["p_value"] if test["paired"] else None,
        "smallest_sign_flip_p": test["smallest_p"],
        **{"reason": reason, "ratio": dict(ratio), "share": None},
    }


def _share_of_ratios(control: Row | None, treatment: Row | None) -> Row:
    """Of restricted means: without an interval."""
    reason, value = "runs that never reach the target: no interval", None
    if treatment is None or control is None or not treatment["ratio"]["value"] or not control["ratio"]["value"]:
        reason = "a time to the target is missing"
    elif treatment["p_value"] is None or treatment["p_value"] >= _MODERATE:
        reason = "the effect itself is not told from zero"
    else:
        value = math.log(control["ratio"]["value"]) / math.log(treatment["ratio"]["value"])
    return dataclasses.asdict(Share(value=value, low=None, high=None, n=0, reason=reason))


def _concluded(
    found: Mapping[Key, dict[str, Any]], own: _Context, setting: int, question: str, context: Row
) -> dict[str, Any] | None:
    """None if the study has nothing to do with the question."""
    settings, base = own.settings, own.baseline
    known = [i for i in (setting, base) if i is not None]
    names = (own.name(setting), None if base is None else own.name(base))
    present = [m for m in QUESTIONS[question] if any(m in settings[i].get("measures", {}) for i in known)]
    measure = (present or QUESTIONS[question])[0]
    effect = None if base is None else found.get((own.number, measure, setting, base))
    reason = context.get("convergence_reason") if question == "speed" else None
    if effect is None and not present and reason is None:
        return None
    told = {"answer": "cannot be told", "strength": "none", "because_of_symmetry": "not asked", "explained_by": []}
    if effect is None:
        having = [measure in settings[i].get("measures", {}) for i in known]
        sentence = words.missing_sentence(names, measure, reason, having)
    else:
        told |= _answer(effect)
        sentence = words.effect_sentence(names, effect, told, _margin_of(effect))
        alignment = _of_alignment(found, own)
        if question == "connected" and alignment is not None:
            sentence += words.aligned_clause(names, alignment)
        if question == "connected" and base is not None:
            sentence += words.flat_clause(names, settings[base].get("measures", {}).get("naive", {}))
        if told["answer"] in ("yes", "the other way"):
            cause = _cause(found, own, effect)
            told |= {key: cause[key] for key in ("because_of_symmetry", "explained_by")}
            sentence += " " + words.cause_sentence(cause)
    ahead = {"question": question, "title": words.title(question, measure), "context": own.number, "setting": setting}
    return {**ahead, **told, "sentence": sentence}


def _aligned(found: Mapping[Key, dict[str, Any]], own: _Context) -> dict[str, Any] | None:
    effect = _of_alignment(found, own)
    if effect is None:
        return None
    baseline = effect["first"]
    told = _answer(effect)
    return {
        **{"question": "aligned", "title": words.title("aligned", ALIGNED)},
        **{"context": own.number, "setting": baseline, **told},
        # Alignment takes away nothing else.
        "because_of_symmetry": "yes" if told["answer"] == "yes" else "not asked",
        "explained_by": [],
        "sentence": words.alignment_sentence(own.name(baseline), effect, told, _margin_of(effect)),
    }


def _of_alignment(found: Mapping[Key, dict[str, Any]], own: _Context) -> dict[str, Any] | None:
    """Of the baseline."""
    return None if own.baseline is None else found.get((own.number, ALIGNED, own.baseline, own.baseline))


def _gain(effect: Row, key: str = "mean") -> float | None:
    value = effect["difference"][key]
    return None if value is None else value if effect["better"] == "higher" else -value


def _answer(effect: Row) -> dict[str, Any]:
    """`answer` and `strength`."""
    p, p_adjusted, gain, margin = effect["p_value"], effect["p_adjusted"], _gain(effect), _margin_of(effect)
    strength = "none"
    if p is not None and p_adjusted is not None and gain:
        levels = ((_STRONG, "strong"), (_MODERATE, "moderate"), (_WEAK, "weak"))
        strength = next((word for level, word in levels if p_adjusted < level), "weak" if p < _MODERATE else "none")
    if strength != "none":
        return {"answer": "yes" if (gain or 0) > 0 else "the other way", "strength": strength}
    largest = 0.0 if gain == 0 and p == 1 else _gain(effect, "low" if effect["better"] == "lower" else "high")
    is_absent = p is not None and largest is not None and margin is not None and largest < margin
    return {"answer": "no" if is_absent else "cannot be told", "strength": "none"}


def _margin_of(effect: Row) -> float | None:
    """The smallest gain that matters, in the units of the difference; None where there is no value to compare with."""
    if effect["measure"] == SPEED:
        return -math.log(1 - _MARGIN[0])
    if effect["second_mean"] is None:
        return None
    share, least = _MARGINS.get("naive" if effect["measure"] == ALIGNED else effect["measure"], _MARGIN)
    return max(share * abs(effect["second_mean"]), least)


def _is_told(comparison: Row, sign: float) -> bool:
    """Apart, with a difference of this sign."""
    p, mean = comparison["p_adjusted"], comparison["difference"]["mean"]
    return p is not None and p < _MODERATE and mean is not None and mean * sign > 0


def _cause(found: Mapping[Key, dict[str, Any]], own: _Context, effect: Row) -> dict[str, Any]:
    """Whether an effect is because of the symmetry, and what each control says of it."""
    sign = math.copysign(1.0, effect["difference"]["mean"])
    kind = own.settings[effect["first"]]["kind"]
    lowers_barrier = effect["measure"] == "naive" and sign < 0
    cause: dict[str, Any] = {"explained_by": [], "keeps": [], "breaks": [], "not_run": [], "kind": kind}
    if kind == "sigma_asymmetric":
        return {**cause, "because_of_symmetry": "cannot be told"}
    for number in own.keeps:
        control = _evidence(found, own, effect, number, sign)
        if control["says"] == "lacks" and lowers_barrier and own.settings[number]["kind"] == "block_fixed":
            control |= _removed(found.get((own.number, ALIGNED, number, number)), control)
        cause["keeps"].append(control)
    same = [number for number in own.breaks if own.settings[number]["kind"] in (kind, "block_fixed")]
    cause["breaks"] = [_evidence(found, own, effect, number, sign) for number in same]
    run = {own.settings[number]["kind"] for number in own.keeps}
    cause["not_run"] = [control for control in _CONTROLS if control not in run]
    cause["explained_by"] = [one["setting"] for one in cause["keeps"] if one["says"] == "has"]
    says = {one["says"] for one in cause["keeps"]}
    not_enough = any(one["says"] in ("lacks", "part") for one in cause["breaks"])
    if "has" in says:
        answer = "no"
    elif cause["not_run"] or says & {"unclear", "missing"}:  # what one control does not explain another may
        answer = "cannot be told"
    else:
        answer = "partly" if "part" in says or not_enough else "yes"
    return {**cause, "because_of_symmetry": answer}


def _evidence(
    found: Mapping[Key, dict[str, Any]], own: _Context, effect: Row, number: int, sign: float
) -> dict[str, Any]:
    """Whether a control has the effect, a part of it, lacks it, or leaves that unclear."""
    measure, first, base = effect["measure"], effect["first"], effect["second"]
    alone, against = found.get((own.number, measure, number, base)), found.get((own.number, measure, first, number))
    setting = own.settings[number]
    keys = {key.rpartition(".")[2]: value for key, value in setting.get("differences", {}).items()}
    control = {
        **{"setting": number, "name": own.name(number), "kind": setting["kind"], "kappa": keys.get("kappa")},
        **{"log10_order": setting.get("log10_order"), "share": None, "against": against},
    }
    if alone is None or against is None:
        return {**control, "says": "missing"}
    share = against["share"] or {}
    value, has_own, is_apart = share.get("value"), _is_told(alone, sign), _is_told(against, sign)
    says = "unclear"
    if value is not None and value >= _EXPLAINS and has_own:
        says = "has"
    elif value is not None and is_apart:
        says = "part" if value >= _EXPLAINS or (has_own and value >= _PART) else "lacks"
    return {**control, "share": share, "says": says}


def _removed(alignment: Row | None, control: Row) -> dict[str, Any]:
    """What alignment inside blocks takes away of the gap to the asymmetric setting: only that is due to symmetry."""
    gap = control["against"]["difference"]["mean"]
    if alignment is None or alignment["difference"]["mean"] is None:
        return {"says": "unclear", "removed": None}
    removed = {"value": -alignment["difference"]["mean"], "share": alignment["difference"]["mean"] / gap}
    if not _is_told(alignment, -1.0):
        return {"says": "unclear", "removed": {**removed, "is_told": False}}
    return {"says": "lacks" if removed["share"] >= _EXPLAINS else "part", "removed": {**removed, "is_told": True}}
