"""Interpret the views of `mixing` together: one statement per view, a conclusion and advice.

| raw | aligned | chainwise | function | interpretation |
| --- | --- | --- | --- | --- |
| fails | passes | passes | passes | copies of one mode: numbering of units, not mixing |
| fails | fails | passes | fails | different modes, each explored by its own chain |
| fails | fails | passes | passes | weights without effect on the function (or a failed alignment) |
| any | any | fails | fails | chains that are not stationary: run longer first |
| any | any | passes | fails, in one mode | chains that mix slowly: run longer |
| any | any | fails | passes | weights that drift without effect on the function |
| passes | no evidence | passes | passes | weights not identified by the data: use functions only |

Chains that are copies of one another (`copies`) come first: views that assume independent chains
then provide no evidence. Each conclusion is decided by one or two numbers and their limits
(`Evidence`), and quotes these.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from bnn_symm.advice import advise_setting
from bnn_symm.arguments import checked
from bnn_symm.diagnostics.mixing.chain_statistics import MIN_DRAWS
from bnn_symm.diagnostics.mixing.mixing import AlignedView, Mixing
from bnn_symm.diagnostics.mixing.sampler_statistics import SamplerStatistics, chain_list
from bnn_symm.diagnostics.mixing.views import NOT_FINITE, MixingSummary
from bnn_symm.diagnostics.statistics.evidence import Evidence
from bnn_symm.diagnostics.statistics.verdicts import Verdict
from bnn_symm.formatting import number, percent
from bnn_symm.inference import Method

# If independent draws can reach a larger R-hat than this (Gelman and Rubin's limit), a pass is no
# evidence.
_WEAK = 1.1
# Minimum number of draws per chain that is advised.
_MANY = 1000
_COPIED = "{copies}. R-hat and ESS of repeated draws are not informative about the posterior"
_DISAGREE = "chains disagree as functions, {rhat}"


class ViewVerdict(Enum):
    """Verdicts on a view, with their templates."""

    NOT_COMPUTED = "not computed: {reason}"
    NO_EVIDENCE = "{status}: {reason}"
    NO_PERMUTATION = "nothing can be permuted: this is the raw view"
    AGREE = "{subject} agree ({details})"
    DIFFER = "{subject} differ ({details})"
    NUMBERING = (
        "{subject} differ by the numbering of units, not by mixing: aligned, they agree "
        "({details}). Do not interpret this view, and do not average these weights"
    )
    NUMBERING_CHANGES = (
        "{subject} differ ({details}). Aligned draw by draw they agree: the numbering of units "
        "changes along the chains"
    )


class MixingVerdict(Enum):
    """Conclusions from all views, with templates of the sentence and the advice."""

    BIASED = ("these draws are biased: {problem}. Apart from this: {conclusion}", "{next}")
    FROZEN = (
        "chain {frozen} never moved: all of its draws are one point",
        "check its step size and acceptance rate, or start from another seed",
    )
    COPIES = (
        _COPIED,
        "sample every chain with a different seed, and name each file and each run once",
    )
    REPEATS = (_COPIED, "remove the repeated draws, or sample the chain again")
    AGREE = "predictions can be used: chains agree as functions, {rhat}{weights}"
    TOO_FEW_DRAWS = (
        "chains agree as functions, but there are too few effective draws: the smallest ESS is "
        "{ess}{weights}",
        "for reliable intervals, draw {factor:.1f} times as many ({enough})",
    )
    WEAK_AGREEMENT = (
        "mixing is inconclusive: {reach}, so agreement is weak evidence",
        "draw more ({more})",
    )
    NOT_STATIONARY = (
        _DISAGREE + "; they are not stationary or mix slowly, early against late {early}",
        "run longer first ({longer}), or start from a good fit ({good_fit})",
    )
    STATIONARITY_UNCLEAR = (
        _DISAGREE + "; the stationarity of the chains is inconclusive: {why}",
        "draw more ({more})",
    )
    SLOW_IN_ONE_MODE = (
        _DISAGREE + ", though by less than their spread: they mix slowly within one mode",
        "run longer, until R-hat passes ({longer})",
    )
    DIFFERENT_MODES = (
        "each chain is stationary, but they are in different modes: {modes}",
        "more draws of these chains do not help; run more chains and use their predictions as a "
        "mixture, or widen the network, whose modes are then easier to leave",
    )
    SINGLE_DRAWS = "{chains} single draws, as of an ensemble: mixing is not defined"
    NOT_FINITE = ("{reason}", "find the chain with these values, and remove it or fit it again")
    UNDEFINED = ("mixing is inconclusive: {reason}{drifts}", "{missing}")


_USABLE = (MixingVerdict.AGREE, MixingVerdict.TOO_FEW_DRAWS)
_INCONCLUSIVE = (
    MixingVerdict.WEAK_AGREEMENT,
    MixingVerdict.SINGLE_DRAWS,
    MixingVerdict.UNDEFINED,
)


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """Conclusion, advice and one statement per view.

    Attributes:
        kind: Kind of the conclusion.
        usable: Whether predictions of the draws may be used as those of the posterior; None if this
            is inconclusive.
        conclusion: One or two sentences.
        evidence: The numbers that decided it; empty if something is missing.
        next: What to do next, if anything.
        views: Name of a view -> the verdict on it.
    """

    kind: MixingVerdict
    usable: bool | None
    conclusion: str
    next: str | None
    views: dict[str, Verdict]
    evidence: tuple[Evidence, ...] = ()


@checked
def verdicts(
    result: Mixing, sampler: SamplerStatistics | None = None, method: Method | None = None
) -> Verdicts:
    """Interpret all views together with the statistics of the sampler.

    Args:
        result: The views.
        sampler: Statistics that the sampler recorded.
        method: Method whose settings are advised; None for chains of another tool, or of several
            methods.

    Returns:
        The conclusion, advice and a sentence per view.

    Example:
        >>> import torch
        >>> from bnn_symm import BayesianModel, Categorical, Prior, SamplePosterior, load_dataset
        >>> from bnn_symm import mixing
        >>> model = BayesianModel(torch.nn.Linear(4, 3), Prior(), Categorical())
        >>> posterior = SamplePosterior.from_draws(model, torch.randn(4, 50, 15))
        >>> list(verdicts(mixing(posterior, load_dataset("iris").test)).views)
        ['raw', 'aligned', 'chainwise', 'function']
    """
    kind, evidence = _conclusion(result)
    verdict = Verdict(kind, _numbers(result, method))
    if sampler is not None and sampler.biased and not result.frozen and not result.copies:
        advice = verdict.next or "see the problems of the sampler"
        numbers = {"problem": sampler.problems[0], "conclusion": verdict.text, "next": advice}
        kind, evidence = MixingVerdict.BIASED, (sampler.evidence,)
        verdict = Verdict(kind, numbers)
    return Verdicts(
        kind=kind,
        usable=None if kind in _INCONCLUSIVE else kind in _USABLE,
        conclusion=verdict.text,
        next=verdict.next,
        views=_views(result),
        evidence=tuple(number for number in evidence if number is not None),
    )


def _passes(view: MixingSummary | AlignedView | None) -> bool:
    view = view.view if isinstance(view, AlignedView) else view
    return view is not None and view.status in ("pass", "too few draws")


def _rhat(view: MixingSummary) -> str:
    """Return the largest R-hat of a view and its limit."""
    evidence = view.rhat_evidence
    return "R-hat undefined" if evidence is None else f"R-hat up to {evidence.describe()}"


def _reach(view: MixingSummary) -> str:
    return f"even {view.num_draws} independent draws per chain reach R-hat {number(view.threshold)}"


def _views(result: Mixing) -> dict[str, Verdict]:
    """Return the verdict on each view."""
    limit, aligned, points = result.chainwise.threshold, result.aligned, result.values.num_points
    moving = [i for i, rhat in enumerate(result.by_chain) if rhat is not None and rhat > limit]
    which = f"chain {chain_list(moving)}" if result.chainwise.status == "fail" else "every chain"
    numbering = ViewVerdict.NUMBERING if _passes(aligned) else ViewVerdict.DIFFER
    changes = ViewVerdict.NUMBERING_CHANGES if _passes(result.per_draw) else ViewVerdict.DIFFER
    views = {
        "raw": _view(result.raw, "unaligned weights", numbering),
        "aligned": Verdict(ViewVerdict.NOT_COMPUTED, {"reason": result.aligned_reason}),
        "chainwise": _view(result.chainwise, f"early and late draws of {which}"),
        "function": _view(result.function, f"predictions of the chains at {points} points"),
    }
    if aligned is not None and aligned.null_common is None:
        views["aligned"] = Verdict(ViewVerdict.NO_PERMUTATION)
    elif aligned is not None:
        shares = [percent(own, 1) for own in (aligned.common, aligned.null_common)]
        common = f"in common {shares[0]}, for draws of the prior {shares[1]}"
        views["aligned"] = _view(aligned.view, "weights, aligned chain by chain,", changes, common)
    return views


def _view(
    view: MixingSummary, subject: str, differ: ViewVerdict = ViewVerdict.DIFFER, *details: str
) -> Verdict:
    kind = ViewVerdict.AGREE if _passes(view) else differ
    if view.status in ("undefined", "no evidence"):
        kind = ViewVerdict.NO_EVIDENCE
    details = (_rhat(view), *details)
    if view.status == "too few draws":
        details += (f"smallest ESS {min(view.ess_bulk_min or 0, view.ess_tail_min or 0):.0f}",)
    if view.threshold > _WEAK:
        details += (_reach(view),)
    numbers = {"status": view.status, "reason": view.reason, "details": "; ".join(details)}
    return Verdict(kind, {"subject": subject, **numbers})


def _numbers(result: Mixing, method: Method | None) -> dict[str, Any]:
    """Return the numbers that conclusions state, and the settings that they advise."""
    function, chainwise, draws = result.function, result.chainwise, result.function.num_draws
    longer = f"twice the warm-up, and {_draws(None, 2 * draws)}"
    if method is not None:
        settings = (method.longer_fit_override(), method.num_draws_override(2 * draws))
        longer = advise_setting(*filter(None, settings))
    ess = function.ess_evidence
    factor = 1.0 if ess is None else (function.ess_wanted or ess.value) / max(1.0, ess.value)
    by_view = {"as functions": result.function_modes, "modulo symmetry": result.aligned_modes}
    modes = [f"{modes.count} {name}" for name, modes in by_view.items() if modes is not None]
    if result.aligned is not None and result.aligned.view.status == "fail":
        modes.append("no alignment joins them")
    more = _draws(method, max(10 * draws, _MANY))
    missing = "check the network: its outputs do not depend on its weights"
    if draws == 1:
        missing = "fit several seeds, or use a method that samples: inference.name=nuts"
    elif draws < MIN_DRAWS:
        missing = f"draw more ({more})"
    elif function.num_chains == 1:
        missing = "sample 4 chains or more"
    drifts = f". Its weights drift or mix slowly, early against late {_rhat(chainwise)}"
    weights_differ = result.raw.status == "fail" and not _passes(result.aligned)
    return {
        "frozen": chain_list(result.frozen),
        "copies": "; ".join(result.copies.sentences),
        "chains": function.num_chains,
        "reason": function.reason,
        "rhat": _rhat(function),
        "early": _rhat(chainwise),
        "why": chainwise.reason or _reach(chainwise),
        "reach": _reach(function),
        "weights": "; weights of the chains differ: interpret them with care" * weights_differ,
        "ess": "" if ess is None else ess.describe(),
        "factor": factor,
        "enough": _draws(method, int(-(-factor * draws // 100) * 100)),
        "more": more,
        "longer": longer,
        "good_fit": advise_setting("initial=RUN"),
        "modes": "; ".join(modes),
        "missing": missing,
        "drifts": drifts * (function.num_chains == 1 and chainwise.status == "fail"),
    }


def _draws(method: Method | None, draws: int) -> str:
    """Return the setting, or a phrase, for a number of draws per chain."""
    setting = None if method is None else method.num_draws_override(draws)
    return f"{draws} draws per chain" if setting is None else advise_setting(setting)


def _conclusion(result: Mixing) -> tuple[MixingVerdict, tuple[Evidence | None, ...]]:
    """Return the conclusion, and the numbers that decided it."""
    copies, function, chainwise = result.copies, result.function, result.chainwise
    if result.frozen:
        frozen = Evidence(measure="frozen_chains", value=len(result.frozen), high=0)
        return MixingVerdict.FROZEN, (frozen,)
    if copies.pairs:
        distinct, wanted = copies.num_distinct, copies.num_chains
        evidence = Evidence(measure="copies.num_distinct", value=distinct, low=wanted)
        return MixingVerdict.COPIES, (evidence,)
    if copies:
        share = max(repeat.share for repeat in copies.repeats)
        repeats = Evidence(measure="copies.repeats.share", value=share, high=0.0)
        return MixingVerdict.REPEATS, (repeats,)
    if function.status == "undefined":
        if function.num_draws == 1 and function.num_chains > 1:
            return MixingVerdict.SINGLE_DRAWS, ()
        is_finite = not (function.reason or "").startswith(NOT_FINITE)
        return (MixingVerdict.UNDEFINED if is_finite else MixingVerdict.NOT_FINITE), ()
    if _passes(function):
        if function.threshold > _WEAK:
            reach = Evidence(measure="function.threshold", value=function.threshold, high=_WEAK)
            return MixingVerdict.WEAK_AGREEMENT, (reach,)
        if function.status == "too few draws" and function.ess_evidence is not None:
            return MixingVerdict.TOO_FEW_DRAWS, (function.ess_evidence,)
        return MixingVerdict.AGREE, (function.rhat_evidence,)
    between, modes = function.rhat_evidence, result.function_modes
    if chainwise.status == "fail":
        return MixingVerdict.NOT_STATIONARY, (chainwise.rhat_evidence, between)
    if chainwise.status != "pass" or chainwise.threshold > _WEAK:
        return MixingVerdict.STATIONARITY_UNCLEAR, (between,)
    if modes is None:
        return MixingVerdict.DIFFERENT_MODES, (between,)
    count = Evidence(measure="modes.function.count", value=modes.count, high=1)
    if modes.count == 1:
        return MixingVerdict.SLOW_IN_ONE_MODE, (count, between)
    return MixingVerdict.DIFFERENT_MODES, (count,)
