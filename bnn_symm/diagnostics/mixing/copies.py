"""Detect chains that share draws, and chains that repeat their own draws.

R-hat compares chains and ESS counts draws, and both assume independent chains: one chain repeated
four times passes every view with four times its ESS. Draws of continuous weights are never equal by
chance, so equal draws mean that chains were run with the same seed, were read twice, or were cut
from one chain.

Every draw is reduced to two kinds of fingerprint, in one pass over the draws:

- a few random projections of its weights, which are equal for equal draws;
- for every tensor the sums of |w|, w^2 and |w|^3, which are invariant under permutations of units
  and sign flips, and therefore equal for copies that differ in the numbering of units.

Draws of different chains are equal if all fingerprints of one kind differ by at most `_NEAR` of
their size, so that a copy in single precision is detected. Repeats within a chain must be exact,
because a sampler may move by less than that in a step. A sampler that rejects proposals repeats its
state for some iterations, which is no fault. A chain that returns to former draws, or that stays in
one state for a tenth of its length, is reported.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.formatting import percent
from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import torch_generator
from bnn_symm.summaries import Result

# Relative tolerance of fingerprints, between chains and within a chain.
_NEAR, _EXACT = 1e-6, 1e-13
_PROJECTIONS = 3
# Minimum fraction and minimum number of a chain's draws that must be equal.
_SHARE, _LEAST = 0.01, 3
# With this few parameters two draws in single precision can be equal by chance.
_FEW_PARAMETERS, _SHARE_OF_FEW = 2, 0.5
# A chain that stays in one state for this fraction and this number of its draws is stuck.
_STUCK, _LEAST_STUCK = 0.1, 20
# Maximum number of pairs in the result.
_MOST_PAIRS = 100

Kind = Literal["equal", "permuted"]


@dataclass(frozen=True, kw_only=True)
class CopiedPair:
    """Two chains with common draws.

    Attributes:
        first: Index of a chain.
        second: Index of a later chain.
        share: Fraction of the draws of `second` that `first` contains as well.
        lag: Number of draws by which `second` is behind `first`; None if no lag holds for most of
            the common draws.
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
        chain: Index of the chain.
        share: Fraction of its draws that repeat earlier ones, or that belong to its longest stay.
        kind: `returns` to former draws, or is `stuck` in one state.
    """

    chain: int
    share: float
    kind: Literal["returns", "stuck"]


@dataclass(frozen=True, kw_only=True)
class Copies(Result):
    """Common and repeated draws of the chains of a posterior.

    Attributes:
        pairs: Pairs of chains with common draws, at most 100.
        repeats: Chains that repeat their own draws.
        num_chains: Number of chains of the posterior.
        num_distinct: Number of groups of chains that share no draw with another group.
        num_draws: Draws per chain.
    """

    _keys = ("pairs", "repeats", "num_chains", "num_distinct")

    pairs: tuple[CopiedPair, ...]
    repeats: tuple[RepeatedDraws, ...]
    num_chains: int
    num_distinct: int
    num_draws: int

    def __bool__(self) -> bool:
        return bool(self.pairs or self.repeats)

    @property
    def sentences(self) -> list[str]:
        """Return a description of the common draws, then of the repeated draws."""
        return [text for text in (self._describe_pairs(), self._describe_repeats()) if text]

    def _describe_pairs(self) -> str:
        """Return a description of each group of chains with common draws."""
        if not self.pairs:
            return ""
        what = "members" if self.num_draws == 1 else "chains"
        parts = []
        for first in dict.fromkeys(pair.first for pair in self._spanning()):
            pairs = [pair for pair in self._spanning() if pair.first == first]
            for relation in dict.fromkeys(map(self._relation, pairs)):
                others = _join_numbers([p.second for p in pairs if self._relation(p) == relation])
                parts.append(f"{others} {relation} {what[:-1]} {first}")
        named = "; ".join(parts[:4]) + ("; ..." if len(parts) > 4 else "")
        verb = "is" if self.num_distinct == 1 else "are"
        distinct = f"{self.num_distinct} of {self.num_chains} {verb} distinct"
        return f"{what} are not independent: {named}; {distinct}"

    def _spanning(self) -> list[CopiedPair]:
        """Return, for every chain that shares draws with an earlier one, its most similar pair."""
        best: dict[int, CopiedPair] = {}
        for pair in self.pairs:
            if pair.second not in best or pair.share > best[pair.second].share:
                best[pair.second] = pair
        return list(best.values())

    def _relation(self, pair: CopiedPair) -> str:
        """Return the relation of the second chain to the first, whose number follows."""
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
        return f"share {percent(pair.share)} of their draws{how}{order} with"

    def _describe_repeats(self) -> str:
        """Return a description of the chains that repeat their own draws."""
        parts = []
        for kind, behavior in (
            ("returns", "returns to former draws"),
            ("stuck", "stays in one place"),
        ):
            repeats = [repeat for repeat in self.repeats if repeat.kind == kind]
            if repeats:
                share = max(repeat.share for repeat in repeats)
                chains = _join_numbers([repeat.chain for repeat in repeats])
                parts.append(f"chain {chains} {behavior} ({percent(share)} of its draws)")
        return "; ".join(parts)


def copied_chains(posterior: Posterior, *, repeats: bool = True) -> Copies:
    """Detect chains with common draws, and chains that repeat their own draws.

    Args:
        posterior: Posterior with any number of chains and draws.
        repeats: Whether to look for repeats within chains. Discrete distributions such as dropout
            repeat draws by chance.

    Returns:
        Pairs of chains, and chains with repeated draws.
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
    """Detect common and repeated draws without a model.

    Args:
        chunks: All draws in chunks, chain after chain.
        shape: Chains, draws per chain, and parameters.
        tensors: Slice of each tensor in a draw.
        repeats: Whether to look for repeats within chains.

    Returns:
        Pairs of chains, and chains with repeated draws.
    """
    chains, draws, parameters = shape
    projections, invariants = _fingerprints(chunks, parameters, list(tensors))
    needed = max(math.ceil(_SHARE * draws), min(draws, _LEAST))
    if parameters <= _FEW_PARAMETERS:
        needed = max(needed, math.ceil(_SHARE_OF_FEW * draws))
    # Projections may cancel, so rounding is proportional to the norm of the draw.
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
        links = scipy.sparse.coo_matrix(
            (np.ones(len(found)), (first, second)), shape=(chains, chains)
        )
        distinct = int(scipy.sparse.csgraph.connected_components(links, directed=False)[0])
    exact = (
        _labels(projections, _EXACT * length).reshape(chains, draws)
        if repeats and draws > 1
        else ()
    )
    return Copies(
        pairs=tuple(found[pair] for pair in sorted(found)),
        repeats=tuple(repeat for repeat in map(_repeats, range(chains), exact) if repeat)
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
    """Return an integer label for every draw, equal for draws with equal fingerprints.

    Fingerprints are compared one after the other, each among the draws that were equal so far.
    Draws that are not finite are equal to no other draw.

    Args:
        prints: Fingerprints of every draw.
        tolerance: Absolute tolerance per draw (array), or relative tolerance (number).
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
    """Return pairs of chains with enough common draws, and the number of these in the second."""
    chains, draws = labels.shape
    rows, columns = labels.ravel(), np.repeat(np.arange(chains), draws)
    counts = scipy.sparse.csr_matrix(
        (np.ones(len(rows)), (rows, columns)), shape=(int(rows.max()) + 1, chains)
    )
    shared = counts[np.diff(counts.indptr) > 1]
    has = shared.astype(bool).astype(np.float64)
    common = (has.T @ shared).tocoo()
    for first, second, count in zip(common.row, common.col, common.data, strict=True):
        if first < second and count >= needed:
            yield int(first), int(second), int(count)


def _lag(first: Int[np.ndarray, " draw"], second: Int[np.ndarray, " draw"]) -> int | None:
    """Return the lag of the second chain behind the first in most of their common draws."""
    common, here, there = np.intersect1d(first, second, return_indices=True)
    lags, counts = np.unique(there - here, return_counts=True)
    best = int(counts.argmax())
    return int(lags[best]) if 2 * counts[best] > len(common) else None


def _repeats(chain: int, labels: Int[np.ndarray, " draw"]) -> RepeatedDraws | None:
    """Return whether a chain returns to former draws or is stuck; None if neither."""
    draws = len(labels)
    starts = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]]))
    lengths = np.diff(np.append(starts, draws))
    if len(starts) == 1:  # a chain that never moves is reported by the views
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


def _join_numbers(chains: Sequence[int]) -> str:
    shown = [str(chain) for chain in chains[:10]]
    return ", ".join(shown) + (", ..." if len(chains) > 10 else "")
