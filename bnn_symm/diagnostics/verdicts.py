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
"""

from dataclasses import dataclass

from bnn_symm.diagnostics.chain_statistics import MIN_DRAWS
from bnn_symm.diagnostics.mixing import AlignedView, Mixing
from bnn_symm.diagnostics.sampler import SamplerStatistics, listed
from bnn_symm.diagnostics.views import NOT_FINITE, View
from bnn_symm.inference import Method, Sampler, StochasticGradientMethod

# Where independent draws reach a larger R-hat than this (Gelman and Rubin's own limit), passing is no evidence.
_WEAK = 1.1
# Draws a chain that are advised at least.
_MANY = 1000


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """What a person should read.

    Attributes:
        usable: whether predictions of the draws may be used as those of the posterior; None where it cannot be told.
        conclusion: one or two sentences.
        next: what to do, if anything.
        views: name of a view -> a sentence.
    """

    usable: bool | None
    conclusion: str
    next: str | None
    views: dict[str, str]


def verdicts(found: Mixing, sampler: SamplerStatistics | None = None, method: Method | None = None) -> Verdicts:
    """Reads all views together, and what the sampler says.

    Args:
        found: the views.
        sampler: what it recorded.
        method: whose settings are advised; None of chains that another tool made, or several methods.
    """
    views = {
        "raw": _raw(found),
        "aligned": _aligned(found),
        "chainwise": _chainwise(found),
        "function": _function(found),
    }
    usable, conclusion, following = _conclusion(found, method)
    if sampler is not None and sampler.biased and not found.frozen:
        usable = False
        conclusion = (
            f"do not use these draws as they are: {sampler.problems[0]}. Of the draws that there are: {conclusion}"
        )
        following = following or "see the sampler's problems"
    return Verdicts(usable=usable, conclusion=conclusion, next=following, views=views)


def _passes(view: View | AlignedView | None) -> bool:
    view = view.view if isinstance(view, AlignedView) else view
    return view is not None and view.status in ("pass", "too few draws")


def _rhat(view: View) -> str:
    return "undefined" if view.rhat_max is None else f"{view.rhat_max:.3g}"


def _raw(found: Mixing) -> str:
    view = found.raw
    if view.status == "undefined":
        return f"undefined: {view.reason}"
    if _passes(view):
        return f"weights of the chains agree as they are (R-hat up to {_rhat(view)}{_few(view)})"
    if _passes(found.aligned):
        return (
            f"R-hat up to {_rhat(view)} counts how units are numbered, not how chains mix: aligned, they agree. Do not "
            f"read this view, and do not average these weights"
        )
    return f"weights of the chains differ (R-hat up to {_rhat(view)}); the other views say why"


def _aligned(found: Mixing) -> str:
    aligned = found.aligned
    if aligned is None:
        return f"not computed: {found.aligned_reason}"
    view = aligned.view
    if view.status in ("undefined", "no evidence"):
        return f"{view.status}: {view.reason}"
    if aligned.null_common is None:
        return "nothing can be permuted, so that this is the raw view"
    beside = f"in common {aligned.common:.1%}, of the prior's draws {aligned.null_common:.1%}"
    if _passes(view):
        return f"with one permutation a chain, weights agree (R-hat up to {_rhat(view)}{_few(view)}; {beside})"
    if _passes(found.per_draw):
        return (
            f"with one permutation a chain, weights differ (R-hat up to {_rhat(view)}); with one a draw they agree, so "
            f"that numbering changes along the chains ({beside})"
        )
    return f"weights differ however units are numbered (R-hat up to {_rhat(view)}; {beside})"


def _chainwise(found: Mixing) -> str:
    view = found.chainwise
    frozen = f"; frozen: chain {listed(found.frozen)}" if found.frozen else ""
    if view.status == "undefined":
        return f"undefined: {view.reason}{frozen}"
    if view.status == "fail":
        moving = [i for i, rhat in enumerate(found.by_chain) if rhat is not None and rhat > view.threshold]
        return (
            f"weights of chain {listed(moving)} still drift, or move too slowly to tell (R-hat of early against late "
            f"up to {_rhat(view)}){frozen}"
        )
    return f"every chain agrees with itself over time (R-hat up to {_rhat(view)}{_few(view)}){frozen}"


def _function(found: Mixing) -> str:
    view = found.function
    if view.status == "undefined":
        return f"undefined: {view.reason}"
    points = f"{found.values.num_points} points"
    if _passes(view):
        return f"predictions at {points} agree across chains (R-hat up to {_rhat(view)}{_few(view)})"
    worst = "" if view.worst is None else f", worst: {found.values.column_name(view.worst)}"
    return f"predictions at {points} differ between chains (R-hat up to {_rhat(view)}{worst})"


def _conclusion(found: Mixing, method: Method | None) -> tuple[bool | None, str, str | None]:
    function, chainwise = found.function, found.chainwise
    chains, draws = function.num_chains, function.num_draws
    if found.frozen:
        return (
            False,
            f"chain {listed(found.frozen)} never moved: all of its draws are one point",
            f"{_to_move(method)}, or start elsewhere (another seed)",
        )
    if function.status == "undefined":
        if draws == 1 and chains > 1:
            return None, f"{chains} single draws, as of an ensemble: nothing mixes here", None
        return _untold(found, method)
    if _passes(function):
        apart = found.raw.status == "fail" and not _passes(found.aligned)
        weights = "; read weights with care: they differ" if apart else ""
        if function.threshold > _WEAK:
            return (
                None,
                f"mixing cannot be told: of {draws} draws a chain, even independent ones reach an R-hat of "
                f"{function.threshold:.3g}, so that chains which agree by it say little",
                f"draw more ({_draws(method, max(10 * draws, _MANY))})",
            )
        if function.status == "too few draws":
            smallest = min(function.ess_bulk_min or 1.0, function.ess_tail_min or 1.0)
            factor = (function.ess_wanted or smallest) / max(1.0, smallest)
            return (
                True,
                f"chains agree as functions, but their draws are few: the smallest ESS is {smallest:.0f}{weights}",
                f"for intervals that can be relied on, draw {factor:.1f} times as many "
                f"({_draws(method, _rounded(factor * draws))})",
            )
        return True, f"predictions can be used: chains agree as functions{weights}", None
    if chainwise.status == "fail":
        return (
            False,
            "chains have not settled, or move too slowly to tell, and disagree as functions",
            f"run longer before reading anything else ({_longer(method, draws)}), or start from a good fit "
            f"(--set initial=RUN)",
        )
    if chainwise.status == "undefined" or chainwise.threshold > _WEAK:
        why = chainwise.reason or f"of {draws} draws, even independent ones reach an R-hat of {chainwise.threshold:.3g}"
        return (
            False,
            f"chains disagree as functions; whether each has settled cannot be told: {why}",
            f"draw more ({_draws(method, max(10 * draws, _MANY))})",
        )
    if found.function_modes is not None and found.function_modes.count == 1:
        return (
            False,
            "chains disagree as functions, though not by more than each spreads: they mix slowly within one mode",
            f"run longer, until R-hat passes ({_longer(method, draws)})",
        )
    count = "" if found.function_modes is None else f"{found.function_modes.count} "
    aligned = "" if found.aligned_modes is None else f"; modulo symmetry {found.aligned_modes.count}"
    return (
        False,
        f"each chain has settled, but they are in different modes: {count}as functions{aligned}. No alignment joins "
        f"them",
        "more draws of these chains will not help; run more chains and read their predictions as a mixture, or widen "
        "the network, whose modes are then easier to leave",
    )


def _untold(found: Mixing, method: Method | None) -> tuple[bool | None, str, str | None]:
    """Without an R-hat of functions: what is missing, and how to get it."""
    function = found.function
    conclusion = f"mixing cannot be told: {function.reason}"
    if (function.reason or "").startswith(NOT_FINITE):
        return False, conclusion, "find the chain that they come from, and leave it out or fit it again"
    if function.num_draws == 1:
        return (
            None,
            conclusion,
            "a point has no chains: for a posterior, fit with inference.name=nuts, or several seeds",
        )
    if function.num_draws < MIN_DRAWS:
        return None, conclusion, f"draw more ({_draws(method, _MANY)})"
    if function.num_chains == 1:
        drifts = ". And its weights still drift, or move too slowly to tell" if found.chainwise.status == "fail" else ""
        advice = "sample 4 chains or more" if method is None else "fit with inference.num_chains=4"
        return None, f"{conclusion}{drifts}", advice
    return None, conclusion, "look at the network: its outputs are the same for all of its weights"


def _draws(method: Method | None, number: int) -> str:
    """How so many draws a chain are had."""
    setting = None if method is None else method.for_draws(number)
    return f"{number} draws a chain" if setting is None else f"--set {setting}"


def _longer(method: Method | None, draws: int) -> str:
    """How twice the warm-up and twice the draws are had."""
    if method is None:
        return f"twice the warm-up, and {_draws(None, 2 * draws)}"
    return " ".join(["--set", *filter(None, (method.for_time(), method.for_draws(2 * draws)))])


def _to_move(method: Method | None) -> str:
    """What helps a chain that stays where it is."""
    if isinstance(method, StochasticGradientMethod):
        return "raise inference.learning_rate"
    lower = "inference.initial_step_size" if isinstance(method, Sampler) else "its first step size"
    return f"look at its acceptance rate; lower {lower}"


def _few(view: View) -> str:
    smallest = min(view.ess_bulk_min or 0.0, view.ess_tail_min or 0.0)
    size = f", smallest ESS {smallest:.0f}" if view.status == "too few draws" else ""
    return f"{size}, where even independent draws reach {view.threshold:.3g}" if view.threshold > _WEAK else size


def _rounded(draws: float) -> int:
    return int(-(-draws // 100) * 100)
