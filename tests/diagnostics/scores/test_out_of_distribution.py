import json

import numpy as np
import pytest
import torch
from sklearn import metrics

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.diagnostics.scores.out_of_distribution import (
    out_of_distribution,
    separation,
    uncertainties,
)
from bnn_symm.io.atomic import json_text
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.randomness import numpy_generator, torch_generator

RANDOM = numpy_generator(0, "out of distribution")
INSIDE, OUTSIDE = RANDOM.normal(size=70), RANDOM.normal(size=50) + 1
CASES = {
    "distinct": (INSIDE, OUTSIDE),
    "tied": (np.round(INSIDE), np.round(OUTSIDE)),
    "apart": (INSIDE - 100, OUTSIDE),
    "constant": (np.ones(70), np.ones(50)),
    "one of each": (np.array([0.2]), np.array([0.3])),
}


def posterior_of(likelihood, num_outputs, *, draws=(2, 5), scale=1.0):
    net = build_network(MLPConfig(widths=(8,)), input_shape=(2,), num_outputs=num_outputs).double()
    model = BayesianModel(net, Prior(), likelihood)
    generator = torch_generator(0, "ood")
    flat = torch.randn(*draws, model.num_parameters, generator=generator, dtype=torch.float64)
    return SamplePosterior.from_draws(model, scale * flat)


def points(number, *, distance=1.0):
    return distance * torch.randn(
        number, 2, generator=torch_generator(0, "points"), dtype=torch.float64
    )


@pytest.mark.parametrize("name", CASES)
def test_metrics_equal_scikit_learns(name):
    inside, outside = CASES[name]
    found = separation(inside, outside, num_resamples=50)
    positive = np.append(np.zeros(len(inside)), np.ones(len(outside)))
    score = np.append(inside, outside)
    assert found.auroc.value == pytest.approx(metrics.roc_auc_score(positive, score), abs=1e-9)
    assert found.aupr_out.value == pytest.approx(
        metrics.average_precision_score(positive, score), abs=1e-9
    )
    assert found.aupr_in.value == pytest.approx(
        metrics.average_precision_score(1 - positive, -score), abs=1e-9
    )
    wrong, hit, _ = metrics.roc_curve(positive, score, drop_intermediate=False)
    assert found.fpr95.value == pytest.approx(wrong[np.argmax(hit >= 0.95 - 1e-12)], abs=1e-9)
    assert found.inside.value == pytest.approx(inside.mean())
    if name == "one of each":
        assert found.auroc.low is None
        assert found.auroc.note == "one point has no interval"
    else:
        assert found.auroc.low <= found.auroc.value <= found.auroc.high


def test_a_constant_score_is_guessing():
    found = separation(*CASES["constant"], num_resamples=20)
    assert (found.auroc.value, found.fpr95.value) == (0.5, 1.0)
    assert found.aupr_out.value == pytest.approx(50 / 120)
    # Differences by rounding only separate nothing either.
    rounding = separation(1 + 1e-12 * INSIDE, 1 + 1e-12 * OUTSIDE, num_resamples=0)
    assert rounding.auroc.value == 0.5


@pytest.mark.thorough
def test_intervals_cover_the_area_of_two_normals():
    # Of normals one standard deviation apart the area is Phi(1 / sqrt 2) = 0.7602.
    hits = 0
    for trial in range(100):
        random = numpy_generator(trial, "two normals")
        own = separation(
            random.normal(size=60), 1 + random.normal(size=60), num_resamples=200, level=0.9
        ).auroc
        hits += own.low <= 0.7602 <= own.high
    # 0.9 with a standard error of 0.03 over 100 trials: three of them.
    assert hits >= 81


def test_kinds_of_uncertainty_of_classes():
    posterior = posterior_of(Categorical(), 3)
    x = points(20)
    found, predictive = uncertainties(posterior, x), posterior.predict(x)
    np.testing.assert_allclose(found["entropy"], predictive.entropy())
    np.testing.assert_allclose(found["mutual_information"], predictive.mutual_information())
    np.testing.assert_allclose(
        found["confidence"], 1 - predictive.probabilities().amax(-1), atol=1e-12
    )


def test_doubt_is_exact_where_the_largest_probability_rounds_to_one():
    posterior = posterior_of(Categorical(), 3, scale=20.0, draws=(1, 1))
    found = uncertainties(posterior, points(50))["confidence"]
    tiny = found[found < 1e-17]
    assert len(tiny) > 5
    assert len(np.unique(tiny)) > 5


def test_distance_shows_in_the_epistemic_part_of_a_regression():
    posterior = posterior_of(Gaussian(noise=0.5), 1)
    found = out_of_distribution(posterior, points(60), points(60, distance=10.0), num_resamples=100)
    assert list(found.by) == ["sd", "epistemic_sd"]
    assert found.by["epistemic_sd"].auroc.low > 0.8
    assert (found.inside_points, found.outside_points, found.notes) == (60, 60, ())
    json.loads(json_text(found.to_dict()))


def test_one_draw_disagrees_about_nothing():
    posterior = posterior_of(Categorical(), 3, draws=(1, 1))
    found = out_of_distribution(posterior, points(10), points(10, distance=3.0), num_resamples=20)
    assert found.by["mutual_information"].auroc.value == 0.5
    assert found.notes == (
        "mutual_information is the same for every point, so it separates nothing",
    )


def test_no_points():
    with pytest.raises(ValueError, match="got 3 points inside and 0 outside"):
        out_of_distribution(posterior_of(Categorical(), 3), points(3), points(0))


def test_equal_draws_in_single_precision_disagree_about_nothing():
    # The entropies of float32 outputs differ by rounding, which ranked points before.
    for classes, scale in ((3, 1.0), (10, 30.0)):
        net = build_network(MLPConfig(widths=(8,)), input_shape=(2,), num_outputs=classes)
        model = BayesianModel(net, Prior(), Categorical())
        flat = scale * torch.randn(
            1, 1, model.num_parameters, generator=torch_generator(0, "equal")
        )
        posterior = SamplePosterior.from_draws(model, flat.expand(2, 3, -1).contiguous())
        found = uncertainties(posterior, points(200, distance=3.0).float())
        assert (found["mutual_information"] == 0).all()


@pytest.mark.parametrize("unit", [1e-15, 1.0, 1e12])
def test_the_unit_of_the_target_plays_no_part(unit):
    reference = separation(INSIDE - INSIDE.min(), OUTSIDE - INSIDE.min(), num_resamples=0)
    found = separation(
        unit * (INSIDE - INSIDE.min()), unit * (OUTSIDE - INSIDE.min()), num_resamples=0
    )
    assert found.auroc.value == reference.auroc.value
    assert found.fpr95.value == reference.fpr95.value
