"""One view of how chains mix: R-hat and ESS of some quantities, summed up and judged.

A view passes if its largest R-hat is at most 1.01 (Vehtari et al. 2021), or what independent draws
of that number would reach for so many quantities (the largest of 10^5 R-hats is above 1.01 with a
few hundred perfect draws), and if bulk and tail ESS of every quantity are at least 100 a chain.
Dependent draws reach what as many effective ones would, by the ESS that each chain has alone; that
is granted up to an R-hat of 1.05, and whether they are enough, ESS says. A quantity that never
changes has no R-hat; it is counted, and left out. Of the chainwise view only R-hat counts: it asks
whether chains have settled, with quarters of chains, and is granted 1.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from bnn_symm.diagnostics.mixing.chain_statistics import (
    MIN_DRAWS,
    ChainStatistics,
    independent_rhat,
)
from bnn_symm.diagnostics.statistics.evidence import Evidence

Status = Literal["pass", "fail", "too few draws", "no evidence", "undefined"]
"""What a view says: `too few draws`: chains agree, and their draws are too dependent to be exact;
`no evidence`: draws that no data tie to anything would pass as well."""

# Of Vehtari et al. 2021: R-hat, and effective draws a chain.
RHAT = 1.01
ESS_PER_CHAIN = 100
# However few draws are effective, an R-hat above this fails; chains against themselves have
# quarters of chains only.
_LARGEST, _LARGEST_CHAINWISE = 1.05, 1.1
# Begins the reason of a view with infinite or undefined values.
NOT_FINITE = "values are not finite"


@dataclass(frozen=True, kw_only=True)
class MixingSummary:
    """R-hat and ESS of the quantities of one view.

    Attributes:
        name: raw, aligned, aligned_per_draw, chainwise or function.
        status: what it says.
        reason: in words, for anything but a pass.
        rhat: (column,); NaN where it is not defined.
        ess_bulk: (column,).
        ess_tail: (column,).
        constant: (column,), which never change.
        threshold: that R-hat is held against.
        ess_wanted: that ESS is held against; None in the chainwise view.
        num_chains: behind it.
        num_draws: of each chain.
    """

    name: str
    status: Status
    reason: str | None
    rhat: Float[np.ndarray, " _"]
    ess_bulk: Float[np.ndarray, " _"]
    ess_tail: Float[np.ndarray, " _"]
    constant: Bool[np.ndarray, " _"]
    threshold: float
    ess_wanted: float | None
    num_chains: int
    num_draws: int

    @property
    def rhat_max(self) -> float | None:
        """The largest; infinite where chains stand still in different places; None if there is
        none.
        """
        return _reduced(np.max, self._defined(self.rhat))

    @property
    def num_infinite(self) -> int:
        """Quantities whose chains stand still, each at a value of its own."""
        return int(np.isinf(self.rhat).sum())

    @property
    def rhat_median(self) -> float | None:
        """Half of the quantities have a smaller one."""
        return _reduced(np.median, self._defined(self.rhat))

    @property
    def share_above(self) -> float | None:
        """Of the quantities, those whose R-hat is above the threshold."""
        return _reduced(np.mean, self._defined(self.rhat) > self.threshold)

    @property
    def ess_bulk_min(self) -> float | None:
        """The smallest."""
        return _reduced(np.min, self._defined(self.ess_bulk))

    @property
    def ess_bulk_median(self) -> float | None:
        """Half of the quantities have a larger one."""
        return _reduced(np.median, self._defined(self.ess_bulk))

    @property
    def ess_tail_min(self) -> float | None:
        """The smallest."""
        return _reduced(np.min, self._defined(self.ess_tail))

    @property
    def num_constant(self) -> int:
        """Quantities that never change, in no chain."""
        return int(self.constant.sum())

    @property
    def worst(self) -> int | None:
        """Which quantity has the largest R-hat."""
        return (
            None
            if self.rhat_max is None
            else int(np.nanargmax(np.where(self.constant, np.nan, self.rhat)))
        )

    @property
    def evidence_of_rhat(self) -> Evidence | None:
        """Return the largest R-hat and what it is held against; None if there is none."""
        if self.rhat_max is None:
            return None
        return Evidence(measure=f"{self.name}.rhat_max", value=self.rhat_max, high=self.threshold)

    @property
    def evidence_of_ess(self) -> Evidence | None:
        """Return the smaller of the smallest bulk and tail ESS and what it is held against; None if
        there is none.
        """
        sizes = {"ess_bulk_min": self.ess_bulk_min, "ess_tail_min": self.ess_tail_min}
        known = {name: size for name, size in sizes.items() if size is not None}
        if not known:
            return None
        name = min(known, key=lambda name: known[name])
        return Evidence(measure=f"{self.name}.{name}", value=known[name], low=self.ess_wanted)

    @property
    def evidence(self) -> Evidence | None:
        """Return the number that decided the status; None where it was not decided by R-hat or
        ESS.
        """
        if self.status in ("pass", "fail"):
            return self.evidence_of_rhat
        return self.evidence_of_ess if self.status == "too few draws" else None

    def with_status(self, status: Status, reason: str) -> "MixingSummary":
        """The same numbers, judged otherwise."""
        return replace(self, status=status, reason=reason)

    def _defined(self, values: np.ndarray) -> np.ndarray:
        return values[~np.isnan(values) & ~self.constant]


def effective_draws(parts: Sequence[ChainStatistics]) -> float:
    """Of a chain, as it judges itself: the tenth percentile over quantities of the mean bulk ESS of
    chains alone.

    Unlike that of the chains together it does not fall when they disagree.
    """
    ess = np.stack([part.ess_bulk for part in parts]).mean(0)
    return float(np.nanquantile(ess, 0.1)) if np.isfinite(ess).any() else 0.0


def judge(name: str, statistics: ChainStatistics, *, effective: float) -> MixingSummary:
    """The view of quantities whose chains are set against one another.

    Args:
        name: of the view.
        statistics: of the chains.
        effective: draws of each chain (`effective_draws`).
    """
    chains, draws = statistics.num_chains, statistics.num_draws
    return _judged(
        name,
        statistics.rhat,
        statistics.ess_bulk,
        statistics.ess_tail,
        statistics.sd == 0,
        _limit(chains, draws, effective, len(statistics), _LARGEST),
        float(ESS_PER_CHAIN * chains),
        (chains, draws),
    )


def judge_chainwise(parts: Sequence[ChainStatistics], whole: ChainStatistics) -> MixingSummary:
    """The view of chains each set against itself over time; the worst chain counts for every
    quantity.

    Args:
        parts: of every chain, cut into two halves that stand for chains (and are split once more).
        whole: of the chains together, for which quantities never change.
    """
    chains, draws = whole.num_chains, whole.num_draws
    rhat = np.stack([part.rhat for part in parts])
    # A chain that stands still has no R-hat; it is named elsewhere, and does not hide what the
    # others do.
    worst = np.where(
        np.isnan(rhat).all(0), np.nan, np.nanmax(np.where(np.isnan(rhat), -np.inf, rhat), axis=0)
    )
    return _judged(
        "chainwise",
        worst,
        np.stack([part.ess_bulk for part in parts]).min(0),
        np.stack([part.ess_tail for part in parts]).min(0),
        whole.sd == 0,
        _limit(2, draws / 2, effective_draws(parts) / 2, len(whole) * chains, _LARGEST_CHAINWISE),
        None,
        (chains, draws),
    )


def _limit(
    chains: int, draws: int | float, effective: float, columns: int, largest: float
) -> float:
    """What R-hat may reach: see the module."""
    if draws < MIN_DRAWS:
        return RHAT
    dependent = independent_rhat(chains, min(effective, draws), columns)
    return max(RHAT, independent_rhat(chains, draws, columns), min(dependent, largest))


def _judged(
    name: str,
    rhat: np.ndarray,
    ess_bulk: np.ndarray,
    ess_tail: np.ndarray,
    constant: np.ndarray,
    threshold: float,
    ess_wanted: float | None,
    shape: tuple[int, int],
) -> MixingSummary:
    chains, draws = shape
    view = MixingSummary(
        name=name,
        status="pass",
        reason=None,
        rhat=rhat,
        ess_bulk=ess_bulk,
        ess_tail=ess_tail,
        constant=constant,
        threshold=threshold,
        ess_wanted=ess_wanted,
        num_chains=chains,
        num_draws=draws,
    )
    needed = MIN_DRAWS if name != "chainwise" else 2 * MIN_DRAWS
    if draws < needed:
        return view.with_status(
            "undefined",
            f"{draws} draw{'s' * (draws > 1)} a chain: R-hat needs at least {needed}, to be split "
            "in two",
        )
    if constant.all():
        return view.with_status(
            "undefined", "nothing ever changes: every chain is frozen in the same place"
        )
    # Of enough draws, an ESS is undefined only where a draw is not finite: left out, it would let
    # the others pass.
    broken = int(np.isnan(ess_bulk).sum())
    if broken:
        return view.with_status(
            "undefined", f"{NOT_FINITE} in {broken} of {len(ess_bulk)} quantities"
        )
    if view.rhat_max is None:
        if name != "chainwise":
            return view.with_status(
                "undefined",
                "one chain: there is no other to set it against; see it against itself over time",
            )
        return view.with_status("undefined", "every chain is frozen")
    largest, smallest = view.evidence_of_rhat, view.evidence_of_ess
    if largest is not None and not largest.is_inside:
        return view.with_status(
            "fail", f"the largest R-hat is {largest.words()}, which independent draws stay below"
        )
    if smallest is not None and not smallest.is_inside:
        return view.with_status(
            "too few draws", f"R-hat is fine; the smallest ESS is {smallest.words()}"
        )
    return view


def _reduced(function: "np.ufunc | object", values: np.ndarray) -> float | None:
    return float(function(values)) if values.size else None  # type: ignore[operator]
