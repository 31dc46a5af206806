"""In turns, every draw moved to where it is nearest to the mean of all, and the mean taken anew.

    P_i = argmax <M, P x_i>        M = (1/N) sum_i P_i x_i

Permuting leaves |x_i| as it is, so the dispersion is (1/N) sum_i |x_i|^2 - |M|^2, and |M| never falls:
|M'| |M| >= <M', M> >= |M|^2, since each draw's part of the middle one is what was maximized. So it ends, but the
assignments that find P_i end at local optima: when nothing moves any more, every draw is tried from
    a random element
too, and goes on from there if that is better. (Of 30 draws of a 5-4 tanh network, each planted in a
random mode, all came back in 8 of 8 trials, in 5 without these.)

Draws are read in stretches, so that memory stays bounded whatever their number; what is kept of
each is its permutation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bnn_symm.alignment.draws import DrawBatch
from bnn_symm.alignment.objective import whole_weights
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.randomness import numpy_generator
from bnn_symm.symmetry import Permutation, SymmetryGroup

_MAX_ROUNDS = 50
# Rounds from each first mean, after which only the best goes on.
_TRIAL_ROUNDS = 3
# Relative fall of the dispersion below which a round counts as the last.
_TOLERANCE = 1e-4
# Random elements that are tried for every draw, until so many in a row lower the dispersion by less
# than this share.
_KICKS, _FAILS, _WORTH = 20, 3, 1e-3
# Numbers of draws held at once (32 MB in float32); with their products and moved copies some five
# times as much.
_NUMBERS_PER_CHUNK = 2**23


@dataclass(frozen=True)
class ChainMeans:
    """Means of the chains of aligned draws, tensor by tensor (chain, *shape), and what follows from
    them.
    """

    means: Mapping[str, Tensor]
    second_moment: float

    @property
    def mean(self) -> dict[str, Tensor]:
        """Of all draws: chains are equally long."""
        return {name: value.mean(0) for name, value in self.means.items()}

    @property
    def dispersion(self) -> float:
        """E|x|^2 - |mean|^2; permuting leaves the first as it is."""
        return self.second_moment - sum(float(value.square().sum()) for value in self.mean.values())

    @property
    def between_chains(self) -> float:
        """Mean squared distance of the means of chains to their mean."""
        center = self.mean
        return sum(
            float((value - center[name]).square().sum()) / len(value)
            for name, value in self.means.items()
        )


def _chunks(posterior: SamplePosterior) -> list[tuple[int, int, int]]:
    """(chain, start, stop) of stretches of draws that fit in memory together with what is made of
    them.
    """
    chains, draws, parameters = posterior.shape
    step = max(1, _NUMBERS_PER_CHUNK // parameters)
    return [
        (c, start, min(draws, start + step))
        for c in range(chains)
        for start in range(0, draws, step)
    ]


def chain_means(
    posterior: SamplePosterior,
    permutations: list[list[Permutation]],
    group: SymmetryGroup,
    towards: Mapping[str, Tensor] | None = None,
    kick: tuple[int | str, ...] | None = None,
) -> ChainMeans:
    """One walk over the draws: the means of the chains when every draw is where its permutation
    puts it.

    Args:
        posterior: whose draws they are.
        permutations: of each chain, one, or one a draw.
        group: of the network.
        towards: tensor name -> (*shape), a mean that each draw is first moved nearest to; its
            permutation is changed in place. Then there is one a draw.
        kick: key of random elements that each draw is tried from as well.
    """
    chains, draws, _ = posterior.shape
    sums: dict[str, Tensor] = {}
    second = 0.0
    for chain, start, stop in _chunks(posterior):
        own = permutations[chain]
        whole = whole_weights(posterior.model, posterior.read(chain, start, stop), group.spec)
        second += sum(float(value.double().square().sum()) for value in whole.values())
        if len(own) == 1 and towards is None:  # a whole chain: its sum is permuted, not its draws
            total = own[0].apply({name: value.double().sum(0) for name, value in whole.items()})
        else:
            batch = DrawBatch(whole, own[start:stop])
            if towards is not None:
                batch.match(towards, group)
                if kick is not None:
                    other = DrawBatch(
                        whole, [group.random(*kick, chain, draw) for draw in range(start, stop)]
                    )
                    other.match(towards, group)
                    inner = batch.inner(towards)
                    batch.take(other, other.inner(towards) > inner + _TOLERANCE * inner.abs())
                own[start:stop] = batch.permutations()
            total = {name: value.double().sum(0) for name, value in batch.tensors.items()}
        for name, value in total.items():
            if name not in sums:
                sums[name] = torch.zeros(chains, *value.shape, dtype=torch.float64)
            sums[name][chain] += value / draws
    return ChainMeans(sums, second / (chains * draws))


def align_to_mean(
    posterior: SamplePosterior,
    first: list[list[Permutation]],
    group: SymmetryGroup,
    restarts: int,
    seed: int,
) -> tuple[list[list[Permutation]], int]:
    """The permutations of the smallest dispersion that is found, from several first means.

    Args:
        posterior: whose draws they are.
        first: of each chain, one a draw: where each draw starts. The mean of all draws there is the
            one first mean.
        group: to stay in; not trivial.
        restarts: random draws that serve as first means beside it.
        seed: of these.

    Returns:
        Of each chain, one a draw; and how many rounds they took.
    """
    chains, draws, _ = posterior.shape
    chosen = numpy_generator(seed, "first means").permutation(chains * draws)[:restarts].tolist()
    found: list[_MeanState] = []
    for number in [None, *chosen]:
        permutations = [list(own) for own in first]
        if number is None:
            start = _MeanState(permutations, chain_means(posterior, permutations, group), 0)
        else:
            chain, draw = divmod(number, draws)
            whole = whole_weights(
                posterior.model, posterior.read(chain, draw, draw + 1), group.spec
            )
            own = permutations[chain][draw].apply({name: value[0] for name, value in whole.items()})
            start = _MeanState(permutations, chain_means(posterior, permutations, group, own), 1)
        found.append(_iterate(posterior, start, group, _TRIAL_ROUNDS))
    best = _iterate(posterior, min(found, key=lambda own: own.means.dispersion), group)
    failed = 0
    for number in range(_KICKS):
        before = best.means.dispersion
        permutations = [list(own) for own in best.permutations]
        means = chain_means(
            posterior, permutations, group, _float(best.means.mean), (seed, "kick", number)
        )
        if means.dispersion < before:
            best = _iterate(posterior, _MeanState(permutations, means, best.rounds + 1), group)
        failed = 0 if best.means.dispersion < before * (1 - _WORTH) else failed + 1
        if failed == _FAILS:
            break
    return best.permutations, best.rounds


@dataclass(frozen=True)
class _MeanState:
    permutations: list[list[Permutation]]
    means: ChainMeans
    rounds: int


def _iterate(
    posterior: SamplePosterior,
    start: _MeanState,
    group: SymmetryGroup,
    max_rounds: int = _MAX_ROUNDS,
) -> _MeanState:
    """Rounds until the dispersion falls no more, `max_rounds` at most; permutations are changed in
    place.
    """
    permutations, means, rounds = start.permutations, start.means, start.rounds
    while rounds < max_rounds:
        rounds += 1
        before = means.dispersion
        means = chain_means(posterior, permutations, group, _float(means.mean))
        if not means.dispersion < before * (1 - _TOLERANCE):
            break
    return _MeanState(permutations, means, rounds)


def _float(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() for name, value in values.items()}
