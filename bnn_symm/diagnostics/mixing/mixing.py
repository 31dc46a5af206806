"""Measure how the chains of a posterior mix, in four views side by side.

- *raw*: the weights as sampled, unaligned. Units may be permuted, so chains in copies of one mode
  disagree.
- *aligned*: the weights after the units of each chain are permuted to match the other chains (one
  permutation per chain). Remaining differences are not due to the numbering of units. A second
  aligned view uses one permutation per draw. It also removes changes of numbering along a chain,
  but increases the agreement of any draws.
- *chainwise*: early draws of each chain against late draws of the same chain. Shows whether a chain
  is stationary, not whether it found the same mode as the others.
- *function*: outputs and log likelihoods at held-out points. Independent of the numbering of units,
  and sufficient for predictions.

Aligned views come with a null: the same procedure on independent draws of the prior. For both, the
fraction in common after alignment, |mean|^2 / E|w|^2 over the network's weights, is computed.
Unless this fraction is clearly larger for the posterior, the data do not identify the weights, and
agreement is no evidence of mixing.

`verdicts` interprets the views together.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from bnn_symm.alignment import align_samples
from bnn_symm.alignment.samples import Agreement, Per, prior_draws
from bnn_symm.arguments import checked
from bnn_symm.data import Split
from bnn_symm.diagnostics.mixing.chain_statistics import (
    MIN_DRAWS,
    ChainStatistics,
    chain_statistics,
    iter_columns,
)
from bnn_symm.diagnostics.mixing.copies import Copies, copied_chains
from bnn_symm.diagnostics.mixing.function_values import FunctionValues, function_values
from bnn_symm.diagnostics.mixing.modes import (
    ChainMoments,
    Modes,
    modes_of_functions,
    modes_of_weights,
)
from bnn_symm.diagnostics.mixing.parameter_index import ParameterIndex
from bnn_symm.diagnostics.mixing.views import (
    NOT_FINITE,
    MixingSummary,
    effective_draws,
    judge,
    judge_chainwise,
)
from bnn_symm.errors import SymmetryError
from bnn_symm.formatting import percent
from bnn_symm.posteriors import Posterior, SamplePosterior
from bnn_symm.summaries import Summarized
from bnn_symm.symmetry import SymmetryGroup, symmetry_group

# Minimum excess of the fraction in common over the null, relative to its maximum.
_BEYOND_NULL = 0.05
# Draws times cubed units of all groups, for aligning every draw and for the null (about 10 seconds
# on one core).
_WORK = 1.5e8
# With fewer draws per chain R-hat is not informative.
_LEAST_DRAWS = 20
# Draws of the prior per chain for the null of the aligned view: 1 % in common by chance, far below
# the minimum excess.
_NULL_DRAWS = 100
# Numbers of prior draws in memory (256 MB in float32).
_PRIOR_NUMBERS = 2**26


@dataclass(frozen=True, kw_only=True, repr=False)
class AlignedView(Summarized):
    """One of the aligned views, with its null.

    Attributes:
        view: Summary for the posterior.
        posterior: The aligned posterior.
        agreement: Which chains or draws were permuted.
        common: |mean|^2 / E|w|^2 of the aligned draws.
        null_common: The same of aligned draws of the prior; None if nothing can be permuted.
        null_rhat_max: Largest R-hat of the aligned draws of the prior.
        num_draws: Draws per chain, evenly spaced.
        group: Symmetry group of the alignment.
    """

    view: MixingSummary
    posterior: SamplePosterior
    agreement: Agreement
    common: float
    null_common: float | None
    null_rhat_max: float | None
    num_draws: int
    group: SymmetryGroup

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return {"view": self.view, "common": self.common, "null_common": self.null_common}

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers that describe the alignment as JSON types."""
        return {
            "common": self.common,
            "null_common": self.null_common,
            "null_rhat_max": self.null_rhat_max,
            "draws_aligned": self.num_draws,
            "moved": self.agreement.num_moved,
            "of": int(self.agreement.moved.size),
            "trivial_group": self.group.is_trivial,
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class Mixing(Summarized):
    """All views of one posterior.

    Attributes:
        raw: View of the unaligned weights.
        aligned: View with one permutation per chain; None with `aligned_reason`.
        per_draw: View with one permutation per draw; None with `per_draw_reason`.
        chainwise: View of each chain against itself over time.
        function: View of outputs and log likelihoods.
        aligned_reason: Why there is no aligned view.
        per_draw_reason: Why there is no view with one permutation per draw.
        by_chain: Largest chainwise R-hat of each chain; None for a frozen chain, or too few draws.
        frozen: Chains that never move.
        raw_modes: Modes of the unaligned chains; None if a chain has no spread.
        aligned_modes: Modes modulo symmetry.
        function_modes: Modes of the functions.
        parameter_index: Layer and unit of each parameter.
        values: The function values.
        copies: Chains with common or repeated draws; views that assume independent chains then
            provide no evidence.
    """

    raw: MixingSummary
    aligned: AlignedView | None
    per_draw: AlignedView | None
    chainwise: MixingSummary
    function: MixingSummary
    aligned_reason: str | None
    per_draw_reason: str | None
    by_chain: tuple[float | None, ...]
    frozen: tuple[int, ...]
    raw_modes: Modes | None
    aligned_modes: Modes | None
    function_modes: Modes | None
    parameter_index: ParameterIndex
    values: FunctionValues
    copies: Copies

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return {"chains": self.raw.num_chains, "draws": self.raw.num_draws, "views": self.views}

    @property
    def views(self) -> dict[str, MixingSummary]:
        """Return the available views by name."""
        found = {"raw": self.raw}
        if self.aligned is not None:
            found["aligned"] = self.aligned.view
        if self.per_draw is not None:
            found["aligned_per_draw"] = self.per_draw.view
        return found | {"chainwise": self.chainwise, "function": self.function}


@checked
def mixing(
    posterior: SamplePosterior,
    part: Split,
    *,
    group: SymmetryGroup | None = None,
    per_draw: bool = True,
    num_points: int | None = None,
    repeats: bool = True,
    seed: int = 0,
) -> Mixing:
    """Return R-hat and ESS of a posterior in every view.

    Args:
        posterior: Posterior with any number of chains and draws; with one chain, or fewer than 4
            draws, views state why R-hat is undefined.
        part: Points for the function view, held out from the fit.
        group: Symmetry group of the network, if known.
        per_draw: Whether to align every draw too, for at most as many draws as ten seconds allow.
        num_points: Points for the function view; default 100, fewer for large networks.
        repeats: Whether to look for repeats within chains. Discrete distributions such as dropout
            repeat draws by chance.
        seed: Seed of alignments, and of the draws of the prior.

    Returns:
        The views, modes and common draws.

    Example:
        >>> import torch
        >>> from bnn_symm import BayesianModel, Categorical, Prior, load_dataset
        >>> model = BayesianModel(torch.nn.Linear(4, 3), Prior(), Categorical())
        >>> posterior = SamplePosterior.from_draws(model, torch.randn(4, 50, 15))
        >>> list(mixing(posterior, load_dataset("iris").test).views)
        ['raw', 'aligned', 'chainwise', 'function']
    """
    aligned_reason = None
    if group is None:
        try:
            group = symmetry_group(posterior.model.net, input_shape=tuple(part.x.shape[1:]))
        except SymmetryError as error:
            aligned_reason = f"the network's symmetries cannot be derived: {error}"
    parameter_index = ParameterIndex(posterior.model, None if group is None else group.spec)
    whole, moments, own = _weights(posterior, chainwise=True)
    effective = effective_draws(own)
    values = function_values(posterior, part, num_points=num_points)
    aligned = aligned_modes = by_draw = None
    if aligned_reason is None and not np.isfinite(moments.mean).all():
        aligned_reason = NOT_FINITE
    per_draw_reason = aligned_reason
    if group is not None and aligned_reason is None:
        aligned, aligned_moments = _aligned(posterior, "chain", group, effective, seed)
        aligned_modes = _modes(posterior, aligned_moments, parameter_index)
        thinned, per_draw_reason = _affordable(posterior, group)
        if not per_draw:
            per_draw_reason = "not requested"
        elif thinned is not None:
            by_draw, _ = _aligned(thinned, "draw", group, effective, seed)
    outputs = values.outputs.reshape(*values.outputs.shape[:2], -1)
    copies = copied_chains(posterior, repeats=repeats)
    function = function_mixing(values)
    return Mixing(
        raw=_unless_copies(judge("raw", whole, effective=effective), copies),
        aligned=_aligned_unless_copies(aligned, copies),
        per_draw=_aligned_unless_copies(by_draw, copies),
        chainwise=_unless_copies(judge_chainwise(own, whole), copies),
        function=_unless_copies(function, copies),
        aligned_reason=aligned_reason,
        per_draw_reason=per_draw_reason,
        by_chain=tuple(map(_largest_rhat, own)),
        frozen=_frozen_chains(posterior, moments),
        raw_modes=_modes(posterior, moments, parameter_index),
        aligned_modes=aligned_modes,
        function_modes=modes_of_functions(ChainMoments.from_draws(outputs), values.outputs.shape[3])
        if posterior.shape[1] > 1
        else None,
        parameter_index=parameter_index,
        values=values,
        copies=copies,
    )


def function_mixing(values: FunctionValues) -> MixingSummary:
    """Return the view of function values: outputs and log likelihoods of every draw.

    Args:
        values: Function values of the draws.

    Returns:
        The judged summary.
    """
    effective = effective_draws(_against_themselves(values.columns))
    return judge("function", chain_statistics(values.columns), effective=effective)


def _largest_rhat(chain: ChainStatistics) -> float | None:
    return None if np.isnan(chain.rhat).all() else float(np.nanmax(chain.rhat))


def _frozen_chains(posterior: SamplePosterior, moments: ChainMoments) -> tuple[int, ...]:
    """Return the chains whose draws are all equal."""
    chains, draws, _ = posterior.shape
    return tuple(chain for chain in range(chains) if draws > 1 and not moments.sd[chain].any())


def _unless_copies(view: MixingSummary, copies: Copies) -> MixingSummary:
    """Return the view, without evidence if it passes only because chains share draws."""
    found = copies.repeats if view.name == "chainwise" else copies
    if not found or view.status not in ("pass", "too few draws"):
        return view
    return view.with_status("no evidence", "; ".join(copies.sentences))


def _aligned_unless_copies(aligned: AlignedView | None, copies: Copies) -> AlignedView | None:
    return None if aligned is None else replace(aligned, view=_unless_copies(aligned.view, copies))


def _weights(
    posterior: SamplePosterior, *, chainwise: bool = False
) -> tuple[ChainStatistics, ChainMoments, list[ChainStatistics]]:
    """Return statistics of the chains together, their moments, and statistics of each chain."""
    wholes, moments = [], []
    own: list[list[ChainStatistics]] = [[] for _ in range(posterior.shape[0])]
    for values in iter_columns(posterior.read, posterior.shape):
        wholes.append(chain_statistics(values))
        moments.append(ChainMoments.from_draws(values))
        for chain, part in enumerate(_against_themselves(values) if chainwise else ()):
            own[chain].append(part)
    return (
        ChainStatistics.join(wholes),
        ChainMoments.join(moments),
        [ChainStatistics.join(parts) for parts in own] if chainwise else [],
    )


def _against_themselves(values: Float[np.ndarray, "chain draw column"]) -> list[ChainStatistics]:
    """Return statistics of every chain, with its two halves as chains."""
    half = max(1, values.shape[1] // 2)
    return [chain_statistics(np.stack([own[:half], own[len(own) - half :]])) for own in values]


def _modes(
    posterior: Posterior, moments: ChainMoments, parameter_index: ParameterIndex
) -> Modes | None:
    """Return the modes; None for single draws, which have no spread to compare distances with."""
    return modes_of_weights(moments, parameter_index) if posterior.shape[1] > 1 else None


def _aligned(
    posterior: SamplePosterior, per: Per, group: SymmetryGroup, effective: float, seed: int
) -> tuple[AlignedView, ChainMoments]:
    """Return the view of aligned draws with its null, and the moments of the aligned chains."""
    name = "aligned" if per == "chain" else "aligned_per_draw"
    chains, draws, parameters = posterior.shape
    found = align_samples(posterior, per=per, null=False, group=group, seed=seed)
    statistics, moments, _ = _weights(found.posterior)
    view = judge(name, statistics, effective=effective)
    size = posterior.model.num_net_parameters
    common, null_common, null_rhat_max = _common(statistics, size), None, None
    if not group.is_trivial:  # otherwise alignment moves nothing and adds no agreement
        null_draws = (
            draws
            if per == "draw"
            else max(min(draws, 2), min(draws, _NULL_DRAWS, _room(chains, parameters)))
        )
        prior = prior_draws(posterior.model, chains, null_draws, seed=seed)
        null, _, _ = _weights(
            align_samples(prior, per=per, null=False, group=group, seed=seed).posterior
        )
        null_common = _common(null, size)
        null_rhat_max = None if np.isnan(null.rhat).all() else float(np.nanmax(null.rhat))
        if view.status in ("pass", "too few draws") and common - null_common < _BEYOND_NULL * (
            1 - null_common
        ):
            view = view.with_status(
                "no evidence",
                f"aligned draws have {percent(common, 1)} in common, draws of the prior "
                f"{percent(null_common, 1)}: the data do not identify the weights, so agreement is "
                "no evidence",
            )
    aligned = AlignedView(
        view=view,
        posterior=found.posterior,
        agreement=found.agreement,
        common=common,
        null_common=null_common,
        null_rhat_max=null_rhat_max,
        num_draws=draws,
        group=group,
    )
    return aligned, moments


def _room(chains: int, parameters: int) -> int:
    """Return the number of prior draws per chain that fit into memory."""
    return _PRIOR_NUMBERS // (chains * parameters)


def _common(statistics: ChainStatistics, num_net_parameters: int) -> float:
    """Return |mean|^2 / E|w|^2 over the network's weights."""
    mean = float(np.square(statistics.mean[:num_net_parameters]).sum())
    spread = float(np.square(statistics.sd[:num_net_parameters]).sum())
    return mean / (mean + spread) if mean + spread > 0 else 0.0


def _affordable(
    posterior: SamplePosterior, group: SymmetryGroup
) -> tuple[SamplePosterior | None, str | None]:
    """Return evenly spaced draws, as many as can be aligned one by one, or why there are none."""
    chains, draws, parameters = posterior.shape
    if group.is_trivial:
        return None, "nothing can be permuted: it equals the raw view"
    units = sum(unit_group.size**3 for unit_group in group.spec.groups.values())
    most = min(int(_WORK / (chains * max(1, units))), _room(chains, parameters))
    if draws < MIN_DRAWS:
        return (
            None,
            f"{draws} draw{'s' * (draws > 1)} per chain: nothing to align along a chain",
        )
    if most < min(draws, _LEAST_DRAWS):
        return (
            None,
            f"the network is too large: only {most} draws per chain can be aligned one by one in "
            "reasonable time",
        )
    if draws <= most:
        return posterior, None
    kept = np.linspace(0, draws - 1, most).round().astype(int).tolist()
    positions = posterior.positions.thin(kept)
    return SamplePosterior(
        posterior.model, posterior.scaling, positions=positions, info=posterior.info
    ), None
