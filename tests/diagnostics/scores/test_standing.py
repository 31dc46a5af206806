"""A model is worse or better than a baseline beyond two standard errors of paired differences."""

import math

import numpy as np
import pytest
from scipy import stats

from bnn_symm.diagnostics.scores.standing import Standing, baseline_warnings, nll_difference

RNG = np.random.default_rng(0)
HARD = RNG.normal(size=400)  # how hard a point is, which both models find


def log_prob(gain: float) -> np.ndarray:
    """Return log probabilities that are higher by a gain, with noise that is not shared."""
    return -5 * HARD + gain + 0.1 * np.random.default_rng(1).normal(size=400)


@pytest.mark.parametrize(
    ("gain", "kind"),
    [(0.05, Standing.BETTER), (0.0, Standing.ALIKE), (-0.05, Standing.WORSE)],
)
def test_the_rule_is_that_of_a_paired_t_statistic_of_two(gain, kind):
    baseline = -5 * HARD
    found = nll_difference(log_prob(gain), baseline)
    reference = stats.ttest_rel(-log_prob(gain), -baseline)
    assert found.difference / found.standard_error == pytest.approx(reference.statistic)
    assert found.kind is kind
    assert found.nll == pytest.approx(-baseline.mean())
    # Not paired, differences of this size would never count.
    assert abs(found.difference) < np.std(baseline) / math.sqrt(400)
    assert found.to_dict()["standing"] == kind.name.lower()


def test_both_sides_of_the_limit():
    differences = np.array([0.0, 1.0, 2.0, 3.0])
    error = differences.std(ddof=1) / 2
    for shift, kind in ((1e-9, Standing.WORSE), (-1e-9, Standing.ALIKE)):
        baseline = differences - differences.mean() + 2 * error + shift
        assert nll_difference(np.zeros(4), baseline).kind is kind
        opposite = {Standing.WORSE: Standing.BETTER}.get(kind, kind)
        assert nll_difference(np.zeros(4), -baseline).kind is opposite


def test_infinite_terms_and_single_points():
    zero, impossible = np.zeros(3), np.array([0.0, -np.inf, 0.0])
    assert nll_difference(impossible, zero).kind is Standing.WORSE
    assert nll_difference(zero, impossible).kind is Standing.BETTER
    both = nll_difference(impossible, impossible)
    assert (both.kind, both.difference, both.standard_error) == (Standing.ALIKE, None, None)
    assert nll_difference(np.array([-9.0]), np.array([0.0])).kind is Standing.ALIKE


def test_points_of_a_weight_count_as_so_many_and_the_error_is_over_points():
    first, second = np.array([0.0, 1.0, 3.0]), np.array([0.5, 0.0, 1.0])
    weight = np.array([1.0, 3.0, 0.0])
    found = nll_difference(first, second, weight)
    assert found.difference == pytest.approx((0.5 - 3) / 4)
    assert found.nll == pytest.approx(-0.5 / 4)
    same = nll_difference(first, second, np.full(3, 7.0))
    plain = nll_difference(first, second)
    assert same.standard_error == pytest.approx(plain.standard_error)
    unit = nll_difference(first, second, 10 * weight)
    assert unit.standard_error == pytest.approx(found.standard_error)
    assert nll_difference(first, second, np.zeros(3)).difference is None


def test_there_is_a_sentence_for_each_baseline_that_is_not_beaten():
    compared = {
        name: nll_difference(log_prob(gain), -5 * HARD)
        for name, gain in (("a", 0.05), ("b", 0.0), ("c", -0.05))
    }
    b, c = baseline_warnings(1.0, compared)
    assert "not distinguishable from b" in b
    assert "worse than c" in c
