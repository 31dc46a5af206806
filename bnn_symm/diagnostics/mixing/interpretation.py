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

from bnn_symm.arguments import checked
from bnn_symm.diagnostics.mixing.chain_statistics import MIN_DRAWS
from bnn_symm.diagnostics.mixing.mixing import AlignedView, Mixing
from bnn_symm.diagnostics.mixing.sampler_statistics import SamplerStatistics, chain_list
from bnn_symm.diagnostics.mixing.views import NOT_FINITE, MixingSummary
from bnn_symm.diagnostics.statistics.evidence import Evidence
from bnn_symm.inference import Method, Sampler, StochasticGradientMethod

# If independent draws can reach a larger R-hat than this (Gelman and Rubin's limit), a pass is no
# evidence.
_WEAK = 1.1
# Minimum number of draws per chain that is advised.
_MANY = 1000


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """Conclusion, advice and one statement per view.

    Attributes:
        usable: Whether predictions of the draws may be used as those of the posterior; None if this
            is inconclusive.
        conclusion: One or two sentences.
        evidence: The numbers that decided it; empty if something is missing.
        next: What to do next, if anything.
        views: Name of a view -> a sentence.
    """

    usable: bool | None
    conclusion: str
    next: str | None
    views: dict[str, str]
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Conclusion:
    """A conclusion from all views, advice, and the numbers that decided it."""

    usable: bool | None
    text: str
    next: str | None = None
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
    views = {
        "raw": _raw(result),
        "aligned": _aligned(result),
        "chainwise": _chainwise(result),
        "function": _function(result),
    }
    conclusion = _conclusion(result, method)
    if sampler is not None and sampler.biased and not result.frozen and not result.copies:
        conclusion = _Conclusion(
            usable=False,
            text=f"these draws are biased: {sampler.problems[0]}. Apart from this: "
            f"{conclusion.text}",
            next=conclusion.next or "see the problems of the sampler",
            evidence=() if sampler.evidence is None else (sampler.evidence,),
        )
    return Verdicts(
        usable=conclusion.usable,
        conclusion=conclusion.text,
        next=conclusion.next,
        views=views,
        evidence=conclusion.evidence,
    )


def _passes(view: MixingSummary | AlignedView | None) -> bool:
    view = view.view if isinstance(view, AlignedView) else view
    return view is not None and view.status in ("pass", "too few draws")


def _rhat(view: MixingSummary) -> str:
    """Return the largest R-hat of a view and its limit."""
    evidence = view.rhat_evidence
    return "R-hat undefined" if evidence is None else f"R-hat up to {evidence.describe()}"


def _without_evidence(view: MixingSummary) -> str | None:
    """Return the status and its reason if a view provides no evidence; None if it does."""
    return f"{view.status}: {view.reason}" if view.status in ("undefined", "no evidence") else None


def _raw(result: Mixing) -> str:
    view = result.raw
    if nothing := _without_evidence(view):
        return nothing
    if _passes(view):
        return f"unaligned weights of the chains agree ({_rhat(view)}{_few(view)})"
    if _passes(result.aligned):
        return (
            f"{_rhat(view)} reflects the numbering of units, not mixing: aligned weights agree. "
            "Do not interpret this view, and do not average these weights"
        )
    return f"unaligned weights of the chains differ ({_rhat(view)}); see the other views"


def _aligned(result: Mixing) -> str:
    aligned = result.aligned
    if aligned is None:
        return f"not computed: {result.aligned_reason}"
    view = aligned.view
    if nothing := _without_evidence(view):
        return nothing
    if aligned.null_common is None:
        return "nothing can be permuted: this is the raw view"
    beside = f"in common {aligned.common:.1%}, for draws of the prior {aligned.null_common:.1%}"
    if _passes(view):
        return (
            f"with one permutation per chain, weights agree ({_rhat(view)}{_few(view)}; {beside})"
        )
    if _passes(result.per_draw):
        return (
            f"with one permutation per chain, weights differ ({_rhat(view)}). With one per draw "
            f"they agree: the numbering of units changes along the chains ({beside})"
        )
    if result.per_draw is not None and result.per_draw.view.status == "fail":
        return f"weights differ for every numbering of units ({_rhat(view)}; {beside})"
    return f"with one permutation per chain, weights differ ({_rhat(view)}; {beside})"


def _chainwise(result: Mixing) -> str:
    view = result.chainwise
    frozen = f"; frozen: chain {chain_list(result.frozen)}" if result.frozen else ""
    if nothing := _without_evidence(view):
        return f"{nothing}{frozen}"
    early = _rhat(view).replace("R-hat", "R-hat of early against late draws", 1)
    if view.status == "fail":
        moving = [
            i
            for i, rhat in enumerate(result.by_chain)
            if rhat is not None and rhat > view.threshold
        ]
        return f"weights of chain {chain_list(moving)} drift or mix slowly ({early}){frozen}"
    return f"every chain is stationary ({early}{_few(view)}){frozen}"


def _function(result: Mixing) -> str:
    view = result.function
    if nothing := _without_evidence(view):
        return nothing
    points = f"{result.values.num_points} points"
    if _passes(view):
        return f"predictions at {points} agree across chains ({_rhat(view)}{_few(view)})"
    worst = "" if view.worst is None else f", worst: {result.values.column_name(view.worst)}"
    return f"predictions at {points} differ between chains ({_rhat(view)}{worst})"


def _conclusion(result: Mixing, method: Method | None) -> _Conclusion:
    function = result.function
    if result.frozen:
        return _Conclusion(
            usable=False,
            text=f"chain {chain_list(result.frozen)} never moved: all of its draws are one point",
            next=f"{_to_move(method)}, or start from another seed",
            evidence=(Evidence(measure="frozen_chains", value=len(result.frozen), high=0),),
        )
    if result.copies:
        return _copied(result, method)
    if function.status == "undefined":
        chains, draws = function.num_chains, function.num_draws
        if draws == 1 and chains > 1:
            return _Conclusion(
                usable=None,
                text=f"{chains} single draws, as of an ensemble: mixing is not defined",
            )
        return _undefined(result, method)
    return _agreeing(result, method) if _passes(function) else _disagreeing(result, method)


def _copied(result: Mixing, method: Method | None) -> _Conclusion:
    """Return the conclusion for chains that are not independent, or repeat themselves."""
    copies = result.copies
    if copies.pairs:
        evidence = Evidence(
            measure="copies.num_distinct", value=copies.num_distinct, low=copies.num_chains
        )
        advice = "sample every chain with a different seed, and name each file and each run once"
        if method is not None:
            advice = "fit every run with a different seed (--set seed=1), and name each once"
    else:
        share = max(repeat.share for repeat in copies.repeats)
        evidence = Evidence(measure="copies.repeats.share", value=share, high=0.0)
        advice = "remove the repeated draws, or sample the chain again"
    counted = "R-hat and ESS of repeated draws are not informative about the posterior"
    return _Conclusion(
        usable=False,
        text=f"{'; '.join(copies.sentences)}. {counted}",
        next=advice,
        evidence=(evidence,),
    )


def _agreeing(result: Mixing, method: Method | None) -> _Conclusion:
    """Return the conclusion if chains agree as functions."""
    function, draws = result.function, result.function.num_draws
    rhat, ess = function.rhat_evidence, function.ess_evidence
    differ = result.raw.status == "fail" and not _passes(result.aligned)
    weights = "; the weights of the chains differ, so interpret them with care" if differ else ""
    if function.threshold > _WEAK:
        return _Conclusion(
            usable=None,
            text=f"mixing is inconclusive: with {draws} draws per chain even independent draws "
            f"reach an R-hat of {function.threshold:.3g}, so agreement is weak evidence",
            next=f"draw more ({_draws(method, max(10 * draws, _MANY))})",
            evidence=(
                Evidence(measure="function.threshold", value=function.threshold, high=_WEAK),
            ),
        )
    if function.status == "too few draws" and ess is not None:
        factor = (function.ess_wanted or ess.value) / max(1.0, ess.value)
        return _Conclusion(
            usable=True,
            text="chains agree as functions, but there are too few effective draws: the smallest "
            f"ESS is {ess.describe()}{weights}",
            next=f"for reliable intervals, draw {factor:.1f} times as many "
            f"({_draws(method, _rounded(factor * draws))})",
            evidence=(ess,),
        )
    return _Conclusion(
        usable=True,
        text=f"predictions can be used: chains agree as functions, {_rhat(function)}{weights}",
        evidence=() if rhat is None else (rhat,),
    )


def _disagreeing(result: Mixing, method: Method | None) -> _Conclusion:
    """Return the conclusion if chains disagree as functions, explained by the other views."""
    function, chainwise, draws = result.function, result.chainwise, result.function.num_draws
    between = () if function.rhat_evidence is None else (function.rhat_evidence,)
    disagree = f"chains disagree as functions, {_rhat(function)}"
    if chainwise.status == "fail":
        early = () if chainwise.rhat_evidence is None else (chainwise.rhat_evidence,)
        return _Conclusion(
            usable=False,
            text="chains are not stationary or mix slowly, "
            f"{_rhat(chainwise)} of early against late draws; "
            f"and they disagree as functions, {_rhat(function)}",
            next=f"run longer first ({_longer(method, draws)}), or start from a good fit "
            "(--set initial=RUN)",
            evidence=(*early, *between),
        )
    if chainwise.status != "pass" or chainwise.threshold > _WEAK:
        why = (
            chainwise.reason
            or f"with {draws} draws, even independent draws reach an R-hat of "
            f"{chainwise.threshold:.3g}"
        )
        return _Conclusion(
            usable=False,
            text=f"{disagree}; the stationarity of the chains is inconclusive: {why}",
            next=f"draw more ({_draws(method, max(10 * draws, _MANY))})",
            evidence=between,
        )
    modes = result.function_modes
    if modes is not None and modes.count == 1:
        return _Conclusion(
            usable=False,
            text=f"{disagree}, though by less than their spread: they mix slowly within one mode",
            next=f"run longer, until R-hat passes ({_longer(method, draws)})",
            evidence=(Evidence(measure="modes.function.count", value=1, high=1), *between),
        )
    count = "" if modes is None else f"{modes.count} "
    aligned = (
        "" if result.aligned_modes is None else f"; modulo symmetry {result.aligned_modes.count}"
    )
    fails = result.aligned is not None and result.aligned.view.status == "fail"
    return _Conclusion(
        usable=False,
        text=f"each chain is stationary, but they are in different modes: {count}as "
        f"functions{aligned}{'. No alignment joins them' if fails else ''}",
        next="more draws of these chains do not help; run more chains and use their predictions "
        "as a mixture, or widen the network, whose modes are then easier to leave",
        evidence=between
        if modes is None
        else (Evidence(measure="modes.function.count", value=modes.count, high=1),),
    )


def _undefined(result: Mixing, method: Method | None) -> _Conclusion:
    """Return the conclusion without an R-hat of functions: what is missing, and how to get it."""
    function = result.function
    text, advice, usable = f"mixing is inconclusive: {function.reason}", "", None
    if (function.reason or "").startswith(NOT_FINITE):
        usable, advice = False, "find the chain with these values, and remove it or fit it again"
    elif function.num_draws == 1:
        advice = "a single point has no chains; fit with inference.name=nuts, or several seeds"
    elif function.num_draws < MIN_DRAWS:
        advice = f"draw more ({_draws(method, _MANY)})"
    elif function.num_chains == 1:
        if result.chainwise.status == "fail":
            text = f"{text}. Its weights drift or mix slowly, {_rhat(result.chainwise)}"
        advice = "sample 4 chains or more" if method is None else "fit with inference.num_chains=4"
    else:
        advice = "check the network: its outputs do not depend on its weights"
    return _Conclusion(usable=usable, text=text, next=advice)


def _draws(method: Method | None, number: int) -> str:
    """Return the setting, or a phrase, for a number of draws per chain."""
    setting = None if method is None else method.num_draws_override(number)
    return f"{number} draws per chain" if setting is None else f"--set {setting}"


def _longer(method: Method | None, draws: int) -> str:
    """Return the settings for twice the warm-up and twice the draws."""
    if method is None:
        return f"twice the warm-up, and {_draws(None, 2 * draws)}"
    return " ".join(
        [
            "--set",
            *filter(None, (method.longer_fit_override(), method.num_draws_override(2 * draws))),
        ]
    )


def _to_move(method: Method | None) -> str:
    """Return advice for a chain that never moves."""
    if isinstance(method, StochasticGradientMethod):
        return "raise inference.learning_rate"
    lower = "inference.initial_step_size" if isinstance(method, Sampler) else "its first step size"
    return f"check its acceptance rate; lower {lower}"


def _few(view: MixingSummary) -> str:
    smallest = min(view.ess_bulk_min or 0.0, view.ess_tail_min or 0.0)
    size = f", smallest ESS {smallest:.0f}" if view.status == "too few draws" else ""
    return (
        f"{size}, where even independent draws reach {view.threshold:.3g}"
        if view.threshold > _WEAK
        else size
    )


def _rounded(draws: float) -> int:
    return int(-(-draws // 100) * 100)
