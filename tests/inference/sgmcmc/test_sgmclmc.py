"""SGMCLMC against the law of its own recursion on a Gaussian target, and its settings."""

import math

import numpy as np
import pytest
import torch

from bnn_symm.errors import ConfigError
from bnn_symm.inference import MAP, SGMCLMC
from bnn_symm.inference.method import ConvergenceWarning
from bnn_symm.inference.minibatches import IndependentMinibatches
from bnn_symm.inference.sgmcmc.sgmclmc import _DAMPING
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.testing.exact_targets import NOISE

from .test_stochastic_gradient import ONE, States, linear_regression, stationary, unchecked

_ = unchecked  # a fixture


def regression(points: int, features: int):
    """Linear regression with features of very different scales, and the law of its posterior."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(-0.5, 0.5, features, dtype=torch.float64)
    x = torch.randn(points, features, generator=generator, dtype=torch.float64) * scales
    y = x @ torch.linspace(-1, 1, features).double()
    y = y + NOISE * torch.randn(points, generator=generator, dtype=torch.float64)
    model, data = linear_regression(x, y)
    precision = (x.T @ x / NOISE**2 + torch.eye(features)).numpy()
    mean = np.linalg.solve(precision, (x.T @ y / NOISE**2).numpy())
    residual = (x @ torch.from_numpy(mean) - y)[:, None] * x / NOISE**2
    return model, data, mean, precision, np.cov(residual.T.numpy(), ddof=0)


def recursion(method: SGMCLMC, precision, covariance, variance):
    """Of (w, p) with p = sqrt(d) u: A and the covariance of the noise of one step, for large d.

    Noise turns the direction by the angle a: p' = c p - k step s (H (w + step / 2 s p) + noise),
    c = 1 / cosh(a), k = tanh(a) / a; then it is refreshed by m z, and normalized.
    """
    d, step = len(precision), method.step_size
    scale = 1 / (np.sqrt(variance) + _DAMPING * math.sqrt(variance.mean()))
    angle = step * math.sqrt(d / (d - 1) ** 2 * (scale**2 * np.diag(covariance)).sum())
    keep, answer = 1 / math.cosh(angle), math.tanh(angle) / angle * step * d / (d - 1)
    added = step**2 * (1 - scale**2 * variance) + math.expm1(2 * step / method.decoherence_length)
    shrink = 1 / math.sqrt(1 + added.mean())
    half = np.diag(0.5 * step * scale)
    force = shrink * answer * np.diag(scale)
    one = np.eye(d)
    to_middle = np.hstack([one, half])
    momentum = np.hstack([0 * one, shrink * keep * one]) - force @ precision @ to_middle
    a_matrix = np.vstack([to_middle + half @ momentum, momentum])
    noise = shrink**2 * np.diag(added) + force @ covariance @ force.T
    into = np.vstack([half, one])
    return a_matrix, into @ noise @ into.T


@pytest.mark.thorough
@pytest.mark.usefixtures("unchecked")
def test_draws_have_the_law_of_the_recursion():
    """Linear regression, 32 of 400 points a step: means, and variances in the directions where they
    differ most from the posterior's, within 4 standard errors of the exact law and 4 % for d = 40.
    """
    model, data, mean, precision, covariance = regression(400, 40)
    covariance = covariance * 400**2 / 32
    method = SGMCLMC(batch_size=32, num_warmup=1500, num_draws=800, thinning=4, **ONE)
    states = States()
    start = MAP(num_steps=600, learning_rate=0.03).fit(model, data, seed=0)
    posterior = method.fit(model, data, seed=1, initial=start, callbacks=[states])
    variance = states.reported[-1][1]["gradient_variance"]
    sampling = [s["gradient_variance"] for _, s in states.reported if s["step"] >= 1500]
    assert all(np.array_equal(one, variance) for one in sampling)

    a_matrix, noise = recursion(method, precision, covariance, variance)
    joint = stationary(a_matrix, noise)
    law = joint[:40, :40]
    root = np.linalg.cholesky(precision)
    relative, directions = np.linalg.eigh(root.T @ law @ root)
    # Noise that is correlated between coordinates biases some directions, which is visible.
    assert relative[0] < 0.85
    assert relative[-1] > 1.3
    deviations = (posterior.draws().double().numpy().reshape(-1, 40) - mean) @ root @ directions
    step, cross = np.linalg.matrix_power(a_matrix, method.thinning), joint
    squares, sums = np.zeros(40), np.zeros(40)
    for k in range(300):
        own = directions.T @ root.T @ cross[:40, :40] @ root @ directions
        rho = own.diagonal() / relative
        squares += (1 if k == 0 else 2) * rho**2
        sums += (1 if k == 0 else 2) * rho
        cross = step @ cross
    number = len(deviations)
    found = (deviations**2).mean(0) / relative
    errors = np.sqrt(2 * squares / number)
    assert (np.abs(found - 1) <= 4 * errors + 0.04).all()
    assert abs(found.mean() - 1) <= 4 * errors.max() / math.sqrt(40) + 0.04
    assert (np.abs(deviations.mean(0)) <= 4 * np.sqrt(relative * sums / number)).all()


@pytest.mark.usefixtures("unchecked")
def test_curvature_limits_steps_where_gradients_have_little_noise():
    """With as many points a step as there are, the noise alone would allow too large steps."""
    model, data, *_ = regression(40, 5)
    start = MAP(num_steps=100, learning_rate=0.1).fit(model, data, seed=0)

    def angles(energy_variance: float) -> np.ndarray:
        settings = {"num_warmup": 300, "num_draws": 5, "thinning": 1, **ONE}
        method = SGMCLMC(energy_variance=energy_variance, **settings)
        posterior = method.fit(model, data, seed=0, initial=start)
        assert isinstance(posterior, SamplePosterior)
        return posterior.sample_stats["step_size"]

    assert (angles(1e-9) < 0.1).all()
    np.testing.assert_allclose(angles(10.0), 0.2)


@pytest.mark.usefixtures("unchecked")
def test_a_chain_that_comes_from_afar_says_so():
    model, data, *_ = regression(200, 5)
    settings = {"num_warmup": 100, "num_draws": 250, "thinning": 4, "log_every": 10, **ONE}
    method = SGMCLMC(batch_size=20, **settings)
    with pytest.warns(ConvergenceWarning, match="the potential of 1 chain still fell by"):
        method.fit(model, data, seed=0)
    start = MAP(num_steps=100, learning_rate=0.1).fit(model, data, seed=0)
    assert not method.fit(model, data, seed=0, initial=start).info["warnings"]


@pytest.mark.usefixtures("unchecked")
def test_a_chain_that_still_spreads_from_a_mode_says_so():
    """From the mode, U rises by half the number of parameters."""
    model, data, *_ = regression(200, 60)
    settings = {"num_warmup": 100, "num_draws": 400, "thinning": 1, "log_every": 10, **ONE}
    method = SGMCLMC(batch_size=200, step_size=0.003, **settings)
    start = MAP(num_steps=300, learning_rate=0.05).fit(model, data, seed=0)
    with pytest.warns(ConvergenceWarning, match="still rose by .* so .*; raise inference.num_warm"):
        method.fit(model, data, seed=0, initial=start)


def test_batches_are_drawn_with_replacement_and_keyed_by_their_step():
    _, data, *_ = regression(40, 2)
    batches = IndependentMinibatches(data.train, 40, seed=3)
    first, again, other = batches.take(7), batches.take(7), batches.take(8)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first[0], other[0])
    assert len(first[0].unique(dim=0)) < 40


def test_a_warm_up_and_two_parameters_are_needed():
    model, data, *_ = regression(40, 2)
    with pytest.raises(ConfigError, match="num_warmup is 2, but sgmclmc measures the noise"):
        SGMCLMC(num_warmup=2, **ONE).fit(model, data, seed=0)
    model, data, *_ = regression(40, 1)
    with pytest.raises(ConfigError, match="at least 2 parameters, got 1"):
        SGMCLMC(num_warmup=20, num_draws=2, **ONE).fit(model, data, seed=0)
