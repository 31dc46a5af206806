import numpy as np
import pytest
import torch
from scipy import integrate, stats

from bnn_symm.diagnostics.fidelity.wasserstein import (
    wasserstein_of_draws,
    wasserstein_of_mixtures,
)
from bnn_symm.likelihoods import HeteroscedasticGaussian, Poisson, StudentT
from bnn_symm.posteriors import Predictive


def normals(mean, sd, location=0.0, scale=1.0):
    """Return a mixture of normals, from means and standard deviations (draw, point)."""
    mean, sd = (torch.as_tensor(np.asarray(own), dtype=torch.float64) for own in (mean, sd))
    return Predictive(
        outputs=torch.stack([mean, sd.log()], dim=-1)[None],
        latents={},
        likelihood=HeteroscedasticGaussian(),
        location=location,
        scale=scale,
    )


def test_normals_of_different_means_and_widths_have_the_closed_form():
    # W1 = E |d + (a - b) z| for z ~ Normal(0, 1), because quantiles of normals are linear in z.
    for d, a, b in [
        (0.3, 1, 1),
        (0, 1, 2),
        (0.3, 1, 1.5),
        (-2, 0.5, 0.3),
        (0, 1, 100),
        (1e-3, 1, 1),
    ]:
        k = abs(a - b)
        expected = abs(d)
        if k:
            expected = d * (2 * stats.norm.cdf(d / k) - 1) + 2 * k * stats.norm.pdf(d / k)
        first, second = normals([[0.0]], [[a]]), normals([[d]], [[b]])
        for pair in ((first, second), (second, first)):
            assert float(wasserstein_of_mixtures(*pair)) == pytest.approx(expected, rel=1e-7)


def test_mixtures_have_the_area_between_their_distribution_functions():
    rng = np.random.default_rng(0)
    first = normals(rng.normal(size=(40, 2)), rng.gamma(2, 0.3, (40, 2)), 3.0, 2.0)
    second = normals(rng.normal(size=(7, 2)), rng.gamma(2, 0.3, (7, 2)), 3.5, 2.5)
    distance = wasserstein_of_mixtures(first, second)
    grid = np.linspace(-40, 40, 20001)
    for point in range(2):
        gap = 0.0
        for own, sign in ((first, 1), (second, -1)):
            mean, log_sd = own.outputs[0, :, point].numpy().T
            z = (grid[:, None] - own.location - own.scale * mean) / (own.scale * np.exp(log_sd))
            gap = gap + sign * stats.norm.cdf(z).mean(1)
        expected = integrate.trapezoid(np.abs(gap), grid)
        assert float(distance[point]) == pytest.approx(expected, rel=1e-4)


def test_a_far_draw_counts_in_full():
    mean = np.zeros((1000, 1))
    mean[0] = 1e6
    near = normals(np.zeros((1, 1)), np.ones((1, 1)))
    distance = wasserstein_of_mixtures(normals(mean, np.ones((1000, 1))), near)
    assert float(distance) == pytest.approx(1000, rel=1e-6)


def test_identical_mixtures_have_distance_zero():
    rng = np.random.default_rng(1)
    own = normals(rng.normal(size=(30, 5)), rng.gamma(2, 1, (30, 5)), 1e6, 1e-3)
    assert wasserstein_of_mixtures(own, own).abs().max() == 0


def test_draws_equal_scipy():
    rng = np.random.default_rng(2)
    for n, m in [(50, 50), (50, 37), (1, 20), (24, 36)]:
        first, second = rng.normal(size=(n, 3)), rng.normal(1, 2, size=(m, 3))
        expected = [
            stats.wasserstein_distance(a, b) for a, b in zip(first.T, second.T, strict=True)
        ]
        np.testing.assert_allclose(wasserstein_of_draws(first, second), expected, rtol=1e-10)
        assert not wasserstein_of_draws(first, first).any()


def test_counts_have_the_sum_of_the_gaps():
    rates = [np.array([1.0, 40.0]), np.array([1.5, 30.0])]
    first, second = (
        Predictive(
            outputs=torch.from_numpy(np.log(own))[None, None, :, None],
            latents={},
            likelihood=Poisson(),
        )
        for own in rates
    )
    # One distribution is stochastically larger, so that the distance is that of the means.
    distance = wasserstein_of_mixtures(first, second)
    np.testing.assert_allclose(distance, np.abs(rates[0] - rates[1]), rtol=1e-9)
    assert not wasserstein_of_mixtures(first, first).any()


def test_shifted_student_distributions_have_the_distance_of_the_shift():
    first, second = (
        Predictive(
            outputs=torch.full((1, 1, 2, 1), shift).double(),
            latents={},
            likelihood=StudentT(noise=0.5, degrees_of_freedom=4.0),
            scale=3.0,
        )
        for shift in (0.0, 0.7)
    )
    distance = wasserstein_of_mixtures(first, second)
    np.testing.assert_allclose(distance.numpy(), 3 * 0.7, rtol=1e-4)


def test_distances_of_counts_do_not_depend_on_other_points():
    def predictive(rates):
        return Predictive(
            outputs=torch.tensor(rates).double().log()[None, None, :, None],
            latents={},
            likelihood=Poisson(),
        )

    # Stochastically ordered again. Rates in the thousands have more counts than intervals.
    distance = wasserstein_of_mixtures(predictive([5.0, 1e6]), predictive([6.0, 1.1e6]))
    np.testing.assert_allclose(distance, [1.0, 1e5], rtol=1e-6)
