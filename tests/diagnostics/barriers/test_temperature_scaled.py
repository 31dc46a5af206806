"""Temperature scaling along a path removes what is only too much or too little confidence."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from bnn_symm.data import Dataset, Split
from bnn_symm.diagnostics.barriers.barriers import barrier
from bnn_symm.diagnostics.barriers.interpolation import couple, couple_means
from bnn_symm.diagnostics.barriers.temperature_scaled import TemperatureScaledPath
from bnn_symm.diagnostics.calibration.temperature_scaling import fit_temperature
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.posteriors import SamplePosterior
from tests.diagnostics.barriers.test_barriers import dataset, gaussian, labels, model_of
from tests.models.cases import normal


def classes(outputs: Tensor, seed: int) -> Tensor:
    """Return the likeliest classes, a third of them replaced at random."""
    random = labels(len(outputs), seed=seed)
    return torch.where(normal(len(outputs), seed=seed) > 0.4, random, outputs.argmax(1))


def data_of(outputs: Callable[[Tensor], Tensor] = lambda x: x) -> Dataset:
    train, test, validation = (
        normal(points, 3, seed=seed) for seed, points in enumerate([24, 18, 30])
    )
    data = dataset(train, classes(outputs(train), 0), test=(test, classes(outputs(test), 1)))
    return replace(data, validation=Split(x=validation, y=classes(outputs(validation), 2)))


DATA = data_of()


def linear_classifier(factor: float = 1.0) -> SamplePosterior:
    """Return logits x, scaled, of a network of one layer."""
    model = BayesianModel(nn.Linear(3, 3, bias=False).double(), Prior(), Categorical())
    flat = factor * torch.eye(3, dtype=torch.float64).flatten()
    return SamplePosterior.from_draws(model, flat[None, None])


def test_a_larger_last_layer_is_all_confidence() -> None:
    """The path scales the logits from 1 to 4, and each temperature undoes it."""
    first, second = linear_classifier(), linear_classifier(4.0)
    path = TemperatureScaledPath(couple_means([first, second]), first, DATA.validation)
    for tau in (0.0, 0.25, 1.0):
        expected = path.temperature(0.0) * (1 + 3 * tau)
        assert path.temperature(tau) == pytest.approx(expected, rel=1e-3)
    result = barrier(first, second, DATA, num_tau=3, temperature_scaling=True)
    scaled = result.temperature_scaled
    assert scaled is not None
    assert abs(result.test.midpoint) > 0.01  # below the chord: the NLL is convex in the scale
    for curve in (scaled.test, scaled.train):
        np.testing.assert_allclose(curve.marginal_nll, curve.marginal_nll[0], atol=1e-6)
        assert curve.standard_error < 1e-3
    assert scaled.points == 30
    assert result.confidence == pytest.approx(result.height - scaled.test.height)


def test_temperature_and_loss_are_those_of_the_very_draws() -> None:
    first, second = gaussian(model_of(), 1, size=3.0), gaussian(model_of(), 2, size=3.0)
    data = data_of(lambda x: first.model.outputs((first.loc + second.loc) / 2, x))
    result = barrier(first, second, data, num_draws=6, num_tau=3, temperature_scaling=True, seed=4)
    assert result.temperature_scaled is not None
    assert barrier(first, second, data, num_draws=6, num_tau=3).temperature_scaled is None
    pairs = couple([first, second], num_draws=6, seed=4)
    draws = pairs.interpolate([0.5, 0.5])
    sample = SamplePosterior.from_draws(first.model, draws[None], first.scaling)

    def nll(part: Split, temperature: float) -> float:
        p = sample.predict(part.x).probabilities() ** (1 / temperature)
        return float(-(p / p.sum(-1, keepdim=True))[range(len(part)), part.y].log().mean())

    best = minimize_scalar(
        lambda log: nll(data.validation, np.exp(log)), bounds=(-4, 4), method="bounded"
    )
    for curve, part in (
        (result.temperature_scaled.test, data.test),
        (result.temperature_scaled.train, data.train),
    ):
        at = curve.tau.index(0.5)
        assert curve.temperature[at] == pytest.approx(np.exp(best.x), rel=1e-3)
        assert curve.marginal_nll[at] == pytest.approx(nll(part, np.exp(best.x)), rel=1e-4)
        above = np.array(curve.marginal_nll) - np.interp(
            curve.tau, [0, 1], [curve.marginal_nll[0], curve.marginal_nll[-1]]
        )
        assert curve.height == pytest.approx(above.max())
    own = fit_temperature(sample, data.validation).logit_temperature
    assert own == pytest.approx(np.exp(best.x), rel=1e-3)


@pytest.mark.thorough
def test_the_standard_error_includes_the_validation_points() -> None:
    """With more of them the temperatures vary less, and so do the losses of the same points."""
    first, second = linear_classifier(), linear_classifier(-0.5)
    errors = []
    for repeats in (1, 30):
        few = DATA.validation
        many = Split(x=few.x.repeat(repeats, 1), y=few.y.repeat(repeats))
        data = dataset(
            DATA.train.x, DATA.train.y, test=(DATA.test.x.repeat(30, 1), DATA.test.y.repeat(30))
        )
        data = replace(data, validation=many)
        result = barrier(first, second, data, num_tau=2, temperature_scaling=True)
        assert result.temperature_scaled is not None
        errors.append(result.temperature_scaled.test.standard_error)
    assert errors[0] > 1.2 * errors[1]


def test_no_classes_or_no_validation_points_are_refused() -> None:
    first, second = linear_classifier(), linear_classifier(2.0)
    empty = dataset(DATA.train.x, DATA.train.y)
    with pytest.raises(ConfigError, match="validation_fraction"):
        barrier(first, second, empty, temperature_scaling=True)
    numbers = model_of(likelihood=Gaussian(noise=0.1), outputs=1)
    data = dataset(normal(9, 3), normal(9), task="regression")
    ends = [gaussian(numbers, seed) for seed in (1, 2)]
    with pytest.raises(ConfigError, match="class probabilities"):
        barrier(*ends, data, temperature_scaling=True)
