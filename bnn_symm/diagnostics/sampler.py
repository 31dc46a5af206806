"""What a sampler says of its own chains: divergences, energies, acceptance, tree depth, step size.

E-BFMI is the mean squared change of the energy over its variance (Betancourt 2016, arXiv:1604.00695): below 0.3 the
momentum is refreshed too weakly to cross the energies of the posterior. A divergence is a trajectory that left the
level of its energy, which marks places that the sampler cannot enter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Of Betancourt 2016.
_LOW_EBFMI = 0.3
# A share of draws that may diverge by chance, as round-off does, before means are held to be biased.
_FEW_DIVERGED = 0.001
# A share of trajectories that end at the largest allowed depth, above which they are cut short for good.
_MANY_AT_DEPTH = 0.05
# An acceptance rate so far from the one that the step size was adapted to says that the adaptation did not end.
_FAR_FROM_TARGET = 0.15


@dataclass(frozen=True, kw_only=True)
class SamplerStatistics:
    """One number a chain; None for what the sampler did not record, or what is not defined.

    Attributes:
        divergences: draws that diverged.
        ebfmi: energy Bayesian fraction of missing information; None in a chain whose energy never changes.
        acceptance_rate: mean over draws.
        tree_depth: mean over draws; of samplers that record steps only, the depth of a full tree of so many steps.
        at_max_depth: share of draws whose tree was as deep as is allowed; None where that is not known.
        step_size: of the last draw.
        n_steps: gradients a draw, mean.
        num_draws: of each chain.
        problems: in words; empty if there are none.
        biased: whether one of them means that draws are not those of the posterior.
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


def sampler_statistics(
    stats: Mapping[str, np.ndarray], *, max_tree_depth: int | None = None, target: float | None = None
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
        "step_size": [float(own[-1]) for own in stats["step_size"]] if "step_size" in stats else None,
        "n_steps": _means(stats.get("n_steps")),
    }
    low = any(value is not None and value < _LOW_EBFMI for value in ebfmi or [])
    return SamplerStatistics(
        **found,
        num_draws=draws,
        problems=tuple(_problems(found, draws, target)),
        biased=low or sum(divergences or []) > _FEW_DIVERGED * draws * len(divergences or []),
    )


def _ebfmi(energy: np.ndarray) -> float | None:
    variance = float(np.var(energy, ddof=1)) if len(energy) > 1 else 0.0
    return float(np.mean(np.diff(energy) ** 2) / variance) if variance > 0 else None


def _means(values: np.ndarray | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values.mean(1)]


def _problems(found: Mapping[str, Any], draws: int, target: float | None) -> list[str]:
    problems = []
    diverged = sum(n or 0 for n in found["divergences"] or [])
    if diverged:
        total = draws * len(found["divergences"] or [])
        # Of another tool's sampler the name of the setting is not known.
        aimed_at = "the acceptance rate that is aimed at" if target is None else "inference.target_accept_prob"
        problems.append(
            f"{diverged:.0f} of {total} draws diverged: the sampler cannot enter parts of the posterior, so that means "
            f"and intervals are biased; raise {aimed_at}, or reparametrise"
        )
    low = [i for i, value in enumerate(found["ebfmi"] or []) if value is not None and value < _LOW_EBFMI]
    if low:
        smallest = min(value for value in found["ebfmi"] or [] if value is not None)
        problems.append(
            f"E-BFMI of chain {listed(low)} is below {_LOW_EBFMI} (smallest {smallest:.2f}): momenta are refreshed "
            f"too weakly to cross the energies, as in a funnel; reparametrise, or fix the scale that makes it"
        )
    deep = [i for i, share in enumerate(found["at_max_depth"] or []) if share is not None and share > _MANY_AT_DEPTH]
    if deep:
        problems.append(
            f"more than {_MANY_AT_DEPTH:.0%} of the trajectories of chain {listed(deep)} ended at the largest depth: "
            f"slow, though not biased; raise inference.max_tree_depth"
        )
    if target is not None:
        rates = found["acceptance_rate"] or []
        far = [i for i, rate in enumerate(rates) if rate is not None and abs(rate - target) > _FAR_FROM_TARGET]
        if far:
            problems.append(
                f"chain {listed(far)} accepts {', '.join(f'{rates[i]:.2f}' for i in far)} where {target:g} was the "
                f"aim: the step size did not settle; raise inference.num_warmup"
            )
    return problems


def listed(chains: Sequence[int]) -> str:
    """Their numbers, for a sentence."""
    return ", ".join(str(chain) for chain in chains)
