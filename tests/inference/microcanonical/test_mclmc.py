"""Microcanonical dynamics: the integrator, exact targets, the stated bias, and recovery."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from bnn_symm.errors import ConfigError
from bnn_symm.inference import MCLMC
from bnn_symm.inference.density.compiled import has_compiler
from bnn_symm.inference.microcanonical.isokinetic import (
    minimal_norm_step,
    normalized,
    refresh,
    turn,
)
from bnn_symm.inference.microcanonical.mclmc_kernel import path_step
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.testing import assert_exact_moments, exact_posterior, linear_regression


def quartic(positions):
    """U of a density with curved contours, and its gradient."""
    return (positions.square() / 2 + positions**4 / 4).sum(-1), positions + positions**3


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    position, direction = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    scale = torch.rand(3, 5, generator=generator, dtype=torch.float64) + 0.5
    return position, normalized(direction), scale


def test_a_turn_solves_its_differential_equation(batch):
    _, start, _ = batch
    gradient = torch.linspace(-3, 4, 15, dtype=torch.float64).reshape(3, 5)
    time = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
    turned, gain = turn(start, gradient, time)
    inertia = start.shape[1] - 1

    def slope(u):
        return -(gradient - (u * gradient).sum(-1, keepdim=True) * u) / inertia

    u, kinetic, number = start, torch.zeros(3, dtype=torch.float64), 2000
    h = time[:, None] / number
    for _ in range(number):  # midpoint rule
        middle = u + h / 2 * slope(u)
        kinetic = kinetic - h[:, 0] * (middle * gradient).sum(-1)
        u = u + h * slope(middle)
    assert torch.allclose(turned, u, atol=1e-6)
    assert torch.allclose(gain, kinetic, atol=1e-5)
    assert torch.allclose(turned.norm(dim=-1), torch.ones(3, dtype=torch.float64), atol=1e-12)
    back, loss = turn(turned, gradient, -time)
    assert torch.allclose(back, start, atol=1e-10)
    assert torch.allclose(loss, -gain, atol=1e-10)


def test_the_turn_of_a_steep_gradient_is_finite(batch):
    _, direction, _ = batch
    for size in (0.0, 1e-30, 1e30):
        turned, _ = turn(direction, size * torch.ones_like(direction), torch.ones(3).double())
        assert torch.isfinite(turned).all()
        assert torch.allclose(turned.norm(dim=-1), torch.ones(3).double())


def test_the_step_is_reversible_and_its_error_of_third_order(batch):
    position, direction, scale = batch
    energy, gradient = quartic(position)
    errors = []
    for size in (0.04, 0.02):
        step = torch.full((3,), size, dtype=torch.float64)
        x, u, g, e, error = minimal_norm_step(
            quartic, position, direction, gradient, energy, step, scale
        )
        errors.append(error.abs())
        x, u, _, _, back = minimal_norm_step(quartic, x, -u, g, e, step, scale)
        assert torch.allclose(x, position, atol=1e-12)
        assert torch.allclose(u, -direction, atol=1e-12)
        assert torch.allclose(back, -error, atol=1e-10)
    # Half the step, an eighth of the error, up to terms of the next order.
    assert ((errors[0] / errors[1] - 8).abs() < 1.5).all()


def test_refreshment_decorrelates_over_the_decoherence_length():
    generator = torch.Generator().manual_seed(0)
    u = normalized(torch.randn(2000, 50, generator=generator, dtype=torch.float64))
    start, step, length = u, torch.full((2000,), 0.1).double(), torch.full((2000,), 1.0).double()
    for _ in range(10):  # over one decoherence length
        u = refresh(u, torch.randn(2000, 50, generator=generator).double(), step, length)
    # exp(-1), up to terms of order 1 / d; the standard error is 0.003.
    assert abs(float((u * start).sum(-1).mean()) - math.exp(-1)) < 0.02
    far = torch.full((2000,), math.inf).double()
    assert torch.allclose(refresh(start, u, step, far), start)


def follow(evaluate, position, *, steps, step, decay=0.0):
    chains, size = position.shape
    generator = torch.Generator().manual_seed(1)
    energy, gradient = evaluate(position)
    direction = normalized(torch.randn(chains, size, generator=generator, dtype=position.dtype))
    sizes = torch.full((chains,), step, dtype=torch.float64)
    zeros = [torch.zeros(chains, dtype=torch.float64) for _ in range(4)]
    ones = torch.ones(chains, dtype=torch.float64)
    noise = torch.randn(steps, chains, size, generator=generator, dtype=position.dtype)
    state = [position, direction, gradient, energy, sizes, ones, 0.01 / sizes**6, *zeros]
    number, length = torch.full((chains,), steps), size**0.5 * ones
    constants = [noise, number, length, torch.ones_like(position), 0.01 * ones, decay * ones]
    for index in range(steps):
        state = path_step(evaluate, torch.tensor([index]), *state, *constants, pool=False)
    return state


@pytest.mark.thorough
def test_chains_turn_back_at_the_edge_of_the_support():
    """Beyond the unit ball the density is not a number; no chain may stick to its edge."""

    def inside(positions):
        energy = 0.5 * positions.square().sum(-1)
        outside = positions.square().sum(-1) > 1.0
        gradient = torch.where(outside[:, None], torch.nan, positions)
        return torch.where(outside, torch.nan, energy), gradient

    start = torch.zeros(20, 6, dtype=torch.float64)
    start[:, 0] = 0.99
    previous = start
    for steps in (100, 200, 300):
        position, *_, failed = follow(inside, start, steps=steps, step=0.3)
        assert torch.isfinite(position).all()
        assert ((position - previous).norm(dim=-1) > 1e-3).all()
        assert (failed > 0).all()
        previous = position


@pytest.mark.thorough
def test_the_step_size_recovers_from_a_start_far_too_large_or_small():
    start = torch.randn(20, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = [follow(quartic, start, steps=600, step=step, decay=0.98)[4] for step in (1.0, 50.0)]
    assert (ends[0] > 4).all()
    assert ((ends[0] / ends[1] - 1).abs() < 0.05).all()


def test_steps_do_not_shrink_without_end_where_all_of_them_fail():
    def nowhere(positions):
        energy = torch.where(positions.square().sum(-1) == 0, 0.0, torch.nan)
        return energy.double(), torch.zeros_like(positions)

    start = torch.zeros(4, 10, dtype=torch.float64)
    position, _, _, _, step, *_, failed = follow(nowhere, start, steps=300, step=1.0, decay=0.98)
    assert (position == start).all()
    assert (failed == 300).all()
    assert torch.allclose(step, torch.tensor(1e-5 * 10**0.5).double())


# The chains need longer paths on eleven numbers, as their scales are diagonal.
EXACT = MCLMC(
    num_chains=16,
    adjusted=True,
    adaptation="shared",
    adapt_mass_matrix=True,
    trajectory_length=5.0,
)


@pytest.mark.thorough
def test_adjusted_chains_recover_the_exact_posterior():
    model, data = linear_regression()
    method = dataclasses.replace(EXACT, num_chains=40, num_warmup=40, num_draws=24, compile=False)
    posterior = method.fit(model, data, seed=0)
    assert_exact_moments(posterior, exact_posterior(data), min_ess=200, max_rhat=1.1)
    assert isinstance(posterior, SamplePosterior)
    assert not posterior.sample_stats["diverging"].any()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("temperature", "tempering"),
    [
        (0.1, "posterior"),
        pytest.param(1.0, "likelihood", marks=pytest.mark.slow),
        pytest.param(0.1, "likelihood", marks=pytest.mark.slow),
    ],
)
def test_adjusted_chains_are_unbiased_at_every_temperature(temperature, tempering):
    model, data = linear_regression()
    method = dataclasses.replace(
        EXACT,
        num_warmup=100,
        num_draws=250,
        temperature=temperature,
        tempering=tempering,
        compile=has_compiler(),
    )
    posterior = method.fit(model, data, seed=0)
    # R-hat of chains this short may be up to 1.02.
    assert_exact_moments(posterior, exact_posterior(data, temperature, tempering), max_rhat=1.02)
    assert isinstance(posterior, SamplePosterior)
    assert not posterior.sample_stats["diverging"].any()


@pytest.mark.thorough
@pytest.mark.parametrize(
    "adaptation", ["shared", pytest.param("per_chain", marks=pytest.mark.slow)]
)
def test_unadjusted_chains_are_within_their_stated_bias(adaptation):
    """`docs/explanation/methods.md` states the bias of standard deviations."""
    model, data = linear_regression()
    exact = exact_posterior(data)
    # The effective sample size is about 1,000, so that the standard error of a ratio is 0.022.
    stated = {0.1: (0.87, 0.99), 0.01: (0.92, 1.04), 1e-3: (0.94, 1.06), 5e-4: (0.94, 1.06)}
    for variance, (least, most) in stated.items():
        method = MCLMC(
            num_chains=16,
            num_warmup=300,
            num_draws=500,
            energy_variance=variance,
            initial_energy_variance=variance,
            adaptation=adaptation,
            adapt_mass_matrix=True,
            compile=has_compiler(),
        )
        posterior = method.fit(model, data, seed=0)
        draws = posterior.draws().double()
        ratio = draws.std(0) / exact.sd
        assert ((draws.mean(0) - exact.mean).abs() < 0.1 * exact.sd).all()
        assert least < float(ratio.min())
        assert float(ratio.max()) < most
        assert isinstance(posterior, SamplePosterior)
        reached = posterior.sample_stats["energy_variance"].mean()
        assert 0.3 < reached / variance < 3


@pytest.mark.thorough
@pytest.mark.parametrize("adjusted", [False, True])
def test_compiled_paths_equal_uncompiled_ones(adjusted):
    model, data = linear_regression()
    method = MCLMC(num_chains=3, num_warmup=3, num_draws=2, adjusted=adjusted)
    draws = [
        dataclasses.replace(method, compile=compile).fit(model, data, seed=0).draws()
        for compile in (False, True)
    ]
    assert torch.allclose(draws[0], draws[1], atol=1e-7)


def test_settings_that_cannot_be_right_are_refused():
    model, data = linear_regression()
    with pytest.raises(ConfigError, match="mass_matrix of mclmc must be diagonal or auto"):
        MCLMC(mass_matrix="dense").fit(model, data, seed=0)


def test_statistics_of_the_draws():
    model, data = linear_regression()
    method = MCLMC(num_chains=2, num_warmup=6, num_draws=4, steps_per_draw=3, compile=False)
    posterior = method.fit(model, data, seed=0)
    assert isinstance(posterior, SamplePosterior)
    stats = posterior.sample_stats
    assert (stats["n_steps"] == 6).all()
    assert ((stats["acceptance_rate"] >= 0) & (stats["acceptance_rate"] <= 1)).all()
    # Step sizes do not change after warm-up.
    assert (np.ptp(stats["step_size"], axis=1) == 0).all()
