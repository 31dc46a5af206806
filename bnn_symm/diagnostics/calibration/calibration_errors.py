"""Compute calibration errors of class probabilities, for many resamples or simulations at once.

An error is a mean over bins of |accuracy - confidence|, which needs only the sum over the points of
a bin of `right - confidence`. Functions take these residuals as (resample, point): for a bootstrap,
the weight of the point times its residual; for a simulation, the residual of the simulated label.
They return one number per resample. The values are those of torchmetrics, which computes one
resample at a time, except for confidences of exactly 1, for which it has a separate bin.

The whole package uses one convention for bins of equal width, that of `numpy.histogram`: [0, 1/B),
[1/B, 2/B), ..., [(B-1)/B, 1]. An inner edge belongs to the bin above it, and the last bin is
closed, so that the most confident points share the bin of nearly as confident ones, as in Guo et
al. 2017. Probabilities are compared with the edges in single precision, so that 3/5 is on an edge
whatever its rounding.
"""

import numpy as np
import scipy
from jaxtyping import Float, Int

from bnn_symm.diagnostics.scores.ranking import tie_starts

# Bins of equal width of the expected calibration error, as in Guo et al. 2017 (arXiv:1706.04599).
NUM_BINS = 15

PerPoint = Float[np.ndarray, "resample point"]
PerResample = Float[np.ndarray, " resample"]


def equal_width_bins(
    confidence: Float[np.ndarray, "*point"], num_bins: int = NUM_BINS
) -> Int[np.ndarray, "*point"]:
    """Return the bin of every probability, 0 to `num_bins - 1`.

    Args:
        confidence: Probabilities; values outside of [0, 1] by rounding are in the first or the last
            bin.
        num_bins: Number of bins.

    Returns:
        Bin indices, with the edges of the module docstring.
    """
    edges = np.linspace(0, 1, num_bins + 1).astype(np.float32)
    bins = np.searchsorted(edges, np.asarray(confidence).astype(np.float32), side="right") - 1
    return np.clip(bins, 0, num_bins - 1)


def binned(
    values: PerPoint, bins: Int[np.ndarray, " point"], num_bins: int
) -> Float[np.ndarray, "resample bin"]:
    """Return the sums of the values over the points of every bin.

    Args:
        values: Values (resample, point).
        bins: Bin of every point.
        num_bins: Number of bins.

    Returns:
        Sums (resample, bin).
    """
    points = np.arange(len(bins))
    indicator = scipy.sparse.csr_matrix(
        (np.ones(len(bins)), (bins, points)), shape=(num_bins, len(bins))
    )
    return (indicator @ values.T).T


def expected_error(
    residuals: PerPoint, bins: Int[np.ndarray, " point"], total: float | PerResample
) -> PerResample:
    """Return the ECE: the mean over points of the |accuracy - confidence| of their bin.

    Args:
        residuals: Residuals (resample, point), see the module docstring.
        bins: Bin of every point.
        total: Total weight of the points.

    Returns:
        One error per resample.
    """
    return np.abs(binned(residuals, bins, NUM_BINS)).sum(1) / total


def maximum_error(
    residuals: PerPoint, weights: PerPoint, bins: Int[np.ndarray, " point"]
) -> PerResample:
    """Return the MCE: the largest |accuracy - confidence| of a nonempty bin.

    Args:
        residuals: Residuals (resample, point).
        weights: Counts (resample, point).
        bins: Bin of every point.

    Returns:
        One error per resample.
    """
    gap = np.abs(binned(residuals, bins, NUM_BINS))
    count = binned(weights, bins, NUM_BINS)
    return np.divide(gap, count, out=np.zeros_like(gap), where=count > 0).max(1)


def equal_mass_error(
    residuals: PerPoint,
    weights: PerPoint,
    confidence: Float[np.ndarray, " point"],
    num_bins: int = NUM_BINS,
) -> PerResample:
    """Return the adaptive ECE: bins with equally many points (Nixon et al. 2019, arXiv:1904.01685).

    Of n points in order of confidence the first n mod B bins contain one more than the others, as
    in `array_split`. Points of equal confidence (`ranking.tie_starts`) at a cut are divided in
    proportion, because their order is arbitrary.

    Args:
        residuals: Residuals (resample, point).
        weights: Counts (resample, point).
        confidence: Confidence of every point.
        num_bins: Number of bins.

    Returns:
        One error per resample.
    """
    order = np.argsort(confidence, kind="stable")
    starts = tie_starts(confidence[order])
    ends = np.append(starts[1:], len(order)) - 1
    mass = np.cumsum(weights[:, order], axis=1)[:, ends]
    summed = np.cumsum(residuals[:, order], axis=1)[:, ends]
    result = np.empty(len(weights))
    for resample in range(len(weights)):
        total = mass[resample, -1]
        if total == round(total):
            count = round(total)
            sizes = np.full(num_bins, count // num_bins) + (np.arange(num_bins) < count % num_bins)
            cuts = np.append(0, np.cumsum(sizes))
        else:  # with fractional weights of the points, exactly equal masses
            cuts = np.linspace(0, total, num_bins + 1)
        at_cuts = np.interp(cuts, np.append(0.0, mass[resample]), np.append(0.0, summed[resample]))
        result[resample] = np.abs(np.diff(at_cuts)).sum() / total
    return result


def class_wise_error(
    weights: PerPoint,
    probabilities: Float[np.ndarray, "point class"],
    targets: Float[np.ndarray, "point class"],
    bins: Int[np.ndarray, "point class"],
) -> PerResample:
    """Return the class-wise ECE: the mean over classes of the ECE of each class against the rest.

    Every class has equal weight; for a class without points, the error is its mean predicted
    probability (Kull et al. 2019, arXiv:1910.12656).

    Args:
        weights: Counts (resample, point).
        probabilities: Class probabilities.
        targets: 1 at the class of each point, else 0.
        bins: `equal_width_bins` of the probabilities.

    Returns:
        One error per resample.
    """
    points, classes = probabilities.shape
    residual = targets - probabilities
    rows = bins + NUM_BINS * np.arange(classes)
    columns = np.broadcast_to(np.arange(points)[:, None], rows.shape)
    shape = (NUM_BINS * classes, points)
    summed = (
        scipy.sparse.csr_matrix((residual.ravel(), (rows.ravel(), columns.ravel())), shape=shape)
        @ weights.T
    )
    return np.abs(summed).sum(0) / (classes * weights.sum(1))
