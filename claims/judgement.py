"""The verdict on a claim: its effect with an interval, and what controls explain.

The effect is a mean over seeds with Student's 95 % interval, or over pairs of seeds with the
jackknife over seeds (`bnn_symm.diagnostics.statistics.paired_comparison`). The claim holds if the
interval lies in the expected range, fails if it lies outside, and is inconclusive otherwise. A
claim that holds is explained by a control if the control has the share of the effect that
`Control.symmetry` names. Shares are of mean effects, with Fieller's interval; for effects that are
ratios, of logarithms.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bnn_symm.diagnostics.statistics.paired_comparison import (
    Estimate,
    estimate,
    pair_estimate,
    share_of_effect,
)
from bnn_symm.errors import InvalidData
from claims.claim import Claim, Contrast, Control, Expected, Term
from claims.rows import Rows, Unit

HOLDS, EXPLAINED = "holds", "holds, explained by a control"
FAILS, INCONCLUSIVE = "fails", "inconclusive"
VERDICTS = (HOLDS, EXPLAINED, FAILS, INCONCLUSIVE)
_HALF = 0.5


@dataclass(frozen=True, kw_only=True)
class ControlResult:
    """What a control has of the effect.

    Attributes:
        name: of the control.
        symmetry: `kept` or `removed`.
        share: of the effect; None if the effect is not significant.
        low: lower end of the interval of the share.
        high: upper end.
        explains: whether it explains the effect.
    """

    name: str
    symmetry: str
    share: float | None
    low: float | None
    high: float | None
    explains: bool


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict on a claim, as its file stores it.

    Attributes:
        claim: its name.
        digest: hash of the rule that was applied.
        verdict: one of `VERDICTS`.
        mean: of the effect.
        low: lower end of its 95 % interval.
        high: upper end.
        n: number of seeds, or of pairs that share none.
        kind: `seeds`, `pairs` or `pairs of seeds`.
        controls: what each control has of it.
    """

    claim: str
    digest: str
    verdict: str
    mean: float
    low: float
    high: float
    n: int
    kind: str
    controls: tuple[ControlResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the judgement as JSON types."""
        return asdict(self)


def judge(claim: Claim, rows: Rows) -> Judgement:
    """Return the verdict on a claim.

    Args:
        claim: the claim.
        rows: of its experiment.

    Returns:
        The verdict, with the effect and the shares of the controls.

    Raises:
        InvalidData: if the rows have no value of a term, or too few for an interval.
    """
    effect = _values(claim.effect, rows)
    found = _estimate(effect)
    logs = claim.effect.over is not None
    mean, low, high = (math.exp(x) if logs else x for x in _interval(claim.name, found))
    verdict = _verdict(claim.expected, low, high)
    controls = tuple(_control(control, effect, rows) for control in claim.controls)
    if verdict == HOLDS and any(control.explains for control in controls):
        verdict = EXPLAINED
    return Judgement(
        claim=claim.name,
        digest=claim.digest,
        verdict=verdict,
        mean=mean,
        low=low,
        high=high,
        n=found.n,
        kind=found.kind,
        controls=controls,
    )


def _verdict(expected: Expected, low: float, high: float) -> str:
    above = -math.inf if expected.above is None else expected.above
    below = math.inf if expected.below is None else expected.below
    if above < low and high < below:
        return HOLDS
    return FAILS if high <= above or low >= below else INCONCLUSIVE


def _control(control: Control, effect: Mapping[Any, float], rows: Rows) -> ControlResult:
    share = share_of_effect(_values(control.contrast, rows), effect)
    explains = share.value is not None and (
        share.value >= _HALF if control.symmetry == "kept" else share.value < _HALF
    )
    return ControlResult(
        name=control.name,
        symmetry=control.symmetry,
        share=share.value,
        low=share.low,
        high=share.high,
        explains=explains,
    )


def _values(contrast: Contrast, rows: Rows) -> dict[Any, float]:
    """Return the value of a contrast for each seed or pair of seeds that its terms share."""
    own = _term(contrast.of, rows)
    other = contrast.minus or contrast.over
    if other is None:
        return own
    theirs = _term(other, rows)
    common = sorted(own.keys() & theirs.keys())
    if not common:
        raise InvalidData(
            f"{contrast.of.setting}, {contrast.of.measure} and {other.setting}, {other.measure} "
            "have no seed in common"
        )
    if contrast.over is None:
        return {unit: own[unit] - theirs[unit] for unit in common}
    if any(values[unit] <= 0 for values in (own, theirs) for unit in common):
        raise InvalidData(f"a ratio of {contrast.of.measure} needs positive values")
    return {unit: math.log(own[unit] / theirs[unit]) for unit in common}


def _term(term: Term, rows: Rows) -> dict[Unit, float]:
    return {unit: term.times * value for unit, value in rows.values(term.setting, term.measure)}


def _estimate(values: Mapping[Any, float]) -> Estimate:
    has_pairs = any(isinstance(unit, tuple) for unit in values)
    return pair_estimate(values) if has_pairs else estimate(values.values())


def _interval(name: str, found: Estimate) -> tuple[float, float, float]:
    """Return the mean and the ends of its interval."""
    if found.mean is not None and found.sd == 0:
        return found.mean, found.mean, found.mean
    if found.mean is None or found.low is None or found.high is None:
        raise InvalidData(f"{name}: no interval of the effect: {found.reason}")
    return found.mean, found.low, found.high
