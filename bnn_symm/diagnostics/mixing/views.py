"""Summarize and judge one view of the mixing of chains: R-hat and ESS of its quantities.

A view passes if its largest R-hat is at most 1.01 (Vehtari et al. 2021), or at most the bound for
independent draws of this number of quantities (the largest of 10^5 R-hats exceeds 1.01 with a few
hundred perfect draws), and if bulk and tail ESS of every quantity are at least 100 per chain. For
dependent draws the bound is that of as many effective draws, by the ESS within each chain, up to an
R-hat of 1.05; whether these are enough is decided by ESS. A constant quantity has no R-hat; it is
counted and excluded. The chainwise view uses R-hat only: it tests stationarity with quarters of
chains, and its limit is 1.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from bnn_symm.diagnostics.mixing.chain_statistics import (
    MIN_DRAWS,
    ChainStatistics,
    independent_rhat,
)
from bnn_symm.diagnostics.statistics.evidence import Evidence
from bnn_symm.summaries import Summarized

Status = Literal["pass", "fail", "too few draws", "no evidence", "undefined"]
"""Status of a view. `too few draws`: chains agree, but the ESS is too small; `no evidence`: draws
that the data do not determine would pass as well."""

# Limits of Vehtari et al. 2021: R-hat, and effective draws per chain.
RHAT = 1.01
ESS_PER_CHAIN = 100
# A larger R-hat fails for any number of effective draws. The chainwise view has quarters of chains
# only.
_LARGEST, _LARGEST_CHAINWISE = 1.05, 1.1
# First words of the reason of a view with infinite or undefined values.
NOT_FINITE = "values are not finite"
_BY_QUANTITY = ("rhat", "ess_bulk", "ess_tail", "constant")
_NUMBERS = ("rhat_max", "rhat_median", "share_above", "ess_bulk_min", "ess_bulk_median")
_NUMBERS += ("ess_tail_min", "num_constant", "num_infinite")
_LIMITS = ("threshold", "ess_wanted", "num_chains", "num_draws", "status", "reason")


@dataclass(frozen=True, kw_only=True, repr=False)
class MixingSummary(Summarized):
    """R-hat and ESS of the quantities of one view.

    Attributes:
        name: raw, aligned, aligned_per_draw, chainwise or function.
        status: Status of the view.
        reason: Explanation of any status but a pass.
        rhat: (column,); NaN if not defined.
        ess_bulk: (column,).
        ess_tail: (column,).
        constant: (column,), whether a quantity never changes.
        threshold: Limit of R-hat.
        ess_wanted: Limit of ESS; None in the chainwise view.
        num_chains: Number of chains.
        num_draws: Draws per chain.
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

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        names = ("status", "rhat_max", "rhat_median", "ess_bulk_min", "ess_tail_min")
        return {name: getattr(self, name) for name in names}

    @property
    def rhat_max(self) -> float | None:
        """Return the largest R-hat; infinite for chains that are constant at different values."""
        return _reduced(np.max, self._defined(self.rhat))

    @property
    def num_infinite(self) -> int:
        """Return the number of quantities whose chains are constant at different values."""
        return int(np.isinf(self.rhat).sum())

    @property
    def rhat_median(self) -> float | None:
        """Return the median R-hat."""
        return _reduced(np.median, self._defined(self.rhat))

    @property
    def share_above(self) -> float | None:
        """Return the fraction of quantities whose R-hat exceeds the threshold."""
        return _reduced(np.mean, self._defined(self.rhat) > self.threshold)

    @property
    def ess_bulk_min(self) -> float | None:
        """Return the smallest bulk ESS."""
        return _reduced(np.min, self._defined(self.ess_bulk))

    @property
    def ess_bulk_median(self) -> float | None:
        """Return the median bulk ESS."""
        return _reduced(np.median, self._defined(self.ess_bulk))

    @property
    def ess_tail_min(self) -> float | None:
        """Return the smallest tail ESS."""
        return _reduced(np.min, self._defined(self.ess_tail))

    @property
    def num_constant(self) -> int:
        """Return the number of quantities that are constant in all chains."""
        return int(self.constant.sum())

    def numbers(self, where: Int[np.ndarray, " quantity"]) -> dict[str, Any]:
        """Return the numbers of some quantities as JSON types.

        Args:
            where: Their columns.
        """
        view = replace(self, **{name: getattr(self, name)[where] for name in _BY_QUANTITY})
        return {name: getattr(view, name) for name in _NUMBERS} | {"quantities": len(where)}

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers of the view, its status and the number that decided it."""
        numbers = {name: getattr(self, name) for name in (*_NUMBERS, *_LIMITS)}
        return numbers | {"decided_by": self.evidence and self.evidence.to_dict()}

    @property
    def rhat_evidence(self) -> Evidence | None:
        """Return the largest R-hat and its limit; None if R-hat is undefined."""
        if self.rhat_max is None:
            return None
        return Evidence(measure=f"{self.name}.rhat_max", value=self.rhat_max, high=self.threshold)

    @property
    def ess_evidence(self) -> Evidence | None:
        """Return the smallest ESS, bulk or tail, and its limit; None if ESS is undefined."""
        sizes = {"ess_bulk_min": self.ess_bulk_min, "ess_tail_min": self.ess_tail_min}
        known = {name: size for name, size in sizes.items() if size is not None}
        if not known:
            return None
        name = min(known, key=lambda name: known[name])
        return Evidence(measure=f"{self.name}.{name}", value=known[name], low=self.ess_wanted)

    @property
    def evidence(self) -> Evidence | None:
        """Return the number that decided the status; None if neither R-hat nor ESS did."""
        if self.status in ("pass", "fail"):
            return self.rhat_evidence
        return self.ess_evidence if self.status == "too few draws" else None

    def with_status(self, status: Status, reason: str) -> "MixingSummary":
        """Return the same numbers with another status.

        Args:
            status: The new status.
            reason: Its explanation.

        Returns:
            A copy of this summary.
        """
        return replace(self, status=status, reason=reason)

    def _defined(self, values: np.ndarray) -> np.ndarray:
        return values[~np.isnan(values) & ~self.constant]


def effective_draws(parts: Sequence[ChainStatistics]) -> float:
    """Return the effective draws of a chain: the 10 % quantile of bulk ESS within chains.

    Bulk ESS is averaged over chains, and the quantile is over quantities. Unlike the ESS of the
    chains together it does not decrease if chains disagree.

    Args:
        parts: Statistics of each chain.

    Returns:
        Effective draws per chain.
    """
    ess = np.stack([part.ess_bulk for part in parts]).mean(0)
    return float(np.nanquantile(ess, 0.1)) if np.isfinite(ess).any() else 0.0


def judge(name: str, statistics: ChainStatistics, *, effective: float) -> MixingSummary:
    """Return the view of quantities compared between chains.

    Args:
        name: Name of the view.
        statistics: Statistics of the chains.
        effective: Effective draws per chain (`effective_draws`).

    Returns:
        The judged summary.
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
    """Return the view of each chain against itself; for every quantity the worst chain counts.

    Args:
        parts: Statistics of every chain, with its two halves as chains (each split once more).
        whole: Statistics of the chains together, which identify constant quantities.

    Returns:
        The judged summary.
    """
    chains, draws = whole.num_chains, whole.num_draws
    rhat = np.stack([part.rhat for part in parts])
    # A frozen chain has no R-hat. It is reported elsewhere and must not hide the other chains.
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
    """Return the limit of R-hat, as the module docstring describes."""
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
            f"{draws} draw{'s' * (draws > 1)} per chain; R-hat needs at least {needed}, to split "
            "them in two",
        )
    if constant.all():
        return view.with_status(
            "undefined", "nothing changes: every chain is frozen at the same value"
        )
    # With enough draws, an ESS is undefined only if a draw is not finite. Excluding it would let
    # the other quantities pass.
    broken = int(np.isnan(ess_bulk).sum())
    if broken:
        return view.with_status(
            "undefined", f"{NOT_FINITE} in {broken} of {len(ess_bulk)} quantities"
        )
    if view.rhat_max is None:
        if name != "chainwise":
            return view.with_status(
                "undefined",
                "one chain: R-hat between chains is undefined; see the chainwise view",
            )
        return view.with_status("undefined", "every chain is frozen")
    largest, smallest = view.rhat_evidence, view.ess_evidence
    if largest is not None and not largest.is_inside:
        return view.with_status(
            "fail", f"the largest R-hat is {largest.describe()}, the bound for independent draws"
        )
    if smallest is not None and not smallest.is_inside:
        return view.with_status(
            "too few draws", f"R-hat passes; the smallest ESS is {smallest.describe()}"
        )
    return view


def _reduced(function: "np.ufunc | object", values: np.ndarray) -> float | None:
    return float(function(values)) if values.size else None  # type: ignore[operator]
