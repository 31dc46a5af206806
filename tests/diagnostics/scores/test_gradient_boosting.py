"""Gradient boosting predicts as scikit-learn's does, with residuals of held-out points."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import log_loss

from bnn_symm.data import load_dataset
from bnn_symm.diagnostics.scores.gradient_boosting import gradient_boosting
from bnn_symm.diagnostics.scores.score_intervals import short_scores

from .test_baselines import changed


@pytest.fixture(scope="module")
def diabetes():
    return load_dataset("diabetes", dtype=torch.float64)


def test_classes_are_predicted_by_scikit_learns_model():
    data = load_dataset("iris", dtype=torch.float64)
    (found,) = gradient_boosting(data, data.test, seed=3).models
    model = HistGradientBoostingClassifier(random_state=3).fit(data.train.x, data.train.y)
    # Where all classes have training points, the base rates do not matter.
    wanted = model.predict_proba(data.test.x)
    np.testing.assert_allclose(found.predictions.probabilities, wanted, atol=1e-9)
    scores = short_scores(found.predictions)
    assert scores["nll"] == pytest.approx(log_loss(data.test.y, wanted), rel=1e-6)
    assert scores["points"] == len(data.test)


@pytest.mark.thorough
def test_the_standard_deviation_is_that_of_points_that_were_not_fitted(diabetes):
    (found,) = gradient_boosting(diabetes, diabetes.test, seed=0).models
    model = HistGradientBoostingRegressor(random_state=0).fit(diabetes.train.x, diabetes.train.y)
    scale, location = diabetes.scaling.y_scale, diabetes.scaling.y_mean
    wanted = location + scale * model.predict(diabetes.test.x)
    np.testing.assert_allclose(found.predictions.mean, wanted, rtol=1e-6)
    residuals = diabetes.train.y.numpy() - model.predict(diabetes.train.x)
    sd = found.predictions.sd[0]
    assert (found.predictions.sd == sd).all()
    assert sd > 1.5 * scale * residuals.std()  # training residuals are too small
    test = np.sqrt(np.square(wanted - found.predictions.target).mean())
    assert 0.8 < sd / test < 1.25
    assert 0.8 < short_scores(found.predictions)["coverage_90"] < 1


def test_counts_have_the_poisson_loss(diabetes):
    counts = changed(
        diabetes,
        "count",
        **{
            name: torch.poisson(
                torch.exp(0.5 + getattr(diabetes, name).x[:, 2]),
                generator=torch.Generator().manual_seed(0),
            )
            for name in ("train", "test")
        },
    )
    (found,) = gradient_boosting(counts, counts.test).models
    model = HistGradientBoostingRegressor(loss="poisson", random_state=0)
    wanted = model.fit(counts.train.x, counts.train.y).predict(counts.test.x)
    np.testing.assert_allclose(found.predictions.mean, wanted, rtol=1e-6)
    np.testing.assert_allclose(found.predictions.sd, np.sqrt(wanted), rtol=1e-6)
    zero = changed(counts, train=torch.zeros_like(counts.train.y))
    assert gradient_boosting(zero, counts.test).models == []


def test_a_class_without_training_points_keeps_a_probability():
    data = load_dataset("iris")
    rare = dataclasses.replace(data, train=data.train.take(data.train.y != 2))
    (found,) = gradient_boosting(rare, rare.test).models
    assert np.isfinite(found.predictions.log_prob).all()
    np.testing.assert_allclose(found.predictions.probabilities.sum(1), 1)


def test_what_cannot_be_fitted_has_a_reason():
    data = load_dataset("iris")
    few = dataclasses.replace(data, train=data.train.take(slice(0, 9)))
    assert "9 training points" in gradient_boosting(few, data.test).notes[0]
    one = changed(data, train=torch.zeros_like(data.train.y))
    assert "one class" in gradient_boosting(one, data.test).notes[0]
