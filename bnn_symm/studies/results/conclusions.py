"""What a study says: a conclusion for each question, and whether it is because of the symmetry, as
plain data.

An effect is what an asymmetric setting has against the standard network of its context, which
differs in nothing but the symmetry. It is told, strongly, moderately or weakly, for a p-value below
0.01, 0.05 or 0.1 after Holm's adjustment for the comparisons of its context and measure (weakly
also for one below 0.05 before). An effect that is not told is absent ("no") only if the 95 %
interval excludes a gain of practical size (`_MARGINS`); else it "cannot be told".

Whether it is because of the symmetry is for controls to say. A share is how much of the effect a
control has.

- A control that keeps the symmetry, is told from the baseline in the same direction and has at
  least half of the effect explains it: "no".
- "yes" wants that all three controls that keep the symmetry were run, told apart from the
  asymmetric setting, and have less than half; that none has a fifth or more of it with certainty;
  and that no control without the symmetry lacks the effect.
- "partly" if all of them were told apart, but some have a part, or breaking the symmetry alone is
  not enough.
- "cannot be told" otherwise: without such a control, or with too few seeds.

A barrier that fixed entries equal by blocks do not lower may be due to their lower rank; only what
alignment inside the blocks takes away is due to the symmetry, so that half of the gap has to be.
Gates (`sigma_asymmetric`) have no control that shares them and keeps the symmetry.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.studies.results import narrative as words
from bnn_symm.studies.results.comparisons import ALIGNED, MODERATE, SPEED, Context, Key, Row

# Gains that matter: a share of the baseline's value, and at least so much; by measure.
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
"""Question -> measures that answer it, of which the first that there is does."""
_STRONG, _WEAK = 0.01, 0.1
# Of an effect: what explains it, and what is a part of it.
_EXPLAINS, _PART = 0.5, 0.2
_CONTROLS = ("init_matched", "parameter_matched", "block_fixed")


def conclude(
    settings: Sequence[Row], contexts: Sequence[Row], comparisons: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], str]:
    """An answer to each question that the study asks, and one or two sentences for all of them.

    Args:
        settings: of `study_comparisons.summarize_settings`.
        contexts: with `label`, `convergence` and `convergence_reason`.
        comparisons: of `compare_settings`.
    """
    found: dict[Key, dict[str, Any]] = {
        (one["context"], one["measure"], one["first"], one["second"]): one for one in comparisons
    }
    conclusions = []
    for number in range(len(contexts)):
        own = Context(settings, contexts, number)
        for setting in own.asymmetric:
            asked = [
                _concluded(found, own, setting, question, contexts[number])
                for question in QUESTIONS
            ]
            conclusions += [one for one in asked if one is not None]
        conclusions += [one for one in [_aligned(found, own)] if one is not None]
    names = [
        Context(settings, contexts, setting["context"]).name(i)
        for i, setting in enumerate(settings)
    ]
    return conclusions, words.headline(settings, names, conclusions, comparisons)


def _concluded(
    found: Mapping[Key, dict[str, Any]], own: Context, setting: int, question: str, context: Row
) -> dict[str, Any] | None:
    """None if the study has nothing to do with the question."""
    settings, base = own.settings, own.baseline
    known = [i for i in (setting, base) if i is not None]
    names = (own.name(setting), None if base is None else own.name(base))
    present = [
        m for m in QUESTIONS[question] if any(m in settings[i].get("measures", {}) for i in known)
    ]
    measure = (present or QUESTIONS[question])[0]
    effect = None if base is None else found.get((own.number, measure, setting, base))
    reason = context.get("convergence_reason") if question == "speed" else None
    if effect is None and not present and reason is None:
        return None
    told = {
        "answer": "cannot be told",
        "strength": "none",
        "because_of_symmetry": "not asked",
        "explained_by": [],
    }
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
            sentence += words.flat_clause(
                names, settings[base].get("measures", {}).get("naive", {})
            )
        if told["answer"] in ("yes", "the other way"):
            cause = _cause(found, own, effect)
            told |= {key: cause[key] for key in ("because_of_symmetry", "explained_by")}
            sentence += " " + words.cause_sentence(cause)
    ahead = {
        "question": question,
        "title": words.title(question, measure),
        "context": own.number,
        "setting": setting,
    }
    return {**ahead, **told, "sentence": sentence}


def _aligned(found: Mapping[Key, dict[str, Any]], own: Context) -> dict[str, Any] | None:
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


def _of_alignment(found: Mapping[Key, dict[str, Any]], own: Context) -> dict[str, Any] | None:
    """Of the baseline."""
    return (
        None
        if own.baseline is None
        else found.get((own.number, ALIGNED, own.baseline, own.baseline))
    )


def _gain(effect: Row, key: str = "mean") -> float | None:
    value = effect["difference"][key]
    return None if value is None else value if effect["better"] == "higher" else -value


def _answer(effect: Row) -> dict[str, Any]:
    """`answer` and `strength`."""
    p, p_adjusted, gain, margin = (
        effect["p_value"],
        effect["p_adjusted"],
        _gain(effect),
        _margin_of(effect),
    )
    strength = "none"
    if p is not None and p_adjusted is not None and gain:
        levels = ((_STRONG, "strong"), (MODERATE, "moderate"), (_WEAK, "weak"))
        strength = next(
            (word for level, word in levels if p_adjusted < level),
            "weak" if p < MODERATE else "none",
        )
    if strength != "none":
        return {"answer": "yes" if (gain or 0) > 0 else "the other way", "strength": strength}
    largest = (
        0.0
        if gain == 0 and p == 1
        else _gain(effect, "low" if effect["better"] == "lower" else "high")
    )
    is_absent = p is not None and largest is not None and margin is not None and largest < margin
    return {"answer": "no" if is_absent else "cannot be told", "strength": "none"}


def _margin_of(effect: Row) -> float | None:
    """The smallest gain that matters, in the units of the difference; None where there is no value
    to compare with.
    """
    if effect["measure"] == SPEED:
        return -math.log(1 - _MARGIN[0])
    if effect["second_mean"] is None:
        return None
    share, least = _MARGINS.get(
        "naive" if effect["measure"] == ALIGNED else effect["measure"], _MARGIN
    )
    return max(share * abs(effect["second_mean"]), least)


def _is_told(comparison: Row, sign: float) -> bool:
    """Apart, with a difference of this sign."""
    p, mean = comparison["p_adjusted"], comparison["difference"]["mean"]
    return p is not None and p < MODERATE and mean is not None and mean * sign > 0


def _cause(found: Mapping[Key, dict[str, Any]], own: Context, effect: Row) -> dict[str, Any]:
    """Whether an effect is because of the symmetry, and what each control says of it."""
    sign = math.copysign(1.0, effect["difference"]["mean"])
    kind = own.settings[effect["first"]]["kind"]
    lowers_barrier = effect["measure"] == "naive" and sign < 0
    cause: dict[str, Any] = {
        "explained_by": [],
        "keeps": [],
        "breaks": [],
        "not_run": [],
        "kind": kind,
    }
    if kind == "sigma_asymmetric":
        return {**cause, "because_of_symmetry": "cannot be told"}
    for number in own.keeps:
        control = _evidence(found, own, effect, number, sign)
        if (
            control["says"] == "lacks"
            and lowers_barrier
            and own.settings[number]["kind"] == "block_fixed"
        ):
            control |= _removed(found.get((own.number, ALIGNED, number, number)), control)
        cause["keeps"].append(control)
    same = [
        number for number in own.breaks if own.settings[number]["kind"] in (kind, "block_fixed")
    ]
    cause["breaks"] = [_evidence(found, own, effect, number, sign) for number in same]
    run = {own.settings[number]["kind"] for number in own.keeps}
    cause["not_run"] = [control for control in _CONTROLS if control not in run]
    cause["explained_by"] = [one["setting"] for one in cause["keeps"] if one["says"] == "has"]
    says = {one["says"] for one in cause["keeps"]}
    not_enough = any(one["says"] in ("lacks", "part") for one in cause["breaks"])
    if "has" in says:
        answer = "no"
    elif cause["not_run"] or says & {
        "unclear",
        "missing",
    }:  # what one control does not explain another may
        answer = "cannot be told"
    else:
        answer = "partly" if "part" in says or not_enough else "yes"
    return {**cause, "because_of_symmetry": answer}


def _evidence(
    found: Mapping[Key, dict[str, Any]], own: Context, effect: Row, number: int, sign: float
) -> dict[str, Any]:
    """Whether a control has the effect, a part of it, lacks it, or leaves that unclear."""
    measure, first, base = effect["measure"], effect["first"], effect["second"]
    alone, against = (
        found.get((own.number, measure, number, base)),
        found.get((own.number, measure, first, number)),
    )
    setting = own.settings[number]
    keys = {key.rpartition(".")[2]: value for key, value in setting.get("differences", {}).items()}
    control = {
        **{
            "setting": number,
            "name": own.name(number),
            "kind": setting["kind"],
            "kappa": keys.get("kappa"),
        },
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
    """What alignment inside blocks takes away of the gap to the asymmetric setting: only that is
    due to symmetry.
    """
    gap = control["against"]["difference"]["mean"]
    if alignment is None or alignment["difference"]["mean"] is None:
        return {"says": "unclear", "removed": None}
    removed = {
        "value": -alignment["difference"]["mean"],
        "share": alignment["difference"]["mean"] / gap,
    }
    if not _is_told(alignment, -1.0):
        return {"says": "unclear", "removed": {**removed, "is_told": False}}
    return {
        "says": "lacks" if removed["share"] >= _EXPLAINS else "part",
        "removed": {**removed, "is_told": True},
    }
