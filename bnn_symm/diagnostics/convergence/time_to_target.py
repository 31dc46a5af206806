r"""Compare the speed of runs over seeds, with censored times to a target.

For each group of runs the Kaplan-Meier curve S(t), the fraction that has not reached the target by
t, gives the median time (where S falls to one half) and the restricted mean,

    RMT = int_0^tau S(t) dt = E[min(T, tau)],    tau = the largest time up to which every group is
                                                 observed.

Paired by seed: both runs of a pair are observed for tau_i, the shorter of their budgets, so
min(T, tau_i) is known exactly for both, censored or not. The score of a pair is
log(min(A, tau_i) / min(B, tau_i)). If A and B are exchangeable within pairs its sign is a fair
coin, and the p-value is the fraction of sign flips whose mean is at least as far from zero. Nothing
is approximated, and a censored run counts with what is known of it: at least its budget. Two
censored runs score zero and are not informative. With n nonzero scores the p-value is at least 2 /
2^n.

Not paired: the log-rank test, whose normal approximation is rough for fewer than about ten runs per
group.

References:
    Kaplan & Meier 1958, doi:10.2307/2281868; Royston & Parmar 2013, doi:10.1186/1471-2288-13-152
    (restricted means); Mantel 1966 (log-rank); Fisher 1935, The Design of Experiments, chapter 3
    (sign flips).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from jaxtyping import Float, Int

from bnn_symm.diagnostics.convergence.convergence import TimeToTarget
from bnn_symm.randomness import numpy_generator

_LEVEL = 0.95
_RESAMPLES = 2000
# With fewer runs their spread is unknown.
MIN_RUNS = 3
# All sign flips are used up to this number (14 pairs); for more pairs, this number at random.
_FLIPS = 2**14


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with a 95 % bootstrap interval.

    Attributes:
        value: None if not defined, such as the median of mostly censored runs.
        low: Lower end; None for fewer than 3 runs.
        high: Upper end; None also if it is beyond the end of observation.
    """

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Times of one group of runs.

    Attributes:
        median: Kaplan-Meier median.
        restricted_mean: Mean of min(T, tau).
        tau: Restriction of the mean.
        num_runs: Number of runs.
        num_censored: Number of runs that never reached the target.
    """

    median: Interval
    restricted_mean: Interval
    tau: float
    num_runs: int
    num_censored: int


@dataclass(frozen=True, kw_only=True)
class SpeedTest:
    """Test of whether runs A are faster than runs B.

    Attributes:
        paired: Whether runs are paired by seed (sign flips) or not (log-rank).
        p_value: Two-sided; None if no run reached the target.
        smallest_p: Smallest possible p-value with this number of pairs; None for the log-rank test.
        ratio: Restricted mean of A over that of B, below 1 if A is faster.
        tau: Restriction of the means.
        num_first: Number of runs A, or of pairs.
        num_second: Number of runs B, or of pairs.
        num_informative: Number of pairs with nonzero scores; None for the log-rank test.
        num_censored: Numbers of runs A and B that never reached the target.
    """

    paired: bool
    p_value: float | None
    smallest_p: float | None
    ratio: Interval
    tau: float
    num_first: int
    num_second: int
    num_informative: int | None
    num_censored: tuple[int, int]


def median_time(times: Sequence[TimeToTarget]) -> float | None:
    """Return the Kaplan-Meier median; None if fewer than half of the runs reached the target.

    Args:
        times: Times of the runs.

    Returns:
        The median, or None.
    """
    median = float(_KaplanMeier(times).medians(_each_once(times))[0])
    return median if np.isfinite(median) else None


def restricted_mean(times: Sequence[TimeToTarget], tau: float) -> float:
    """Return the area under the Kaplan-Meier curve up to tau.

    Args:
        times: Times of the runs.
        tau: Restriction of the mean.

    Returns:
        The mean of min(T, tau).
    """
    return float(_KaplanMeier(times).restricted_means(_each_once(times), tau)[0])


class _KaplanMeier:
    """Kaplan-Meier curves of many resamples at once.

    `scipy.stats.ecdf` computes them one by one, which takes minutes. A resample is a row of counts
    of each run. At equal times, uncensored times come before censored ones, as usual.
    """

    def __init__(self, times: Sequence[TimeToTarget]):
        self._order = np.array(
            sorted(range(len(times)), key=lambda i: (times[i].time, times[i].censored))
        )
        self._times = np.array([times[i].time for i in self._order])
        self._reached = np.array([not times[i].censored for i in self._order])

    def _survival(self, counts: np.ndarray) -> np.ndarray:
        counts = counts[:, self._order]
        at_risk = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
        return np.cumprod(1 - counts * self._reached / np.maximum(at_risk, 1), axis=1)

    def medians(self, counts: Int[np.ndarray, "resample run"]) -> Float[np.ndarray, " resample"]:
        """Return the medians; infinite if a curve stays above one half."""
        below = self._survival(counts) <= 0.5 + 1e-12
        return np.where(below.any(1), self._times[below.argmax(1)], np.inf)

    def restricted_means(
        self, counts: Int[np.ndarray, "resample run"], tau: float
    ) -> Float[np.ndarray, " resample"]:
        """Return the areas under the curves up to tau."""
        survival = np.concatenate([np.ones((len(counts), 1)), self._survival(counts)], axis=1)
        edges = np.concatenate([[0.0], np.minimum(self._times, tau), [tau]])
        return survival @ np.diff(edges)


def watched_until(times: Sequence[TimeToTarget]) -> float:
    """Return the end of the Kaplan-Meier curve: the latest of the runs' times.

    Args:
        times: Times of the runs.

    Returns:
        The end of observation.
    """
    return max(time.time for time in times)


def common_restriction(groups: Sequence[Sequence[TimeToTarget]]) -> float:
    """Return tau for groups that are compared.

    The curve of a group is known until the end of observation of its last run, and beyond if no run
    is censored.

    Args:
        groups: Times of each group.

    Returns:
        The largest time up to which all groups are observed.
    """
    ends = [watched_until(times) for times in groups if any(time.censored for time in times)]
    return min(ends) if ends else max(watched_until(times) for times in groups)


def speed(times: Sequence[TimeToTarget], *, tau: float | None = None, seed: int = 0) -> Speed:
    """Return median and restricted mean of one group of runs, with bootstrap intervals.

    Args:
        times: Times of at least one run, censored ones included.
        tau: Restriction of the mean; default, the end of observation of these runs.
        seed: Seed of the bootstrap.

    Returns:
        Median and restricted mean, with intervals over runs.
    """
    end = common_restriction([times]) if tau is None else tau
    curve = _KaplanMeier(times)
    counts = _resamples(len(times), seed)
    return Speed(
        median=_interval(median_time(times), curve.medians(counts), len(times)),
        restricted_mean=_interval(
            restricted_mean(times, end), curve.restricted_means(counts, end), len(times)
        ),
        tau=end,
        num_runs=len(times),
        num_censored=sum(time.censored for time in times),
    )


def compare_paired(
    first: Sequence[TimeToTarget], second: Sequence[TimeToTarget], *, seed: int = 0
) -> SpeedTest:
    """Compare paired runs by the sign-flip test and the ratio of restricted means.

    Args:
        first: Times of A.
        second: Times of B, in the same order of seeds.
        seed: Seed of the bootstrap over pairs, and of random sign flips.

    Returns:
        The test.
    """
    scores = paired_scores(first, second)
    informative = int(np.count_nonzero(scores))
    tau = common_restriction([first, second])
    return SpeedTest(
        paired=True,
        p_value=sign_flip_p_value(scores, seed=seed) if informative else None,
        smallest_p=smallest_p_value(informative),
        ratio=_ratio(first, second, tau, seed, paired=True),
        tau=tau,
        num_first=len(first),
        num_second=len(second),
        num_informative=informative,
        num_censored=(sum(time.censored for time in first), sum(time.censored for time in second)),
    )


def compare_unpaired(
    first: Sequence[TimeToTarget], second: Sequence[TimeToTarget], *, seed: int = 0
) -> SpeedTest:
    """Compare unpaired runs by the log-rank test and the ratio of restricted means.

    Args:
        first: Times of A.
        second: Times of B.
        seed: Seed of the bootstrap, which resamples A and B separately.

    Returns:
        The test.
    """
    tau = common_restriction([first, second])
    p_value = None
    if not all(time.censored for time in (*first, *second)):
        with np.errstate(invalid="ignore", divide="ignore"):
            p = float(scipy.stats.logrank(_censored_data(first), _censored_data(second)).pvalue)
        p_value = p if np.isfinite(p) else None
    return SpeedTest(
        paired=False,
        p_value=p_value,
        smallest_p=None,
        ratio=_ratio(first, second, tau, seed, paired=False),
        tau=tau,
        num_first=len(first),
        num_second=len(second),
        num_informative=None,
        num_censored=(sum(time.censored for time in first), sum(time.censored for time in second)),
    )


def paired_scores(
    first: Sequence[TimeToTarget], second: Sequence[TimeToTarget]
) -> Float[np.ndarray, " pair"]:
    """Return log(min(A, tau_i) / min(B, tau_i)) per pair; negative if A is faster.

    Args:
        first: Times of A.
        second: Times of B, in the same order of seeds.

    Returns:
        Scores; tau_i is the shorter of the two budgets of a pair.
    """
    scores = []
    for a, b in zip(first, second, strict=True):
        # Use budgets, not the times reached within them: a cut that depended on which of the two
        # was slow would favor one.
        end = min(a.budget, b.budget)
        # A clock may begin at zero seconds.
        mine, theirs = (max(min(time.time, end), 1e-12) for time in (a, b))
        scores.append(float(np.log(mine / theirs)))
    return np.array(scores)


def sign_flip_p_value(scores: Float[np.ndarray, " pair"], *, seed: int = 0) -> float:
    """Return the two-sided p-value of the mean against all sign flips.

    It is exact up to 14 pairs, and uses 16,384 random flips for more.

    Args:
        scores: Scores of the pairs; zeros are not informative.
        seed: Seed of random flips.

    Returns:
        The p-value.
    """
    nonzero = scores[scores != 0]
    if nonzero.size < 2:
        return 1.0  # either sign is as far from zero
    # By keyword: the name changed with SciPy 1.15, which still accepts the old one.
    generator: dict[str, Any] = {"random_state": numpy_generator(seed, "sign flips")}
    result = scipy.stats.permutation_test(
        (nonzero,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_FLIPS,
        **generator,
    )
    return float(result.pvalue)


def smallest_p_value(num_pairs: int) -> float:
    """Return the smallest two-sided p-value of sign flips of this number of pairs; 5: 1/16.

    Args:
        num_pairs: Number of informative pairs.

    Returns:
        The p-value; 1 without pairs.
    """
    return max(2.0 ** (1 - num_pairs), 2 / _FLIPS) if num_pairs else 1.0


def pairs_needed(num_comparisons: int) -> int:
    """Return the number of pairs whose sign flips can give p <= 0.05 after adjustment.

    Args:
        num_comparisons: Number of comparisons of the adjustment.
    """
    return min(14, math.ceil(1 + math.log2(num_comparisons / 0.05)))


def adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted by Holm's method for several comparisons; None stays None.

    Args:
        p_values: One p-value per comparison.

    Returns:
        Adjusted p-values in the same order.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    result: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        result[i] = largest
    return result


def _censored_data(times: Sequence[TimeToTarget]) -> "scipy.stats.CensoredData":
    return scipy.stats.CensoredData(
        uncensored=[time.time for time in times if not time.censored],
        right=[time.time for time in times if time.censored],
    )


def _ratio(
    first: Sequence[TimeToTarget],
    second: Sequence[TimeToTarget],
    tau: float,
    seed: int,
    *,
    paired: bool,
) -> Interval:
    below = restricted_mean(second, tau)
    if below == 0:
        return Interval(value=None, low=None, high=None)
    mine = _resamples(len(first), seed)
    theirs = mine if paired else _resamples(len(second), seed, "second")
    means = [
        _KaplanMeier(own).restricted_means(counts, tau)
        for own, counts in ((first, mine), (second, theirs))
    ]
    ratios = means[0] / np.where(means[1] > 0, means[1], np.nan)
    return _interval(restricted_mean(first, tau) / below, ratios, min(len(first), len(second)))


def _each_once(times: Sequence[TimeToTarget]) -> np.ndarray:
    return np.ones((1, len(times)), dtype=np.int64)


def _resamples(size: int, seed: int, *key: str) -> np.ndarray:
    """Return (resample, run): how often each run is drawn, with replacement."""
    generator = numpy_generator(seed, "bootstrap over runs", *key)
    return generator.multinomial(size, np.full(size, 1 / size), size=_RESAMPLES)


def _interval(value: float | None, draws: np.ndarray, num_runs: int) -> Interval:
    """Return percentiles of a bootstrap; an infinite end is beyond observation, and None."""
    if num_runs < MIN_RUNS or value is None:
        return Interval(value=value, low=None, high=None)
    defined = draws[~np.isnan(draws)]
    ends = np.quantile(defined, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], method="inverted_cdf")
    low, high = (float(end) if np.isfinite(end) else None for end in ends)
    return Interval(value=value, low=low, high=high)
