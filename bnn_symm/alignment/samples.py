"""Align draws (chains of HMC or NUTS, members of an ensemble) to an iterated aligned mean.

No draw is privileged.

Per chain, one permutation per chain: chains are posteriors with the means and standard deviations
of their draws, and are aligned jointly (`synchronize`), each to the mean of the others.

Per draw, one permutation per draw: alternately, every draw x_i is moved to where it is nearest to
the mean, and the mean is recomputed,

    P_i = argmax <M, P x_i>        M = (1/N) sum_i P_i x_i

which never increases the dispersion (1/N) sum_i |P_i x_i - M|^2, so it converges
(`iterated_mean`). The result depends on the first M. Several are tried, and the smallest
dispersion wins: the mean of the draws in the frame of the alignment per chain, and a few random
draws, each of which serves as M in the first round only.

Aligning draws one by one makes any draws agree: draws of the *prior*, which no data tie to a mode,
agree afterwards too, with means away from zero, smaller spread and R-hat near 1. Therefore the same
procedure on prior draws, as many in as many chains, accompanies every result as the null: only
agreement beyond it is evidence about the posterior.

Modes are relative to the most frequent permutation of the chains or draws.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from bnn_symm.alignment.align import check_same_function
from bnn_symm.alignment.canonicalize import canonical_samples
from bnn_symm.alignment.iterated_mean import align_to_mean, chain_means
from bnn_symm.alignment.synchronize import synchronize
from bnn_symm.arguments import check_at_least, checked
from bnn_symm.data import Scaling
from bnn_symm.models import BayesianModel, check_scale_is_known
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.randomness import global_seed
from bnn_symm.summaries import Summarized
from bnn_symm.symmetry import Permutation, SymmetryGroup, symmetry_group

Per = Literal["chain", "draw"]

# Number of draws tried as the first mean, besides the mean of the aligned chains.
_FIRST_MEANS = 2


@dataclass(frozen=True, kw_only=True, repr=False)
class Agreement(Summarized):
    """Describe the modes of chains or draws relative to each other, and the effect of alignment.

    Attributes:
        moved: (chain,), or (chain, draw): which are in another mode than the most common one.
        transpositions: group -> the same shape, number of swaps of two units from the most common
            mode: units minus cycles of the permutation.
        flips: group -> the same shape, units that change sign, for groups whose units can.
        dispersion_before: mean squared distance of draws to their mean, over the network's weights.
        dispersion_after: the same of the aligned draws.
        between_chains_before: mean squared distance of the means of chains to their mean; 0 for one
            chain.
        between_chains_after: the same of the aligned draws.
        rounds: number of alternations of aligning draws and recomputing the mean; per chain, sweeps
            over chains.
    """

    moved: Bool[np.ndarray, "..."]
    transpositions: Mapping[str, Int[np.ndarray, "..."]]
    flips: Mapping[str, Int[np.ndarray, "..."]]
    dispersion_before: float
    dispersion_after: float
    between_chains_before: float
    between_chains_after: float
    rounds: int

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return {
            "num_moved": self.num_moved,
            "dispersion_before": self.dispersion_before,
            "dispersion_after": self.dispersion_after,
        }

    @property
    def num_moved(self) -> int:
        """Return the number of chains or draws in another mode than the most common one."""
        return int(self.moved.sum())


@dataclass(frozen=True, kw_only=True)
class SampleAlignment:
    """Hold the result of aligning draws.

    Attributes:
        posterior: aligned; of the balanced draws, if `balance` was set.
        per: chain or draw.
        permutations: one per chain, or one per draw of every chain.
        agreement: of the posterior.
        null: of draws of the prior, aligned in the same way; None if it was not requested.
        balanced: whether relu units were balanced first.
        function_difference: largest relative change of the outputs, in float64, at the mean of each
            chain, or at its draw with the most moved units; checked to be below 1e-6.
        group: the group that was searched.
    """

    posterior: SamplePosterior
    per: Per
    permutations: tuple[Permutation, ...] | tuple[tuple[Permutation, ...], ...]
    agreement: Agreement
    null: Agreement | None
    balanced: bool
    function_difference: float
    group: SymmetryGroup


@checked
def align_samples(
    posterior: SamplePosterior,
    *,
    per: Per = "chain",
    balance: bool = False,
    null: bool = True,
    group: SymmetryGroup | None = None,
    restarts: int | None = None,
    seed: int = 0,
) -> SampleAlignment:
    """Align the chains or the draws of a posterior to one mode.

    On one core, 4 chains of 500 draws of a network 64-50-50-10 take 1 second per chain; per draw 3
    to 10 seconds, and their null 30, because draws of the prior converge slowly. The time grows
    with the number of draws and the cube of the number of units.

    Args:
        posterior: of any number of chains and draws.
        per: `chain`: one permutation for all draws of a chain; `draw`: one for each draw.
        balance: balance relu units first (`canonicalize`), so that draws that differ by scales only
            can agree; the result holds the balanced draws.
        null: repeat the procedure with draws of the prior.
        group: of the network, if it is already known.
        restarts: random starts of the alignment of chains (`synchronize`), and number of draws
            tried as the first mean of all draws; default as there, and 2 draws.
        seed: of the restarts, and of the draws of the prior.

    Returns:
        The aligned posterior, its permutations and their agreement.

    Raises:
        ConfigError: if `restarts` is negative.
        SymmetryError: if the network's symmetries cannot be derived, or a permuted network computes
            another function.

    Example:
        >>> import torch, bnn_symm
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
        >>> likelihood = bnn_symm.likelihoods.Gaussian(noise=0.1)
        >>> model = bnn_symm.BayesianModel(net, bnn_symm.Prior(), likelihood)
        >>> flat = torch.stack([model.initial(seed=0)[None]] * 2)
        >>> posterior = bnn_symm.SamplePosterior.from_draws(model, flat)
        >>> bnn_symm.align_samples(posterior, null=False).agreement.num_moved
        0
    """
    check_at_least("restarts", restarts or 0, 0)
    group = group or symmetry_group(posterior.model.net)
    if balance:
        posterior = canonical_samples(posterior, group.spec)
    permutations, agreement, difference = _aligned(posterior, per, group, restarts, seed)
    null_agreement = None
    if null:
        chains, draws, _ = posterior.shape
        random = prior_draws(posterior.model, chains, draws, seed=seed)
        if balance:
            random = canonical_samples(random, group.spec)
        null_agreement = _aligned(random, per, group, restarts, seed)[1]
    chainwise = tuple(part[0] for part in permutations)
    drawwise = tuple(tuple(part) for part in permutations)
    return SampleAlignment(
        posterior=posterior.permute_chains(chainwise if per == "chain" else drawwise),
        per=per,
        permutations=chainwise if per == "chain" else drawwise,
        agreement=agreement,
        null=null_agreement,
        balanced=balance,
        function_difference=difference,
        group=group,
    )


def prior_draws(model: BayesianModel, chains: int, draws: int, *, seed: int = 0) -> SamplePosterior:
    """Return independent draws of a model's prior, latent variables included, in memory.

    Args:
        model: the model.
        chains: number of chains.
        draws: number of draws per chain.
        seed: of the draws.

    Returns:
        A posterior that holds the draws.

    Raises:
        ConfigError: if the scale of the prior is `evidence`, and no fit has chosen it.
    """
    check_scale_is_known(model.prior)
    like = torch.empty(0, dtype=model.dtype)
    values = {}
    for name, where in model.slices().items():
        with global_seed(seed, "draws of the prior", name):
            if where.start < model.num_net_parameters:
                prior = model.parameter_prior.distribution(where.start, model.shapes[name], like)
                values[name] = prior.sample(torch.Size((chains, draws)))
            else:
                mean, sd = model.likelihood.latents[name.removeprefix("likelihood.")]
                values[name] = mean + sd * torch.randn(chains, draws, dtype=model.dtype)
    return SamplePosterior.from_draws(
        model, values, Scaling.identity((1,)), info={"method": "prior"}
    )


def transpositions(permutation: Permutation) -> dict[str, int]:
    """Return the least number of swaps of two units that give a permutation, signs aside.

    Args:
        permutation: of a network's units.

    Returns:
        Group -> units minus cycles.
    """
    return {name: int(_swaps(index[None])[0]) for name, index in permutation.indices.items()}


def _swaps(index: Int[Tensor, "item unit"]) -> Int[Tensor, " item"]:
    """Return units minus cycles; each unit finds the smallest of its cycle by pointer doubling."""
    smallest = torch.arange(index.shape[1]).expand(index.shape)
    step = index
    for _ in range(max(1, index.shape[1]).bit_length()):
        smallest = torch.minimum(smallest, smallest.gather(1, step))
        step = step.gather(1, step)
    return index.shape[1] - (smallest == torch.arange(index.shape[1])).sum(1)


def _aligned(
    posterior: SamplePosterior, per: Per, group: SymmetryGroup, restarts: int | None, seed: int
) -> tuple[list[list[Permutation]], Agreement, float]:
    """Return permutations of each chain (one, or one per draw), agreement and function check."""
    model = posterior.model
    chains, draws, _ = posterior.shape
    identity = group.spec.identity()
    permutations, rounds = [[identity] for _ in range(chains)], 0
    if chains > 1 and not group.is_trivial:
        parts = [
            SamplePosterior(model, posterior.scaling, positions=posterior.positions.chain(c))
            for c in range(chains)
        ]
        joint = synchronize(parts, group=group, restarts=restarts, seed=seed)
        permutations, rounds = [[permutation] for permutation in joint.permutations], joint.sweeps
    if per == "draw":
        permutations = [permutation * draws for permutation in permutations]
        if not group.is_trivial:
            first_means = _FIRST_MEANS if restarts is None else restarts
            permutations, rounds = align_to_mean(posterior, permutations, group, first_means, seed)
    permutations = _relative_to_most(permutations)
    difference = 0.0
    for chain, part in enumerate(permutations):
        most = max(range(len(part)), key=lambda draw: part[draw].num_moved)
        positions = posterior.positions.chain(chain)
        positions = positions if per == "chain" else positions.thin([most])
        checked = SamplePosterior(model, posterior.scaling, positions=positions)
        difference = max(difference, check_same_function(checked, part[most]))
    before = chain_means(posterior, [[identity]] * chains, group)
    after = chain_means(posterior, permutations, group)
    flat = [permutation for part in permutations for permutation in part]
    shape = (chains,) if per == "chain" else (chains, draws)
    agreement = Agreement(
        moved=np.array([not permutation.is_identity for permutation in flat]).reshape(shape),
        transpositions={
            name: _swaps(torch.stack([p.indices[name] for p in flat])).numpy().reshape(shape)
            for name in group.spec.groups
        },
        flips={
            name: torch.stack([p.signs[name] for p in flat]).lt(0).sum(1).numpy().reshape(shape)
            for name in identity.signs
        },
        dispersion_before=before.dispersion,
        dispersion_after=after.dispersion,
        between_chains_before=before.between_chains,
        between_chains_after=after.between_chains,
        rounds=rounds,
    )
    return permutations, agreement, difference


def _relative_to_most(permutations: Sequence[Sequence[Permutation]]) -> list[list[Permutation]]:
    """Return permutations relative to the most frequent one; ties go to the smallest bytes."""
    keys = [[_key(permutation) for permutation in part] for part in permutations]
    counts = Counter(key for part in keys for key in part)
    most = min(counts, key=lambda key: (-counts[key], key))
    frame = next(
        p
        for part, part_keys in zip(permutations, keys, strict=True)
        for p, key in zip(part, part_keys, strict=True)
        if key == most
    )
    if frame.is_identity:
        return [list(part) for part in permutations]
    back = frame.inverse()
    return [[back.compose(permutation) for permutation in part] for part in permutations]


def _key(permutation: Permutation) -> bytes:
    parts = [*permutation.indices.values(), *permutation.signs.values()]
    return b"".join(part.numpy().tobytes() for part in parts)
