"""How the chains of a posterior mix, in four views side by side.

- *raw*: the weights as they were sampled. Units may be permuted, so that chains in copies of one
  mode disagree.
- *aligned*: the weights once each chain's units are permuted towards the other chains (one
  permutation a chain). What still differs then is no matter of numbering. And the same with one
  permutation a draw, which also takes out changes of numbering along a chain, but makes draws agree
  whatever they are.
- *chainwise*: the weights of each chain set against the same chain at another time. Says whether a
  chain has settled, not whether it found what the others did.
- *function*: outputs and log likelihoods at held-out points. Numbering plays no part; predictions
  need nothing more.

Aligned views come with a null, the same procedure on independent draws of the prior. What they have
in common after alignment, |mean|^2 / E|w|^2 over the network's weights, is measured of both: unless
the posterior's draws have clearly more in common than the prior's, the data tie the weights to no
place, and agreement is no evidence of anything.

Reading them together: `verdicts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.alignment import align_samples
from bnn_symm.alignment.samples import Agreement, Per, prior_draws
from bnn_symm.arguments import checked
from bnn_symm.data import Split
from bnn_symm.diagnostics.mixing.chain_statistics import (
    MIN_DRAWS,
    ChainStatistics,
    chain_statistics,
    columns_of,
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
from bnn_symm.posteriors import Posterior, SamplePosterior
from bnn_symm.symmetry import SymmetryGroup, symmetry_group

# What aligned draws must have in common beyond the null, as a share of what they could.
_BEYOND_NULL = 0.05
# Draws times cubed units of all groups that aligning every draw, or the null, may take (some 10
# seconds on one core).
_WORK = 1.5e8
# Fewer draws a chain than this make no R-hat worth the name.
_LEAST_DRAWS = 20
# Draws of the prior a chain that are aligned per chain: 1 % in common by chance, far below what
# counts as beyond them.
_NULL_DRAWS = 100
# Numbers of draws of the prior held in memory (256 MB in float32).
_PRIOR_NUMBERS = 2**26


@dataclass(frozen=True, kw_only=True)
class AlignedView:
    """One of the aligned views, beside its null.

    Attributes:
        view: of the posterior.
        posterior: aligned.
        agreement: which chains or draws moved.
        common: |mean|^2 / E|w|^2 of the aligned draws.
        null_common: of aligned draws of the prior; None where nothing can be permuted.
        null_rhat_max: largest R-hat of these.
        num_draws: of each chain, evenly spaced among them.
        group: that was searched.
    """

    view: MixingSummary
    posterior: SamplePosterior
    agreement: Agreement
    common: float
    null_common: float | None
    null_rhat_max: float | None
    num_draws: int
    group: SymmetryGroup


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """All views of one posterior.

    Attributes:
        raw: of the weights.
        aligned: one permutation a chain; None with `aligned_reason`.
        per_draw: one permutation a draw; None with `per_draw_reason`.
        chainwise: each chain against itself.
        function: of outputs and log likelihoods.
        aligned_reason: why there is no aligned view.
        per_draw_reason: why there is none with one permutation a draw.
        by_chain: largest chainwise R-hat of each chain; None of a frozen one, or of too few draws.
        frozen: chains that never move.
        raw_modes: of the chains as they are; None where a chain has no spread.
        aligned_modes: modulo symmetry.
        function_modes: as functions.
        places: which coordinate belongs to which layer and unit.
        values: the functions.
        copies: chains that have draws in common, or repeat their own; views that take them for
            independent have no evidence.
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
    places: ParameterIndex
    values: FunctionValues
    copies: Copies

    @property
    def views(self) -> dict[str, MixingSummary]:
        """By name, those that there are."""
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
    """R-hat and ESS in every view.

    Args:
        posterior: of any number of chains and draws; with one chain, or fewer than 4 draws, views
            say why they have no R-hat.
        part: points for the function view, held out from the fit.
        group: of the network, if it is known already.
        per_draw: align every draw too, of at most as many draws as ten seconds allow.
        num_points: for the function view; default 100, fewer for large networks.
        repeats: look for repeats within chains, which discrete laws such as dropout have by chance.
        seed: of alignments, and of the draws of the prior.
    """
    chains = posterior.shape[0]
    aligned_reason = None
    if group is None:
        try:
            group = symmetry_group(posterior.model.net, input_shape=tuple(part.x.shape[1:]))
        except SymmetryError as error:
            aligned_reason = f"the network's symmetries cannot be derived: {error}"
    places = ParameterIndex(posterior.model, None if group is None else group.spec)
    whole, moments, own = _weights(posterior, chainwise=True)
    effective = effective_draws(own)
    values = function_values(posterior, part, num_points=num_points)
    aligned = aligned_modes = by_draw = None
    if aligned_reason is None and not np.isfinite(moments.mean).all():
        aligned_reason = NOT_FINITE
    per_draw_reason = aligned_reason
    if group is not None and aligned_reason is None:
        aligned, aligned_moments = _aligned(posterior, "chain", group, effective, seed)
        aligned_modes = _modes(posterior, aligned_moments, places)
        thinned, per_draw_reason = _affordable(posterior, group)
        if not per_draw:
            per_draw_reason = "not asked for"
        elif thinned is not None:
            by_draw, _ = _aligned(thinned, "draw", group, effective, seed)
    outputs = values.outputs.reshape(*values.outputs.shape[:2], -1)
    copies = copied_chains(posterior, repeats=repeats)
    function = judge(
        "function",
        chain_statistics(values.columns),
        effective=effective_draws(_against_themselves(values.columns)),
    )
    return Mixing(
        raw=_unless_copies(judge("raw", whole, effective=effective), copies),
        aligned=_aligned_unless_copies(aligned, copies),
        per_draw=_aligned_unless_copies(by_draw, copies),
        chainwise=_unless_copies(judge_chainwise(own, whole), copies),
        function=_unless_copies(function, copies),
        aligned_reason=aligned_reason,
        per_draw_reason=per_draw_reason,
        by_chain=tuple(
            None if np.isnan(one.rhat).all() else float(np.nanmax(one.rhat)) for one in own
        ),
        frozen=tuple(
            chain
            for chain in range(chains)
            if posterior.shape[1] > 1 and not moments.sd[chain].any()
        ),
        raw_modes=_modes(posterior, moments, places),
        aligned_modes=aligned_modes,
        function_modes=modes_of_functions(ChainMoments.of(outputs), values.outputs.shape[3])
        if posterior.shape[1] > 1
        else None,
        places=places,
        values=values,
        copies=copies,
    )


def _unless_copies(view: MixingSummary, copies: Copies) -> MixingSummary:
    """Return the view, without its pass if the draws that it takes for independent are copies of
    one another.
    """
    found = copies.repeats if view.name == "chainwise" else copies
    if not found or view.status not in ("pass", "too few draws"):
        return view
    return view.with_status("no evidence", "; ".join(copies.sentences))


def _aligned_unless_copies(aligned: AlignedView | None, copies: Copies) -> AlignedView | None:
    return None if aligned is None else replace(aligned, view=_unless_copies(aligned.view, copies))


def _weights(
    posterior: SamplePosterior, *, chainwise: bool = False
) -> tuple[ChainStatistics, ChainMoments, list[ChainStatistics]]:
    """Chains set against one another, their moments, and, if that is wanted, each against
    itself.
    """
    wholes, moments = [], []
    own: list[list[ChainStatistics]] = [[] for _ in range(posterior.shape[0])]
    for values in columns_of(posterior._read, posterior.shape):
        wholes.append(chain_statistics(values))
        moments.append(ChainMoments.of(values))
        for chain, part in enumerate(_against_themselves(values) if chainwise else ()):
            own[chain].append(part)
    return (
        ChainStatistics.join(wholes),
        ChainMoments.join(moments),
        [ChainStatistics.join(parts) for parts in own] if chainwise else [],
    )


def _against_themselves(values: Float[np.ndarray, "chain draw column"]) -> list[ChainStatistics]:
    """Of every chain, its two halves taken for chains."""
    half = max(1, values.shape[1] // 2)
    return [chain_statistics(np.stack([own[:half], own[len(own) - half :]])) for own in values]


def _modes(posterior: Posterior, moments: ChainMoments, places: ParameterIndex) -> Modes | None:
    """None for single draws, which have no spread to compare distances with."""
    return modes_of_weights(moments, places) if posterior.shape[1] > 1 else None


def _aligned(
    posterior: SamplePosterior, per: Per, group: SymmetryGroup, effective: float, seed: int
) -> tuple[AlignedView, ChainMoments]:
    """The view of aligned draws and its null, and the moments of the aligned chains."""
    name = "aligned" if per == "chain" else "aligned_per_draw"
    chains, draws, parameters = posterior.shape
    found = align_samples(posterior, per=per, null=False, group=group, seed=seed)
    statistics, moments, _ = _weights(found.posterior)
    view = judge(name, statistics, effective=effective)
    size = posterior.model.num_net_parameters
    common, null_common, null_rhat_max = _common(statistics, size), None, None
    if not group.is_trivial:  # nothing makes draws agree that are not moved
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
                f"aligned draws have {common:.1%} in common, those of the prior {null_common:.1%}: "
                "the data tie "
                f"the weights to no place, so that agreement says nothing",
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
    """Draws of the prior a chain that may be held in memory."""
    return _PRIOR_NUMBERS // (chains * parameters)


def _common(statistics: ChainStatistics, num_net_parameters: int) -> float:
    """|mean|^2 / E|w|^2 over the network's weights."""
    mean = float(np.square(statistics.mean[:num_net_parameters]).sum())
    spread = float(np.square(statistics.sd[:num_net_parameters]).sum())
    return mean / (mean + spread) if mean + spread > 0 else 0.0


def _affordable(
    posterior: SamplePosterior, group: SymmetryGroup
) -> tuple[SamplePosterior | None, str | None]:
    """Evenly spaced draws, as many as may be aligned one by one; or why that cannot be."""
    chains, draws, parameters = posterior.shape
    if group.is_trivial:
        return None, "nothing can be permuted: it would be the raw view"
    units = sum(one.size**3 for one in group.spec.groups.values())
    most = min(int(_WORK / (chains * max(1, units))), _room(chains, parameters))
    if draws < MIN_DRAWS:
        return (
            None,
            f"{draws} draw{'s' * (draws > 1)} a chain: there is nothing to align along a chain",
        )
    if most < min(draws, _LEAST_DRAWS):
        return (
            None,
            f"the network is too large: {most} draws a chain could be aligned one by one in "
            "reasonable time",
        )
    if draws <= most:
        return posterior, None
    kept = np.linspace(0, draws - 1, most).round().astype(int).tolist()
    positions = _Thinned(posterior, kept)
    return SamplePosterior(
        posterior.model, posterior.scaling, positions=positions, info=posterior.info
    ), None


class _Thinned:
    """Some draws of every chain of a posterior, read where they lie."""

    def __init__(self, posterior: SamplePosterior, kept: Sequence[int]):
        self._posterior, self._kept = posterior, kept

    @property
    def shape(self) -> tuple[int, int, int]:
        chains, _, parameters = self._posterior.shape
        return chains, len(self._kept), parameters

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        return torch.cat(
            [self._posterior.read(chain, draw, draw + 1) for draw in self._kept[start:stop]]
        )
