import importlib
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from bnn_symm.data import Scaling, Split, load_dataset
from bnn_symm.diagnostics import ReferenceProbabilities, fidelity
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, InvalidData
from bnn_symm.likelihoods import Bernoulli, Categorical, Gaussian
from bnn_symm.models import BayesianModel, Prior
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.randomness import torch_generator

IRIS = load_dataset("iris").test


def posterior_of(shape, *, likelihood=None, num_outputs=3, key=0, features=4, scaling=None):
    model = BayesianModel(
        torch.nn.Linear(features, num_outputs), Prior(), likelihood or Categorical()
    )
    draws = torch.randn(*shape, model.num_parameters, generator=torch_generator(0, key))
    return SamplePosterior.from_draws(model, draws, scaling)


def constant(logits, chains=1):
    """Return a posterior whose draws have constant logits, (draw, class)."""
    model = BayesianModel(torch.nn.Linear(4, logits.shape[1]), Prior(), Categorical())
    zeros = torch.zeros(len(logits), 4 * logits.shape[1])
    draws = torch.cat([zeros, logits], dim=1).expand(chains, -1, -1).clone()
    return SamplePosterior.from_draws(model, draws)


def test_a_posterior_has_no_distance_to_itself():
    for own in (posterior_of((2, 20)), posterior_of((1, 9), likelihood=Bernoulli(), num_outputs=1)):
        part = Split(x=IRIS.x, y=IRIS.y.clamp(max=1))
        result = fidelity(own, own, part)
        assert {name: score.value for name, score in result.values.items()} == {
            "agreement": 1.0,
            "total_variation": 0.0,
            "w1": 0.0,
            "nll_difference": 0.0,
        }
        assert result.floor["total_variation"].value > 0


def test_classes_by_hand():
    p, q = torch.tensor([[0.5, 0.3, 0.2], [0.7, 0.1, 0.2]]), torch.tensor([[0.2, 0.6, 0.2]])
    result = fidelity(constant(p.log()), constant(q.log()), IRIS)
    mean = p.mean(0)
    assert result["agreement"].value == 0.0
    assert result["total_variation"].value == pytest.approx(0.4, abs=1e-6)
    # Of the draws, class by class: |.2 - .5|/2 + |.2 - .7|/2, |.6 - .3|/2 + |.6 - .1|/2, 0.
    assert result["w1"].value == pytest.approx(0.5 * (0.4 + 0.4 + 0.0), abs=1e-6)
    y = IRIS.y.numpy()
    expected = float(np.mean(np.log(mean.numpy()[y]) - np.log(q[0].numpy()[y])))
    assert result["nll_difference"].value == pytest.approx(expected, abs=1e-6)
    # The draws of one posterior disagree and those of the other do not, about the same mean.
    spread = fidelity(constant(p.log()), constant(mean[None].log()), IRIS)
    assert spread["total_variation"].value == pytest.approx(0, abs=1e-6)
    assert spread["w1"].value == pytest.approx(0.1, abs=1e-6)


def test_w1_of_classes_is_that_of_scipy_over_draws():
    first, second = posterior_of((2, 15)), posterior_of((1, 8), key=1)
    result = fidelity(first, second, IRIS)
    draws = [
        own.predict(IRIS.x).outputs.flatten(0, 1).double().softmax(-1) for own in (first, second)
    ]
    distances = [
        0.5 * sum(stats.wasserstein_distance(a[:, i, c], b[:, i, c]) for c in range(3))
        for a, b in [draws]
        for i in range(len(IRIS))
    ]
    assert result["w1"].value == pytest.approx(np.mean(distances), rel=1e-6)
    assert result["w1"].value >= result["total_variation"].value
    # The floor is one chain against the other.
    one, other = (
        SamplePosterior.from_draws(first.model, first.draws().reshape(2, 15, -1)[c : c + 1])
        for c in (0, 1)
    )
    halves = fidelity(one, other, IRIS)
    for name, score in result.floor.items():
        assert score.value == pytest.approx(halves[name].value, abs=1e-9)


def test_numbers_are_compared_in_the_units_of_the_target():
    scaling = Scaling(x_mean=np.zeros(2), x_scale=np.ones(2), y_mean=10.0, y_scale=4.0)
    part = Split(x=torch.randn(12, 2, generator=torch_generator(0, "x")), y=torch.zeros(12))
    settings = {
        "likelihood": Gaussian(noise=0.5),
        "num_outputs": 1,
        "features": 2,
        "scaling": scaling,
    }
    own = posterior_of((1, 1), **settings)
    moved = SamplePosterior.from_draws(
        own.model, own.draws()[None] + torch.tensor([0, 0, 0.25]), scaling
    )
    result = fidelity(own, moved, part)
    assert result["w1"].value == pytest.approx(4 * 0.25, rel=1e-6)
    assert result["w1_relative"].value == pytest.approx(0.25 / 0.5, rel=1e-6)
    assert set(result.values) == {"w1", "w1_relative", "nll_difference"}
    assert result.floor is None  # a single draw
    expected = -(own.predict(part.x).log_prob(part.y) - moved.predict(part.x).log_prob(part.y))
    assert result["nll_difference"].value == pytest.approx(-float(expected.mean()), rel=1e-6)


def test_intervals_are_over_points_and_over_seeds():
    reference = posterior_of((2, 30))
    several = [posterior_of((1, 30), key=key) for key in (1, 2, 3)]
    result = fidelity(reference, several, IRIS, num_resamples=200)
    each = [fidelity(reference, own, IRIS, num_resamples=200) for own in several]
    for name, score in result.values.items():
        values = [own[name].value for own in each]
        assert [own[name].value for own in result.each] == values
        assert score.value == pytest.approx(np.mean(values))
        assert score.low <= score.value <= score.high
        over = result.over_seeds[name]
        half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / math.sqrt(3)
        assert (over.low, over.high) == pytest.approx(
            (np.mean(values) - half, np.mean(values) + half), rel=1e-6
        )
    assert each[0].over_seeds == {}
    json.dumps(result.to_dict())


def test_slices_of_points_do_not_change_the_result(monkeypatch):
    reference, other = posterior_of((2, 30)), posterior_of((1, 7), key=1)
    whole = fidelity(reference, other, IRIS)
    module = importlib.import_module("bnn_symm.diagnostics.fidelity.fidelity")
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", 500)
    parts = fidelity(reference, other, IRIS)
    for name in whole.values:
        assert parts[name].value == pytest.approx(whole[name].value, rel=1e-5)


def test_an_array_is_a_reference():
    own, other = posterior_of((2, 20)), posterior_of((1, 20), key=1)
    predictive = own.predict(IRIS.x)
    expected = fidelity(own, other, IRIS)
    y = IRIS.y.numpy()
    whole = ReferenceProbabilities(probabilities=predictive.probabilities().numpy(), y=y)
    result = fidelity(whole, other, IRIS)
    for name in ("agreement", "total_variation", "nll_difference"):
        assert result[name].value == pytest.approx(expected[name].value, abs=1e-6)
    assert result["w1"].value is None
    assert result["w1"].note == "undefined: the reference has no draws, only the mean over them"
    assert result.floor is None
    draws = predictive.outputs.double().softmax(-1).flatten(0, 1).numpy()
    result = fidelity(ReferenceProbabilities(probabilities=draws, y=y), other, IRIS)
    assert result["w1"].value == pytest.approx(expected["w1"].value, abs=1e-6)
    assert result.floor is not None


def test_a_label_of_probability_zero_is_infinite():
    p = np.zeros((len(IRIS), 3))
    p[np.arange(len(p)), (IRIS.y.numpy() + 1) % 3] = 1.0
    result = fidelity(
        ReferenceProbabilities(probabilities=p, y=IRIS.y.numpy()), posterior_of((1, 9)), IRIS
    )
    assert result["nll_difference"].value == -math.inf
    assert 0 < result["total_variation"].value <= 1


@pytest.mark.parametrize(
    ("probabilities", "y", "message"),
    [
        (np.ones(3), np.zeros(3, int), r"shape \(3,\), expected \(point, class\)"),
        (np.full((2, 2), 0.5), np.zeros(3, int), r"labels of shape \(3,\) for 2 points"),
        (np.array([[0.5, 0.5], [np.nan, 1]]), np.zeros(2, int), "point 1 has NaN"),
        (np.array([[2.0, -1.0]]), np.zeros(1, int), "point 0 has the value 2, .* softmax"),
        (np.array([[0.5, 0.5], [0.5, 0.3]]), np.zeros(2, int), "point 1 sum to 0.8, expected 1"),
        (np.full((2, 2), 0.5), np.array([0, 2]), "label of point 1 is 2, .* from 0 to 1"),
    ],
)
def test_arrays_that_are_no_probabilities_are_refused(probabilities, y, message):
    with pytest.raises(InvalidData, match=message):
        ReferenceProbabilities(probabilities=probabilities, y=y)


def test_other_points_classes_and_targets_are_refused():
    own, y = posterior_of((1, 5)), IRIS.y.numpy()
    array = np.full((len(IRIS), 3), 1 / 3)
    with pytest.raises(IncompatiblePosteriors, match="30 test points, probabilities has 29"):
        fidelity(ReferenceProbabilities(probabilities=array[1:], y=y[1:]), own, IRIS)
    with pytest.raises(IncompatiblePosteriors, match="at test point 0"):
        fidelity(ReferenceProbabilities(probabilities=array, y=(y + 1) % 3), own, IRIS)
    with pytest.raises(IncompatiblePosteriors, match="3 classes, probabilities predicts 4 classes"):
        fidelity(ReferenceProbabilities(probabilities=np.full((30, 4), 0.25), y=y), own, IRIS)
    numbers = posterior_of((1, 5), likelihood=Gaussian(noise=1.0), num_outputs=1)
    with pytest.raises(IncompatiblePosteriors, match="predicts regression"):
        fidelity(own, numbers, IRIS)
    with pytest.raises(ConfigError, match="got 0 posteriors"):
        fidelity(own, [], IRIS)
    with pytest.raises(InvalidData, match="posterior 0 or the reference predicts NaN"):
        fidelity(own, constant(torch.tensor([[math.nan, 0.0, 0.0]])), IRIS)
