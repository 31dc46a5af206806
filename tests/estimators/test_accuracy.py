"""Predictions of estimators against exact ones, and against those of the command line."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.metrics import log_loss

from bnn_symm.data import DataConfig
from bnn_symm.data.splits import split_points
from bnn_symm.estimators import BNNClassifier, BNNRegressor
from bnn_symm.inference import NUTS
from bnn_symm.models import Gaussian
from bnn_symm.posteriors import GaussianPosterior
from bnn_symm.runs import Config, fit_run, parse_config


def exact_predictive(X, y, new, noise):
    """Mean, epistemic and whole standard deviation of Bayesian linear regression with Normal(0, 1)
    weights and bias.

    In the units of the standardized target: covariance (A'A / noise^2 + I)^-1 with A the
        standardized features and 1.
    """
    mean, scale = X.mean(0), X.std(0)
    design, at = (np.hstack([(x - mean) / scale, np.ones((len(x), 1))]) for x in (X, new))
    covariance = np.linalg.inv(design.T @ design / noise**2 + np.eye(design.shape[1]))
    weights = covariance @ design.T @ ((y - y.mean()) / y.std()) / noise**2
    epistemic = np.sqrt(np.einsum("pi,ij,pj->p", at, covariance, at))
    return (
        y.mean() + y.std() * (at @ weights),
        y.std() * epistemic,
        y.std() * np.hypot(epistemic, noise),
    )


def linear_problem(features):
    rng = np.random.default_rng(2)
    X = rng.normal(3.0, 2.0, size=(10, features))
    X[:, 1:] += X[:, :1]  # correlated, so that a factorized posterior would be wrong
    y = 100 + 10 * X[:, 0] + rng.normal(0, 10, size=10)
    return X, y, np.vstack([X[:3], rng.normal(3.0, 8.0, size=(5, features))])


def check_against_exact(mean, sd, exact, effective_draws):
    """Mean and epistemic variance, with relative error sqrt(2 / draws), are within 4.5 errors."""
    exact_mean, epistemic, whole = exact
    noise = np.sqrt(whole**2 - epistemic**2)
    assert np.abs((mean - exact_mean) / epistemic).max() < 4.5 / np.sqrt(effective_draws)
    ratio = (sd**2 - noise**2) / epistemic**2
    assert np.abs(ratio - 1).max() < 4.5 * np.sqrt(2 / effective_draws)


@pytest.mark.thorough
def test_the_standard_deviation_of_nuts_is_that_of_the_exact_predictive_distribution():
    X, y, new = linear_problem(3)
    # A dense mass matrix makes the target round, where draws of NUTS are about independent; half
    # are counted on.
    method = NUTS(num_chains=2, num_warmup=100, num_draws=250, mass_matrix="dense")
    estimator = BNNRegressor(widths=(), noise=0.5, method=method, random_state=0).fit(X, y)
    assert estimator.model_.likelihood == Gaussian(noise=0.5)
    mean, sd = estimator.predict(new, return_std=True)
    check_against_exact(mean, sd, exact_predictive(X, y, new, 0.5), effective_draws=250)


@pytest.mark.thorough
def test_the_standard_deviation_of_mean_field_vi_is_exact_where_the_posterior_factorizes():
    X = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]]) * 5 + 7  # orthogonal, and to the bias
    y = np.array([1.0, 3.0, 8.0, 2.0])
    new = np.array([[7.0, 7.0], [30.0, -10.0], [7.0, 12.0]])
    config = {"inference": {"num_draws": 1000, "num_samples": 8}}
    estimator = BNNRegressor(
        widths=(), noise=0.5, num_steps=1500, random_state=0, config=config
    ).fit(X, y)
    assert isinstance(estimator.posterior_, GaussianPosterior)
    mean, sd = estimator.predict(new, return_std=True)
    # Half the draws: the other half of the allowance is for the optimizer, whose gradients of
    # scales are sampled.
    check_against_exact(mean, sd, exact_predictive(X, y, new, 0.5), effective_draws=500)


@pytest.mark.thorough
def test_digits_are_read():
    X, y = load_digits(return_X_y=True)
    estimator = BNNClassifier(num_steps=500, random_state=0).fit(X[:1400], y[:1400])
    # 397 later digits, of other writers; logistic regression reads 0.91 of them.
    assert estimator.score(X[1400:], y[1400:]) > 0.91
    assert log_loss(y[1400:], estimator.predict_proba(X[1400:])) < 0.35


@pytest.mark.slow
def test_digits_are_read_as_well_as_by_the_command(tmp_path):
    run = fit_run(Config(), tmp_path / "run")
    theirs = run.metrics["test"]
    X, y = load_digits(return_X_y=True)
    split = split_points(len(X), DataConfig(), classes=y)
    estimator = BNNClassifier(random_state=0).fit(X[split.train], y[split.train])
    probabilities = estimator.predict_proba(X[split.test])
    # The same 359 points; pixels are scaled one by one here and as an image there. Three standard
    # errors of a difference in accuracy of two classifiers that err independently on 4 % are 0.044,
    # of one in NLL about 0.12.
    assert abs(estimator.score(X[split.test], y[split.test]) - theirs["accuracy"]) < 0.044
    assert abs(log_loss(y[split.test], probabilities) - theirs["nll"]) < 0.12


@pytest.mark.slow
def test_diabetes_is_predicted_as_well_as_by_the_command(tmp_path):
    run = fit_run(parse_config({"data": {"name": "diabetes"}}), tmp_path / "run")
    theirs = run.metrics["test"]
    X, y = load_diabetes(return_X_y=True)
    split = split_points(len(X), DataConfig())
    estimator = BNNRegressor(random_state=0).fit(X[split.train], y[split.train])
    rmse = np.sqrt(np.mean((estimator.predict(X[split.test]) - y[split.test]) ** 2))
    # The same points and the same scaling; only the noise of the fit differs, in float64 in place
    # of float32.
    assert abs(rmse / theirs["rmse"] - 1) < 0.03
