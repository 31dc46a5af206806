r"""How fast runs are, over seeds, and whether one kind is faster than another: times of which some
are censored.

Of each kind of run the Kaplan-Meier curve S(t), the share that has not reached the target by t,
gives the median time (where S falls to one half) and the restricted mean, the mean time with
nothing counted beyond tau,

    RMT = int_0^tau S(t) dt = E[min(T, tau)],    tau = the largest time until which every kind is
    watched.

Paired by seed: both runs of a pair are watched for tau_i, the shorter of their two budgets, so
    min(T, tau_i) is known
exactly for both, reached or not. The score of a pair is log(min(A, tau_i) / min(B, tau_i)); if A
and B are exchangeable within pairs its sign is a coin, and the p-value is the share of sign flips
whose mean is as far from zero. Nothing is approximated, and a run that never got there counts for
what is known of it: at least its budget. Two runs that both never got there score zero, and say
nothing. With n scores that are not zero no p-value is below 2 / 2^n.

Not paired: the log-rank test, whose normal approximation is rough for fewer than about ten runs a
    kind.

References:
    Kaplan & Meier 1958, doi:10.2307/2281868; Royston & Parmar 2013, doi:10.1186/1471-2288-13-152
    (restricted means); Mantel 1966 (log-rank); Fisher 1935, The Design of Experiments, chapter 3
    (sign flips).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from bnn_symm.diagnostics.convergence.convergence import TimeToTarget
from bnn_symm.randomness import numpy_generator

_LEVEL = 0.95
_RESAMPLES = 2000
# Fewer runs do not say how far runs lie apart.
MIN_RUNS = 3
# All sign flips are taken up to this many (14 pairs); of more pairs, so many at random.
_FLIPS = 2**14


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with a 95 % bootstrap interval.

    Attributes:
        value: the estimate; None if there is none, such as the median where most runs never got
            there.
        low: None for fewer than 3 runs.
        high: None too where it lies beyond what was watched.
    """

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Times of one kind of run.

    Attributes:
        median: Kaplan-Meier.
        restricted_mean: mean of min(T, tau).
        tau: to which it is restricted.
        num_runs: behind it.
        num_censored: of these, that never reached the target.
    """

    median: Interval
    restricted_mean: Interval
    tau: float
    num_runs: int
    num_censored: int


@dataclass(frozen=True, kw_only=True)
class SpeedTest:
    """Whether runs A are faster than runs B.

    Attributes:
        paired: by seed (sign flips), or not (log-rank).
        p_value: two-sided; None where nothing was ever reached by either.
        smallest_p: the smallest p-value that so few pairs can give; None for the log-rank test.
        ratio: restricted mean of A over that of B, below 1 where A is faster.
        tau: to which the means are restricted.
        num_first: runs A, or pairs.
        num_second: runs B, or pairs.
        num_informative: pairs whose scores are not zero; None for the log-rank test.
        num_censored: of A and of B, runs that never reached the target.
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
    """The Kaplan-Meier median; None if fewer than half of the runs are known to have got there."""
    found = float(_KaplanMeier(times).medians(_each_once(times))[0])
    return found if np.isfinite(found) else None


def restricted_mean(times: Sequence[TimeToTarget], tau: float) -> float:
    """The area under the Kaplan-Meier curve up to tau."""
    return float(_KaplanMeier(times).restricted_means(_each_once(times), tau)[0])


class _KaplanMeier:
    """Kaplan-Meier curves of many resamples at once; `scipy.stats.ecdf` takes them one by one, for
    minutes.

    A resample is a row of counts, how often each run is in it. Where times are equal, those that
    were reached come before those that were not, as usual.
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
        """Infinite where a curve stays above one half."""
        below = self._survival(counts) <= 0.5 + 1e-12
        return np.where(below.any(1), self._times[below.argmax(1)], np.inf)

    def restricted_means(
        self, counts: Int[np.ndarray, "resample run"], tau: float
    ) -> Float[np.ndarray, " resample"]:
        """Areas up to tau."""
        survival = np.concatenate([np.ones((len(counts), 1)), self._survival(counts)], axis=1)
        edges = np.concatenate([[0.0], np.minimum(self._times, tau), [tau]])
        return survival @ np.diff(edges)


def watched_until(times: Sequence[TimeToTarget]) -> float:
    """The time until which the Kaplan-Meier curve is known: the latest of the runs' times."""
    return max(time.time for time in times)


def common_restriction(groups: Sequence[Sequence[TimeToTarget]]) -> float:
    """Tau for groups that are compared.

    Each group's curve is known until its last run is watched no longer, and, if all of its runs got
    there, beyond.
    """
    ends = [watched_until(times) for times in groups if any(time.censored for time in times)]
    return min(ends) if ends else max(watched_until(times) for times in groups)


def speed(times: Sequence[TimeToTarget], *, tau: float | None = None, seed: int = 0) -> Speed:
    """Median and restricted mean of one kind of run, censored runs included, with bootstrap
    intervals over runs.

    Args:
        times: at least one.
        tau: default as far as these runs are watched.
        seed: of the bootstrap.
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
    """Sign-flip test on pairs, and the ratio of restricted means, whose bootstrap draws whole
    pairs.

    Args:
        first: times of A.
        second: times of B, in the same order of seeds.
        seed: of the bootstrap, and of sign flips if there are too many to take all.
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
    """Log-rank test, and the ratio of restricted means, whose bootstrap draws A and B apart."""
    tau = common_restriction([first, second])
    p_value = None
    if not all(time.censored for time in (*first, *second)):
        with np.errstate(invalid="ignore", divide="ignore"):
            found = float(stats.logrank(_censored_data(first), _censored_data(second)).pvalue)
        p_value = found if np.isfinite(found) else None
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
    """log(min(A, tau_i) / min(B, tau_i)), tau_i the shorter of the pair's two budgets; below 0
    where A is faster.
    """
    scores = []
    for a, b in zip(first, second, strict=True):
        # Budgets, not what was reached within them: a cut that depended on which of the two was
        # slow would favor one.
        end = min(a.budget, b.budget)
        # A clock may begin at zero seconds.
        mine, theirs = (max(min(time.time, end), 1e-12) for time in (a, b))
        scores.append(float(np.log(mine / theirs)))
    return np.array(scores)


def sign_flip_p_value(scores: Float[np.ndarray, " pair"], *, seed: int = 0) -> float:
    """Two-sided p-value of the mean against all flips of signs: exact up to 14 pairs, then by
    16,384 random flips.
    """
    told = scores[scores != 0]
    if told.size < 2:
        return 1.0  # either sign is as far from zero
    # By keyword: the generator's name changed with SciPy 1.15, which still takes the old one.
    generator: dict[str, Any] = {"random_state": numpy_generator(seed, "sign flips")}
    found = stats.permutation_test(
        (told,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_FLIPS,
        **generator,
    )
    return float(found.pvalue)


def smallest_p_value(num_pairs: int) -> float:
    """The smallest two-sided p-value that sign flips of so many pairs can give; 5 pairs: 1/16."""
    return max(2.0 ** (1 - num_pairs), 2 / _FLIPS) if num_pairs else 1.0


def adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's p-values: that any of several comparisons is called a difference by chance, if there
    is none.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    result: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        result[i] = largest
    return result


def _censored_data(times: Sequence[TimeToTarget]) -> stats.CensoredData:
    return stats.CensoredData(
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
    """(resample, run): how often each run is drawn, with replacement."""
    generator = numpy_generator(seed, "bootstrap over runs", *key)
    return generator.multinomial(size, np.full(size, 1 / size), size=_RESAMPLES)


def _interval(value: float | None, draws: np.ndarray, num_runs: int) -> Interval:
    """Percentiles of a bootstrap; an end that is infinite lies beyond all that was watched, and is
    None.
    """
    if num_runs < MIN_RUNS or value is None:
        return Interval(value=value, low=None, high=None)
    told = draws[~np.isnan(draws)]
    ends = np.quantile(told, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], method="inverted_cdf")
    low, high = (float(end) if np.isfinite(end) else None for end in ends)
    return Interval(value=value, low=low, high=high)
