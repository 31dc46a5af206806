"""Build the sentences of a study's conclusions, and its headline, from comparisons."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.diagnostics.convergence.time_to_target import smallest_p_value
from bnn_symm.diagnostics.scores.scores import SCORES
from bnn_symm.diagnostics.statistics.verdicts import number

Row = Mapping[str, Any]

INCONCLUSIVE = "cannot be told"
"""Stored value of `answer` and `because_of_symmetry` where the evidence is inconclusive."""
OPPOSITE = "the other way"
"""Stored value of `answer` where the effect has the opposite direction."""
NOT_ASSESSED = "not asked"
"""Stored value of `because_of_symmetry` where there is no effect to explain."""
VERDICTS = {
    "yes": "supported",
    "no": "not supported",
    OPPOSITE: "opposite effect",
    INCONCLUSIVE: "inconclusive",
}
"""Texts of the stored values of `answer`."""
CAUSES = {
    "yes": "yes",
    "no": "no",
    "partly": "partly",
    INCONCLUSIVE: "inconclusive",
    NOT_ASSESSED: "-",
}
"""Texts of the stored values of `because_of_symmetry`."""

MEASURE_NAMES = {
    **{f"test_{name}": f"test {score.title}" for name, score in SCORES.items()},
    "elbo": "ELBO",
    "gradients_to_target": "time to the target",
    "rhat_raw_max": "R-hat of weights",
    "rhat_aligned_max": "R-hat of aligned weights",
    "rhat_function_max": "R-hat of functions",
    "naive": "barrier without alignment",
    "aligned": "barrier after alignment",
    "naive_error": "error-rate barrier without alignment",
    "aligned_error": "error-rate barrier after alignment",
    "rhat_raw": "R-hat of weights of two seeds",
    "rhat_aligned": "R-hat of aligned weights of two seeds",
    "rhat_function": "R-hat of functions of two seeds",
    "aligned_less_naive": "barrier with and without alignment",
}
_UNITS = {"elbo": " nats", "naive": " nats", "aligned": " nats", "aligned_less_naive": " nats"}
_TITLES = {
    "speed": "Faster convergence",
    "elbo": "Higher ELBO",
    "nll": "Better predictions (lower test NLL)",
    "calibration": "Better calibration (lower test ECE)",
    "accuracy": "Higher test accuracy",
    "connected": "Lower barrier without alignment",
    "mixing": "Better mixing of functions (lower R-hat)",
    "aligned": "Alignment lowers the barrier between standard networks",
}
# Names of a gain and of a loss.
_EFFECTS = {
    "speed": ("faster convergence", "slower convergence"),
    "elbo": ("a higher ELBO", "a lower ELBO"),
    "nll": ("a lower test NLL", "a higher test NLL"),
    "calibration": ("better calibration", "worse calibration"),
    "accuracy": ("better accuracy", "worse accuracy"),
    "connected": ("a lower barrier without alignment", "a higher barrier without alignment"),
    "mixing": ("better mixing", "worse mixing"),
}
_SUBJECTS = {
    **{"speed": "speed", "elbo": "the ELBO", "nll": "test NLL", "calibration": "calibration"},
    **{"accuracy": "accuracy", "connected": "the barrier without alignment", "mixing": "mixing"},
}
# Share of an effect above which no remainder is mentioned.
_NEARLY_ALL = 0.8
# A p-value below the first before adjustment is weak evidence where the adjusted one is above the
# second.
_MODERATE, _WEAK = 0.05, 0.1
# The headline describes up to this many settings one by one, and counts effects over more.
_FEW = 2


def title(question: str, measure: str) -> str:
    """Return the hypothesis that a question tests.

    Args:
        question: key of the question.
        measure: the measure that answers it.

    Returns:
        The title of the conclusion.
    """
    return "Lower test RMSE" if measure == "test_rmse" else _TITLES[question]


def comparison_sentence(names: Sequence[str], comparison: Row) -> str:
    """Return the comparison of two settings with the strength of its evidence.

    Args:
        names: of the first and the second setting.
        comparison: of `compare_settings`.

    Returns:
        A sentence without a period.
    """
    return f"{_comparison_text(names, comparison)} ({_evidence_text(comparison)})"


def effect_sentence(
    names: Sequence[str | None], effect: Row, verdict: Row, margin: float | None
) -> str:
    """Return the effect of an asymmetric setting relative to the baseline, or why it is unknown.

    Args:
        names: of the asymmetric setting and of the baseline.
        effect: their comparison.
        verdict: `answer` and `strength`.
        margin: the smallest gain of practical size.

    Returns:
        The sentence.
    """
    text = f"{_comparison_text([str(name) for name in names], effect)} ({_evidence_text(effect)})"
    if verdict["answer"] == "no":
        if effect["difference"]["mean"] == 0:
            return f"{text}: no gain."
        return f"{text}: a gain of {_gain_text(effect, margin)} or more is excluded."
    if verdict["answer"] == INCONCLUSIVE and effect["p_value"] is not None:
        return f"{text}: inconclusive{_possible_gain_clause(effect)}."
    return f"{text}."


def alignment_sentence(name: str, effect: Row, verdict: Row, margin: float | None) -> str:
    """Return the effect of alignment on the barrier of a setting.

    Args:
        name: of the setting.
        effect: the comparison of its barriers with and without alignment.
        verdict: `answer` and `strength`.
        margin: the smallest reduction of practical size.

    Returns:
        The sentence.
    """
    before, after = effect["second_mean"], effect["first_mean"]
    if before is None:
        return (
            f"Barriers of {name} with and without alignment are not compared: {effect['reason']}."
        )
    text = (
        f"Alignment changes the barrier of {name} from {_value_text('naive', before)} to "
        f"{_value_text('naive', after)} nats"
    )
    evidence = _evidence_text(effect)
    if verdict["answer"] == "yes":
        return f"{text}{_reduction_clause(before, after)} ({evidence})."
    if verdict["answer"] == "no":
        return f"{text} ({evidence}): a reduction of {number(margin)} nats or more is excluded."
    return f"{text} ({evidence}){'' if verdict['answer'] == OPPOSITE else ': inconclusive'}."


def alignment_clause(names: Sequence[str | None], alignment: Row) -> str:
    """Return the barrier of the baseline after alignment.

    Args:
        names: of the asymmetric setting and of the baseline.
        alignment: the comparison of the baseline's barriers with and without alignment.

    Returns:
        A sentence to append; empty if the barrier is unknown.
    """
    after = alignment["first_mean"]
    if after is None:
        return ""
    return f" After alignment, the barrier of {names[1]} is {_value_text('naive', after)} nats."


def zero_barrier_clause(names: Sequence[str | None], naive: Row) -> str:
    """Return a remark where the baseline has no measurable barrier.

    Args:
        names: of the asymmetric setting and of the baseline.
        naive: the baseline's barrier without alignment, with its interval.

    Returns:
        A sentence to append; empty if the barrier differs from zero.
    """
    is_zero = naive.get("low") is not None and naive["low"] <= 0
    return f" The barrier of {names[1]} is indistinguishable from zero." if is_zero else ""


def missing_sentence(
    names: Sequence[str | None], measure: str, reason: str | None, available: Sequence[bool]
) -> str:
    """Return why there is no comparison.

    Args:
        names: of the asymmetric setting and of the baseline, which may be missing.
        measure: that would be compared.
        reason: why the measure is unknown, if that is known.
        available: for each setting whether it has the measure.

    Returns:
        The sentence.
    """
    measure_name = MEASURE_NAMES[measure]
    if names[1] is None:
        return (
            f"There is no standard network to compare {names[0]} with: add `standard` to "
            "study.vary.architecture.symmetry.kind."
        )
    if reason:
        return f"The {measure_name} is unknown: {reason.rstrip('.')}."
    without = [str(name) for name, has in zip(names, available, strict=True) if not has]
    return f"There is no {measure_name} of {listed(without or [str(name) for name in names])}."


def cause_sentence(cause: Row) -> str:
    """Return whether the symmetry explains an effect, with the evidence of each control.

    Args:
        cause: the evidence of all controls, and `because_of_symmetry`.

    Returns:
        One or two sentences.
    """
    unclear = "Whether the symmetry explains the effect is inconclusive"
    if cause["kind"] == "sigma_asymmetric":
        return f"{unclear}: no control shares the gates and keeps the symmetry."
    keeps, answer, breaking = cause["keeps"], cause["because_of_symmetry"], _breaking_text(cause)
    absent = cause["not_run"]
    not_run = f"{listed(absent)} {'was' if len(absent) == 1 else 'were'} not run" if absent else ""
    if answer == "no":
        having = sorted(
            (one for one in keeps if one["evidence"] == "has"),
            key=lambda one: -one["share"]["value"],
        )
        first = having[0]
        parts = [f"the control {first['name']}, which keeps it, shows {_share_text(first)}"]
        parts += [f"{one['name']} shows {_share_text(one)}" for one in having[1:]]
        if first["share"]["value"] < _NEARLY_ALL and _is_significant(first["against"]):
            parts.append("the remainder has another cause")
        return f"Not explained by the symmetry: {'; '.join(parts)}.{breaking}"
    if not keeps:
        return f"{unclear}: no control keeps the symmetry ({not_run}).{breaking}"
    parts = [_control_text(one) for one in keeps] + ([not_run] if not_run else [])
    verdict = {
        "yes": "Explained by the symmetry",
        "partly": "Partly explained by the symmetry",
        INCONCLUSIVE: unclear,
    }[answer]
    return f"{verdict}: among controls that keep it, {'; '.join(parts)}.{breaking}"


def headline(
    settings: Sequence[Row],
    names: Sequence[str],
    conclusions: Sequence[dict[str, Any]],
    comparisons: Sequence[dict[str, Any]],
) -> str:
    """Return the main conclusion of a study in one or two sentences.

    Args:
        settings: all settings of the study.
        names: of the settings, without the label of their context.
        conclusions: of all contexts.
        comparisons: of all contexts, which contain the number of seeds.

    Returns:
        The headline.
    """
    effects = [one for one in conclusions if one["question"] != "aligned"]
    aligned = [one for one in conclusions if one["question"] == "aligned"]
    if not any(setting.get("measures") for setting in settings):
        return "Inconclusive: no fit is complete."
    if not any(setting["role"] == "asymmetric" for setting in settings):
        text = (
            f"{len(settings)} settings are compared; none of them breaks the symmetry."
            if len(settings) > 1
            else "No comparison: the study has no asymmetric network."
        )
    elif not any(setting["role"] == "baseline" for setting in settings):
        text = "No comparison: the study has no standard network."
    elif not any(one["strength"] != "none" for one in effects):
        text = _no_effect_text(effects, comparisons)
    elif len({(one["context"], one["setting"]) for one in effects}) <= _FEW:
        text = _settings_text(settings, names, effects, comparisons)
    else:
        text = _counts_text(effects, comparisons)
    return " ".join([text, *_alignment_sentences(aligned)])


def listed(items: Sequence[str]) -> str:
    """Return items joined by commas, with `and` before the last.

    Args:
        items: the items.

    Returns:
        The joined text.
    """
    return ", ".join(items) if len(items) < 2 else f"{', '.join(items[:-1])} and {items[-1]}"


# -- numbers


def _value_text(measure: str, value: float | None) -> str:
    # Two estimates of one accuracy or R-hat differ in the third digit.
    return (
        f"{value:.4g}"
        if value is not None and measure.startswith(("rhat", "test_accuracy"))
        else number(value)
    )


def _percent_text(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if abs(percent) >= 0.95 or percent == 0 else f"{percent:.1g} %"


def _comparison_text(names: Sequence[str], comparison: Row) -> str:
    first, second = names
    measure = comparison["measure"]
    if measure == "gradients_to_target":
        return _speed_text(first, second, comparison)
    name, unit = MEASURE_NAMES[measure], _UNITS.get(measure, "")
    name = f"{name[0].upper()}{name[1:]}"
    if measure == "aligned_less_naive":
        first, second = f"{first}, aligned", f"{second}, unaligned"
    if comparison["first_mean"] is None or comparison["difference"]["mean"] is None:
        return f"{name} of {first} and {second}: not compared"
    values = [_value_text(measure, comparison[key]) for key in ("first_mean", "second_mean")]
    text = f"{name} of {first} versus {second}: {values[0]} versus {values[1]}{unit}"
    return f"{text}, {_change_text(comparison)}"


def _speed_text(first: str, second: str, comparison: Row) -> str:
    ratio = comparison["ratio"]
    if ratio["value"] is None:
        return f"{first} and {second}: times to the target are not compared"
    interval = ""
    if ratio["low"] is not None and ratio["high"] is not None:
        ends = f"{number(ratio['low'])} to {number(ratio['high'])}"
        interval = f" (95 % confidence interval {ends})"
    times = f"{number(ratio['value'])} times the gradient evaluations"
    return f"{first} needs {times} of {second}{interval}"


def _change_text(comparison: Row) -> str:
    """Return how much better or worse the first setting is, in the terms of the measure."""
    difference = comparison["difference"]["mean"]
    if difference == 0:
        return "equal"
    is_gain = (difference > 0) == (comparison["better"] == "higher")
    lower, higher = ("lower", "higher") if comparison["measure"] in _UNITS else ("better", "worse")
    if comparison["better"] == "higher":
        lower, higher = higher, lower
    word = lower if difference < 0 else higher
    if comparison["measure"] == "elbo":
        return f"{number(abs(difference))} nats {'higher' if is_gain else 'lower'}"
    if comparison["measure"].startswith("rhat"):
        return "better" if is_gain else "worse"
    return f"{_size_text(comparison, abs(difference))} {word}"


def _size_text(comparison: Row, difference: float) -> str:
    """Return a difference as a share of the second value, in percentage points or in nats."""
    if comparison["measure"] == "test_accuracy":
        points = number(100 * difference)
        return f"{points} point{'' if points == '1' else 's'}"
    if comparison["measure"] == "elbo":
        return f"{number(difference)} nats"
    unit, before = _UNITS.get(comparison["measure"]), comparison["second_mean"]
    # A share of an R-hat, which is 1 at best, has no meaning; nor has a share of a barrier of zero.
    if comparison["measure"].startswith("rhat") or before is None or before <= 0:
        return f"{number(difference)}{unit or ''}"
    return _percent_text(difference / before)


def _gain_text(effect: Row, gain: float | None) -> str:
    if gain is None:
        return "any size"
    if effect["measure"] == "gradients_to_target":
        return _percent_text(1 - math.exp(-gain))
    return _size_text(effect, gain)


def _possible_gain_clause(effect: Row) -> str:
    end = effect["difference"]["low" if effect["better"] == "lower" else "high"]
    gain = None if end is None else end if effect["better"] == "higher" else -end
    return (
        ""
        if gain is None or gain <= 0
        else f"; a gain of up to {_gain_text(effect, gain)} is possible"
    )


def _evidence_text(comparison: Row) -> str:
    """Return the number of seeds and the p-value, or why there is none."""
    unit = {"seeds": "seed", "pairs": "disjoint pair of seeds", "pairs of seeds": "seed"}[
        comparison["kind"]
    ]
    count = f"{comparison['n']} {unit}{'' if comparison['n'] == 1 else 's'}".replace(
        "pair of seedss", "pairs of seeds"
    )
    if comparison["kind"] == "pairs of seeds":
        count = f"all pairs of {count}"
    if comparison["p_value"] is None:
        return (
            comparison["reason"]
            if str(comparison["reason"]).startswith(str(comparison["n"]))
            else f"{count}; {comparison['reason']}"
        )
    many = comparison["num_comparisons"]
    adjusted = f", adjusted for {many} comparisons" if many > 1 else ""
    # The unadjusted p-value is what makes this evidence weak, instead of none.
    if comparison["p_value"] < _MODERATE and comparison["p_adjusted"] >= _WEAK:
        adjusted += f", {_p_value_text(comparison['p_value']).removeprefix('= ')} before adjustment"
    text = f"{count}, p {_p_value_text(comparison['p_adjusted'])}{adjusted}"
    smallest = comparison["smallest_sign_flip_p"]
    by_flips = (
        comparison["measure"] == "gradients_to_target"
        and comparison["p_value"] == comparison["sign_flip_p"]
    )
    if by_flips and smallest is not None and smallest * many >= 0.05:
        needed = next((n for n in range(1, 15) if smallest_p_value(n) * many < 0.05), None)
        more = f": fit at least {needed} seeds" if needed and needed > comparison["n"] else ""
        text += (
            f"; with so few differing seeds, p is at least {min(1.0, smallest * many):.2g}{more}"
        )
    return text


def _p_value_text(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}" if p < 0.995 else "= 1"


# -- causes


def _share_text(control: Row) -> str:
    share = control["share"]
    interval = ""
    if share["low"] is not None and share["high"] is not None:
        interval = f" ({_percent_number(share['low'])} to {_percent_number(share['high'])} %)"
    return f"{_percent_number(share['value'])} % of the effect{interval}"


def _percent_number(share: float) -> str:
    return f"{100 * share:.0f}".replace("-0", "0") if abs(share) < 0.005 else f"{100 * share:.0f}"


def _control_text(control: Row) -> str:
    """Return the evidence of a control that keeps the symmetry."""
    if control["evidence"] == "missing":
        return f"{control['name']} has no result"
    if control["share"].get("value") is None:
        reason = control["share"].get("reason") or "no confidence interval"
        return f"the share of {control['name']} is unknown ({reason})"
    text = f"{control['name']} shows {_share_text(control)}"
    if control["evidence"] == "unclear" and "reduction" not in control:
        return f"{text}, which is inconclusive"
    if "reduction" not in control:
        return text
    reduction = control["reduction"]
    if reduction is None:
        return f"{text}, but alignment within its blocks was not measured"
    if not reduction["is_significant"]:
        return f"{text}, but the effect of alignment within its blocks is inconclusive"
    amount = f"{number(reduction['value'])} nats, {_percent_number(reduction['share'])} %"
    return f"{text}, and alignment within its blocks removes {amount} of its excess"


def _is_significant(against: Row) -> bool:
    p = against["p_adjusted"]
    return p is not None and p < 0.05


def _breaking_text(cause: Row) -> str:
    """Return the evidence of controls without the symmetry: whether breaking it suffices."""
    lacking = [control for control in cause["breaks"] if control["evidence"] in ("lacks", "part")]
    having = [control for control in cause["breaks"] if control["evidence"] == "has"]
    text = ""
    if lacking:
        alone = "alone " if all(control["log10_order"] == 0 for control in lacking) else ""
        shares = listed(
            [f"{_breaking_name(control)} shows {_share_text(control)}" for control in lacking]
        )
        text += f" Breaking the symmetry {alone}does not suffice: {shares}."
    if having:
        shares = listed(
            [f"{_breaking_name(control)} shows {_share_text(control)}" for control in having]
        )
        text += f" Breaking the symmetry in another way has the same effect: {shares}."
    return text


def _breaking_name(control: Row) -> str:
    kappa = control["kappa"]
    if kappa is None:
        return str(control["name"])
    return f"kappa = {kappa:g}" if isinstance(kappa, int | float) else f"kappa = {kappa}"


# -- the headline


def _seeds_text(comparisons: Sequence[Row]) -> str:
    counts = {one["n"] for one in comparisons if one["kind"] == "seeds" and one["n"]}
    counts = counts or {one["n"] for one in comparisons if one["n"]}
    if not counts:
        return "too few seeds"
    return f"{max(counts)} seed{'' if max(counts) == 1 else 's'}"


def _no_effect_text(effects: Sequence[Row], comparisons: Sequence[Row]) -> str:
    seeds = _seeds_text(comparisons)
    absent = list(
        dict.fromkeys(_SUBJECTS[one["question"]] for one in effects if one["answer"] == "no")
    )
    is_open = any(one["answer"] == INCONCLUSIVE for one in effects)
    if not effects:
        return "Inconclusive: no measure of asymmetric and standard networks is complete."
    if not absent:
        return f"With {seeds}, the comparison of asymmetric with standard networks is inconclusive."
    text = f"Asymmetric networks show no gain of practical size in {listed(absent)} ({seeds})"
    return f"{text}; the other comparisons are inconclusive." if is_open else f"{text}."


def _settings_text(
    settings: Sequence[Row],
    names: Sequence[str],
    effects: Sequence[dict[str, Any]],
    comparisons: Sequence[Row],
) -> str:
    keys = list(dict.fromkeys((one["context"], one["setting"]) for one in effects))
    has_contexts = len({context for context, _ in keys}) > 1
    sentences = []
    for context, setting in keys:
        own = [one for one in effects if (one["context"], one["setting"]) == (context, setting)]
        shown = [_effect_text(one, names) for one in own if one["strength"] != "none"]
        unclear = [_SUBJECTS[one["question"]] for one in own if one["answer"] == INCONCLUSIVE]
        absent = [_SUBJECTS[one["question"]] for one in own if one["answer"] == "no"]
        name = str(settings[setting]["label"]) if has_contexts else names[setting]
        parts: list[str] = []
        if shown:
            parts.append(f"{name} shows {listed(shown)} compared with the standard network")
        if absent:
            no_gain = f"no gain of practical size in {listed(absent)}"
            parts.append(no_gain if shown else f"{name} shows {no_gain}")
        if unclear:
            parts.append(
                f"inconclusive for {listed(unclear)}"
                if parts
                else f"all comparisons of {name} are inconclusive"
            )
        sentences.append("; ".join(parts))
    sentences[0] += f" ({_seeds_text(comparisons)})"
    return " ".join(f"{sentence}." for sentence in sentences)


def _effect_text(effect: Row, names: Sequence[str]) -> str:
    gain, loss = _EFFECTS[effect["question"]]
    explaining = [str(names[int(i)]) for i in effect["explained_by"]]
    cause = {
        "yes": "explained by the symmetry",
        "partly": "partly explained by the symmetry",
        INCONCLUSIVE: "with inconclusive cause",
        "no": f"explained by {listed(explaining)}, not by the symmetry",
    }[effect["because_of_symmetry"]]
    return f"{gain if effect['answer'] == 'yes' else loss} ({effect['strength']} evidence, {cause})"


def _counts_text(effects: Sequence[Row], comparisons: Sequence[Row]) -> str:
    total = len({(one["context"], one["setting"]) for one in effects})
    parts: list[str] = []
    unsupported: list[str] = []
    for question, words in _EFFECTS.items():
        own = [one for one in effects if one["question"] == question]
        is_supported = False
        for answer, word in zip(("yes", OPPOSITE), words, strict=True):
            having = [one for one in own if one["answer"] == answer]
            if not having:
                continue
            is_supported = True
            counts = {
                "explained by the symmetry": sum(
                    one["because_of_symmetry"] == "yes" for one in having
                ),
                "partly explained by it": sum(
                    one["because_of_symmetry"] == "partly" for one in having
                ),
                "explained by a control that keeps it": sum(
                    one["because_of_symmetry"] == "no" for one in having
                ),
            }
            causes = ", ".join(f"{count} {cause}" for cause, count in counts.items() if count)
            details = f" ({causes})" if causes else ""
            parts.append(f"{word} in {len(having)} of {len(own)}{details}")
        if own and not is_supported:
            unsupported.append(_SUBJECTS[question])
    text = (
        f"{total} asymmetric settings compared with their standard networks "
        f"({_seeds_text(comparisons)} each): {', '.join(parts)}."
    )
    return f"{text} No effect is supported for {listed(unsupported)}." if unsupported else text


def _alignment_sentences(aligned: Sequence[Row]) -> list[str]:
    if len(aligned) == 1:
        return [aligned[0]["sentence"]] if aligned[0]["answer"] == "yes" else []
    lower = sum(one["answer"] == "yes" for one in aligned)
    return (
        [
            f"Alignment lowers the barrier of standard networks in {lower} of {len(aligned)} "
            "contexts."
        ]
        if lower
        else []
    )


def _reduction_clause(before: float, after: float) -> str:
    if before <= 0:
        return ""
    return f", a reduction of {_percent_text(min(1.0, (before - after) / before))}"
