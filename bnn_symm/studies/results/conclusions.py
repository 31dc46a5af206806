"""Draw the conclusions of a study: supported effects, and whether the symmetry explains them.

An effect is the difference between an asymmetric setting and the standard network of its context,
which differs only in the symmetry. The evidence is strong, moderate or weak for a p-value below
0.01, 0.05 or 0.1 after Holm's adjustment for the comparisons of its context and measure. It is
also weak for a p-value below 0.05 before adjustment. Without such evidence the effect is not
supported only if the 95 % confidence interval excludes a gain of practical size (`_MARGINS`); else
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
half of the gap. Gates (`sigma_asymmetric`) and fixed or ordered biases (`bias_asymmetric`,
`bias_ordered`) have no control that shares them and keeps the symmetry.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bnn_symm.formatting import number
from bnn_symm.studies.results import narrative
from bnn_symm.studies.results.comparisons import ALIGNED, MODERATE, SPEED, Context, Key, Row
from bnn_symm.studies.results.narrative import Answer, Cause, Conclusion, Control, ControlVerdict

# Gains of practical size by measure: a share of the baseline's value, and an absolute minimum.
_MARGINS = {
    "elbo": (0.01, 0.0),
    "test_accuracy": (0.0, 0.01),
    "rhat_function_max": (0.0, 0.01),
    "naive": (0.1, 0.01),
    ALIGNED: (0.1, 0.01),
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
_LEVELS = ((0.01, "strong"), (MODERATE, "moderate"), (0.1, "weak"))
# Shares of an effect that explain it, and that are a part of it.
_EXPLAINS, _PART = 0.5, 0.2
_CONTROLS = ("init_matched", "parameter_matched", "block_fixed")

Comparisons = Mapping[Key, dict[str, Any]]


def conclude(
    settings: Sequence[Row], contexts: Sequence[Row], comparisons: Sequence[dict[str, Any]]
) -> tuple[list[Conclusion], str]:
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
    conclusions: list[Conclusion | None] = []
    for i, described in enumerate(contexts):
        context, reason = Context(settings, contexts, i), described.get("convergence_reason")
        for setting in context.asymmetric:
            for question in QUESTIONS:
                conclusions.append(_conclusion(by_key, context, setting, question, reason))
        conclusions.append(_alignment_conclusion(by_key, context))
    known = [conclusion for conclusion in conclusions if conclusion is not None]
    names = [
        Context(settings, contexts, setting["context"]).name(i)
        for i, setting in enumerate(settings)
    ]
    return known, narrative.headline(settings, names, known, comparisons)


def _conclusion(
    comparisons: Comparisons,
    context: Context,
    setting: int,
    question: str,
    convergence_reason: str | None,
) -> Conclusion | None:
    """Return the answer to a question; None if the study has no measure for it."""
    base, reason = context.baseline, convergence_reason if question == "speed" else None
    compared = [i for i in (setting, base) if i is not None]
    measures = {i: context.settings[i].get("measures", {}) for i in compared}
    present = [m for m in QUESTIONS[question] if any(m in own for own in measures.values())]
    measure = (present or QUESTIONS[question])[0]
    known = {"question": question, "measure": measure, "setting": setting}
    effect = None if base is None else comparisons.get((context.number, measure, setting, base))
    if effect is None or base is None:
        if not present and reason is None:
            return None
        without = [context.name(i) for i, own in measures.items() if measure not in own]
        names = [context.name(i) for i in compared]
        sentence = narrative.missing_sentence(measure, reason, names, without)
        return Conclusion(**known, context=context.number, sentence=sentence)
    answer, strength = _answer(effect)
    names = [context.name(setting), context.name(base)]
    parts = [narrative.effect_sentence(names, effect, answer, _margin(effect))]
    if question == "connected":
        aligned = comparisons.get((context.number, ALIGNED, base, base))
        parts += narrative.baseline_sentences(names[1], measures[base].get("naive", {}), aligned)
    cause, controls = Cause.NOT_ASSESSED, []
    if answer in (Answer.SUPPORTED, Answer.OPPOSITE):
        cause, controls, not_run = _cause(comparisons, context, effect)
        parts.append(narrative.cause_sentence(cause, controls, not_run))
    found = {"answer": answer, "strength": strength, "cause": cause, "controls": controls}
    return Conclusion(**known, **found, context=context.number, sentence=" ".join(parts))


def _alignment_conclusion(comparisons: Comparisons, context: Context) -> Conclusion | None:
    """Return the effect of alignment on the barriers of the baseline."""
    base = context.baseline
    effect = None if base is None else comparisons.get((context.number, ALIGNED, base, base))
    if effect is None or base is None:
        return None
    answer, strength = _answer(effect)
    names = [context.name(base)] * 2
    return Conclusion(
        question="aligned",
        measure=ALIGNED,
        context=context.number,
        setting=base,
        answer=answer,
        strength=strength,
        # Alignment removes nothing but the symmetry.
        cause=Cause.YES if answer is Answer.SUPPORTED else Cause.NOT_ASSESSED,
        sentence=narrative.effect_sentence(names, effect, answer, _margin(effect)),
    )


def _gain(effect: Row, key: str = "mean") -> float | None:
    value = effect["difference"][key]
    return None if value is None else value if effect["better"] == "higher" else -value


def _answer(effect: Row) -> tuple[Answer, str]:
    """Return the answer and the strength of its evidence."""
    p, p_adjusted, gain, margin = (
        effect["p_value"],
        effect["p_adjusted"],
        _gain(effect),
        _margin(effect),
    )
    if p is not None and p_adjusted is not None and gain:
        strength = next((word for level, word in _LEVELS if p_adjusted < level), None)
        if strength or p < MODERATE:
            return Answer.SUPPORTED if gain > 0 else Answer.OPPOSITE, strength or "weak"
    largest = _gain(effect, "low" if effect["better"] == "lower" else "high")
    largest = 0.0 if gain == 0 and p == 1 else largest
    is_absent = p is not None and largest is not None and margin is not None and largest < margin
    return Answer.NOT_SUPPORTED if is_absent else Answer.INCONCLUSIVE, "none"


def _margin(effect: Row) -> float | None:
    """Return the smallest gain of practical size, in the units of the difference.

    It is None where the baseline has no value.
    """
    if effect["measure"] == SPEED:
        return -math.log(1 - _MARGIN[0])
    if effect["second_mean"] is None:
        return None
    share, least = _MARGINS.get(effect["measure"], _MARGIN)
    return max(share * abs(effect["second_mean"]), least)


def _is_significant(comparison: Row, sign: float) -> bool:
    """Return whether there is a significant difference of this sign."""
    p, mean = comparison["p_adjusted"], comparison["difference"]["mean"]
    return p is not None and p < MODERATE and mean is not None and mean * sign > 0


def _cause(
    comparisons: Comparisons, context: Context, effect: Row
) -> tuple[Cause, list[Control], list[str]]:
    """Return whether the symmetry explains an effect, the evidence, and the controls not run."""
    kinds = {i: context.settings[i]["kind"] for i in range(len(context.settings))}
    kind = kinds[effect["first"]]
    if kind in ("sigma_asymmetric", "bias_asymmetric", "bias_ordered"):
        return Cause.INCONCLUSIVE, [], []
    breaking = [i for i in context.breaks if kinds[i] in (kind, "block_fixed")]
    controls = [_control(comparisons, context, effect, i) for i in (*context.keeps, *breaking)]
    not_run = [name for name in _CONTROLS if name not in {kinds[i] for i in context.keeps}]
    partial = (ControlVerdict.LACKS, ControlVerdict.SHOWS_PART)
    keeping = [control.verdict for control in controls if control.keeps_symmetry]
    if ControlVerdict.SHOWS in keeping:
        return Cause.NO, controls, not_run
    # A missing control might explain the effect.
    if not_run or not set(keeping) <= set(partial):
        return Cause.INCONCLUSIVE, controls, not_run
    is_insufficient = narrative.chosen(controls, *partial, keeps_symmetry=False)
    is_partial = is_insufficient or ControlVerdict.SHOWS_PART in keeping
    return Cause.PARTLY if is_partial else Cause.YES, controls, not_run


def _control(comparisons: Comparisons, context: Context, effect: Row, index: int) -> Control:
    """Return whether a control shows the effect, a part of it, lacks it, or is unclear."""
    measure, sign = effect["measure"], math.copysign(1.0, effect["difference"]["mean"])
    alone = comparisons.get((context.number, measure, index, effect["second"]))
    against = comparisons.get((context.number, measure, effect["first"], index))
    setting = context.settings[index]
    control = Control(
        setting=index,
        name=context.name(index),
        verdict=ControlVerdict.NO_RESULT,
        keeps_symmetry=index in context.keeps,
        is_asymmetric=setting.get("log10_order") == 0,
        share={},
        differs=False,
    )
    if alone is None or against is None:
        return control
    share = against["share"] or {}
    value = share.get("value")
    shows, differs = _is_significant(alone, sign), _is_significant(against, sign)
    verdict = ControlVerdict.UNCLEAR
    if value is not None and value >= _EXPLAINS and shows:
        verdict = ControlVerdict.SHOWS
    elif value is not None and differs:
        is_part = value >= _EXPLAINS or (shows and value >= _PART)
        verdict = ControlVerdict.SHOWS_PART if is_part else ControlVerdict.LACKS
    control = replace(control, verdict=verdict, share=share, differs=differs)
    is_block = control.keeps_symmetry and setting["kind"] == "block_fixed"
    if verdict is ControlVerdict.LACKS and is_block and measure == "naive" and sign < 0:
        aligned = comparisons.get((context.number, ALIGNED, index, index))
        return _with_block_alignment(control, aligned, against["difference"]["mean"])
    return control


def _with_block_alignment(control: Control, aligned: Row | None, gap: float) -> Control:
    """Return the control judged by the part of its gap that alignment within blocks removes.

    Only that part is due to the symmetry.
    """
    mean = None if aligned is None else aligned["difference"]["mean"]
    if aligned is None or mean is None:
        note = ", but alignment within its blocks was not measured"
        return replace(control, verdict=ControlVerdict.UNCLEAR, note=note)
    if not _is_significant(aligned, -1.0):
        note = ", but the effect of alignment within its blocks is inconclusive"
        return replace(control, verdict=ControlVerdict.UNCLEAR, note=note)
    amount = f"{number(-mean)} nats, {100 * mean / gap:.0f} %"
    note = f", and alignment within its blocks removes {amount} of its excess"
    verdict = control.verdict if mean / gap >= _EXPLAINS else ControlVerdict.SHOWS_PART
    return replace(control, verdict=verdict, note=note)
