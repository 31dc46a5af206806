import json

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import Scaling, Split
from bnn_symm.diagnostics import score
from bnn_symm.diagnostics.scores.point_predictions import (
    INTERVALS,
    NumberPredictions,
    predict_points,
)
from bnn_symm.diagnostics.scores.regression import (
    distance_to_uniform,
    number_statistics,
    quantile_calibration_error,
)
from bnn_symm.diagnostics.scores.score_intervals import score_predictions, scores_with_intervals
from bnn_symm.io.atomic import json_text
from bnn_symm.models import BayesianModel, Gaussian, Poisson, Prior
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.randomness import numpy_generator, torch_generator

SCALING = Scaling(x_mean=np.zeros(2), x_scale=np.ones(2), y_mean=10.0, y_scale=4.0)


def normal_predictions(points, *, stretch=1.0, bias=0.0, key="numbers"):
    """Normal predictions of normal targets, whose standard deviation is `stretch` times what it
    should be."""
    random = numpy_generator(0, key)
    mean, sd = random.normal(size=points), random.uniform(0.5, 2.0, size=points)
    target = mean + bias + sd / stretch * random.normal(size=points)
    predicted = stats.norm(mean, sd)
    tails = (1 - np.array(INTERVALS)[:, None]) / 2
    z = (target - mean) / sd
    crps = sd * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    return NumberPredictions(
        target=target,
        mean=mean,
        sd=sd,
        epistemic_sd=0.5 * sd,
        log_prob=predicted.logpdf(target),
        crps=crps,
        pit=predicted.cdf(target),
        low=predicted.ppf(tails),
        high=predicted.ppf(1 - tails),
    )


def posterior_of(likelihood):
    net = build_network(MLPConfig(widths=()), input_shape=(2,), num_outputs=1).double()
    model = BayesianModel(net, Prior(), likelihood)
    flat = torch.randn(
        2, 5, model.num_parameters, generator=torch_generator(0, "regression"), dtype=torch.float64
    )
    scaling = SCALING if isinstance(likelihood, Gaussian) else None
    return SamplePosterior.from_draws(model, 0.5 * flat, scaling)


def values_of(predictions):
    ones = np.ones((1, len(predictions)))
    return {name: float(value[0]) for name, value in number_statistics(predictions)(ones).items()}


def test_scores_equal_those_of_reference_libraries():
    predictions = normal_predictions(150)
    found = values_of(predictions)
    target, mean = predictions.target, predictions.mean
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(target, mean), abs=1e-12)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(target, mean), abs=1e-12)
    assert found["r2"] == pytest.approx(metrics.r2_score(target, mean), abs=1e-12)
    assert found["nll"] == pytest.approx(
        -stats.norm(mean, predictions.sd).logpdf(target).mean(), abs=1e-12
    )
    assert found["pit_distance"] == pytest.approx(
        stats.kstest(predictions.pit, "uniform").statistic, abs=1e-12
    )
    for width in INTERVALS:
        half = stats.norm.ppf((1 + width) / 2)
        name = f"{100 * width:g}"
        inside = np.abs(target - mean) <= half * predictions.sd
        assert found[f"coverage_{name}"] == pytest.approx(inside.mean(), abs=1e-12)
        assert found[f"width_{name}"] == pytest.approx(2 * half * predictions.sd.mean(), rel=1e-12)
    levels = np.arange(1, 10) / 10
    below = [(target <= stats.norm(mean, predictions.sd).ppf(level)).mean() for level in levels]
    assert found["qce"] == pytest.approx(np.abs(np.array(below) - levels).mean(), abs=1e-12)
    assert found["pit_mean"] == pytest.approx(predictions.pit.mean())


def test_distances_of_ties_and_ends_by_hand():
    ones = np.ones((1, 4))
    # Half of the points at 0.5 and a quarter at either end.
    pit = np.array([0.0, 0.5, 0.5, 1.0])
    assert distance_to_uniform(ones, pit)[0] == pytest.approx(
        stats.kstest(pit, "uniform").statistic
    )
    assert distance_to_uniform(ones, np.full(4, 0.3))[0] == pytest.approx(0.7)
    # The share not above 0.1, ..., 0.4 is 1/4; not above 0.5, ..., 0.9, it is 3/4.
    wanted = (0.15 + 0.05 + 0.05 + 0.15 + 0.25 + 0.15 + 0.05 + 0.05 + 0.15) / 9
    assert quantile_calibration_error(ones, pit)[0] == pytest.approx(wanted)


def test_resamples_are_repetitions():
    predictions = normal_predictions(60)
    counts = numpy_generator(1, "counts").multinomial(60, np.full(60, 1 / 60), size=4)
    resampled = number_statistics(predictions)(counts.astype(np.float64))
    for i, own in enumerate(counts):
        rows = np.repeat(np.arange(60), own)
        repeated = NumberPredictions(
            **{
                name: value[..., rows]
                for name, value in vars(predictions).items()
                if name != "weight"
            }
        )
        for name, value in values_of(repeated).items():
            assert resampled[name][i] == pytest.approx(value, abs=1e-12), name


def test_the_front_door_agrees_with_the_metrics_of_a_run():
    posterior = posterior_of(Gaussian(noise=0.5))
    generator = torch_generator(0, "points")
    x = torch.randn(80, 2, generator=generator, dtype=torch.float64)
    part = Split(x=x, y=torch.randn(80, generator=generator, dtype=torch.float64))
    scores, short = scores_with_intervals(posterior, part, num_resamples=50), score(posterior, part)
    for name in ("nll", "rmse", "r2", "crps", "coverage_90"):
        assert scores[name].value == pytest.approx(short[name], rel=1e-9)
    # In own units: the standard deviation of the noise is 0.5 x 4, and no prediction is surer than
    # that.
    predictions = predict_points(posterior, part)
    assert predictions.sd.min() > 2.0
    mixture = stats.norm(
        10 + 4 * posterior.predict(x).outputs.squeeze(-1).flatten(0, 1).numpy(), 2.0
    )
    np.testing.assert_allclose(predictions.pit, mixture.cdf(predictions.target).mean(0), atol=1e-9)
    json.loads(json_text(scores.to_dict()))


@pytest.mark.thorough
def test_the_transform_of_counts_is_randomized_and_uniform_where_predictions_are_right():
    posterior = posterior_of(Poisson())
    x = torch.randn(4000, 2, generator=torch_generator(0, "x"), dtype=torch.float64)
    draws = posterior.predict(x).sample(seed=3).flatten(0, 1)
    # One target of each point from a draw of its own: exactly what the mixture predicts.
    which = torch.arange(4000) % len(draws)
    part = Split(x=x, y=draws[which, torch.arange(4000)])
    predictions = predict_points(posterior, part, seed=1)
    # Of 4000 points: the 99.9 % quantile of the distance to uniform is 1.95 / sqrt(4000) = 0.031.
    assert stats.kstest(predictions.pit, "uniform").statistic < 0.031
    other = predict_points(posterior, part, seed=2).pit
    assert not np.array_equal(predictions.pit, other)
    assert np.array_equal(predictions.pit, predict_points(posterior, part, seed=1).pit)
    rates = posterior.predict(x[:5]).draw_mean().flatten(0, 1).numpy()
    counts = part.y[:5].numpy()
    low, high = (stats.poisson(rates).cdf(counts - 1 + step).mean(0) for step in (0, 1))
    assert ((low - 1e-9 <= predictions.pit[:5]) & (predictions.pit[:5] <= high + 1e-9)).all()


def test_infinite_scores_are_named():
    predictions = normal_predictions(30)
    log_prob = predictions.log_prob.copy()
    log_prob[3] = -np.inf
    scores = score_predictions(
        NumberPredictions(**{**vars(predictions), "log_prob": log_prob}), num_resamples=20
    )
    assert scores["nll"].value == np.inf
    assert scores["nll"].note == "infinite"
    assert "targets of 1 points have density 0" in scores.notes[0]
    # A resample without the point is finite, which no weight of zero times infinity spoils.
    without = np.ones((1, 30))
    without[0, 3] = 0
    statistics = number_statistics(NumberPredictions(**{**vars(predictions), "log_prob": log_prob}))
    assert statistics(without)["nll"][0] == pytest.approx(
        -np.delete(predictions.log_prob, 3).mean()
    )


def test_constant_predictions_are_named():
    predictions = normal_predictions(30)
    constant = NumberPredictions(**{**vars(predictions), "sd": np.full(30, 2.0)})
    assert (
        "same predictive standard deviation"
        in score_predictions(constant, num_resamples=0).notes[0]
    )
