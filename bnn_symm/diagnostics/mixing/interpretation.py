"""What the views of `mixing` say together, in words: one verdict a view, and what to do next.

| raw | aligned | chainwise | function | what it is |
| --- | --- | --- | --- | --- |
| fails | passes | passes | passes | copies of one mode: numbering, not mixing |
| fails | fails | passes | fails | different modes, each explored by its own chain |
| fails | fails | passes | passes | weights that do not matter to the function (or an alignment that was not found) |
| any | any | fails | fails | chains that have not settled: run longer before reading anything else |
| any | any | passes | fails, in one mode | chains that mix slowly: run longer |
| any | any | fails | passes | weights that drift where functions do not feel it |
| passes | no evidence | passes | passes | nothing ties the weights to a place; functions are all there is |

Chains that are copies of one another (`copies`) come first: views that take them for independent
    have no evidence.
Each conclusion is decided by one or two numbers and their limits (`Evidence`), and quotes these.
"""

from dataclasses import dataclass

from bnn_symm.arguments import checked
from bnn_symm.diagnostics.mixing.chain_statistics import MIN_DRAWS
from bnn_symm.diagnostics.mixing.mixing import AlignedView, Mixing
from bnn_symm.diagnostics.mixing.sampler_statistics import SamplerStatistics, listed
from bnn_symm.diagnostics.mixing.views import NOT_FINITE, MixingSummary
from bnn_symm.diagnostics.statistics.evidence import Evidence
from bnn_symm.inference import Method, Sampler, StochasticGradientMethod

# Where independent draws reach a larger R-hat than this (Gelman and Rubin's own limit), passing is
# no evidence.
_WEAK = 1.1
# Draws a chain that are advised at least.
_MANY = 1000


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """What a person should read.

    Attributes:
        usable: whether predictions of the draws may be used as those of the posterior; None where
            it cannot be told.
        conclusion: one or two sentences.
        evidence: the numbers that decided it; empty where something is missing.
        next: what to do, if anything.
        views: name of a view -> a sentence.
    """

    usable: bool | None
    conclusion: str
    next: str | None
    views: dict[str, str]
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Conclusion:
    """A conclusion from all views, what to do next, and the numbers that decided it."""

    usable: bool | None
    words: str
    next: str | None = None
    evidence: tuple[Evidence, ...] = ()


@checked
def verdicts(
    found: Mixing, sampler: SamplerStatistics | None = None, method: Method | None = None
) -> Verdicts:
    """Reads all views together, and what the sampler says.

    Args:
        found: the views.
        sampler: what it recorded.
        method: whose settings are advised; None of chains that another tool made, or several
            methods.
    """
    views = {
        "raw": _raw(found),
        "aligned": _aligned(found),
        "chainwise": _chainwise(found),
        "function": _function(found),
    }
    conclusion = _conclusion(found, method)
    if sampler is not None and sampler.biased and not found.frozen and not found.copies:
        conclusion = _Conclusion(
            usable=False,
            words=f"do not use these draws as they are: {sampler.problems[0]}. Of the draws that "
            "there are: "
            f"{conclusion.words}",
            next=conclusion.next or "see the sampler's problems",
            evidence=() if sampler.evidence is None else (sampler.evidence,),
        )
    return Verdicts(
        usable=conclusion.usable,
        conclusion=conclusion.words,
        next=conclusion.next,
        views=views,
        evidence=conclusion.evidence,
    )


def _passes(view: MixingSummary | AlignedView | None) -> bool:
    view = view.view if isinstance(view, AlignedView) else view
    return view is not None and view.status in ("pass", "too few draws")


def _rhat(view: MixingSummary) -> str:
    """Return the largest R-hat of a view and its limit."""
    evidence = view.evidence_of_rhat
    return "R-hat undefined" if evidence is None else f"R-hat up to {evidence.words()}"


def _without_evidence(view: MixingSummary) -> str | None:
    """Return the status and its reason where a view says nothing; None where it does."""
    return f"{view.status}: {view.reason}" if view.status in ("undefined", "no evidence") else None


def _raw(found: Mixing) -> str:
    view = found.raw
    if nothing := _without_evidence(view):
        return nothing
    if _passes(view):
        return f"weights of the chains agree as they are ({_rhat(view)}{_few(view)})"
    if _passes(found.aligned):
        return (
            f"{_rhat(view)} counts how units are numbered, not how chains mix: aligned, they "
            "agree. Do not "
            f"read this view, and do not average these weights"
        )
    return f"weights of the chains differ ({_rhat(view)}); the other views say why"


def _aligned(found: Mixing) -> str:
    aligned = found.aligned
    if aligned is None:
        return f"not computed: {found.aligned_reason}"
    view = aligned.view
    if nothing := _without_evidence(view):
        return nothing
    if aligned.null_common is None:
        return "nothing can be permuted, so that this is the raw view"
    beside = f"in common {aligned.common:.1%}, of the prior's draws {aligned.null_common:.1%}"
    if _passes(view):
        return f"with one permutation a chain, weights agree ({_rhat(view)}{_few(view)}; {beside})"
    if _passes(found.per_draw):
        return (
            f"with one permutation a chain, weights differ ({_rhat(view)}); with one a draw they "
            "agree, so "
            f"that numbering changes along the chains ({beside})"
        )
    if found.per_draw is not None and found.per_draw.view.status == "fail":
        return f"weights differ however units are numbered ({_rhat(view)}; {beside})"
    return f"with one permutation a chain, weights differ ({_rhat(view)}; {beside})"


def _chainwise(found: Mixing) -> str:
    view = found.chainwise
    frozen = f"; frozen: chain {listed(found.frozen)}" if found.frozen else ""
    if nothing := _without_evidence(view):
        return f"{nothing}{frozen}"
    early = _rhat(view).replace("R-hat", "R-hat of early against late", 1)
    if view.status == "fail":
        moving = [
            i for i, rhat in enumerate(found.by_chain) if rhat is not None and rhat > view.threshold
        ]
        return f"weights of chain {listed(moving)} still drift, or move too slowly to tell ({early}){frozen}"
    return f"every chain agrees with itself over time ({early}{_few(view)}){frozen}"


def _function(found: Mixing) -> str:
    view = found.function
    if nothing := _without_evidence(view):
        return nothing
    points = f"{found.values.num_points} points"
    if _passes(view):
        return f"predictions at {points} agree across chains ({_rhat(view)}{_few(view)})"
    worst = "" if view.worst is None else f", worst: {found.values.column_name(view.worst)}"
    return f"predictions at {points} differ between chains ({_rhat(view)}{worst})"


def _conclusion(found: Mixing, method: Method | None) -> _Conclusion:
    function = found.function
    if found.frozen:
        return _Conclusion(
            usable=False,
            words=f"chain {listed(found.frozen)} never moved: all of its draws are one point",
            next=f"{_to_move(method)}, or start elsewhere (another seed)",
            evidence=(Evidence(measure="frozen_chains", value=len(found.frozen), high=0),),
        )
    if found.copies:
        return _copied(found, method)
    if function.status == "undefined":
        chains, draws = function.num_chains, function.num_draws
        if draws == 1 and chains > 1:
            return _Conclusion(
                usable=None, words=f"{chains} single draws, as of an ensemble: nothing mixes here"
            )
        return _untold(found, method)
    return _agreeing(found, method) if _passes(function) else _disagreeing(found, method)


def _copied(found: Mixing, method: Method | None) -> _Conclusion:
    """Return the conclusion of chains that are not independent, or repeat themselves."""
    copies = found.copies
    if copies.pairs:
        evidence = Evidence(
            measure="copies.num_distinct", value=copies.num_distinct, low=copies.num_chains
        )
        advice = "sample every chain with a seed of its own, and name each file and each run once"
        if method is not None:
            advice = "fit with another seed for every run (--set seed=1), and name each once"
    else:
        share = max(repeat.share for repeat in copies.repeats)
        evidence = Evidence(measure="copies.repeats.share", value=share, high=0.0)
        advice = "leave out the draws that are repeated, or sample the chain again"
    counted = "R-hat and ESS of repeated draws say nothing of the posterior"
    return _Conclusion(
        usable=False,
        words=f"{'; '.join(copies.sentences)}. {counted}",
        next=advice,
        evidence=(evidence,),
    )


def _agreeing(found: Mixing, method: Method | None) -> _Conclusion:
    """Return the conclusion where chains agree as functions."""
    function, draws = found.function, found.function.num_draws
    rhat, ess = function.evidence_of_rhat, function.evidence_of_ess
    apart = found.raw.status == "fail" and not _passes(found.aligned)
    weights = "; read weights with care: they differ" if apart else ""
    if function.threshold > _WEAK:
        return _Conclusion(
            usable=None,
            words=f"mixing cannot be told: of {draws} draws a chain, even independent ones reach "
            "an R-hat of "
            f"{function.threshold:.3g}, so that chains which agree by it say little",
            next=f"draw more ({_draws(method, max(10 * draws, _MANY))})",
            evidence=(
                Evidence(measure="function.threshold", value=function.threshold, high=_WEAK),
            ),
        )
    if function.status == "too few draws" and ess is not None:
        factor = (function.ess_wanted or ess.value) / max(1.0, ess.value)
        return _Conclusion(
            usable=True,
            words="chains agree as functions, but their draws are few: the smallest ESS is "
            f"{ess.words()}{weights}",
            next=f"for intervals that can be relied on, draw {factor:.1f} times as many "
            f"({_draws(method, _rounded(factor * draws))})",
            evidence=(ess,),
        )
    return _Conclusion(
        usable=True,
        words=f"predictions can be used: chains agree as functions, {_rhat(function)}{weights}",
        evidence=() if rhat is None else (rhat,),
    )


def _disagreeing(found: Mixing, method: Method | None) -> _Conclusion:
    """Return the conclusion where chains disagree as functions: why, as far as the other views
    say.
    """
    function, chainwise, draws = found.function, found.chainwise, found.function.num_draws
    apart = () if function.evidence_of_rhat is None else (function.evidence_of_rhat,)
    disagree = f"chains disagree as functions, {_rhat(function)}"
    if chainwise.status == "fail":
        early = () if chainwise.evidence_of_rhat is None else (chainwise.evidence_of_rhat,)
        return _Conclusion(
            usable=False,
            words=f"chains have not settled, or move too slowly to tell, {_rhat(chainwise)} of "
            "early against late; "
            f"and they disagree as functions, {_rhat(function)}",
            next=f"run longer before reading anything else ({_longer(method, draws)}), or start "
            "from a good fit "
            f"(--set initial=RUN)",
            evidence=(*early, *apart),
        )
    if chainwise.status != "pass" or chainwise.threshold > _WEAK:
        why = (
            chainwise.reason
            or f"of {draws} draws, even independent ones reach an R-hat of "
            f"{chainwise.threshold:.3g}"
        )
        return _Conclusion(
            usable=False,
            words=f"{disagree}; whether each has settled cannot be told: {why}",
            next=f"draw more ({_draws(method, max(10 * draws, _MANY))})",
            evidence=apart,
        )
    modes = found.function_modes
    if modes is not None and modes.count == 1:
        return _Conclusion(
            usable=False,
            words=f"{disagree}, though not by more than each spreads: they mix slowly within one "
            "mode",
            next=f"run longer, until R-hat passes ({_longer(method, draws)})",
            evidence=(Evidence(measure="modes.function.count", value=1, high=1), *apart),
        )
    count = "" if modes is None else f"{modes.count} "
    aligned = (
        "" if found.aligned_modes is None else f"; modulo symmetry {found.aligned_modes.count}"
    )
    fails = found.aligned is not None and found.aligned.view.status == "fail"
    return _Conclusion(
        usable=False,
        words=f"each chain has settled, but they are in different modes: {count}as "
        f"functions{aligned}{'. No alignment joins them' if fails else ''}",
        next="more draws of these chains will not help; run more chains and read their predictions "
        "as a mixture, or widen the network, whose modes are then easier to leave",
        evidence=apart
        if modes is None
        else (Evidence(measure="modes.function.count", value=modes.count, high=1),),
    )


def _untold(found: Mixing, method: Method | None) -> _Conclusion:
    """Without an R-hat of functions: what is missing, and how to get it."""
    function = found.function
    words, advice, usable = f"mixing cannot be told: {function.reason}", "", None
    if (function.reason or "").startswith(NOT_FINITE):
        usable, advice = (
            False,
            "find the chain that they come from, and leave it out or fit it again",
        )
    elif function.num_draws == 1:
        advice = (
            "a point has no chains: for a posterior, fit with inference.name=nuts, or several seeds"
        )
    elif function.num_draws < MIN_DRAWS:
        advice = f"draw more ({_draws(method, _MANY)})"
    elif function.num_chains == 1:
        if found.chainwise.status == "fail":
            words = f"{words}. And its weights still drift, or move too slowly to tell, {_rhat(found.chainwise)}"
        advice = "sample 4 chains or more" if method is None else "fit with inference.num_chains=4"
    else:
        advice = "look at the network: its outputs are the same for all of its weights"
    return _Conclusion(usable=usable, words=words, next=advice)


def _draws(method: Method | None, number: int) -> str:
    """How so many draws a chain are had."""
    setting = None if method is None else method.num_draws_override(number)
    return f"{number} draws a chain" if setting is None else f"--set {setting}"


def _longer(method: Method | None, draws: int) -> str:
    """How twice the warm-up and twice the draws are had."""
    if method is None:
        return f"twice the warm-up, and {_draws(None, 2 * draws)}"
    return " ".join(
        [
            "--set",
            *filter(None, (method.longer_fit_override(), method.num_draws_override(2 * draws))),
        ]
    )


def _to_move(method: Method | None) -> str:
    """What helps a chain that stays where it is."""
    if isinstance(method, StochasticGradientMethod):
        return "raise inference.learning_rate"
    lower = "inference.initial_step_size" if isinstance(method, Sampler) else "its first step size"
    return f"look at its acceptance rate; lower {lower}"


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
