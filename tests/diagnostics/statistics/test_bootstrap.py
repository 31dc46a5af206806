import numpy as np
import pytest
from scipy import stats

from bnn_symm.diagnostics.calibration.calibration_errors import expected_error
from bnn_symm.diagnostics.statistics.bootstrap import (
    bootstrap_scores,
    resample_counts,
    weighted_mean,
)
from bnn_symm.randomness import numpy_generator


def mean_of(values):
    return lambda weights: {"mean": weighted_mean(weights, values[:, None])[:, 0]}


def test_counts_are_resamples_and_do_not_depend_on_the_chunk():
    whole = np.concatenate(list(resample_counts(7, 50, 0, "counts")))
    parts = np.concatenate(list(resample_counts(7, 50, 0, "counts", at_once=3)))
    np.testing.assert_array_equal(whole, parts)
    assert (whole.sum(1) == 7).all()
    assert not np.array_equal(whole, np.concatenate(list(resample_counts(7, 50, 1, "counts"))))


def test_counts_are_multinomial():
    counts = np.concatenate(list(resample_counts(5, 20_000, 0, "moments")))
    # Mean 1 and variance 0.8 of each count; of 20,000, standard errors 0.0063 and about 0.013; five
    # of them.
    assert np.abs(counts.mean(0) - 1).max() < 5 * 0.0063
    assert np.abs(counts.var(0) - 0.8).max() < 5 * 0.013


def test_interval_of_a_mean_is_that_of_scipy():
    values = numpy_generator(0, "values").normal(size=80)
    found = bootstrap_scores(mean_of(values), (80,), num_resamples=4000)["mean"]
    wanted = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert found.value == pytest.approx(values.mean())
    # A 2.5 % quantile of 4000 resamples of standard deviation s has a standard error of 0.042 s;
    # two of them, times 4.
    tolerance = 4 * np.sqrt(2) * 0.042 * values.std() / np.sqrt(80)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=tolerance)


def test_intervals_of_a_mean_cover_it():
    hits = 0
    for trial in range(300):
        values = numpy_generator(trial, "coverage").normal(size=60)
        own = bootstrap_scores(mean_of(values), (60,), num_resamples=300, level=0.9, seed=trial)[
            "mean"
        ]
        hits += own.low <= 0 <= own.high
    # 0.9 less about 0.015 for 60 points; a standard error of 0.018 over 300 trials, three of them
    # each way.
    assert 0.83 < hits / 300 < 0.94


def test_inflated_undo_what_noise_adds():
    # |mean| of noise about 0 is above 0; resampling adds the same again, and percentiles miss the
    # truth for good.
    values = numpy_generator(0, "absolute").normal(size=(100, 20))

    def statistics(weights):
        return {"error": np.abs(weighted_mean(weights, values)).mean(1)}

    plain = bootstrap_scores(statistics, (100,))["error"]
    widened = bootstrap_scores(statistics, (100,), inflated=("error",))["error"]
    assert plain.low > 0.9 * plain.value
    assert widened.low < plain.low
    assert widened.low <= widened.value <= widened.high


def test_inflated_cover_a_calibration_error():
    # One bin for every digit of confidence; the error is 0.1 whatever the digit.
    hits = 0
    for trial in range(200):
        random = numpy_generator(trial, "error")
        digit = random.integers(6, 10, 300)
        residual = (random.uniform(size=300) < digit / 10 - 0.1) - digit / 10

        def statistics(weights, residual=residual, bins=digit):
            return {"ece": expected_error(weights * residual, bins, weights.sum(1))}

        own = bootstrap_scores(statistics, (300,), inflated=("ece",), num_resamples=200, level=0.9)[
            "ece"
        ]
        hits += own.low <= 0.1 <= own.high
    # 0.9 and a little more, with a standard error of 0.021 over 200 trials: three of them.
    assert 0.84 < hits / 200 < 0.985


def test_two_samples_are_resampled_apart():
    def statistics(weights):
        return {"first": weights[:, :3].sum(1), "second": weights[:, 3:].sum(1)}

    scores = bootstrap_scores(statistics, (3, 5), num_resamples=50)
    assert (scores["first"].low, scores["first"].high) == (3, 3)
    assert (scores["second"].low, scores["second"].high) == (5, 5)


def test_what_is_not_defined_is_named():
    def statistics(weights):
        some = np.where(weights[:, 0] > 0, 1.0, np.nan)
        few = (
            np.where(weights[:, 0] == weights.sum(1), 1.0, np.nan)
            if len(weights) > 1
            else np.ones(1)
        )
        return {"never": np.full(len(weights), np.nan), "some": some, "few": few}

    scores = bootstrap_scores(
        statistics, (9,), reasons={"never": "there is nothing"}, num_resamples=100
    )
    assert scores["never"].value is None
    assert scores["never"].note == "undefined: there is nothing"
    assert scores["some"].low == 1
    assert "where it is defined" in scores["some"].note
    assert scores["few"].low is None
    assert scores["few"].note == "no interval: defined in 0 of 100 resamples"


def test_no_resamples_no_interval():
    own = bootstrap_scores(mean_of(np.arange(4.0)), (4,), num_resamples=0)["mean"]
    assert (own.value, own.low, own.high, own.note) == (1.5, None, None, None)


@pytest.mark.parametrize(
    ("groups", "keys"),
    [((0,), {}), ((), {}), ((3,), {"level": 1.0}), ((3,), {"num_resamples": -1})],
)
def test_wrong_arguments(groups, keys):
    with pytest.raises(ValueError, match="a level between 0 and 1"):
        bootstrap_scores(mean_of(np.zeros(3)), groups, **keys)


def test_infinite_means():
    values = np.array([[1.0], [np.inf], [3.0]])
    weights = np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]])
    np.testing.assert_allclose(weighted_mean(weights, values)[:, 0], [np.inf, 5 / 3])
