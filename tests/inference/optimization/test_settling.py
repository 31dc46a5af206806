"""Warnings of fits that ended far from their optimum, on linear models whose posterior is known."""

import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.inference import (
    MAP,
    SWAG,
    DeepEnsemble,
    LaplaceApproximation,
    LowRankVI,
    MeanFieldVI,
)
from bnn_symm.inference.method import ConvergenceWarning
from bnn_symm.inference.optimization.optimality import (
    drift_warning,
    iterations,
    potential,
    relative_variance,
    squared_distance,
    squared_distance_limit,
)
from bnn_symm.models import BayesianModel, Gaussian, Prior
from bnn_symm.testing import exact_posterior, linear_regression
from bnn_symm.testing.exact_targets import NOISE

MODEL, DATA = linear_regression()
EXACT = exact_posterior(DATA)
SIZE = MODEL.num_parameters


def square_distance(position):
    difference = position.double() - EXACT.mean
    return float(difference @ EXACT.precision @ difference)


def fitted(method):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        posterior = method.fit(MODEL, DATA, seed=0)
    own = [str(one.message) for one in caught if issubclass(one.category, ConvergenceWarning)]
    assert own == [f"convergence: {note}" for note in posterior.info["warnings"]]
    return posterior, own


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("apart", [0.0, 0.1, 3.0, 100.0])
def test_squared_distance_is_that_of_the_exact_posterior(apart, objectives):
    method = MAP()
    generator = torch.Generator().manual_seed(0)
    position = EXACT.mean + apart * EXACT.sd * torch.randn(
        SIZE, generator=generator, dtype=torch.float64
    )
    found = squared_distance(
        [potential(method, MODEL, len(DATA.train))] * objectives,
        position,
        DATA.train,
        points_at_once=100,
        iterations=200,
    )
    assert found == pytest.approx(square_distance(position), rel=1e-6, abs=1e-9)
    few = squared_distance(
        [potential(method, MODEL, len(DATA.train))],
        position,
        DATA.train,
        points_at_once=512,
        iterations=2,
    )
    assert few <= found * (1 + 1e-6) + 1e-9


@pytest.mark.thorough
@pytest.mark.parametrize("factor", [0.1, 1.0, 30.0])
def test_variances_are_in_units_of_the_posterior(factor):
    generator = torch.Generator().manual_seed(0)
    root = torch.linalg.cholesky(torch.linalg.inv(EXACT.precision))
    noise = torch.randn(200, SIZE, generator=generator, dtype=torch.float64)
    deviations = [side * math.sqrt(factor) * root @ one for one in noise for side in (1, -1)]
    own = potential(MAP(), MODEL, len(DATA.train))
    found = relative_variance(own, EXACT.mean, deviations, DATA.train, points_at_once=512)
    # A mean of 200 chi squares of D degrees of freedom over D: four standard errors.
    assert found == pytest.approx(factor, rel=4 * math.sqrt(2 / (200 * SIZE)))


@pytest.mark.parametrize(
    "method",
    [
        MAP(num_steps=20),
        LaplaceApproximation(num_steps=20),
        DeepEnsemble(num_steps=20, num_members=2, chain_method="sequential"),
        MeanFieldVI(num_steps=20),
        LowRankVI(num_steps=20),
    ],
    ids=lambda method: method.name,
)
def test_a_fit_that_ended_early_warns(method):
    posterior, caught = fitted(method)
    position = torch.cat(list(posterior.iter_draws())).mean(0)
    assert square_distance(position) > squared_distance_limit(SIZE)
    assert any("posterior standard deviations from its optimum" in note for note in caught)
    assert all(f"inference.num_steps={2 * 20 if 40 > 100 else 100}" in note for note in caught)


@pytest.mark.parametrize(
    "method",
    [
        MAP(learning_rate=0.02, num_steps=1500),
        pytest.param(MeanFieldVI(num_steps=1500), marks=pytest.mark.thorough),
    ],
)
def test_a_fit_that_converged_does_not_warn(method):
    posterior, caught = fitted(method)
    assert caught == []
    position = posterior.read(0, 0, 1)[0] if isinstance(method, MAP) else posterior.loc
    assert square_distance(position) < squared_distance_limit(SIZE)


@pytest.mark.parametrize("noise", [pytest.param(0.1, marks=pytest.mark.thorough), NOISE])
def test_swag_by_default_stays_at_the_mode_or_warns(noise):
    net = build_network(MLPConfig(widths=()), input_shape=DATA.input_shape, num_outputs=1).double()
    model = BayesianModel(net, Prior(), Gaussian(noise=noise))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        posterior = SWAG(num_steps=1000, num_draws=50).fit(model, DATA, seed=0)
    draws = torch.cat(list(posterior.iter_draws()))
    x = torch.cat([DATA.train.x, torch.ones(len(DATA.train), 1)], 1).double()
    precision = x.T @ x / noise**2 + torch.eye(SIZE).double()
    ratio = draws.double().var(0) @ precision.diag() / SIZE
    assert ratio < 20 or any("SGD left the mode" in str(one.message) for one in caught)


@pytest.mark.thorough
def test_swag_that_leaves_the_mode_warns():
    _, caught = fitted(SWAG(num_steps=400, num_draws=50, collect_learning_rate=0.3, batch_size=20))
    assert any("SGD left the mode" in note for note in caught)


def test_a_fit_that_was_to_stop_early_is_not_blamed():
    early = dataclasses.replace(MAP(num_steps=20), early_stopping={"patience": 2})
    assert fitted(early)[1] == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.linspace(1000, 0, 200), "still decreasing"),
        (1000 * 0.9 ** np.arange(200.0), None),
        (np.concatenate([np.linspace(100, 0, 100), np.linspace(0, 900, 100)]), "above its minimum"),
        (np.random.default_rng(0).normal(0, 50, 200), None),
        (np.linspace(1000, 0, 5), None),
        (np.full(200, np.inf), None),
    ],
    ids=["falling", "settled", "rising", "noise", "short", "infinite"],
)
def test_drifts(values, words):
    rows = [{"step": 20 * i, "objective": value} for i, value in enumerate(values)]
    note = drift_warning("map", rows, 10, "inference.num_steps=8000")
    assert (note is None) == (words is None)
    assert words is None or words in note


def test_the_work_is_a_share_of_that_of_the_fit():
    assert iterations(60_000, 100_000, 60_000 * 17) == 0
    assert iterations(60_000, 100_000, 60_000 * 1000) == 30
    assert iterations(60, 4, 60 * 10) == 8
