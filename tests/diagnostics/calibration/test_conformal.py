"""Conformal regions contain the target at their level, whatever the model is."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from bnn_symm.data import Split
from bnn_symm.diagnostics.calibration.conformal import (
    calibrate,
    check_size,
    conformal_quantile,
    rank,
    smallest_sets,
    uniform_of_inputs,
)
from bnn_symm.diagnostics.calibration.region_coverage import region_coverage
from bnn_symm.errors import ConfigError, InvalidData
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Poisson, Prior
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.randomness import numpy_generator

LEVEL, CALIBRATION, NEW, REPETITIONS = 0.9, 30, 60, 25


def posterior_of(likelihood, outputs: int, flat) -> SamplePosterior:
    model = BayesianModel(torch.nn.Linear(1, outputs).double(), Prior(), likelihood)
    return SamplePosterior.from_draws(model, torch.tensor(flat).double()[None])


# Overconfident: noise of 0.3 where the targets have one of 1 + |x| with heavy tails.
NUMBERS = posterior_of(Gaussian(noise=0.3), 1, [[0.9, 0.1], [1.1, -0.1]])
# Overconfident: four of ten labels are random.
SURE = [12.0, -12, 0.3, 0, 1, 1, 0, 0.2]
CLASSES = posterior_of(Categorical(), 4, [SURE, [0.9 * own for own in SURE]])
COUNTS = posterior_of(Poisson(), 1, [[0.2, 0.5], [0.1, 0.4]])


def numbers(rng, size: int) -> Split:
    x = rng.normal(size=size)
    y = x + (0.5 + np.abs(x)) * rng.standard_t(3, size=size)
    return Split(x=torch.from_numpy(x)[:, None], y=torch.from_numpy(y))


def classes(rng, size: int) -> Split:
    x = rng.normal(size=size)
    y = np.where(rng.random(size) < 0.4, rng.integers(0, 4, size), (x < 0).astype(int))
    return Split(x=torch.from_numpy(x)[:, None], y=torch.from_numpy(y))


def counts(rng, size: int) -> Split:
    x = rng.normal(size=size)
    y = rng.negative_binomial(1, 0.2, size=size).astype(float)  # overdispersed
    return Split(x=torch.from_numpy(x)[:, None], y=torch.from_numpy(y))


def coverages(posterior, sample) -> tuple[np.ndarray, np.ndarray]:
    """Return the coverage of Bayesian and of conformal regions in repeated experiments."""
    rng, both = numpy_generator(0, "conformal"), []
    for _ in range(REPETITIONS):
        regions = calibrate(posterior, sample(rng, CALIBRATION), LEVEL)
        found = region_coverage(posterior, sample(rng, NEW), regions, num_resamples=0)
        both.append([found["bayesian"].coverage.value, found["conformal"].coverage.value])
    return tuple(np.array(both).T)


@pytest.mark.thorough
@pytest.mark.parametrize("case", [(NUMBERS, numbers), (CLASSES, classes), (COUNTS, counts)])
def test_coverage_is_at_least_the_level_though_the_model_is_wrong(case) -> None:
    bayesian, conformal = coverages(*case)
    # Given the calibration points the coverage is Beta(k, n + 1 - k); of new points, binomial.
    k = rank(CALIBRATION, LEVEL)
    exact = stats.betabinom(NEW, k, CALIBRATION + 1 - k)
    error = exact.std() / NEW / math.sqrt(REPETITIONS)
    assert exact.mean() / NEW == pytest.approx(k / (CALIBRATION + 1))
    assert conformal.mean() > exact.mean() / NEW - 4 * error
    assert bayesian.mean() < LEVEL - 0.1
    if case[0] is NUMBERS:  # scores have no ties, and intervals are not rounded to counts
        assert conformal.mean() < exact.mean() / NEW + 4 * error
        assert conformal.std() == pytest.approx(exact.std() / NEW, rel=0.5)


def test_intervals_by_hand() -> None:
    rng = numpy_generator(1, "conformal")
    part, new = numbers(rng, 40), numbers(rng, 5)
    low, high = NUMBERS.predict(part.x).quantiles([0.1, 0.9])
    scores = np.sort((torch.maximum(low - part.y, part.y - high) / (high - low)).numpy())
    regions = calibrate(NUMBERS, part, 0.8)
    assert regions.threshold == scores[math.ceil(41 * 0.8) - 1]
    assert regions.threshold == pytest.approx(np.quantile(scores, 33 / 40, method="inverted_cdf"))
    predictive = NUMBERS.predict(new.x)
    low, high = predictive.quantiles([0.1, 0.9])
    got = regions.intervals(predictive)
    torch.testing.assert_close(got[0], low - regions.threshold * (high - low))
    torch.testing.assert_close(got[1], high + regions.threshold * (high - low))


def test_ends_are_in_the_units_of_the_target() -> None:
    rng = numpy_generator(2, "conformal")
    part = numbers(rng, 40)
    predictive = NUMBERS.predict(part.x)
    scaled = SamplePosterior.from_draws(NUMBERS.model, next(iter(NUMBERS.iter_draws()))[None])
    object.__setattr__(scaled.scaling, "y_scale", 10.0)
    object.__setattr__(scaled.scaling, "y_mean", 3.0)
    one = calibrate(NUMBERS, part, LEVEL)
    other = calibrate(scaled, part, LEVEL)
    assert other.threshold == pytest.approx(one.threshold, rel=1e-6)
    low = other.intervals(scaled.predict(part.x))[0]
    torch.testing.assert_close(low, 3 + 10 * one.intervals(predictive)[0], rtol=1e-6, atol=1e-6)


def test_an_interval_that_is_too_wide_shrinks_and_a_closed_one_is_its_middle() -> None:
    x = torch.linspace(-1, 1, 50).double()[:, None]
    exact = Split(x=x, y=NUMBERS.predict(x).mean())
    regions = calibrate(NUMBERS, exact, LEVEL)
    assert regions.threshold < 0
    low, high = regions.intervals(NUMBERS.predict(x))
    assert (low <= high).all()
    np.testing.assert_allclose(low, exact.y, atol=0.05)
    np.testing.assert_allclose(high, exact.y, atol=0.05)


def test_ends_of_counts_are_counts() -> None:
    part = counts(numpy_generator(0, "counts"), 40)
    low, high = calibrate(COUNTS, part, LEVEL).intervals(COUNTS.predict(part.x))
    assert (low == low.round()).all()
    assert (high == high.round()).all()
    assert (low >= 0).all()
    zero = Split(x=part.x, y=torch.zeros(40).double())
    low, high = calibrate(COUNTS, zero, LEVEL).intervals(COUNTS.predict(part.x))
    assert (low <= high).all()
    assert ((low >= 0) & (low == low.round())).all()


def test_sets_of_classes_by_hand() -> None:
    part = classes(numpy_generator(0, "classes"), 40)
    regions = calibrate(CLASSES, part, LEVEL)
    probabilities = CLASSES.predict(part.x).probabilities().numpy()
    uniform = uniform_of_inputs(part.x)
    scores = [
        p[p > p[label]].sum() + u * p[label]
        for p, u, label in zip(probabilities, uniform, part.y.tolist(), strict=True)
    ]
    assert regions.threshold == pytest.approx(np.sort(scores)[rank(40, LEVEL) - 1])
    sets = regions.sets(CLASSES.predict(part.x), part.x)
    assert sets[np.arange(40), probabilities.argmax(1)].all()
    is_first = np.eye(4, dtype=bool)[probabilities.argmax(1)]
    wanted = np.array(
        [
            [p[p > own].sum() + u * own <= regions.threshold + 1e-12 for own in p]
            for p, u in zip(probabilities, uniform, strict=True)
        ]
    )
    np.testing.assert_array_equal(sets, wanted | is_first)
    # A point has the same set whatever is beside it.
    alone = [regions.sets(CLASSES.predict(part.x[i : i + 1]), part.x[i : i + 1]) for i in (0, 7)]
    np.testing.assert_array_equal(np.concatenate(alone), sets[[0, 7]])


def test_uniform_numbers_are_uniform_and_depend_on_the_input_alone() -> None:
    x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    uniform = uniform_of_inputs(x)
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    np.testing.assert_array_equal(uniform_of_inputs(x.flip(0)), uniform[::-1])
    assert abs(np.corrcoef(uniform, x[:, 0])[0, 1]) < 0.1


def test_smallest_sets_have_the_level() -> None:
    probabilities = np.array([[0.6, 0.3, 0.1], [0.05, 0.94, 0.01], [1 / 3, 1 / 3, 1 / 3]])
    sets = smallest_sets(probabilities, 0.9)
    np.testing.assert_array_equal(sets, [[True, True, False], [False, True, False], [True] * 3])


@pytest.mark.parametrize(("level", "needed"), [(0.9, 9), (0.95, 19), (0.5, 1), (0.99, 99)])
def test_too_few_points_for_a_level_are_refused(level, needed) -> None:
    check_size(needed, level)
    with pytest.raises(InvalidData, match=f"at least {needed} validation point"):
        check_size(needed - 1, level)
    scores = np.arange(needed, dtype=float)
    assert conformal_quantile(scores, level) == needed - 1  # the largest


@pytest.mark.parametrize("level", [0, 1, -0.5, 90, math.nan, True, "0.9"])
def test_levels_are_between_0_and_1(level) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        calibrate(NUMBERS, numbers(numpy_generator(0, "x"), 20), level)


def test_the_standard_deviation_of_the_coverage_is_that_of_a_beta_distribution() -> None:
    regions = calibrate(NUMBERS, numbers(numpy_generator(0, "x"), 35), LEVEL)
    assert regions.coverage_sd == pytest.approx(stats.beta(33, 3).std())
    assert set(regions.to_dict()) == {
        *("conclusion", "method", "level", "points", "threshold", "coverage_sd")
    }


def test_points_of_weight_w_count_as_w_points() -> None:
    rng = numpy_generator(3, "conformal")
    regions = calibrate(NUMBERS, numbers(rng, 30), LEVEL)
    new = numbers(rng, 12)
    weight = torch.arange(12) % 4
    weighted = Split(x=new.x, y=new.y, weight=weight.double())
    where = torch.arange(12).repeat_interleave(weight)
    got, wanted = (
        region_coverage(NUMBERS, part, regions, num_resamples=0)
        for part in (weighted, new.take(where))
    )
    for kind in ("bayesian", "conformal"):
        assert got[kind].coverage.value == pytest.approx(wanted[kind].coverage.value)
        assert got[kind].size.value == pytest.approx(wanted[kind].size.value)
