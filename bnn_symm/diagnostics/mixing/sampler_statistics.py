"""Summarize sampler statistics: divergences, energies, acceptance, tree depth, step size.

E-BFMI is the mean squared change of the energy over its variance (Betancourt 2016,
arXiv:1604.00695). Below 0.3 the momentum is resampled too weakly to explore the energies of the
posterior. A divergence is a trajectory whose energy error exceeds the limit; it marks regions that
the sampler cannot enter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnn_symm.diagnostics.statistics.evidence import Evidence
from bnn_symm.formatting import number, percent

# Limit of Betancourt 2016.
_LOW_EBFMI = 0.3
# Fraction of draws that may diverge by chance, from round-off, before means are considered biased.
_FEW_DIVERGED = 0.001
# Fraction of trajectories at the maximum tree depth above which they are cut short systematically.
_MANY_AT_DEPTH = 0.05
# A larger difference from the target acceptance rate means that the adaptation of the step size did
# not converge.
_FAR_FROM_TARGET = 0.15


@dataclass(frozen=True, kw_only=True)
class SamplerStatistics:
    """One value per chain; None if the sampler did not record it, or if it is not defined.

    Attributes:
        divergences: Number of divergent draws.
        ebfmi: Energy Bayesian fraction of missing information; None for a chain of constant energy.
        acceptance_rate: Mean over draws.
        tree_depth: Mean over draws; for samplers that record only steps, the depth of a full tree
            of this many steps.
        at_max_depth: Fraction of draws at the maximum tree depth; None if unknown.
        step_size: Step size of the last draw.
        n_steps: Mean number of gradients per draw.
        num_draws: Draws per chain.
        problems: Descriptions of problems; those that bias the draws come first.
        biased: Whether a problem, the first one then, biases the draws.
        evidence: The number that decided `biased`; None if it is false.
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
    """A problem, the number that decided it, and whether it biases the draws."""

    text: str
    evidence: Evidence
    biases: bool


def sampler_statistics(
    stats: Mapping[str, np.ndarray],
    *,
    max_tree_depth: int | None = None,
    target: float | None = None,
) -> SamplerStatistics | None:
    """Summarize `sample_stats`, each (chain, draw), by ArviZ's names; None if there are none.

    Args:
        stats: Any of diverging, energy, acceptance_rate, tree_depth, n_steps, step_size.
        max_tree_depth: Maximum tree depth of NUTS.
        target: Acceptance rate that the step size was adapted to.

    Returns:
        The statistics of every chain, and problems.
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
        problems=tuple(problem.text for problem in problems),
        biased=any(problem.biases for problem in problems),
        evidence=problems[0].evidence if problems and problems[0].biases else None,
    )


def _ebfmi(energy: np.ndarray) -> float | None:
    variance = float(np.var(energy, ddof=1)) if len(energy) > 1 else 0.0
    return float(np.mean(np.diff(energy) ** 2) / variance) if variance > 0 else None


def _means(values: np.ndarray | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values.mean(1)]


def _problems(found: Mapping[str, Any], draws: int, target: float | None) -> list[_Problem]:
    problems = [
        _divergence_problem(found["divergences"], draws, target),
        _energy_problem(found["ebfmi"]),
    ]
    deep = [
        i
        for i, share in enumerate(found["at_max_depth"] or [])
        if share is not None and share > _MANY_AT_DEPTH
    ]
    if deep:
        largest = max(found["at_max_depth"])
        problems.append(
            _Problem(
                text=f"more than {percent(_MANY_AT_DEPTH)} of the trajectories of chain "
                f"{chain_list(deep)} ended at the largest depth (up to {percent(largest, 1)}): "
                "slow, but not biased; raise inference.max_tree_depth",
                evidence=Evidence(
                    measure="sampler.at_max_depth", value=largest, high=_MANY_AT_DEPTH
                ),
                biases=False,
            )
        )
    if target is not None:
        problems.append(_acceptance_problem(found["acceptance_rate"], target))
    return [problem for problem in problems if problem is not None]


def _divergence_problem(
    divergences: Sequence[int] | None, draws: int, target: float | None
) -> _Problem | None:
    diverged, total = sum(divergences or []), draws * len(divergences or [])
    if not diverged:
        return None
    # The name of the setting is unknown for another tool's sampler.
    setting = "the target acceptance rate" if target is None else "inference.target_accept_prob"
    evidence = Evidence(measure="sampler.divergences", value=diverged, high=_FEW_DIVERGED * total)
    what = "the sampler cannot enter parts of the posterior, so means and intervals are biased"
    if evidence.is_inside:
        most = percent(_FEW_DIVERGED, 1)
        what = f"at most {most}, as expected from round-off, so no bias is inferred"
    return _Problem(
        text=f"{diverged} of {total} draws diverged: {what}; raise {setting}, or reparametrize",
        evidence=evidence,
        biases=not evidence.is_inside,
    )


def _energy_problem(ebfmi: Sequence[float | None] | None) -> _Problem | None:
    low = [i for i, value in enumerate(ebfmi or []) if value is not None and value < _LOW_EBFMI]
    if not low:
        return None
    smallest = min(value for value in ebfmi or [] if value is not None)
    evidence = Evidence(measure="sampler.ebfmi", value=smallest, low=_LOW_EBFMI)
    return _Problem(
        text=f"E-BFMI of chain {chain_list(low)} is below {_LOW_EBFMI} (smallest "
        f"{number(smallest, 2)}): momenta are resampled too weakly to explore the energies, as in "
        "a funnel; reparametrize, or fix the scale parameter of the funnel",
        evidence=evidence,
        biases=True,
    )


def _acceptance_problem(rates: Sequence[float] | None, target: float) -> _Problem | None:
    far = [i for i, rate in enumerate(rates or []) if abs(rate - target) > _FAR_FROM_TARGET]
    if not far or rates is None:
        return None
    furthest = max((rates[i] for i in far), key=lambda rate: abs(rate - target))
    return _Problem(
        text=f"chain {chain_list(far)} accepts {', '.join(f'{rates[i]:.2f}' for i in far)}, the "
        f"target is {target:g}: the step size did not converge; raise inference.num_warmup",
        evidence=Evidence(
            measure="sampler.acceptance_rate",
            value=furthest,
            low=target - _FAR_FROM_TARGET,
            high=target + _FAR_FROM_TARGET,
        ),
        biases=False,
    )


def chain_list(chains: Sequence[int]) -> str:
    """Return the chain numbers, separated by commas.

    Args:
        chains: Indices of chains.

    Returns:
        A list for a sentence.
    """
    return ", ".join(str(chain) for chain in chains)
