"""Baselines predict as closed forms and scikit-learn do, whatever the targets."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression, Ridge

from bnn_symm.data import load_dataset
from bnn_symm.diagnostics.scores import baselines as module
from bnn_symm.diagnostics.scores.baselines import baselines
from bnn_symm.diagnostics.scores.score_intervals import score_differences, score_predictions


def changed(dataset, task=None, **parts):
    """Return a data set with other targets in some splits."""
    splits = {name: dataclasses.replace(getattr(dataset, name), y=y) for name, y in parts.items()}
    return dataclasses.replace(dataset, task=task or dataset.task, **splits)


def test_classes_are_predicted_by_their_rates_and_by_logistic_regression():
    dataset = load_dataset("digits")
    constant, linear = baselines(dataset, dataset.test).models
    rates = np.bincount(dataset.train.y, minlength=10) + 1
    assert np.allclose(constant.predictions.probabilities, rates / rates.sum(), atol=1e-12)
    model = LogisticRegression(max_iter=200)
    model.fit(dataset.train.x.flatten(1).numpy(), dataset.train.y.numpy())
    expected = model.predict_proba(dataset.test.x.flatten(1).numpy())
    # float32 and float64 features stop at slightly different optima.
    assert np.abs(linear.predictions.probabilities - expected).max() < 0.02
    assert (linear.predictions.y == dataset.test.y.numpy()).all()


def test_numbers_are_predicted_in_their_own_units():
    dataset = load_dataset("diabetes")
    constant, linear = baselines(dataset, dataset.test).models
    scaling = dataset.scaling
    assert constant.predictions.mean == pytest.approx(scaling.y_mean, rel=1e-5)
    assert constant.predictions.sd == pytest.approx(scaling.y_scale, rel=1e-5)
    errors = {}
    x, y = dataset.train.x.double().numpy(), dataset.train.y.double().numpy()
    points = dataset.test.x.double().numpy()
    for penalty in (1e-3, 10.0, 1e4):
        model = Ridge(penalty).fit(x, y)
        predicted = scaling.y_mean + scaling.y_scale * model.predict(points)
        errors[penalty] = np.sqrt(np.square(predicted - linear.predictions.target).mean())
    rmse = score_predictions(linear.predictions, num_resamples=0)["rmse"].value
    assert rmse < 1.05 * min(errors.values())
    assert 0.8 < score_predictions(linear.predictions, num_resamples=0)["coverage_90"].value < 1


def test_counts_are_predicted_by_their_rate_and_by_poisson_regression():
    dataset = load_dataset("diabetes")
    rate = torch.exp(0.5 + dataset.train.x[:, 0])
    train = torch.poisson(rate, generator=torch.Generator().manual_seed(0))
    test = torch.poisson(
        torch.exp(0.5 + dataset.test.x[:, 0]), generator=torch.Generator().manual_seed(1)
    )
    counts = changed(dataset, "count", train=train, test=test)
    counts = dataclasses.replace(
        counts,
        preprocessing=dataclasses.replace(
            dataset.preprocessing,
            scaling=dataclasses.replace(dataset.scaling, y_mean=0.0, y_scale=1.0),
        ),
    )
    constant, linear = baselines(counts, counts.test).models
    expected = -stats.poisson(float(train.mean())).logpmf(test.numpy()).mean()
    nll = score_predictions(constant.predictions, num_resamples=0)["nll"].value
    assert nll == pytest.approx(expected, rel=1e-5)
    gain = score_differences(constant.predictions, linear.predictions, ["nll"])["nll"]
    assert gain.low > 0


def test_classes_without_training_points_have_a_probability():
    dataset = load_dataset("iris")
    keep = dataset.train.y != 2
    rare = dataclasses.replace(dataset, train=dataset.train.take(keep))
    for own in baselines(rare, rare.test).models:
        assert np.isfinite(own.predictions.log_prob).all()
        assert np.allclose(own.predictions.probabilities.sum(1), 1)


def two_classes(part):
    return part.take([int((part.y == number).nonzero()[0]) for number in range(2)])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: changed(data, train=torch.zeros_like(data.train.y)), "one class"),
        (lambda data: dataclasses.replace(data, train=two_classes(data.train)), "2 training"),
    ],
)
def test_a_missing_linear_model_has_a_reason(change, reason):
    dataset = change(load_dataset("iris"))
    result = baselines(dataset, dataset.test)
    assert len(result.models) == 1
    assert reason in result.notes[0]


def test_a_large_training_split_is_thinned_and_huge_images_are_left_out(monkeypatch):
    dataset = load_dataset("digits")
    monkeypatch.setattr(module, "_LARGEST", 64 * 600)
    thinned = baselines(dataset, dataset.test)
    assert len(thinned.models) == 2
    assert "600 of the 1,294 training points" in thinned.notes[0]
    monkeypatch.setattr(module, "_LARGEST", 64 * 10)
    left_out = baselines(dataset, dataset.test)
    assert len(left_out.models) == 1
    assert "64 features" in left_out.notes[0]


def test_constant_targets_have_finite_scores():
    dataset = load_dataset("diabetes")
    flat = changed(
        dataset, train=torch.zeros_like(dataset.train.y), test=torch.zeros_like(dataset.test.y)
    )
    for own in baselines(flat, flat.test).models:
        assert np.isfinite(own.predictions.log_prob).all()


def test_a_difference_of_scores_is_narrower_than_the_scores():
    dataset = load_dataset("diabetes")
    constant, linear = (own.predictions for own in baselines(dataset, dataset.test).models)
    others = baselines(dataset, dataset.train).models[0].predictions
    difference = score_differences(constant, linear, ["rmse"], num_resamples=400)["rmse"]
    scores = [score_predictions(own, num_resamples=400)["rmse"] for own in (constant, linear)]
    assert difference.value == pytest.approx(scores[0].value - scores[1].value)
    assert difference.high - difference.low < sum(own.high - own.low for own in scores)
    with pytest.raises(ValueError, match="88 and of"):
        score_differences(constant, others, ["nll"])
