"""Scores of times, some of which are censored, against definitions and simulations."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from bnn_symm.data import Dataset
from bnn_symm.diagnostics.scores.baselines import baselines
from bnn_symm.diagnostics.scores.point_predictions import predict_points
from bnn_symm.diagnostics.scores.score_intervals import score_predictions
from bnn_symm.diagnostics.scores.scores import score
from bnn_symm.diagnostics.scores.survival import concordance
from bnn_symm.likelihoods import Weibull
from bnn_symm.models import BayesianModel, Prior
from bnn_symm.posteriors import SamplePosterior

SHAPE, SLOPE = 1.5, 0.7


def by_definition(time, event, predicted, weight):
    right = pairs = 0.0
    for i in range(len(time)):
        for j in range(len(time)):
            later = time[j] > time[i] or (time[j] == time[i] and not event[j])
            if i != j and event[i] and later:
                w = weight[i] * weight[j]
                pairs += w
                right += w * ((predicted[i] < predicted[j]) + 0.5 * (predicted[i] == predicted[j]))
    return right / pairs


@pytest.mark.parametrize("seed", range(3))
def test_concordance_is_the_weighted_fraction_of_comparable_pairs_in_order(seed):
    rng = np.random.default_rng(seed)
    time, predicted = (rng.integers(0, 12, 40).astype(float) for _ in range(2))  # with ties
    event = (rng.random(40) < 0.5).astype(float)
    weights = np.stack([np.ones(40), rng.integers(0, 3, 40), rng.random(40)])
    got = concordance(time, event, predicted, weights)
    expected = [by_definition(time, event, predicted, weight) for weight in weights]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert math.isnan(concordance(time, 0 * event, predicted, weights)[0])


@pytest.fixture(scope="module")
def simulated():
    """Censored Weibull times, and the posterior whose single draw is the truth."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=1500)
    time = 200 * np.exp(SLOPE * x) * rng.weibull(SHAPE, 1500)
    end = rng.exponential(400, 1500)
    data = Dataset.from_arrays(
        x, np.minimum(time, end), event=time <= end, dtype=torch.float64, validation_fraction=0
    )
    model = BayesianModel(torch.nn.Linear(1, 1).double(), Prior(), Weibull())
    mean, scale = data.scaling.x_mean[0], data.scaling.x_scale[0]
    level = math.log(200 / data.scaling.y_scale) + SLOPE * mean
    draw = torch.tensor([SLOPE * scale, level, math.log(SHAPE)]).double()
    return data, SamplePosterior.from_draws(model, draw[None, None], data.scaling)


def test_the_true_model_is_calibrated_and_has_the_nll_of_scipy_in_the_units_of_the_data(simulated):
    data, posterior = simulated
    part = data.train
    x = data.scaling.x_mean + data.scaling.x_scale * part.x.numpy()
    time, event = (data.scaling.y_scale * part.y[:, 0]).numpy(), part.y[:, 1].numpy() > 0
    truth = stats.weibull_min(SHAPE, scale=200 * np.exp(SLOPE * x[:, 0]))
    expected = np.where(event, truth.logpdf(time), truth.logsf(time))
    found = score(posterior, part)
    assert found["nll"] == pytest.approx(-expected.mean(), rel=1e-10)
    assert not {"rmse", "crps", "coverage_90"} & set(found)
    predictions = predict_points(posterior, part)
    np.testing.assert_allclose(predictions.median, truth.ppf(0.5), rtol=1e-6)
    np.testing.assert_allclose(predictions.low[1], truth.ppf(0.05), rtol=1e-6)
    assert stats.kstest(predictions.pit, "uniform").pvalue > 0.001
    scores = score_predictions(predictions, num_resamples=200)
    assert scores["concordance"].value == pytest.approx(found["concordance"], rel=1e-12)
    assert scores["concordance"].low < found["concordance"] < scores["concordance"].high
    assert any("are censored" in note for note in scores.notes)


def test_baselines_are_the_weibull_fits_of_largest_likelihood(simulated):
    data, posterior = simulated
    found = {own.name: own.predictions for own in baselines(data, data.train).models}
    time, event = (data.scaling.y_scale * data.train.y[:, 0]).numpy(), data.train.y[:, 1] > 0
    censored = stats.CensoredData(uncensored=time[event], right=time[~event])
    shape, _, scale = stats.weibull_min.fit(censored, floc=0)
    fitted = stats.weibull_min(shape, scale=scale)
    expected = np.where(event, fitted.logpdf(time), fitted.logsf(time))
    constant = found["one Weibull distribution"]
    assert constant.log_prob.mean() == pytest.approx(expected.mean(), abs=1e-5)
    # The likelihood at the maximum exceeds that of the truth by chi2(3) / 2, 1.5 on average, less
    # the effect of the prior of one weight.
    gain = found["Weibull regression"].log_prob.sum() - float(
        posterior.predict(data.train.x).log_prob(data.train.y).sum()
    )
    assert 0 < gain < stats.chi2(3).isf(1e-4) / 2


def test_an_exposure_changes_the_rate_of_count_baselines():
    rng = np.random.default_rng(2)
    x, years = rng.normal(size=(2, 600))
    years = np.exp(years) * 30
    y = rng.poisson(years * 0.1 * np.exp(0.5 * x))
    data = Dataset.from_arrays(x, y, exposure=years, dtype=torch.float64)
    models = {own.name: own.predictions for own in baselines(data, data.test).models}
    constant, linear = models.values()
    exposure = data.test.y[:, 1].numpy()
    np.testing.assert_allclose(constant.mean, exposure, rtol=1e-6)  # one count per unit
    assert linear.log_prob.mean() > constant.log_prob.mean()
    rates = np.log(linear.mean / exposure)
    slope = np.polyfit(data.test.x[:, 0].numpy(), rates, 1)[0] / data.scaling.x_scale[0]
    assert slope == pytest.approx(0.5, abs=4 / math.sqrt(y.sum()))  # standard error of the slope
