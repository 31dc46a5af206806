import json

import pytest
import torch

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import Split, shift
from bnn_symm.diagnostics.scores.score_intervals import scores_with_intervals
from bnn_symm.diagnostics.scores.shift_curves import shift_curve, shifts_for
from bnn_symm.errors import ConfigError, InvalidData
from bnn_symm.io.atomic import json_text
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.randomness import torch_generator


def case(shape, likelihood, num_outputs, points=30):
    net = build_network(MLPConfig(widths=()), input_shape=shape, num_outputs=num_outputs).double()
    model = BayesianModel(net, Prior(), likelihood)
    generator = torch_generator(0, "shift curves")
    flat = torch.randn(1, 6, model.num_parameters, generator=generator, dtype=torch.float64)
    x = torch.randn(points, *shape, generator=generator, dtype=torch.float64)
    posterior = SamplePosterior.from_draws(model, flat)
    if num_outputs > 1:
        return posterior, Split(x=x, y=posterior.predict(x).probabilities().argmax(-1))
    return posterior, Split(x=x, y=posterior.predict(x).mean())


def test_every_severity_has_the_scores_of_the_shifted_points():
    posterior, part = case((1, 6, 6), Categorical(), 3)
    curve = shift_curve(
        posterior, part, "rotation", severities=(0, 20, 90), num_resamples=20, seed=3
    )
    for severity, scores in zip(curve.severities, curve.scores, strict=True):
        own = part if severity == 0 else shift(part, "rotation", severity, seed=3)
        wanted = scores_with_intervals(posterior, own, num_resamples=20, seed=3)
        assert scores.to_dict() == wanted.to_dict()
    # Targets are what was predicted without a shift.
    accuracies = [scores["accuracy"].value for scores in curve.scores]
    assert accuracies[0] == 1.0
    assert accuracies[2] < 0.8


def test_severities_by_default():
    posterior, part = case((1, 6, 6), Categorical(), 3, points=5)
    assert shift_curve(posterior, part, "rotation", num_resamples=0).severities == tuple(
        range(0, 181, 15)
    )
    assert shift_curve(posterior, part, "contrast", num_resamples=0).severities == (
        0,
        1,
        2,
        3,
        4,
        5,
    )
    assert shifts_for(part) == ("rotation", "gaussian_noise", "gaussian_blur", "contrast")


def test_noise_spoils_a_table():
    posterior, part = case((4,), Gaussian(noise=0.3), 1)
    assert shifts_for(part) == ("gaussian_noise",)
    curve = shift_curve(posterior, part, "gaussian_noise", num_resamples=20)
    content = json.loads(json_text(curve.to_dict()))
    errors = [row["value"] for row in content["scores"]["rmse"]]
    assert errors[0] == pytest.approx(0, abs=1e-12)
    assert errors[0] < errors[1] < errors[5]
    assert (content["points"], content["severities"]) == (30, [0, 1, 2, 3, 4, 5])


def test_scores_without_a_shift_are_not_computed_again():
    posterior, part = case((4,), Gaussian(noise=0.3), 1)
    marked = scores_with_intervals(posterior, part.take(slice(0, 7)), num_resamples=0)
    curve = shift_curve(
        posterior, part, "gaussian_noise", severities=(0, 1), unshifted=marked, num_resamples=0
    )
    assert [scores.points for scores in curve.scores] == [7, 30]


def test_what_cannot_be_shifted():
    posterior, part = case((4,), Gaussian(noise=0.3), 1)
    with pytest.raises(InvalidData, match="is for images"):
        shift_curve(posterior, part, "rotation", severities=(30,))
    with pytest.raises(ConfigError, match="unknown shift 'rotatin'"):
        shift_curve(posterior, part, "rotatin", severities=(30,))
    with pytest.raises(ValueError, match="no points to shift"):
        shift_curve(posterior, part.take(slice(0, 0)), "gaussian_noise")
