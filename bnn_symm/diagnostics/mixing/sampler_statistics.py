"""What a sampler says of its own chains: divergences, energies, acceptance, tree depth, step size.

E-BFMI is the mean squared change of the energy over its variance (Betancourt 2016,
arXiv:1604.00695): below 0.3 the momentum is refreshed too weakly to cross the energies of the
posterior. A divergence is a trajectory that left the level of its energy, which marks places that
the sampler cannot enter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnn_symm.diagnostics.statistics.evidence import Evidence

# Of Betancourt 2016.
_LOW_EBFMI = 0.3
# A share of draws that may diverge by chance, as round-off does, before means are held to be
# biased.
_FEW_DIVERGED = 0.001
# A share of trajectories that end at the largest allowed depth, above which they are cut short for
# good.
_MANY_AT_DEPTH = 0.05
# An acceptance rate so far from the one that the step size was adapted to says that the adaptation
# did not end.
_FAR_FROM_TARGET = 0.15


@dataclass(frozen=True, kw_only=True)
class SamplerStatistics:
    """One number a chain; None for what the sampler did not record, or what is not defined.

    Attributes:
        divergences: draws that diverged.
        ebfmi: energy Bayesian fraction of missing information; None in a chain whose energy never
            changes.
        acceptance_rate: mean over draws.
        tree_depth: mean over draws; of samplers that record steps only, the depth of a full tree of
            so many steps.
        at_max_depth: share of draws whose tree was as deep as is allowed; None where that is not
            known.
        step_size: of the last draw.
        n_steps: gradients a draw, mean.
        num_draws: of each chain.
        problems: in words; empty if there are none. Those that bias the draws come first.
        biased: whether one of them, the first then, means that draws are not those of the
            posterior.
        evidence: the number that `biased` was decided by; None if it is false.
    """

    divergences: Sequence[int] | None
    ebfmi: Sequence[float | None] | None
    acceptance_rate: Sequence[float] | None
    tree_depth: Sequence[float] | None
    at_max_depth: Sequence[float] | None
    step_size: Sequence[float] | None
    n_steps: Sequence[float] | None
    num_draws: int
    problems: tuple[str, ...]
    biased: bool
    evidence: Evidence | None = None


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """A problem in words, the number that makes it one, and whether draws are then not those of the
    posterior.
    """

    words: str
    evidence: Evidence
    biases: bool


def sampler_statistics(
    stats: Mapping[str, np.ndarray],
    *,
    max_tree_depth: int | None = None,
    target: float | None = None,
) -> SamplerStatistics | None:
    """Sums up `sample_stats`, each (chain, draw), by ArviZ's names; None if there are none.

    Args:
        stats: any of diverging, energy, acceptance_rate, tree_depth, n_steps, step_size.
        max_tree_depth: of NUTS.
        target: acceptance rate that the step size was adapted to.
    """
    if not stats:
        return None
    draws = next(iter(stats.values())).shape[1]
    divergences = [int(n) for n in stats["diverging"].sum(1)] if "diverging" in stats else None
    ebfmi = [_ebfmi(energy) for energy in stats["energy"]] if "energy" in stats else None
    depth = stats.get("tree_depth")
    if depth is None and "n_steps" in stats and max_tree_depth is not None:
        depth = np.floor(np.log2(np.maximum(stats["n_steps"], 1) + 1))
    at_max = None
    if depth is not None and max_tree_depth is not None:
        at_max = [float(share) for share in (depth >= max_tree_depth).mean(1)]
    found: dict[str, Any] = {
        "divergences": divergences,
        "ebfmi": ebfmi,
        "acceptance_rate": _means(stats.get("acceptance_rate")),
        "tree_depth": _means(depth),
        "at_max_depth": at_max,
        "step_size": [float(own[-1]) for own in stats["step_size"]]
        if "step_size" in stats
        else None,
        "n_steps": _means(stats.get("n_steps")),
    }
    problems = sorted(_problems(found, draws, target), key=lambda problem: not problem.biases)
    return SamplerStatistics(
        **found,
        num_draws=draws,
        problems=tuple(problem.words for problem in problems),
        biased=any(problem.biases for problem in problems),
        evidence=problems[0].evidence if problems and problems[0].biases else None,
    )


def _ebfmi(energy: np.ndarray) -> float | None:
    variance = float(np.var(energy, ddof=1)) if len(energy) > 1 else 0.0
    return float(np.mean(np.diff(energy) ** 2) / variance) if variance > 0 else None


def _means(values: np.ndarray | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values.mean(1)]


def _problems(found: Mapping[str, Any], draws: int, target: float | None) -> list[_Problem]:
    problems = [_of_divergences(found["divergences"], draws, target), _of_energies(found["ebfmi"])]
    deep = [
        i
        for i, share in enumerate(found["at_max_depth"] or [])
        if share is not None and share > _MANY_AT_DEPTH
    ]
    if deep:
        largest = max(found["at_max_depth"])
        problems.append(
            _Problem(
                words=f"more than {_MANY_AT_DEPTH:.0%} of the trajectories of chain {listed(deep)} "
                "ended at the "
                f"largest depth (up to {largest:.1%}): slow, though not biased; raise "
                "inference.max_tree_depth",
                evidence=Evidence(
                    measure="sampler.at_max_depth", value=largest, high=_MANY_AT_DEPTH
                ),
                biases=False,
            )
        )
    if target is not None:
        problems.append(_of_acceptance(found["acceptance_rate"], target))
    return [problem for problem in problems if problem is not None]


def _of_divergences(
    divergences: Sequence[int] | None, draws: int, target: float | None
) -> _Problem | None:
    diverged, total = sum(divergences or []), draws * len(divergences or [])
    if not diverged:
        return None
    # Of another tool's sampler the name of the setting is not known.
    aimed_at = (
        "the acceptance rate that is aimed at" if target is None else "inference.target_accept_prob"
    )
    evidence = Evidence(measure="sampler.divergences", value=diverged, high=_FEW_DIVERGED * total)
    what = "the sampler cannot enter parts of the posterior, so that means and intervals are biased"
    if evidence.is_inside:
        what = f"at most {_FEW_DIVERGED:.1%} of them, as round-off makes, so that no bias is inferred from it"
    return _Problem(
        words=f"{diverged} of {total} draws diverged: {what}; raise {aimed_at}, or reparametrize",
        evidence=evidence,
        biases=not evidence.is_inside,
    )


def _of_energies(ebfmi: Sequence[float | None] | None) -> _Problem | None:
    low = [i for i, value in enumerate(ebfmi or []) if value is not None and value < _LOW_EBFMI]
    if not low:
        return None
    smallest = min(value for value in ebfmi or [] if value is not None)
    evidence = Evidence(measure="sampler.ebfmi", value=smallest, low=_LOW_EBFMI)
    return _Problem(
        words=f"E-BFMI of chain {listed(low)} is below {_LOW_EBFMI} (smallest {smallest:.2g}): "
        "momenta are refreshed "
        "too weakly to cross the energies, as in a funnel; reparametrize, or fix the scale that "
        "makes it",
        evidence=evidence,
        biases=True,
    )


def _of_acceptance(rates: Sequence[float] | None, target: float) -> _Problem | None:
    far = [i for i, rate in enumerate(rates or []) if abs(rate - target) > _FAR_FROM_TARGET]
    if not far or rates is None:
        return None
    furthest = max((rates[i] for i in far), key=lambda rate: abs(rate - target))
    return _Problem(
        words=f"chain {listed(far)} accepts {', '.join(f'{rates[i]:.2f}' for i in far)} where "
        f"{target:g} was the aim: the step size did not settle; raise inference.num_warmup",
        evidence=Evidence(
            measure="sampler.acceptance_rate",
            value=furthest,
            low=target - _FAR_FROM_TARGET,
            high=target + _FAR_FROM_TARGET,
        ),
        biases=False,
    )


def listed(chains: Sequence[int]) -> str:
    """Their numbers, for a sentence."""
    return ", ".join(str(chain) for chain in chains)
