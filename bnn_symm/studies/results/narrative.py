"""State the verdicts of a study, with a template each: effects, their causes, and a headline."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

from bnn_symm.diagnostics.convergence.time_to_target import pairs_needed
from bnn_symm.diagnostics.measures import measure_of
from bnn_symm.diagnostics.statistics.verdicts import fill
from bnn_symm.formatting import listed, number, p_value, sided_interval

Row = Mapping[str, Any]
SPEED = "gradients_to_target"


class Answer(StrEnum):
    """Whether the evidence supports an effect: the stored values of `answer`."""

    SUPPORTED = "supported"
    OPPOSITE = "not supported, opposite effect"
    NOT_SUPPORTED = "not supported"
    INCONCLUSIVE = "inconclusive"


class Cause(StrEnum):
    """Whether the symmetry explains an effect: the stored values of `because_of_symmetry`."""

    YES = "yes"
    NO = "no"
    PARTLY = "partly"
    INCONCLUSIVE = "inconclusive"
    NOT_ASSESSED = "not assessed"


_EXPLAINED = {
    Cause.YES: "explained by the symmetry",
    Cause.NO: "not explained by the symmetry",
    Cause.PARTLY: "partly explained by the symmetry",
    Cause.INCONCLUSIVE: "explanation inconclusive",
}


class ControlVerdict(Enum):
    """Whether a control shows an effect, with templates."""

    SHOWS = "{name} shows {share} of the effect"
    SHOWS_PART = "{name} shows only {share} of the effect"
    LACKS = "{name} lacks the effect, with {share} of it"
    UNCLEAR = "{name} shows {share} of the effect, which is inconclusive"
    NO_RESULT = "{name} has no result"


HYPOTHESES = {
    "gradients_to_target": ("Faster convergence", "slower convergence"),
    "elbo": ("Higher ELBO", "lower ELBO"),
    "test_nll": ("Better predictions (lower test NLL)", "worse predictions (higher test NLL)"),
    "test_ece": ("Better calibration (lower test ECE)", "worse calibration (higher test ECE)"),
    "test_accuracy": ("Higher test accuracy", "lower test accuracy"),
    "test_rmse": ("Lower test RMSE", "higher test RMSE"),
    "naive": ("Lower barrier without alignment", "higher barrier without alignment"),
    "rhat_function_max": (
        "Better mixing of functions (lower R-hat)",
        "worse mixing of functions (higher R-hat)",
    ),
    "aligned_less_naive": (
        "Alignment lowers the barrier between standard networks",
        "alignment raises the barrier between standard networks",
    ),
}
"""Measure -> the effect that a question asks for, and the opposite one."""
_NUMBERS = {
    "seeds": "{n} seed{s}",
    "folds": "{n} fold{s}",
    "pairs": "{n} disjoint pair{s} of seeds",
    "pairs of seeds": "all pairs of {n} seed{s}",
}
# A p-value below the first before adjustment is weak evidence where the adjusted one is above the
# second.
_MODERATE, _WEAK = 0.05, 0.1
# Share of an effect above which no remainder is mentioned.
_NEARLY_ALL = 0.8
# The headline describes up to this many settings one by one, and counts effects over more.
_FEW = 2


@dataclass(frozen=True, kw_only=True)
class Control:
    """The evidence of a control.

    Attributes:
        setting: Number of its setting.
        name: Label of its setting.
        verdict: Whether it shows the effect.
        keeps_symmetry: Whether it keeps the symmetry; else it breaks it in another way.
        is_asymmetric: Whether no permutation leaves it unchanged.
        share: Its share of the effect with an interval, or the reason why it is unknown.
        differs: Whether it differs significantly from the asymmetric setting.
        note: What else decided.
    """

    setting: int
    name: str
    verdict: ControlVerdict
    keeps_symmetry: bool
    is_asymmetric: bool
    share: Row
    differs: bool
    note: str = ""

    @property
    def text(self) -> str:
        """Return a clause on the control."""
        value, low, high = (self.share.get(key) for key in ("value", "low", "high"))
        share = f"an unknown share ({self.share.get('reason') or 'no confidence interval'})"
        if value is not None:
            share = f"{round(100 * value)} %"
            if low is not None and high is not None:
                share += f" ({round(100 * low)} to {round(100 * high)} %)"
        return fill(self.verdict.value, {"name": self.name, "share": share}) + self.note


def chosen(
    controls: Sequence[Control], *verdicts: ControlVerdict, keeps_symmetry: bool
) -> list[Control]:
    """Return the controls with some verdicts that keep the symmetry, or that break it.

    Args:
        controls: All controls.
        verdicts: The verdicts.
        keeps_symmetry: Whether they keep the symmetry.
    """
    own = [control for control in controls if control.keeps_symmetry == keeps_symmetry]
    return [control for control in own if control.verdict in verdicts]


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """The answer to a question about a setting.

    Attributes:
        question: Key of the question.
        measure: The measure that answers it.
        context: Number of the context.
        setting: Number of the setting.
        answer: Whether the effect is supported.
        strength: Strength of the evidence: `none`, `weak`, `moderate` or `strong`.
        cause: Whether the symmetry explains the effect.
        controls: The evidence of each control.
        sentence: All of it in words.
    """

    question: str
    measure: str
    context: int
    setting: int
    answer: Answer = Answer.INCONCLUSIVE
    strength: str = "none"
    cause: Cause = Cause.NOT_ASSESSED
    controls: Sequence[Control] = ()
    sentence: str

    @property
    def explained_by(self) -> list[Control]:
        """Return the controls that keep the symmetry and show the effect."""
        return chosen(self.controls, ControlVerdict.SHOWS, keeps_symmetry=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the conclusion as JSON types."""
        return {
            "question": self.question,
            "title": HYPOTHESES[self.measure][0],
            "context": self.context,
            "setting": self.setting,
            "answer": self.answer.value,
            "strength": self.strength,
            "because_of_symmetry": self.cause.value,
            "explained_by": [control.setting for control in self.explained_by],
            "sentence": self.sentence,
        }


def comparison_sentence(names: Sequence[str], comparison: Row) -> str:
    """Return the comparison of two settings, its interval, and the strength of its evidence.

    Args:
        names: Of the first and the second setting.
        comparison: Of `compare_settings`.

    Returns:
        A sentence without a period.
    """
    measure, ends = comparison["measure"], comparison["difference"]
    first, second = names
    if measure == "aligned_less_naive":
        first, second = f"{first}, aligned", "unaligned"
    own = measure_of(measure)
    name = f"{own.label[0].upper()}{own.label[1:]} of {first}"
    evidence = _evidence_text(comparison)
    if ends["mean"] is None:
        return f"{name} and {second}: not compared ({evidence})"
    if measure == SPEED:
        ends = comparison["ratio"]
        text = f"{first} needs {number(ends['value'])} times the gradient evaluations of {second}"
    else:
        word = "better" if (ends["mean"] > 0) == (comparison["better"] == "higher") else "worse"
        change = f"{word} by {number(abs(ends['mean']))}" if ends["mean"] else "equal"
        values = [own.text(comparison[f"{side}_mean"]) for side in ("first", "second")]
        unit = f" {own.unit}" if own.unit else ""
        text = f"{name} versus {second}: {' versus '.join(values)}{unit}, {change}"
    if ends["low"] is None or ends["high"] is None:
        return f"{text} ({evidence})"
    if measure == SPEED:
        interval = f"of the ratio {number(ends['low'])} to {number(ends['high'])}"
    else:
        interval = sided_interval(ends, higher=comparison["better"] == "higher")
    return f"{text} (95 % interval {interval}; {evidence})"


def effect_sentence(names: Sequence[str], effect: Row, answer: Answer, margin: float | None) -> str:
    """Return the comparison of two settings with its verdict.

    Args:
        names: Of the first and the second setting.
        effect: Their comparison.
        answer: Whether a gain of the first setting is supported.
        margin: The smallest gain of practical size.
    """
    sentence = comparison_sentence(names, effect)
    if answer is Answer.NOT_SUPPORTED and margin is not None:
        is_time = effect["measure"] == SPEED
        size = f"{number(-100 * math.expm1(-margin))} %" if is_time else number(margin)
        return f"{sentence}: a gain of {size} or more is excluded."
    return f"{sentence}{': inconclusive' if answer is Answer.INCONCLUSIVE else ''}."


def missing_sentence(
    measure: str, reason: str | None, names: Sequence[str], without: Sequence[str]
) -> str:
    """Return why there is no comparison.

    Args:
        measure: That would be compared.
        reason: Why the measure is unknown, if that is known.
        names: Of the asymmetric setting and of the baseline, if there is one.
        without: Of the settings that have no value.
    """
    if not names[1:]:
        key = "study.vary.architecture.symmetry.kind"
        return f"There is no standard network to compare {names[0]} with: add `standard` to {key}."
    if reason:
        return f"The {measure_of(measure).label} is unknown: {reason.rstrip('.')}."
    return f"There is no {measure_of(measure).label} of {listed(without or names)}."


def baseline_sentences(name: str, naive: Row, aligned: Row | None) -> list[str]:
    """Return the barrier of the baseline after alignment, and a remark if it is zero without.

    Args:
        name: Of the baseline.
        naive: Its barrier without alignment, with its interval.
        aligned: The comparison of its barriers with and without alignment.
    """
    sentences = []
    if aligned is not None and aligned["first_mean"] is not None:
        after = number(aligned["first_mean"])
        sentences.append(f"After alignment, the barrier of {name} is {after} nats.")
    if naive.get("low") is not None and naive["low"] <= 0:
        sentences.append(f"The barrier of {name} is indistinguishable from zero.")
    return sentences


def cause_sentence(cause: Cause, controls: Sequence[Control], not_run: Sequence[str]) -> str:
    """Return whether the symmetry explains an effect, with the evidence of each control.

    Args:
        cause: The verdict.
        controls: The evidence.
        not_run: Controls that keep the symmetry and were not run.
    """
    verdict = f"{_EXPLAINED[cause][0].upper()}{_EXPLAINED[cause][1:]}"
    if not controls and not not_run:
        return f"{verdict}: no control shares the gates and keeps the symmetry."
    keeping = [control.text for control in controls if control.keeps_symmetry]
    if not_run:
        keeping.append(f"{listed(not_run)} {'was' if len(not_run) == 1 else 'were'} not run")
    shown = chosen(controls, ControlVerdict.SHOWS, keeps_symmetry=True)
    most = max(shown, key=lambda control: control.share["value"], default=None)
    if most is not None and most.differs and most.share["value"] < _NEARLY_ALL:
        keeping.append("the remainder has another cause")
    text = f"{verdict}: among controls that keep the symmetry, {'; '.join(keeping)}."
    partial = (ControlVerdict.LACKS, ControlVerdict.SHOWS_PART)
    lacking = chosen(controls, *partial, keeps_symmetry=False)
    having = chosen(controls, ControlVerdict.SHOWS, keeps_symmetry=False)
    if lacking:
        alone = "alone " if all(control.is_asymmetric for control in lacking) else ""
        breaking = listed([control.text for control in lacking])
        text += f" Breaking the symmetry {alone}does not suffice: {breaking}."
    if having:
        breaking = listed([control.text for control in having])
        text += f" Breaking it in another way has the same effect: {breaking}."
    return text


def headline(
    settings: Sequence[Row],
    names: Sequence[str],
    conclusions: Sequence[Conclusion],
    comparisons: Sequence[Row],
) -> str:
    """Return the main conclusion of a study in a few sentences.

    Args:
        settings: All settings of the study.
        names: Of the settings, without the label of their context.
        conclusions: Of all contexts.
        comparisons: Of all contexts, which contain the number of seeds.
    """
    effects = [one for one in conclusions if one.question != "aligned"]
    roles = {setting["role"] for setting in settings}
    if not any(setting.get("measures") for setting in settings):
        return "Inconclusive: no fit is complete."
    if "asymmetric" not in roles and len(settings) > 1:
        sentences = [f"{len(settings)} settings are compared; none of them breaks the symmetry."]
    elif not {"asymmetric", "baseline"} <= roles:
        missing = "standard" if "asymmetric" in roles else "asymmetric"
        sentences = [f"No comparison: the study has no {missing} network."]
    elif not effects:
        sentences = ["Inconclusive: no measure of asymmetric and standard networks is complete."]
    else:
        sentences = _effects_text(settings, names, effects, comparisons)
    aligned = [one.answer is Answer.SUPPORTED for one in conclusions if one.question == "aligned"]
    if any(aligned):
        number_of = f" in {sum(aligned)} of {len(aligned)} contexts" if len(aligned) > 1 else ""
        sentences.append(f"Alignment lowers the barrier between standard networks{number_of}.")
    return " ".join(sentences)


def _effects_text(
    settings: Sequence[Row],
    names: Sequence[str],
    effects: Sequence[Conclusion],
    comparisons: Sequence[Row],
) -> list[str]:
    """Return a sentence for each of a few settings, or one that counts over more."""
    counts = [one["n"] for one in comparisons if one["kind"] in ("seeds", "folds")]
    most = max(counts or [one["n"] for one in comparisons], default=0)
    unit = "fold" if any(one["kind"] == "folds" for one in comparisons) else "seed"
    seeds = f"{most} {unit}{'' if most == 1 else 's'}" if most else f"too few {unit}s"
    keys = list(dict.fromkeys((one.context, one.setting) for one in effects))
    if len(keys) > _FEW:
        subject = f"{len(keys)} asymmetric settings versus their standard networks"
        return [f"{subject} ({seeds} each), {_answers_text(effects)}."]
    has_contexts = len({context for context, _ in keys}) > 1
    sentences = []
    for context, setting in keys:
        name = settings[setting]["label"] if has_contexts else names[setting]
        own = [one for one in effects if (one.context, one.setting) == (context, setting)]
        sentences.append(f"{name} versus standard ({seeds}), {_answers_text(own)}.")
    return sentences


def _answers_text(effects: Sequence[Conclusion]) -> str:
    """Return the effects by answer, each with its cause; over several settings, counts."""
    clauses = []
    for answer in Answer:
        texts = []
        for measure in dict.fromkeys(one.measure for one in effects):
            asked = [one for one in effects if one.measure == measure]
            own = [one for one in asked if one.answer is answer]
            text = HYPOTHESES[measure][answer is Answer.OPPOSITE]
            causes = Counter(one.cause for one in own if one.cause is not Cause.NOT_ASSESSED)
            details = [f"in {len(own)} of {len(asked)}"] if len(asked) > 1 else []
            details += [f"{count} {_EXPLAINED[cause]}" for cause, count in causes.items()]
            if len(asked) == 1 and causes:
                by = listed([control.name for control in own[0].explained_by])
                because = _EXPLAINED[own[0].cause] + (f" but by {by}" if by else "")
                details = [f"{own[0].strength} evidence", because]
            if own:
                text = text[0].lower() + text[1:].partition(" (")[0]
                texts.append(f"{text} ({', '.join(details)})" if details else text)
        if texts:
            clauses.append(f"{answer}: {listed(texts)}")
    return "; ".join(clauses)


def _evidence_text(comparison: Row) -> str:
    """Return the number of seeds and the p-value, or why there is none."""
    n, p, many = comparison["n"], comparison["p_value"], comparison["num_comparisons"]
    count = _NUMBERS[comparison["kind"]].format(n=n, s="" if n == 1 else "s")
    if p is None:
        reason = str(comparison["reason"])
        return reason if reason.startswith(str(n)) else f"{count}; {reason}"
    text = f"{count}, p {p_value(comparison['p_adjusted'])}"
    text += f", adjusted for {many} comparisons" if many > 1 else ""
    # The unadjusted p-value is what makes this evidence weak, instead of none.
    if p < _MODERATE and comparison["p_adjusted"] >= _WEAK:
        text += f", {p_value(p).removeprefix('= ')} before adjustment"
    least = (comparison["smallest_sign_flip_p"] or 0.0) * many
    by_flips = comparison["measure"] == SPEED and p == comparison["sign_flip_p"]
    if by_flips and least >= _MODERATE:
        text += f"; with so few differing seeds, p is at least {number(min(1.0, least), 2)}"
        needed = pairs_needed(many)
        text += f": fit at least {needed} seeds" if needed > n else ""
    return text
