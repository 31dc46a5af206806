r"""Smooth a noisy curve by local lines of adaptive width, with standard errors.

At row i a line is fitted to the 2k + 1 rows around it (fewer at the ends, where the line keeps it
unbiased),

    s_i = mean(y) + slope (i - mean(j)),
    Var(s_i) = sigma_i^2 (1 / m + (i - mean(j))^2 / sum (j - mean(j))^2),

for k = 0, 1, 2, 4, ... (0: the row itself). Among the k whose interval s_i +- 2.5 sd(s_i)
intersects those of all narrower ones, the second widest is used: at the widest, the bias from
curvature is as large as the standard error, which would be too small. The steep beginning of a fit
is therefore hardly smoothed, and its flat end is averaged over many rows. Rows count, not their
times: the smoothed values are the same for every clock.

sigma_i is the median of second differences |y_{j-1} - 2 y_j + y_{j+1}| / sqrt(6) among the rows
around i, over 0.6745 (the median of |N(0, 1)|). They do not detect correlated neighbors, so
standard errors are multiplied by sqrt((1 + r) / (1 - r)), r being the correlation of neighboring
residuals. Two standard errors on either side cover an exponential with independent noise about nine
times in ten. Noise that is correlated over many rows looks like signal, and the errors are then too
small.

References:
    Goldenshluger & Nemirovski 1997, Mathematical Methods of Statistics 6 (intersecting intervals);
    Gasser, Sroka & Jennen-Steinmetz 1986, doi:10.1093/biomet/73.3.625 (second differences).
"""

from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Float

# Half width, in standard deviations, of the intervals that have to intersect.
_MEET = 2.5
# The median of |z| of a standard normal z.
_MEDIAN_ABSOLUTE = 0.6745
# Number of rows whose second differences estimate the noise of a row.
_NOISE_ROWS = 31
# A larger correlation of neighboring residuals is not noise.
_MOST_CORRELATION = 0.9


@dataclass(frozen=True, kw_only=True)
class Smoothed:
    """A curve without its noise.

    Attributes:
        values: (row,).
        standard_error: (row,), of `values`.
        noise: (row,), standard deviation of a single row.
    """

    values: Float[np.ndarray, " row"]
    standard_error: Float[np.ndarray, " row"]
    noise: Float[np.ndarray, " row"]


def smooth(values: Float[np.ndarray, " row"]) -> Smoothed:
    """Smooth one curve; with fewer than 5 rows the values are unchanged.

    Args:
        values: Values of the rows.

    Returns:
        Smoothed values, their standard errors and the noise.
    """
    size = len(values)
    noise = _noise(values)
    if size < 5:
        return Smoothed(values=values.astype(np.float64), standard_error=noise, noise=noise)
    fits = [(values.astype(np.float64), noise)]
    low, high = values - _MEET * noise, values + _MEET * noise
    widest = np.zeros(size, dtype=int)
    growing = np.ones(size, dtype=bool)
    half = 1
    while half < size and growing.any():
        fitted, variance = _lines(values, half)
        fits.append((fitted, noise * np.sqrt(variance)))
        low = np.maximum(low, fitted - _MEET * fits[-1][1])
        high = np.minimum(high, fitted + _MEET * fits[-1][1])
        growing &= low <= high
        widest += growing
        half *= 2
    chosen = np.maximum(widest - 1, 0)
    best, error = (np.array(every)[chosen, np.arange(size)] for every in zip(*fits, strict=True))
    return Smoothed(
        values=best, standard_error=error * _widening(values - best, noise), noise=noise
    )


def _noise(values: np.ndarray) -> np.ndarray:
    if len(values) < 3:
        return np.zeros(len(values))
    differences = np.abs(np.diff(values, 2)) / np.sqrt(6)
    rows = min(_NOISE_ROWS, len(differences) // 2 * 2 + 1)
    noise = scipy.ndimage.median_filter(differences, size=rows, mode="nearest") / _MEDIAN_ABSOLUTE
    return np.pad(noise, 1, mode="edge")


def _lines(values: np.ndarray, half: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the local line at each row, and its variance in units of the noise variance."""
    size = len(values)
    row = np.arange(size)
    first, last = np.maximum(row - half, 0), np.minimum(row + half, size - 1)
    count = last - first + 1
    middle = (first + last) / 2
    # Centered, so that sums of large numbers lose no digits.
    center = values.mean()
    sums = np.concatenate([[0.0], np.cumsum(values - center)])
    moments = np.concatenate([[0.0], np.cumsum(row * (values - center))])
    total = sums[last + 1] - sums[first]
    moment = moments[last + 1] - moments[first] - middle * total
    spread = count * (count**2 - 1) / 12
    offset = row - middle
    return center + total / count + moment / spread * offset, 1 / count + offset**2 / spread


def _widening(residuals: np.ndarray, noise: np.ndarray) -> float:
    """Return the factor on standard errors for correlated neighboring residuals; at least 1."""
    scaled = residuals / np.where(noise > 0, noise, 1.0)
    square = float((scaled**2).sum())
    correlation = float((scaled[1:] * scaled[:-1]).sum()) / square if square > 0 else 0.0
    correlation = min(max(correlation, 0.0), _MOST_CORRELATION)
    return float(np.sqrt((1 + correlation) / (1 - correlation)))
