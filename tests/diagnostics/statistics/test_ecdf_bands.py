"""Bands and tests of ECDFs: their probabilities against simulation and against what is known in
closed form."""

import itertools

import numpy as np
import pytest
from scipy import stats

from bnn_symm.diagnostics.statistics.ecdf_bands import (
    ecdf,
    ecdf_band,
    symmetry_p_value,
    uniformity_p_value,
)
from bnn_symm.errors import ConfigError
from bnn_symm.randomness import numpy_generator

TRIALS = 3000


def within(share: float, probability: float, trials: int = TRIALS) -> bool:
    """Whether a share of so many trials is within four of its standard errors."""
    return abs(share - probability) <= 4 * np.sqrt(probability * (1 - probability) / trials)


@pytest.mark.parametrize(("number", "level"), [(10, 0.05), (100, 0.05), (250, 0.3)])
def test_the_whole_ecdf_stays_within_as_often_as_it_says(number, level):
    band = ecdf_band(number, level=level)
    assert 1 - level <= band.coverage <= 1 - level + 0.05
    uniform = numpy_generator(0, "uniform", number).random((TRIALS, number))
    held = np.array([band.holds(values) for values in uniform])
    assert within(held.mean(), band.coverage)


def test_with_many_numbers_the_band_is_not_wider_than_it_must_be():
    assert ecdf_band(1000, level=0.05).coverage == pytest.approx(0.95, abs=1e-3)


def test_coverage_of_one_point_is_a_binomial_probability():
    band = ecdf_band(40, level=0.1, num_points=2)
    assert list(band.points) == [0.5]
    low, high = round(band.lower[0] * 40), round(band.upper[0] * 40)
    assert band.coverage == pytest.approx(
        stats.binom.cdf(high, 40, 0.5) - stats.binom.cdf(low - 1, 40, 0.5), abs=1e-12
    )


def test_coverage_of_two_points_is_a_sum_over_multinomial_counts():
    band = ecdf_band(12, level=0.2, num_points=3)
    low, high = np.rint(band.lower * 12), np.rint(band.upper * 12)
    total = 0.0
    for first in range(13):
        for second in range(13 - first):
            if low[0] <= first <= high[0] and low[1] <= first + second <= high[1]:
                total += stats.multinomial.pmf(
                    [first, second, 12 - first - second], 12, [1 / 3] * 3
                )
    assert band.coverage == pytest.approx(total, abs=1e-12)


def test_an_ecdf_leaves_the_band_exactly_if_its_p_value_is_at_most_the_level():
    generator = numpy_generator(0, "band and test")
    for level in (0.3, 0.02):
        band = ecdf_band(60, level=level)
        samples = [generator.beta(a, 1.0, 60) for a in (0.6, 0.8, 1.0, 1.3) for _ in range(50)]
        held = [band.holds(values) for values in samples]
        assert held == [uniformity_p_value(values) > level for values in samples]
        assert 0 < sum(held) < len(held)


@pytest.mark.thorough
def test_p_values_of_uniform_numbers_are_those_of_a_test():
    uniform = numpy_generator(0, "p-values").random((TRIALS, 80))
    found = np.array([uniformity_p_value(values) for values in uniform])
    for level in (0.05, 0.2, 0.5):
        # Of a discrete statistic the probability is at most the level, and here not much below.
        share = (found <= level).mean()
        assert share <= level + 4 * np.sqrt(level * (1 - level) / TRIALS)
        assert share >= 0.8 * level - 4 * np.sqrt(level * (1 - level) / TRIALS)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (3.0, 3.0), (2.0, 1.0)])
def test_other_shapes_are_seen(a, b):
    values = numpy_generator(0, "shapes").beta(a, b, 200)
    assert uniformity_p_value(values) < 1e-3
    assert not ecdf_band(200, level=0.01).holds(values)


def test_far_from_uniform_the_p_value_is_tiny_and_positive():
    assert 0 < uniformity_p_value(np.full(200, 0.999)) < 1e-12


def test_symmetry_p_value_is_the_share_of_all_signs_that_go_as_far():
    values = numpy_generator(0, "signs").random(10)
    distance = np.sort(np.abs(values - 0.5))[::-1]

    def reach(signs: np.ndarray) -> float:
        own = 0.5 + signs * distance
        places = np.sort(np.concatenate([own, 1 - own]))
        return float(np.abs(ecdf(own, places) - ecdf(1 - own, places)).max())

    # The distance of Kolmogorov and Smirnov, with its distribution counted out over all 2^10 signs.
    every = np.array([reach(np.array(signs)) for signs in itertools.product((-1, 1), repeat=10)])
    seen = stats.ks_2samp(values, 1 - values).statistic
    assert symmetry_p_value(values) == pytest.approx((every >= seen - 1e-9).mean(), abs=1e-12)


def test_symmetric_numbers_pass_whatever_their_spread_and_skewed_ones_do_not():
    generator = numpy_generator(0, "symmetric")
    assert symmetry_p_value(generator.beta(0.3, 0.3, 300)) > 0.01
    assert symmetry_p_value(generator.beta(5.0, 5.0, 300)) > 0.01
    assert symmetry_p_value(generator.beta(1.5, 1.0, 300)) < 1e-3


@pytest.mark.thorough
def test_the_test_of_symmetry_keeps_its_level_where_that_of_two_samples_does_not():
    uniform = numpy_generator(0, "level").random((TRIALS, 100))
    assert np.mean([symmetry_p_value(values) <= 0.05 for values in uniform]) <= 0.05 + 4 * np.sqrt(
        0.05 * 0.95 / TRIALS
    )
    two_samples = np.mean([stats.ks_2samp(v, 1 - v).pvalue <= 0.05 for v in uniform[:1000]])
    assert two_samples > 0.05 + 4 * np.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize(("number", "level"), [(1, 0.05), (10, 0.0), (10, 1.0)])
def test_what_has_no_band_is_refused(number, level):
    with pytest.raises(ConfigError, match="use 2 numbers or more and a level between 0 and 1"):
        ecdf_band(number, level=level)
