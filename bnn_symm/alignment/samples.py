"""Aligning draws (chains of HMC or NUTS, members of an ensemble) to an iterated aligned mean: no
draw is privileged.

Per chain, one permutation a chain: chains are posteriors, with the means and standard deviations of
    their draws, and
are aligned jointly (`universe`), each to the mean of the others.

Per draw, one permutation a draw: in turns, every draw x_i is moved to where it is nearest to the
    mean, and the mean is
taken anew,

    P_i = argmax <M, P x_i>        M = (1/N) sum_i P_i x_i

which never lets the dispersion (1/N) sum_i |P_i x_i - M|^2 rise, so it ends (`iterated_mean`). Where it ends depends on
the first M. Several are tried, and the smallest dispersion wins: the mean of the draws in the frame
    of the alignment
per chain, and a few draws chosen at random, each of which serves as M in the first turn only.

Aligning draws one by one makes them agree whatever they are: draws of the *prior*, which no data
    tie to any mode, agree
afterwards too, with means away from zero, smaller spread and R-hat near 1. So the same procedure on
draws of the prior, as many in as many chains, stands beside every result as the null: only
agreement beyond it is the posterior's.

Positions of modes are told relative to the permutation that most chains, or draws, have.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bnn_symm.alignment.align import check_same_function
from bnn_symm.alignment.canonicalize import canonical_samples
from bnn_symm.alignment.iterated_mean import align_to_mean, chain_means
from bnn_symm.alignment.synchronize import synchronize
from bnn_symm.arguments import checked
from bnn_symm.data import Scaling
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.randomness import global_seed
from bnn_symm.symmetry import Permutation, SymmetryGroup, symmetry_group

Per = Literal["chain", "draw"]

# Draws tried as the first mean, beside the mean of the aligned chains.
_RESTARTS = 2


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Where chains, or draws, sit relative to one another, and how much nearer aligning brings
    them.

    Attributes:
        moved: (chain,), or (chain, draw): which sit in another mode than the most common one.
        transpositions: group -> the same shape, how many swaps of two units lead there from the
            most common one: units less cycles of the permutation.
        flips: group -> the same shape, units that change sign, for groups whose units may.
        dispersion_before: mean squared distance of draws to their mean, over the network's weights.
        dispersion_after: the same of the aligned draws.
        between_chains_before: mean squared distance of the means of chains to their mean; 0 for one
            chain.
        between_chains_after: the same of the aligned draws.
        rounds: of aligning every draw to the mean and taking it anew; per chain, sweeps over
            chains.
    """

    moved: Bool[np.ndarray, "..."]
    transpositions: Mapping[str, Int[np.ndarray, "..."]]
    flips: Mapping[str, Int[np.ndarray, "..."]]
    dispersion_before: float
    dispersion_after: float
    between_chains_before: float
    between_chains_after: float
    rounds: int

    @property
    def num_moved(self) -> int:
        """How many chains, or draws, sit in another mode than the most common one."""
        return int(self.moved.sum())


@dataclass(frozen=True, kw_only=True)
class SampleAlignment:
    """The result of aligning draws.

    Attributes:
        posterior: aligned; of the balanced draws, where that was asked for.
        per: chain or draw.
        permutations: one a chain, or one a draw of every chain.
        agreement: of the posterior.
        null: of draws of the prior, aligned in the same way; None if that was not wanted.
        balanced: whether scales of relu units were taken out first.
        function_difference: largest relative change of the outputs, in float64, at the mean of each
            chain, or at its draw that moved most; checked to be below 1e-6.
        group: that was searched.
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
    restarts: int = _RESTARTS,
    seed: int = 0,
) -> SampleAlignment:
    """Brings the chains, or the draws, of a posterior into one mode.

    On one core, 4 chains of 500 draws of a network 64-50-50-10 take 1 second per chain; per draw 3
    to 10 seconds, and their null 30, since draws of the prior settle slowly. It grows as draws
    times units cubed.

    Args:
        posterior: of any number of chains and draws.
        per: `chain`: one permutation for all draws of a chain; `draw`: one for each draw.
        balance: balance relu units first (`canonical`), so that draws that differ by scales only
            can agree; the result holds the balanced draws.
        null: do the same with draws of the prior.
        group: of the network, if it is known already.
        restarts: per draw: draws to be tried as the first mean; per chain: random starts.
        seed: of these, and of the draws of the prior.

    Raises:
        SymmetryError: if the network's symmetries cannot be derived, or a permuted network is
            another function.
    """
    group = group or symmetry_group(posterior.model.net)
    if balance:
        posterior = canonical_samples(posterior, group.spec)
    permutations, agreement, difference = _aligned(posterior, per, group, restarts, seed)
    of_prior = None
    if null:
        chains, draws, _ = posterior.shape
        random = prior_draws(posterior.model, chains, draws, seed=seed)
        if balance:
            random = canonical_samples(random, group.spec)
        of_prior = _aligned(random, per, group, restarts, seed)[1]
    chainwise = tuple(own[0] for own in permutations)
    drawwise = tuple(tuple(own) for own in permutations)
    return SampleAlignment(
        posterior=posterior.permute_chains(chainwise if per == "chain" else drawwise),
        per=per,
        permutations=chainwise if per == "chain" else drawwise,
        agreement=agreement,
        null=of_prior,
        balanced=balance,
        function_difference=difference,
        group=group,
    )


def prior_draws(model: BayesianModel, chains: int, draws: int, *, seed: int = 0) -> SamplePosterior:
    """Independent draws of a model's prior, latent variables of the likelihood included, in memory.

    Args:
        model: whose prior it is.
        chains: how many.
        draws: of each.
        seed: of these.
    """
    like = torch.empty(0, dtype=model.dtype)
    values = {}
    for name, where in model.slices().items():
        with global_seed(seed, "draws of the prior", name):
            if where.start < model.num_net_parameters:
                own = model.parameter_prior.distribution(where.start, model.shapes[name], like)
                values[name] = own.sample(torch.Size((chains, draws)))
            else:
                mean, sd = model.likelihood.latents[name.removeprefix("likelihood.")]
                values[name] = mean + sd * torch.randn(chains, draws, dtype=model.dtype)
    return SamplePosterior.from_draws(
        model, values, Scaling.identity((1,)), info={"method": "prior"}
    )


def transpositions(permutation: Permutation) -> dict[str, int]:
    """Group -> the least number of swaps of two units that make the permutation, signs aside: units
    less cycles.
    """
    return {name: int(_swaps(index[None])[0]) for name, index in permutation.indices.items()}


def _swaps(index: Int[Tensor, "item unit"]) -> Int[Tensor, " item"]:
    """Units less cycles: each unit learns the smallest of its cycle in steps of doubled length."""
    smallest = torch.arange(index.shape[1]).expand(index.shape)
    step = index
    for _ in range(max(1, index.shape[1]).bit_length()):
        smallest = torch.minimum(smallest, smallest.gather(1, step))
        step = step.gather(1, step)
    return index.shape[1] - (smallest == torch.arange(index.shape[1])).sum(1)


def _aligned(
    posterior: SamplePosterior, per: Per, group: SymmetryGroup, restarts: int, seed: int
) -> tuple[list[list[Permutation]], Agreement, float]:
    """Permutations of each chain (one, or one a draw), what they tell, and the check of the
    function.
    """
    model = posterior.model
    chains, draws, _ = posterior.shape
    identity = group.spec.identity()
    found, rounds = [[identity] for _ in range(chains)], 0
    if chains > 1 and not group.is_trivial:
        parts = [
            SamplePosterior(model, posterior.scaling, positions=_Chain(posterior, c))
            for c in range(chains)
        ]
        jointly = synchronize(
            parts, group=group, restarts=restarts if per == "chain" else None, seed=seed
        )
        found, rounds = [[own] for own in jointly.permutations], jointly.sweeps
    if per == "draw":
        found = [own * draws for own in found]
        if not group.is_trivial:
            found, rounds = align_to_mean(posterior, found, group, restarts, seed)
    found = _relative_to_most(found)
    difference = 0.0
    for chain, own in enumerate(found):
        at = max(range(len(own)), key=lambda draw: own[draw].num_moved)
        whole = _Chain(posterior, chain) if per == "chain" else _Chain(posterior, chain, at)
        checked = SamplePosterior(model, posterior.scaling, positions=whole)
        difference = max(difference, check_same_function(checked, own[at]))
    before = chain_means(posterior, [[identity]] * chains, group)
    after = chain_means(posterior, found, group)
    flat = [permutation for own in found for permutation in own]
    shape = (chains,) if per == "chain" else (chains, draws)
    agreement = Agreement(
        moved=np.array([not permutation.is_identity for permutation in flat]).reshape(shape),
        transpositions={
            name: _swaps(torch.stack([own.indices[name] for own in flat])).numpy().reshape(shape)
            for name in group.spec.groups
        },
        flips={
            name: torch.stack([own.signs[name] for own in flat]).lt(0).sum(1).numpy().reshape(shape)
            for name in identity.signs
        },
        dispersion_before=before.dispersion,
        dispersion_after=after.dispersion,
        between_chains_before=before.between_chains,
        between_chains_after=after.between_chains,
        rounds=rounds,
    )
    return found, agreement, difference


class _Chain:
    """One chain of a posterior, or one draw of it, read where it lies."""

    def __init__(self, posterior: SamplePosterior, chain: int, draw: int | None = None):
        self._posterior, self._chain, self._draw = posterior, chain, draw

    @property
    def shape(self) -> tuple[int, int, int]:
        _, draws, parameters = self._posterior.shape
        return 1, draws if self._draw is None else 1, parameters

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        first = self._draw or 0
        return self._posterior.read(self._chain, first + start, first + stop)


def _relative_to_most(permutations: Sequence[Sequence[Permutation]]) -> list[list[Permutation]]:
    """In the frame of the permutation that occurs most; of several such, that of the smallest
    bytes.
    """
    keys = [[_key(permutation) for permutation in own] for own in permutations]
    counts = Counter(key for own in keys for key in own)
    most = min(counts, key=lambda key: (-counts[key], key))
    frame = next(
        p
        for own, of in zip(permutations, keys, strict=True)
        for p, key in zip(own, of, strict=True)
        if key == most
    )
    if frame.is_identity:
        return [list(own) for own in permutations]
    back = frame.inverse()
    return [[back.compose(permutation) for permutation in own] for own in permutations]


def _key(permutation: Permutation) -> bytes:
    parts = [*permutation.indices.values(), *permutation.signs.values()]
    return b"".join(part.numpy().tobytes() for part in parts)
