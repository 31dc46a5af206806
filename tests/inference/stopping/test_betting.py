"""Confidence bounds by betting: errors of the first kind, width, and small cases by hand."""

import math

import numpy as np
import pytest

from bnn_symm.inference.stopping.betting import betting_interval, fewest_values

# Distributions in [-1, 1] and their means; the skewed ones are hard for intervals of normal form.
DISTRIBUTIONS = {
    "normal": (lambda rng, n: rng.normal(0.1, 0.1, n), 0.1),  # 9 sd from the bound
    "two points": (lambda rng, n: rng.choice([-1.0, 1.0], n), 0.0),
    "rare losses": (lambda rng, n: np.where(rng.random(n) < 0.05, -1.0, 0.05 / 0.95), 0.0),
    "rare gains": (lambda rng, n: np.where(rng.random(n) < 0.05, 1.0, -0.05 / 0.95), 0.0),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_each_bound_is_wrong_with_at_most_its_level(name):
    draw, mean = DISTRIBUTIONS[name]
    rng, delta, repetitions = np.random.default_rng(0), 0.1, 100
    intervals = [
        betting_interval(draw(rng, 60), bound=1.0, delta=delta) for _ in range(repetitions)
    ]
    # Four standard deviations of the number of errors at the level.
    most = repetitions * delta + 4 * math.sqrt(repetitions * delta * (1 - delta))
    assert sum(low > mean for low, _ in intervals) <= most
    assert sum(high < mean for _, high in intervals) <= most


def test_the_interval_of_many_values_is_nearly_that_of_their_standard_deviation():
    values = np.random.default_rng(0).normal(0.05, 0.2, 5000)
    low, high = betting_interval(values, bound=1.0, delta=0.025)
    assert low < values.mean() < high
    normal = 2 * 1.96 * 0.2 / math.sqrt(5000)
    # Up to two steps of the grid, of 0.002, and a factor of sqrt(2 log(1 / delta)) / 1.96 = 1.39.
    assert high - low < 1.6 * normal + 0.004


def test_values_beyond_the_bound_count_as_the_bound():
    values = np.random.default_rng(0).normal(0.0, 0.6, 200)
    clipped = np.clip(values, -0.5, 0.5)
    wanted = betting_interval(clipped, bound=0.5, delta=0.05)
    assert betting_interval(values, bound=0.5, delta=0.05) == wanted


def test_the_interval_of_reflected_values_is_reflected():
    values = np.random.default_rng(1).exponential(0.2, 100)
    low, high = betting_interval(values, bound=1.0, delta=0.05)
    assert betting_interval(-values, bound=1.0, delta=0.05) == (-high, -low)


def test_no_value_gives_no_information():
    assert betting_interval(np.array([]), bound=2.0, delta=0.05) == (-2.0, 2.0)


@pytest.mark.parametrize("margin", [0.02, 0.1])
def test_the_fewest_values_that_can_show_a_margin(margin):
    number = fewest_values(margin, bound=1.0, delta=0.01)
    # The capital of n zeros against the mean `margin`, with the largest bet 0.75 / (1 - margin).
    growth = math.log(1 + 0.75 * margin / (1 - margin))
    assert (number - 1) * growth < math.log(100) <= number * growth
    assert betting_interval(np.zeros(number - 1), bound=1.0, delta=0.01)[1] > margin - 1e-9
    assert betting_interval(np.zeros(number + 20), bound=1.0, delta=0.01)[1] <= margin + 0.002
