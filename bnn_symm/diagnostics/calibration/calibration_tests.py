"""Test calibration by simulation from the predictions.

The calibration error of finitely many points is never 0, because it averages absolute values of
noise. It is therefore compared with that of a calibrated model with the same predictions: targets
are drawn from the predictions, and the error is computed for each set of targets (consistency
resampling; Bröcker and Smith 2007, doi:10.1175/WAF993.1). For classes, a prediction of confidence c
is right with probability c; for numbers, the PIT are independent and uniform for any predictions.

Two quantities are compared: the calibration error, and the mean gap, which has a sign and detects a
small gap that all points share: for classes confidence minus accuracy, for numbers 0.9 minus the
fraction of targets within the central 90 %. Each has half of the false alarms, so a calibrated
model passes with a probability of at least `level`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from bnn_symm.diagnostics.calibration.calibration_errors import equal_width_bins, expected_error
from bnn_symm.diagnostics.scores.point_predictions import (
    ClassPredictions,
    NumberPredictions,
    OneTarget,
    TimePredictions,
)
from bnn_symm.diagnostics.scores.regression import quantile_calibration_error
from bnn_symm.diagnostics.statistics.evidence import Evidence
from bnn_symm.formatting import number
from bnn_symm.randomness import numpy_generator

# Numbers in memory at once (8 MB in float64).
_NUMBERS_AT_ONCE = 2**20
# Sums in another order differ by less than this.
_ROUNDING = 1e-12
# Fewer points show gross errors only.
_FEW_POINTS = 20
# Width of the central interval whose coverage defines the gap of numbers.
_CENTRAL = 0.9


@dataclass(frozen=True, kw_only=True)
class CalibrationTest:
    """A calibration error and a mean gap, compared with those of a calibrated model.

    Attributes:
        error: `ece` or `qce`.
        value: Error of the predictions.
        expected: Mean of the simulated errors.
        threshold: Upper limit of the error of a calibrated model.
        p_value: Fraction of simulated errors, including the value itself, that are at least the
            value (Davison and Hinkley 1997, section 4.2).
        gap: Mean gap, positive for an overconfident model (see the module docstring).
        gap_low: Lower limit of the gap of a calibrated model.
        gap_high: Upper limit.
        num_simulations: Number of simulated sets of targets.
        level: Probability that a calibrated model passes.
        verdict: Description, built from `decisive`.
    """

    error: str
    value: float
    expected: float
    threshold: float
    p_value: float
    gap: float
    gap_low: float
    gap_high: float
    num_simulations: int
    level: float
    verdict: str = ""

    @property
    def evidence_of_error(self) -> Evidence:
        """Return the calibration error and its limit for a calibrated model."""
        return Evidence(measure="value", value=self.value, high=self.threshold + _ROUNDING)

    @property
    def evidence_of_gap(self) -> Evidence:
        """Return the mean gap and its limits for a calibrated model."""
        return Evidence(
            measure="gap",
            value=self.gap,
            low=self.gap_low - _ROUNDING,
            high=self.gap_high + _ROUNDING,
        )

    @property
    def decisive(self) -> tuple[Evidence, ...]:
        """Return the evidence outside of its limits; all of it for a calibrated model."""
        both = (self.evidence_of_gap, self.evidence_of_error)
        return tuple(evidence for evidence in both if not evidence.is_inside) or both

    @property
    def direction(self) -> str:
        """Return the direction of the gap: `overconfident`, `underconfident` or `neither`."""
        gap = self.evidence_of_gap
        if gap.is_inside:
            return "neither"
        return "overconfident" if gap.limit == gap.high else "underconfident"

    @property
    def is_calibrated(self) -> bool:
        """Return whether error and gap are within their limits for a calibrated model."""
        return self.evidence_of_error.is_inside and self.evidence_of_gap.is_inside

    def to_dict(self) -> dict[str, Any]:
        """Return the test as JSON types."""
        return {
            **vars(self),
            "direction": self.direction,
            "calibrated": self.is_calibrated,
            "decided_by": [evidence.to_dict() for evidence in self.decisive],
        }


def calibration_test(
    predictions: OneTarget,
    *,
    num_simulations: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> CalibrationTest:
    """Test the expected (classes) or quantile (numbers) calibration error of predictions.

    Args:
        predictions: Predictions at some points.
        num_simulations: Number of simulated sets of targets.
        level: Probability that a calibrated model passes.
        seed: Seed of the simulated targets.

    Returns:
        The test and its verdict.

    Raises:
        ValueError: If there are no points, or the level or number of simulations is out of range.
    """
    if num_simulations < 1 or not 0 < level < 1 or len(predictions) == 0:
        raise ValueError(
            "expected at least one simulation, a level between 0 and 1 and at least one point; got "
            f"{num_simulations}, {level:g} and {len(predictions)}"
        )
    if isinstance(predictions, ClassPredictions):
        (value, gap), (errors, gaps) = _classes(predictions, num_simulations, seed)
    else:
        (value, gap), (errors, gaps) = _numbers(predictions, num_simulations, seed)
    tail = (1 - level) / 2
    gap_low, gap_high = np.quantile(gaps, [tail / 2, 1 - tail / 2])
    test = CalibrationTest(
        error="ece" if isinstance(predictions, ClassPredictions) else "qce",
        value=value,
        expected=float(errors.mean()),
        threshold=float(np.quantile(errors, 1 - tail)),
        p_value=float((1 + (errors >= value - _ROUNDING).sum()) / (1 + num_simulations)),
        gap=gap,
        gap_low=float(gap_low),
        gap_high=float(gap_high),
        num_simulations=num_simulations,
        level=level,
    )
    return replace(test, verdict=_verdict(test, len(predictions)))


def _classes(
    predictions: ClassPredictions, num_simulations: int, seed: int
) -> tuple[tuple[float, float], tuple[np.ndarray, np.ndarray]]:
    """Return error and gap of the predictions, and of simulated sets of targets."""
    confidence = predictions.probabilities.max(1)
    bins, points = equal_width_bins(confidence), len(confidence)

    def both(right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        residual = right - confidence
        return expected_error(residual, bins, float(points)), -residual.mean(1)

    value, gap = both((predictions.probabilities.argmax(1) == predictions.y)[None])
    generator = numpy_generator(seed, "labels of a calibrated model")
    pairs = [
        both(generator.uniform(size=(size, points)) < confidence)
        for size in _sizes(num_simulations, points)
    ]
    errors, gaps = (np.concatenate(own) for own in zip(*pairs, strict=True))
    return (float(value[0]), float(gap[0])), (errors, gaps)


def _numbers(
    predictions: NumberPredictions | TimePredictions, num_simulations: int, seed: int
) -> tuple[tuple[float, float], tuple[np.ndarray, np.ndarray]]:
    points = len(predictions)
    ones = np.ones((1, points))

    def both(pit: Float[np.ndarray, " point"]) -> tuple[float, float]:
        central = np.abs(pit - 0.5) <= _CENTRAL / 2
        return float(quantile_calibration_error(ones, pit)[0]), float(_CENTRAL - central.mean())

    generator = numpy_generator(seed, "targets of a calibrated model")
    pairs = [both(generator.uniform(size=points)) for _ in range(num_simulations)]
    errors, gaps = np.array(pairs).T
    return both(predictions.pit), (errors, gaps)


def _sizes(total: int, points: int) -> list[int]:
    at_once = max(1, _NUMBERS_AT_ONCE // points)
    return [min(at_once, total - start) for start in range(0, total, at_once)]


def _verdict(test: CalibrationTest, points: int) -> str:
    """Return the verdict: first the evidence that decided it, then the rest."""
    gap, error = _describe_gap(test), _describe_error(test)
    if test.is_calibrated:
        few = "; this few show gross errors only" if points < _FEW_POINTS else ""
        count = f"{points} {'point' if points == 1 else 'points'}"
        return f"no miscalibration detected with {count}: {gap}; {error}{few}"
    if test.direction == "neither":
        return f"miscalibrated, but neither over- nor underconfident: {error}; {gap}"
    return f"{test.direction}: {gap}; {error}"


def _describe_gap(test: CalibrationTest) -> str:
    """Return the gap and its limits, which decide over- and underconfidence."""
    gap = test.evidence_of_gap
    if test.error == "ece":
        return f"confidence minus accuracy is {gap.describe()} on average"
    assert gap.low is not None
    assert gap.high is not None
    value, low, high = (100 * (_CENTRAL - number) for number in (gap.value, gap.high, gap.low))
    share = Evidence(measure="gap", value=value, low=low, high=high)
    return f"the central {100 * _CENTRAL:.0f} % contain {share.describe(' %')} of the targets"


def _describe_error(test: CalibrationTest) -> str:
    """Return the calibration error and its limit."""
    name = {"ece": "expected calibration error", "qce": "quantile calibration error"}[test.error]
    mean = f"{number(test.expected)} on average for a calibrated model"
    return f"{name} {test.evidence_of_error.describe()}, {mean}"
