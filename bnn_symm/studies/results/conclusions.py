"""Draw the conclusions of a study: supported effects, and whether the symmetry explains them.

An effect is the difference between an asymmetric setting and the standard network of its context,
which differs only in the symmetry. The evidence is strong, moderate or weak for a p-value below
0.01, 0.05 or 0.1 after Holm's adjustment for the comparisons of its context and measure. It is
also weak for a p-value below 0.05 before adjustment. Without such evidence the effect is absent
("no") only if the 95 % confidence interval excludes a gain of practical size (`_MARGINS`); else
the comparison is inconclusive.

Controls decide whether the symmetry explains an effect. A control's share is its part of the
effect.

- "no": a control that keeps the symmetry differs significantly from the baseline in the same
  direction, and shows at least half of the effect.
- "yes": all three controls that keep the symmetry were run, differ significantly from the
  asymmetric setting and show less than half of the effect; none of them significantly shows a
  fifth or more; and no control without the symmetry lacks the effect.
- "partly": all of them differ significantly from the asymmetric setting, but some show a part of
  the effect, or breaking the symmetry alone does not suffice.
- inconclusive otherwise: without such controls, or with too few seeds.

A barrier that remains where fixed entries are equal within blocks may be due to their lower rank.
Only the part that alignment within the blocks removes is due to the symmetry; it must be at least
half of the gap. Gates (`sigma_asymmetric`) have no control that shares them and keeps the symmetry.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.studies.results import narrative
from bnn_symm.studies.results.comparisons import ALIGNED, MODERATE, SPEED, Context, Key, Row
from bnn_symm.studies.results.narrative import INCONCLUSIVE, NOT_ASSESSED, OPPOSITE

# Gains of practical size by measure: a share of the baseline's value, and an absolute minimum.
_MARGINS = {
    "elbo": (0.01, 0.0),
    "test_accuracy": (0.0, 0.01),
    "rhat_function_max": (0.0, 0.01),
    "naive": (0.1, 0.01),
}
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
"""Measures that answer each question, of which the first available one is used."""
_STRONG, _WEAK = 0.01, 0.1
# Shares of an effect that explain it, and that are a part of it.
_EXPLAINS, _PART = 0.5, 0.2
_CONTROLS = ("init_matched", "parameter_matched", "block_fixed")

Comparisons = Mapping[Key, dict[str, Any]]


def conclude(
    settings: Sequence[Row], contexts: Sequence[Row], comparisons: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], str]:
    """Answer each question of a study, and summarize the answers in a headline.

    Args:
        settings: of `comparisons.summarize_settings`.
        contexts: with `label`, `convergence` and `convergence_reason`.
        comparisons: of `compare_settings`.

    Returns:
        The conclusions, and the headline.
    """
    by_key: Comparisons = {
        (one["context"], one["measure"], one["first"], one["second"]): one for one in comparisons
    }
    conclusions = []
    for number in range(len(contexts)):
        context = Context(settings, contexts, number)
        reason = contexts[number].get("convergence_reason")
        for setting in context.asymmetric:
            answers = [
                _conclusion(by_key, context, setting, question, reason) for question in QUESTIONS
            ]
            conclusions += [one for one in answers if one is not None]
        conclusions += [one for one in [_alignment_conclusion(by_key, context)] if one is not None]
    names = [
        Context(settings, contexts, setting["context"]).name(i)
        for i, setting in enumerate(settings)
    ]
    return conclusions, narrative.headline(settings, names, conclusions, comparisons)


def _conclusion(
    comparisons: Comparisons,
    context: Context,
    setting: int,
    question: str,
    convergence_reason: str | None,
) -> dict[str, Any] | None:
    """Return the answer to a question; None if the study has no measure for it."""
    settings, base = context.settings, context.baseline
    known = [i for i in (setting, base) if i is not None]
    names = (context.name(setting), None if base is None else context.name(base))
    present = [
        m for m in QUESTIONS[question] if any(m in settings[i].get("measures", {}) for i in known)
    ]
    measure = (present or QUESTIONS[question])[0]
    effect = None if base is None else comparisons.get((context.number, measure, setting, base))
    reason = convergence_reason if question == "speed" else None
    if effect is None and not present and reason is None:
        return None
    verdict = {
        "answer": INCONCLUSIVE,
        "strength": "none",
        "because_of_symmetry": NOT_ASSESSED,
        "explained_by": [],
    }
    if effect is None:
        available = [measure in settings[i].get("measures", {}) for i in known]
        sentence = narrative.missing_sentence(names, measure, reason, available)
    else:
        verdict |= _answer(effect)
        sentence = narrative.effect_sentence(names, effect, verdict, _margin(effect))
        alignment = _baseline_alignment(comparisons, context)
        if question == "connected" and alignment is not None:
            sentence += narrative.alignment_clause(names, alignment)
        if question == "connected" and base is not None:
            sentence += narrative.zero_barrier_clause(
                names, settings[base].get("measures", {}).get("naive", {})
            )
        if verdict["answer"] in ("yes", OPPOSITE):
            cause = _cause(comparisons, context, effect)
            verdict |= {key: cause[key] for key in ("because_of_symmetry", "explained_by")}
            sentence += " " + narrative.cause_sentence(cause)
    return {
        "question": question,
        "title": narrative.title(question, measure),
        "context": context.number,
        "setting": setting,
        **verdict,
        "sentence": sentence,
    }


def _alignment_conclusion(comparisons: Comparisons, context: Context) -> dict[str, Any] | None:
    effect = _baseline_alignment(comparisons, context)
    if effect is None:
        return None
    baseline = effect["first"]
    verdict, margin = _answer(effect), _margin(effect)
    return {
        **{"question": "aligned", "title": narrative.title("aligned", ALIGNED)},
        **{"context": context.number, "setting": baseline, **verdict},
        # Alignment removes nothing but the symmetry.
        "because_of_symmetry": "yes" if verdict["answer"] == "yes" else NOT_ASSESSED,
        "explained_by": [],
        "sentence": narrative.alignment_sentence(context.name(baseline), effect, verdict, margin),
    }


def _baseline_alignment(comparisons: Comparisons, context: Context) -> dict[str, Any] | None:
    """Return the comparison of the baseline's barriers with and without alignment."""
    return (
        None
        if context.baseline is None
        else comparisons.get((context.number, ALIGNED, context.baseline, context.baseline))
    )


def _gain(effect: Row, key: str = "mean") -> float | None:
    value = effect["difference"][key]
    return None if value is None else value if effect["better"] == "higher" else -value


def _answer(effect: Row) -> dict[str, Any]:
    """Return the `answer` and the `strength` of its evidence."""
    p, p_adjusted, gain, margin = (
        effect["p_value"],
        effect["p_adjusted"],
        _gain(effect),
        _margin(effect),
    )
    strength = "none"
    if p is not None and p_adjusted is not None and gain:
        levels = ((_STRONG, "strong"), (MODERATE, "moderate"), (_WEAK, "weak"))
        strength = next(
            (word for level, word in levels if p_adjusted < level),
            "weak" if p < MODERATE else "none",
        )
    if strength != "none":
        return {"answer": "yes" if (gain or 0) > 0 else OPPOSITE, "strength": strength}
    largest = (
        0.0
        if gain == 0 and p == 1
        else _gain(effect, "low" if effect["better"] == "lower" else "high")
    )
    is_absent = p is not None and largest is not None and margin is not None and largest < margin
    return {"answer": "no" if is_absent else INCONCLUSIVE, "strength": "none"}


def _margin(effect: Row) -> float | None:
    """Return the smallest gain of practical size, in the units of the difference.

    It is None where the baseline has no value.
    """
    if effect["measure"] == SPEED:
        return -math.log(1 - _MARGIN[0])
    if effect["second_mean"] is None:
        return None
    share, least = _MARGINS.get(
        "naive" if effect["measure"] == ALIGNED else effect["measure"], _MARGIN
    )
    return max(share * abs(effect["second_mean"]), least)


def _is_significant(comparison: Row, sign: float) -> bool:
    """Return whether there is a significant difference of this sign."""
    p, mean = comparison["p_adjusted"], comparison["difference"]["mean"]
    return p is not None and p < MODERATE and mean is not None and mean * sign > 0


def _cause(comparisons: Comparisons, context: Context, effect: Row) -> dict[str, Any]:
    """Return whether the symmetry explains an effect, with the evidence of each control."""
    sign = math.copysign(1.0, effect["difference"]["mean"])
    kind = context.settings[effect["first"]]["kind"]
    lowers_barrier = effect["measure"] == "naive" and sign < 0
    cause: dict[str, Any] = {
        "explained_by": [],
        "keeps": [],
        "breaks": [],
        "not_run": [],
        "kind": kind,
    }
    if kind == "sigma_asymmetric":
        return {**cause, "because_of_symmetry": INCONCLUSIVE}
    for number in context.keeps:
        control = _control(comparisons, context, effect, number, sign)
        if (
            control["evidence"] == "lacks"
            and lowers_barrier
            and context.settings[number]["kind"] == "block_fixed"
        ):
            alignment = comparisons.get((context.number, ALIGNED, number, number))
            control |= _block_alignment(alignment, control)
        cause["keeps"].append(control)
    same = [
        number
        for number in context.breaks
        if context.settings[number]["kind"] in (kind, "block_fixed")
    ]
    cause["breaks"] = [_control(comparisons, context, effect, number, sign) for number in same]
    run = {context.settings[number]["kind"] for number in context.keeps}
    cause["not_run"] = [control for control in _CONTROLS if control not in run]
    cause["explained_by"] = [one["setting"] for one in cause["keeps"] if one["evidence"] == "has"]
    evidence = {one["evidence"] for one in cause["keeps"]}
    is_insufficient = any(one["evidence"] in ("lacks", "part") for one in cause["breaks"])
    if "has" in evidence:
        answer = "no"
    # A missing control might explain the effect.
    elif cause["not_run"] or evidence & {"unclear", "missing"}:
        answer = INCONCLUSIVE
    else:
        answer = "partly" if "part" in evidence or is_insufficient else "yes"
    return {**cause, "because_of_symmetry": answer}


def _control(
    comparisons: Comparisons, context: Context, effect: Row, number: int, sign: float
) -> dict[str, Any]:
    """Return whether a control has the effect, has a part of it, lacks it, or is unclear."""
    measure, first, base = effect["measure"], effect["first"], effect["second"]
    alone, against = (
        comparisons.get((context.number, measure, number, base)),
        comparisons.get((context.number, measure, first, number)),
    )
    setting = context.settings[number]
    keys = {key.rpartition(".")[2]: value for key, value in setting.get("differences", {}).items()}
    control = {
        **{
            "setting": number,
            "name": context.name(number),
            "kind": setting["kind"],
            "kappa": keys.get("kappa"),
        },
        **{"log10_order": setting.get("log10_order"), "share": None, "against": against},
    }
    if alone is None or against is None:
        return {**control, "evidence": "missing"}
    share = against["share"] or {}
    value = share.get("value")
    has_effect, differs = _is_significant(alone, sign), _is_significant(against, sign)
    evidence = "unclear"
    if value is not None and value >= _EXPLAINS and has_effect:
        evidence = "has"
    elif value is not None and differs:
        evidence = "part" if value >= _EXPLAINS or (has_effect and value >= _PART) else "lacks"
    return {**control, "share": share, "evidence": evidence}


def _block_alignment(alignment: Row | None, control: Row) -> dict[str, Any]:
    """Return the part of the gap to the asymmetric setting that alignment within blocks removes.

    Only that part is due to the symmetry.
    """
    gap = control["against"]["difference"]["mean"]
    if alignment is None or alignment["difference"]["mean"] is None:
        return {"evidence": "unclear", "reduction": None}
    reduction = {
        "value": -alignment["difference"]["mean"],
        "share": alignment["difference"]["mean"] / gap,
    }
    if not _is_significant(alignment, -1.0):
        return {"evidence": "unclear", "reduction": {**reduction, "is_significant": False}}
    return {
        "evidence": "lacks" if reduction["share"] >= _EXPLAINS else "part",
        "reduction": {**reduction, "is_significant": True},
    }
