"""What comparisons of a study say, in words: sentences with numbers, and the headline."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.diagnostics.convergence.interpretation import number
from bnn_symm.diagnostics.convergence.time_to_target import smallest_p_value

Row = Mapping[str, Any]

MEASURE_WORDS = {
    "test_nll": "test NLL",
    "test_accuracy": "test accuracy",
    "test_rmse": "test RMSE",
    "test_ece": "test ECE",
    "test_brier": "test Brier score",
    "test_crps": "test CRPS",
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
    "aligned_less_naive": "barrier after alignment against before",
}
_UNITS = {"elbo": " nats", "naive": " nats", "aligned": " nats", "aligned_less_naive": " nats"}
_TITLES = {
    "speed": "Do they converge faster?",
    "elbo": "Is their ELBO higher?",
    "nll": "Do they predict better (test NLL)?",
    "calibration": "Are they better calibrated (test ECE)?",
    "accuracy": "Are they more accurate (test accuracy)?",
    "connected": "Is the barrier between them lower, without alignment?",
    "mixing": "Do their chains agree better as functions (R-hat)?",
    "aligned": "Does alignment lower the barrier between standard networks?",
}
# What a gain and a loss are called.
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
# Of an effect.
_NEARLY_ALL = 0.8
# A p-value below the first before adjustment is weak evidence where the adjusted one is above the
# second.
_MODERATE, _WEAK = 0.05, 0.1
# More settings than this are counted in the headline, not told one by one.
_FEW = 2


def title(question: str, measure: str) -> str:
    """The question as a reader asks it."""
    return "Are they more accurate (test RMSE)?" if measure == "test_rmse" else _TITLES[question]


def comparison_sentence(names: Sequence[str], comparison: Row) -> str:
    """First against second, and how strong the evidence is."""
    return f"{_against(names, comparison)} ({_evidence(comparison)})"


def effect_sentence(
    names: Sequence[str | None], effect: Row, told: Row, margin: float | None
) -> str:
    """What an asymmetric setting has against the baseline, or why that cannot be told."""
    text = f"{_against([str(name) for name in names], effect)} ({_evidence(effect)})"
    if told["answer"] == "no":
        same = effect["difference"]["mean"] == 0
        return f"{text}: {'no gain at all' if same else f'a gain of {_gain(effect, margin)} or more is excluded'}."
    if told["answer"] == "cannot be told" and effect["p_value"] is not None:
        return f"{text}: not told apart{_not_excluded(effect)}."
    return f"{text}."


def alignment_sentence(name: str, effect: Row, told: Row, margin: float | None) -> str:
    """What alignment does to the barrier of a setting."""
    before, after = effect["second_mean"], effect["first_mean"]
    if before is None:
        return f"Of {name}: {effect['reason']}."
    text = f"Alignment takes the barrier of {name} from {_value('naive', before)} to {_value('naive', after)} nats"
    if told["answer"] == "yes":
        return f"{text}{_removed_share(before, after)} ({_evidence(effect)})."
    if told["answer"] == "no":
        return f"{text} ({_evidence(effect)}): that it takes away {number(margin)} nats or more is excluded."
    return f"{text} ({_evidence(effect)}){'' if told['answer'] == 'the other way' else ': not told apart'}."


def aligned_clause(names: Sequence[str | None], alignment: Row) -> str:
    """What the baseline reaches with alignment."""
    after = alignment["first_mean"]
    return "" if after is None else f" Aligned, {names[1]} reaches {_value('naive', after)} nats."


def flat_clause(names: Sequence[str | None], naive: Row) -> str:
    """Where there is nothing to lower."""
    is_flat = naive.get("low") is not None and naive["low"] <= 0
    return f" The barrier of {names[1]} is not told from zero." if is_flat else ""


def missing_sentence(
    names: Sequence[str | None], measure: str, reason: str | None, having: Sequence[bool]
) -> str:
    """Why there is no comparison."""
    what = MEASURE_WORDS[measure]
    if names[1] is None:
        return (
            f"There is no standard network to compare {names[0]} with: add `standard` to "
            f"study.vary.architecture.symmetry.kind."
        )
    if reason:
        return f"The {what} is not known: {reason.rstrip('.')}."
    without = [str(name) for name, has in zip(names, having, strict=True) if not has]
    return f"There is no {what} of {listed(without) if without else listed([str(name) for name in names])}."


def cause_sentence(cause: Row) -> str:
    """Whether the effect is because of the symmetry, control by control."""
    if cause["kind"] == "sigma_asymmetric":
        return "Whether because of the symmetry cannot be told: no control shares its gates and keeps the symmetry."
    keeps, answer = cause["keeps"], cause["because_of_symmetry"]
    absent = cause["not_run"]
    not_run = f"{listed(absent)} {'was' if len(absent) == 1 else 'were'} not run" if absent else ""
    if answer == "no":
        having = sorted(
            (one for one in keeps if one["says"] == "has"), key=lambda one: -one["share"]["value"]
        )
        said = [f"{having[0]['name']}, whose symmetry is intact, has {_share(having[0])}"]
        said += [f"{one['name']} {_share(one)}" for one in having[1:]]
        if having[0]["share"]["value"] < _NEARLY_ALL and _is_apart(having[0]["against"]):
            said.append("the rest needs more than that")
        return f"Not because of the symmetry: {'; '.join(said)}.{_breaking(cause)}"
    if not keeps:
        return f"Whether because of the symmetry cannot be told: no control keeps it ({not_run}).{_breaking(cause)}"
    said = [_said(one) for one in keeps] + ([not_run] if not_run else [])
    ahead = {
        "yes": "Because of the symmetry",
        "partly": "Partly because of the symmetry",
        "cannot be told": "Whether because of the symmetry cannot be told",
    }[answer]
    return f"{ahead}: with the symmetry intact, {'; '.join(said)}.{_breaking(cause)}"


def headline(
    settings: Sequence[Row],
    names: Sequence[str],
    conclusions: Sequence[dict[str, Any]],
    comparisons: Sequence[dict[str, Any]],
) -> str:
    """The conclusion first, in one or two sentences.

    Args:
        settings: all of them.
        names: of settings, without what their context shares.
        conclusions: of all contexts.
        comparisons: which tell the number of seeds.
    """
    asked = [one for one in conclusions if one["question"] != "aligned"]
    aligned = [one for one in conclusions if one["question"] == "aligned"]
    if not any(setting.get("measures") for setting in settings):
        return "Nothing can be told: no fit is complete."
    told = [one for one in asked if one["strength"] != "none"]
    if not any(setting["role"] == "asymmetric" for setting in settings):
        text = (
            f"{len(settings)} settings side by side; no symmetry is broken in this study, and "
            "nothing is said of it."
            if len(settings) > 1
            else "Nothing is compared: there is no asymmetric network in this study."
        )
    elif not any(setting["role"] == "baseline" for setting in settings):
        text = "Nothing is compared: there is no standard network in this study."
    elif not told:
        text = _nothing_told(asked, comparisons)
    elif len({(one["context"], one["setting"]) for one in asked}) <= _FEW:
        text = _sequential(settings, names, asked, comparisons)
    else:
        text = _counted(asked, comparisons)
    return " ".join([text, *_of_alignment(aligned)])


def listed(items: Sequence[str]) -> str:
    """With commas, and `and` before the last."""
    return ", ".join(items) if len(items) < 2 else f"{', '.join(items[:-1])} and {items[-1]}"


# -- numbers


def _value(measure: str, value: float | None) -> str:
    # Two estimates of one accuracy or R-hat differ in the third digit.
    return (
        f"{value:.4g}"
        if value is not None and measure.startswith(("rhat", "test_accuracy"))
        else number(value)
    )


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if abs(percent) >= 0.95 or percent == 0 else f"{percent:.1g} %"


def _against(names: Sequence[str], one: Row) -> str:
    first, second = names
    if one["measure"] == "gradients_to_target":
        return _speed(first, second, one)
    what, unit = MEASURE_WORDS[one["measure"]], _UNITS.get(one["measure"], "")
    if one["measure"] == "aligned_less_naive":
        first, second = f"{first}, aligned", f"{second} as it is"
    if one["first_mean"] is None or one["difference"]["mean"] is None:
        return f"{what[0].upper()}{what[1:]} of {first} and {second}: not compared"
    values = f"{_value(one['measure'], one['first_mean'])} against {_value(one['measure'], one['second_mean'])}{unit}"
    return f"{what[0].upper()}{what[1:]} of {first} against {second}: {values}, {_change(one)}"


def _speed(first: str, second: str, one: Row) -> str:
    ratio = one["ratio"]
    if ratio["value"] is None:
        return f"{first} and {second}: times to the target are not compared"
    interval = ""
    if ratio["low"] is not None and ratio["high"] is not None:
        interval = f" (95 % interval {number(ratio['low'])} to {number(ratio['high'])})"
    return f"{first} needs {number(ratio['value'])} times the gradient evaluations of {second}{interval}"


def _change(one: Row) -> str:
    """How much better or worse the first is, in the measure's own words."""
    difference = one["difference"]["mean"]
    if difference == 0:
        return "the same"
    is_gain = (difference > 0) == (one["better"] == "higher")
    lower, higher = ("lower", "higher") if one["measure"] in _UNITS else ("better", "worse")
    if one["better"] == "higher":
        lower, higher = higher, lower
    word = lower if difference < 0 else higher
    if one["measure"] == "elbo":
        return f"{number(abs(difference))} nats {'higher' if is_gain else 'lower'}"
    if one["measure"].startswith("rhat"):
        return "better" if is_gain else "worse"
    return f"{_size(one, abs(difference))} {word}"


def _size(one: Row, difference: float) -> str:
    """Of the second's value, or in points or nats."""
    if one["measure"] == "test_accuracy":
        points = number(100 * difference)
        return f"{points} point{'' if points == '1' else 's'}"
    if one["measure"] == "elbo":
        return f"{number(difference)} nats"
    unit, before = _UNITS.get(one["measure"]), one["second_mean"]
    # Of an R-hat, which is 1 at best, a share says nothing; a barrier that is gone is lower by all
    # of it.
    if one["measure"].startswith("rhat") or before is None or before <= 0:
        return f"{number(difference)}{unit or ''}"
    return _percent(difference / before)


def _gain(effect: Row, gain: float | None) -> str:
    if gain is None:
        return "any size"
    if effect["measure"] == "gradients_to_target":
        return _percent(1 - math.exp(-gain))
    return _size(effect, gain)


def _not_excluded(effect: Row) -> str:
    end = effect["difference"]["low" if effect["better"] == "lower" else "high"]
    gain = None if end is None else end if effect["better"] == "higher" else -end
    return (
        "" if gain is None or gain <= 0 else f"; a gain of up to {_gain(effect, gain)} is possible"
    )


def _evidence(one: Row) -> str:
    """Seeds and p-value, or why there is none."""
    seeds = {"seeds": "seed", "pairs": "disjoint pair of seeds", "pairs of seeds": "seed"}[
        one["kind"]
    ]
    count = f"{one['n']} {seeds}{'' if one['n'] == 1 else 's'}".replace(
        "pair of seedss", "pairs of seeds"
    )
    if one["kind"] == "pairs of seeds":
        count = f"all pairs of {count}"
    if one["p_value"] is None:
        return (
            one["reason"]
            if str(one["reason"]).startswith(str(one["n"]))
            else f"{count}; {one['reason']}"
        )
    many = one["num_comparisons"]
    adjusted = f", adjusted for {many} comparisons" if many > 1 else ""
    if (
        one["p_value"] < _MODERATE and one["p_adjusted"] >= _WEAK
    ):  # what makes the evidence weak, and not none
        adjusted += f", {_p(one['p_value']).removeprefix('= ')} before"
    text = f"{count}, p {_p(one['p_adjusted'])}{adjusted}"
    smallest = one["smallest_sign_flip_p"]
    by_flips = one["measure"] == "gradients_to_target" and one["p_value"] == one["sign_flip_p"]
    if by_flips and smallest is not None and smallest * many >= 0.05:
        needed = next((n for n in range(1, 15) if smallest_p_value(n) * many < 0.05), None)
        more = f": fit at least {needed} seeds" if needed and needed > one["n"] else ""
        text += f"; so few that differ cannot give a p below {min(1.0, smallest * many):.2g}{more}"
    return text


def _p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}" if p < 0.995 else "= 1"


# -- causes


def _share(one: Row) -> str:
    share = one["share"]
    interval = ""
    if share["low"] is not None and share["high"] is not None:
        interval = f" ({_whole(share['low'])} to {_whole(share['high'])} %)"
    return f"{_whole(share['value'])} % of it{interval}"


def _whole(share: float) -> str:
    return f"{100 * share:.0f}".replace("-0", "0") if abs(share) < 0.005 else f"{100 * share:.0f}"


def _said(one: Row) -> str:
    """What a control that keeps the symmetry says."""
    if one["says"] == "missing":
        return f"{one['name']} has no result"
    if one["share"].get("value") is None:
        return f"of {one['name']} no share is known ({one['share'].get('reason') or 'no interval'})"
    text = f"{one['name']} has {_share(one)}"
    if one["says"] == "unclear" and "removed" not in one:
        return f"{text}, too uncertain to tell"
    if "removed" not in one:
        return text
    removed = one["removed"]
    if removed is None:
        return f"{text}, but what alignment inside its blocks takes away was not measured"
    if not removed["is_told"]:
        return f"{text}, but alignment inside its blocks takes away nothing that can be told"
    amount = f"{number(removed['value'])} nats, {_whole(removed['share'])} % of what it has more"
    return f"{text}, and alignment inside its blocks takes away {amount}"


def _is_apart(against: Row) -> bool:
    p = against["p_adjusted"]
    return p is not None and p < 0.05


def _breaking(cause: Row) -> str:
    """What controls without the symmetry say: whether breaking it is enough."""
    lacking = [one for one in cause["breaks"] if one["says"] in ("lacks", "part")]
    having = [one for one in cause["breaks"] if one["says"] == "has"]
    text = ""
    if lacking:
        alone = "alone " if all(one["log10_order"] == 0 for one in lacking) else ""
        said = listed([f"with {_keys(one)} there is {_share(one)}" for one in lacking])
        text += f" Breaking the symmetry {alone}is not enough: {said}."
    if having:
        said = listed([f"with {_keys(one)} there is {_share(one)}" for one in having])
        text += f" Breaking the symmetry in another way has the effect too: {said}."
    return text


def _keys(one: Row) -> str:
    kappa = one["kappa"]
    if kappa is None:
        return str(one["name"])
    return f"kappa = {kappa:g}" if isinstance(kappa, int | float) else f"kappa = {kappa}"


# -- the headline


def _seeds(comparisons: Sequence[Row]) -> str:
    found = {one["n"] for one in comparisons if one["kind"] == "seeds" and one["n"]}
    found = found or {one["n"] for one in comparisons if one["n"]}
    if not found:
        return "so few seeds"
    return f"{max(found)} seed{'' if max(found) == 1 else 's'}"


def _nothing_told(asked: Sequence[Row], comparisons: Sequence[Row]) -> str:
    seeds = _seeds(comparisons)
    absent = list(
        dict.fromkeys(_SUBJECTS[one["question"]] for one in asked if one["answer"] == "no")
    )
    open_ = [one for one in asked if one["answer"] == "cannot be told"]
    if not asked:
        return "Nothing can be told: no measure of asymmetric and standard networks is complete."
    if not absent:
        return f"With {seeds}, nothing can be told of asymmetric against standard networks."
    text = f"Asymmetric networks gain nothing of practical size in {listed(absent)} ({seeds})"
    return f"{text}; of the rest nothing can be told." if open_ else f"{text}."


def _sequential(
    settings: Sequence[Row],
    names: Sequence[str],
    asked: Sequence[dict[str, Any]],
    comparisons: Sequence[Row],
) -> str:
    places = list(dict.fromkeys((one["context"], one["setting"]) for one in asked))
    are_many = len({context for context, _ in places}) > 1
    sentences = []
    for context, setting in places:
        own = [one for one in asked if (one["context"], one["setting"]) == (context, setting)]
        told = [_effect(one, names) for one in own if one["strength"] != "none"]
        open_ = [_SUBJECTS[one["question"]] for one in own if one["answer"] == "cannot be told"]
        absent = [_SUBJECTS[one["question"]] for one in own if one["answer"] == "no"]
        name = str(settings[setting]["label"]) if are_many else names[setting]
        parts: list[str] = []
        if told:
            parts.append(f"{name} has {listed(told)} against the standard network")
        if absent:
            parts.append(
                f"no gain of practical size in {listed(absent)}"
                if told
                else f"{name} gains nothing in {listed(absent)}"
            )
        if open_:
            parts.append(
                f"nothing can be told of {listed(open_)}"
                if parts
                else f"of {name} nothing can be told"
            )
        sentences.append("; ".join(parts))
    sentences[0] += f" ({_seeds(comparisons)})"
    return " ".join(f"{sentence}." for sentence in sentences)


def _effect(one: Row, names: Sequence[str]) -> str:
    gain, loss = _EFFECTS[one["question"]]
    explaining = [str(names[int(i)]) for i in one["explained_by"]]
    have = "has" if len(explaining) == 1 else "have"
    because = {
        "yes": ", because of the symmetry",
        "partly": ", partly because of the symmetry",
        "cannot be told": ", whether because of the symmetry cannot be told",
        "no": f", not because of the symmetry: {listed(explaining)} {have} it too",
    }[one["because_of_symmetry"]]
    return f"{gain if one['answer'] == 'yes' else loss} ({one['strength']} evidence{because})"


def _counted(asked: Sequence[Row], comparisons: Sequence[Row]) -> str:
    total = len({(one["context"], one["setting"]) for one in asked})
    parts: list[str] = []
    open_: list[str] = []
    for question, words in _EFFECTS.items():
        own = [one for one in asked if one["question"] == question]
        told = False
        for answer, word in zip(("yes", "the other way"), words, strict=True):
            having = [one for one in own if one["answer"] == answer]
            if not having:
                continue
            told = True
            counts = {
                "because of the symmetry": sum(
                    one["because_of_symmetry"] == "yes" for one in having
                ),
                "partly": sum(one["because_of_symmetry"] == "partly" for one in having),
                "explained by a control that keeps it": sum(
                    one["because_of_symmetry"] == "no" for one in having
                ),
            }
            said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
            parts.append(f"{word} in {len(having)} of {len(own)}" + (f" ({said})" if said else ""))
        if own and not told:
            open_.append(_SUBJECTS[question])
    ahead = f"Of {total} asymmetric settings against their standard networks ({_seeds(comparisons)} each)"
    text = f"{ahead}: {', '.join(parts)}"
    return f"{text}. No effect is told in {listed(open_)}." if open_ else f"{text}."


def _of_alignment(aligned: Sequence[Row]) -> list[str]:
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


def _removed_share(before: float, after: float) -> str:
    return f", {_percent(min(1.0, (before - after) / before))} of it" if before > 0 else ""
