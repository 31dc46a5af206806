"""Chains that are copies of one another, in whole or in part, and chains that repeat themselves.

R-hat compares chains and ESS counts draws, and both take chains for independent: one chain four
times passes every view with four times its ESS. Draws of continuous weights are never equal by
chance, so that equal draws say that chains were started with one seed, were read twice, or were cut
from one chain.

Every draw is reduced to two kinds of fingerprint, in one pass over the draws:

- a few random projections of its weights, which are equal for equal draws;
- for every tensor the sums of |w|, w^2 and |w|^3, which no permutation of units and no flip of signs changes, and
  which are therefore equal for copies that differ in how units are numbered.

Draws of different chains are equal if all fingerprints of one kind differ by at most `_NEAR` of
their size, so that a copy in single precision is one too. Repeats within a chain must be exact: a
sampler may move by less than that in a step. A sampler that rejects proposals stays where it is for
some iterations, which is no fault; a chain that returns to former draws, or stays for a tenth of
its length, is.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import torch_generator

# Relative difference of fingerprints of equal draws in different chains, and within one.
_NEAR, _EXACT = 1e-6, 1e-13
_PROJECTIONS = 3
# Share of a chain's draws that must be equal, and at least so many of them.
_SHARE, _LEAST = 0.01, 3
# With so few parameters two draws in single precision can be equal by chance.
_FEW_PARAMETERS, _SHARE_OF_FEW = 2, 0.5
# A chain that stays in one place for this share of its draws, and at least so many, is stuck.
_STUCK, _LEAST_STUCK = 0.1, 20
# Pairs of chains that are named.
_MOST_PAIRS = 100

Kind = Literal["equal", "permuted"]


@dataclass(frozen=True, kw_only=True)
class CopiedPair:
    """Two chains that have draws in common.

    Attributes:
        first: a chain.
        second: a later one.
        share: of the draws of `second`, those that `first` has as well.
        lag: by how many draws `second` is behind `first`; None where no lag holds for most of the
            common draws.
        kind: `equal`, or `permuted` for draws that are equal up to the numbering and the signs of
            units.
    """

    first: int
    second: int
    share: float
    lag: int | None
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class RepeatedDraws:
    """A chain that repeats its own draws.

    Attributes:
        chain: its number.
        share: of its draws: those that it returned to, or those of its longest stay.
        kind: `returns` to former draws, or is `stuck` in one place.
    """

    chain: int
    share: float
    kind: Literal["returns", "stuck"]


@dataclass(frozen=True, kw_only=True)
class Copies:
    """What chains of a posterior have in common.

    Attributes:
        pairs: of chains with common draws, at most 100.
        repeats: chains that repeat themselves.
        num_chains: chains of the posterior.
        num_distinct: groups of chains that have no draw in common with another group.
        num_draws: draws of each chain.
    """

    pairs: tuple[CopiedPair, ...]
    repeats: tuple[RepeatedDraws, ...]
    num_chains: int
    num_distinct: int
    num_draws: int

    def __bool__(self) -> bool:
        return bool(self.pairs or self.repeats)

    @property
    def sentences(self) -> list[str]:
        """Return what was detected: common draws of chains first."""
        return [text for text in (self._of_pairs(), self._of_repeats()) if text]

    def to_dict(self) -> dict[str, Any]:
        """Return the copies as JSON types."""
        return {
            "pairs": [dict(vars(pair)) for pair in self.pairs],
            "repeats": [dict(vars(repeat)) for repeat in self.repeats],
            "num_chains": self.num_chains,
            "num_distinct": self.num_distinct,
        }

    def _of_pairs(self) -> str:
        """Return a sentence that names each group of chains with common draws."""
        if not self.pairs:
            return ""
        what = "members" if self.num_draws == 1 else "chains"
        parts = []
        for first in dict.fromkeys(pair.first for pair in self._spanning()):
            own = [pair for pair in self._spanning() if pair.first == first]
            for words in dict.fromkeys(map(self._words, own)):
                others = _numbers([pair.second for pair in own if self._words(pair) == words])
                parts.append(f"{others} {words} {what[:-1]} {first}")
        named = "; ".join(parts[:4]) + ("; ..." if len(parts) > 4 else "")
        distinct = f"{self.num_distinct} of {self.num_chains} {'is' if self.num_distinct == 1 else 'are'} distinct"
        return f"{what} are not independent: {named}; {distinct}"

    def _spanning(self) -> list[CopiedPair]:
        """Return one pair for every chain that has draws of an earlier one: that with the largest
        share.
        """
        best: dict[int, CopiedPair] = {}
        for pair in self.pairs:
            if pair.second not in best or pair.share > best[pair.second].share:
                best[pair.second] = pair
        return list(best.values())

    def _words(self, pair: CopiedPair) -> str:
        """Return how the draws of a pair are related, to be followed by the first chain."""
        how = " up to the numbering of units" if pair.kind == "permuted" else ""
        order = (
            ""
            if pair.lag == 0
            else " in another order"
            if pair.lag is None
            else f" {pair.lag:+d} draws later"
        )
        possible = 1 - abs(pair.lag or 0) / self.num_draws
        if pair.share >= 0.999 * possible:
            return f"repeat{how}{order}"
        return f"have {pair.share:.0%} of their draws{how}{order} from"

    def _of_repeats(self) -> str:
        parts = []
        for kind, words in (
            ("returns", "returns to former draws"),
            ("stuck", "stays in one place"),
        ):
            own = [repeat for repeat in self.repeats if repeat.kind == kind]
            if own:
                share = max(repeat.share for repeat in own)
                parts.append(
                    f"chain {_numbers([repeat.chain for repeat in own])} {words} ({share:.0%} of "
                    "its draws)"
                )
        return "; ".join(parts)


def copied_chains(posterior: Posterior, *, repeats: bool = True) -> Copies:
    """Return which chains have draws in common, and which repeat themselves.

    Args:
        posterior: of any number of chains and draws.
        repeats: whether to look for repeats within chains, which discrete laws such as dropout have
            by chance.
    """
    return copied_draws(
        posterior.iter_draws(), posterior.shape, posterior.model.slices().values(), repeats=repeats
    )


def copied_draws(
    chunks: Iterable[Float[Tensor, "draw parameter"]],
    shape: tuple[int, int, int],
    tensors: Iterable[slice],
    *,
    repeats: bool = True,
) -> Copies:
    """Return the same of draws without a model.

    Args:
        chunks: all draws, chain after chain, some at a time.
        shape: chains, draws of each, and parameters.
        tensors: where in a draw each tensor is.
        repeats: whether to look for repeats within chains.
    """
    chains, draws, parameters = shape
    projections, invariants = _fingerprints(chunks, parameters, list(tensors))
    needed = max(math.ceil(_SHARE * draws), min(draws, _LEAST))
    if parameters <= _FEW_PARAMETERS:
        needed = max(needed, math.ceil(_SHARE_OF_FEW * draws))
    # Projections may cancel: rounding is in proportion to the length of the draw.
    length = np.sqrt(invariants[:, 1::3].sum(1).numpy())
    labels: dict[Kind, np.ndarray] = {
        "equal": _labels(projections, _NEAR * length),
        "permuted": _labels(invariants, _NEAR),
    }
    found: dict[tuple[int, int], CopiedPair] = {}
    for kind, own in labels.items():
        for first, second, count in _overlaps(own.reshape(chains, draws), needed):
            pair = (first, second)
            before = found.get(pair)
            # A few draws of a copy that is numbered anew draw by draw keep their numbering.
            is_new = before is None and len(found) < _MOST_PAIRS
            if is_new or (before is not None and count >= before.share * draws + needed):
                lag = _lag(own.reshape(chains, draws)[first], own.reshape(chains, draws)[second])
                found[pair] = CopiedPair(
                    first=first, second=second, share=count / draws, lag=lag, kind=kind
                )
    distinct = chains
    if found:
        first, second = np.array(list(found)).T
        links = sparse.coo_matrix((np.ones(len(found)), (first, second)), shape=(chains, chains))
        distinct = int(connected_components(links, directed=False)[0])
    exact = (
        _labels(projections, _EXACT * length).reshape(chains, draws)
        if repeats and draws > 1
        else ()
    )
    return Copies(
        pairs=tuple(found[pair] for pair in sorted(found)),
        repeats=tuple(one for one in map(_repeats, range(chains), exact) if one is not None)
        if len(exact)
        else (),
        num_chains=chains,
        num_distinct=distinct,
        num_draws=draws,
    )


def _fingerprints(
    chunks: Iterable[Float[Tensor, "draw parameter"]], parameters: int, tensors: Sequence[slice]
) -> tuple[Float[Tensor, "row projection"], Float[Tensor, "row invariant"]]:
    """Return both kinds of fingerprint of all draws, chain after chain, in float64."""
    generator = torch_generator(0, "fingerprints of draws")
    directions = torch.randn(parameters, _PROJECTIONS, generator=generator, dtype=torch.float64)
    projections, invariants = [], []
    for chunk in chunks:
        values = chunk.detach().cpu().double()
        projections.append(values @ directions)
        own = []
        for where in tensors:
            size = values[:, where].abs()
            own += [size.sum(1), size.square().sum(1), size.pow(3).sum(1)]
        invariants.append(torch.stack(own, 1))
    return torch.cat(projections), torch.cat(invariants)


def _labels(
    prints: Float[Tensor, "row print"], tolerance: float | Float[np.ndarray, " row"]
) -> Int[np.ndarray, " row"]:
    """Return a number for every draw, equal for draws whose fingerprints are all equal up to the
    tolerance.

    Fingerprints are compared one after the other, each among the draws that were equal so far.
    Draws that are not finite are equal to none.

    Args:
        prints: fingerprints of every draw.
        tolerance: of their difference: for every draw, or as a share of the fingerprint.
    """
    values = prints.numpy()
    labels = np.zeros(len(values), dtype=np.int64)
    for column in values.T:
        order = np.lexsort((column, labels))
        ordered, groups = column[order], labels[order]
        with np.errstate(invalid="ignore"):
            allowed = (
                tolerance[order]
                if isinstance(tolerance, np.ndarray)
                else tolerance * np.abs(ordered)
            )
            near = np.diff(ordered) <= np.maximum(allowed[1:], allowed[:-1])
        changes = (groups[1:] != groups[:-1]) | ~near
        labels[order] = np.concatenate([[0], np.cumsum(changes)])
    broken = ~np.isfinite(values).all(1)
    labels[broken] = labels.max(initial=0) + 1 + np.arange(int(broken.sum()))
    return labels


def _overlaps(labels: Int[np.ndarray, "chain draw"], needed: int) -> Iterable[tuple[int, int, int]]:
    """Return pairs of chains, and how many draws of the second the first has, if these are as many
    as needed.
    """
    chains, draws = labels.shape
    rows, columns = labels.ravel(), np.repeat(np.arange(chains), draws)
    counts = sparse.csr_matrix(
        (np.ones(len(rows)), (rows, columns)), shape=(int(rows.max()) + 1, chains)
    )
    shared = counts[np.diff(counts.indptr) > 1]
    has = shared.astype(bool).astype(np.float64)
    common = (has.T @ shared).tocoo()
    for first, second, count in zip(common.row, common.col, common.data, strict=True):
        if first < second and count >= needed:
            yield int(first), int(second), int(count)


def _lag(first: Int[np.ndarray, " draw"], second: Int[np.ndarray, " draw"]) -> int | None:
    """Return by how many draws the second chain is behind the first in most of their common
    draws.
    """
    common, here, there = np.intersect1d(first, second, return_indices=True)
    lags, counts = np.unique(there - here, return_counts=True)
    best = int(counts.argmax())
    return int(lags[best]) if 2 * counts[best] > len(common) else None


def _repeats(chain: int, labels: Int[np.ndarray, " draw"]) -> RepeatedDraws | None:
    """Return whether a chain comes back to draws that it had left, or stays in one place; None if
    neither.
    """
    draws = len(labels)
    starts = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]]))
    lengths = np.diff(np.append(starts, draws))
    if len(starts) == 1:  # it never moves, which views name
        return None
    _, first = np.unique(labels[starts], return_index=True)
    again = np.setdiff1d(np.arange(len(starts)), first)
    share = float(lengths[again].sum()) / draws
    if len(again) >= min(_LEAST, len(starts) / 2) and share >= _SHARE:
        return RepeatedDraws(chain=chain, share=share, kind="returns")
    longest = int(lengths.max())
    if longest >= max(_LEAST_STUCK, _STUCK * draws):
        return RepeatedDraws(chain=chain, share=longest / draws, kind="stuck")
    return None


def _numbers(chains: Sequence[int]) -> str:
    shown = [str(chain) for chain in chains[:10]]
    return ", ".join(shown) + (", ..." if len(chains) > 10 else "")
