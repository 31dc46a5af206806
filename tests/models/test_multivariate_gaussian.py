"""Several target columns: joint density, correlations, marginals and Fisher information."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel, Gaussian, MultivariateGaussian, Prior, resolve_likelihood
from bnn_symm.models.fisher import fisher_root
from tests.models.cases import CASES, normal

FULL = MultivariateGaussian(num_columns=3, covariance="full")
LATENTS = {name: value for name, value in zip(FULL.latents, 0.7 * normal(6, seed=2), strict=True)}


def covariance_of(likelihood, latents) -> np.ndarray:
    return likelihood.distribution(torch.zeros(1, 3).double(), latents).covariance_matrix[0].numpy()


def test_the_density_is_scipys_multivariate_normal() -> None:
    outputs, y = normal(4, 3, seed=3), normal(4, 3, seed=4)
    got = FULL.log_prob(outputs, y, LATENTS)
    for i in range(4):
        expected = stats.multivariate_normal.logpdf(
            y[i].numpy(), outputs[i].numpy(), covariance_of(FULL, LATENTS)
        )
        assert float(got[i]) == pytest.approx(float(expected), rel=1e-10)


def test_noise_is_that_of_each_column_and_z_are_partial_correlations() -> None:
    covariance = covariance_of(FULL, LATENTS)
    noise = np.exp([float(LATENTS[f"log_noise_{i}"]) for i in range(3)])
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), noise, rtol=1e-12)
    correlation = covariance / np.outer(noise, noise)
    z = {pair: math.tanh(float(LATENTS[f"z_{pair}"])) for pair in ("1_0", "2_0", "2_1")}
    assert correlation[1, 0] == pytest.approx(z["1_0"])
    assert correlation[2, 0] == pytest.approx(z["2_0"])
    # The partial correlation of columns 2 and 1 given column 0.
    given = correlation[2, 1] - z["2_0"] * z["1_0"]
    given /= math.sqrt((1 - z["2_0"] ** 2) * (1 - z["1_0"] ** 2))
    assert given == pytest.approx(z["2_1"])


def test_a_diagonal_covariance_is_a_product_of_gaussians_which_are_the_marginals() -> None:
    diagonal = MultivariateGaussian(num_columns=3)
    outputs, y = normal(2, 4, 3, seed=3), normal(4, 3, seed=4)
    latents = {name: normal(2, seed=i) for i, name in enumerate(diagonal.latents)}
    total = 0
    for column in range(3):
        own, own_latents = diagonal.marginal(column, latents)
        assert isinstance(own, Gaussian)
        total = total + own.log_prob(outputs[..., column : column + 1], y[:, column], own_latents)
    torch.testing.assert_close(diagonal.log_prob(outputs, y, latents), total)


@pytest.mark.parametrize("name", ["independent-columns", "correlated-columns"])
def test_the_fisher_information_is_the_covariance_of_scores(name) -> None:
    likelihood = CASES[name].likelihood
    columns = CASES[name].num_outputs
    latents = dict(zip(likelihood.latents, 0.5 * normal(9, seed=5), strict=False))
    outputs = normal(1, columns, seed=6)
    values = torch.cat([outputs[0], torch.stack([*latents.values()])])

    def log_prob(values, y):
        own = dict(zip(latents, values[columns:].unbind(), strict=True))
        return likelihood.log_prob(values[None, :columns], y[None], own)[0]

    # E[-Hessian] is exact with the points and weights of a cubature rule for quadratic functions.
    factor = likelihood.distribution(outputs, latents).scale_tril[0]
    shifts = math.sqrt(columns) * torch.cat([factor.T, -factor.T])
    hessian = torch.func.hessian(log_prob)
    expected = -torch.stack([hessian(values, outputs[0] + shift) for shift in shifts]).mean(0)
    root = fisher_root(likelihood, outputs, latents)[0]
    torch.testing.assert_close(root.T @ root, expected, rtol=1e-8, atol=1e-8)


def test_the_number_of_columns_comes_from_the_data() -> None:
    assert resolve_likelihood(None, "regression", 3) == MultivariateGaussian(num_columns=3)
    given = resolve_likelihood(MultivariateGaussian(covariance="full"), "regression", 2)
    assert list(given.latents) == ["log_noise_0", "log_noise_1", "z_1_0"]
    for likelihood, number in ((Gaussian(), 2), (MultivariateGaussian(), 1)):
        with pytest.raises(ConfigError, match="is not for data with"):
            resolve_likelihood(likelihood, "regression", number)
    with pytest.raises(ConfigError, match="number of columns is not known"):
        BayesianModel(torch.nn.Linear(2, 2), Prior(), MultivariateGaussian())


def test_targets_of_another_shape_are_errors() -> None:
    model = CASES["correlated-columns"].model()
    flat, x = normal(model.num_parameters), normal(5, 2)
    for shape in ((5,), (5, 2), (4, 3)):
        with pytest.raises(ConfigError, match=r"expected \(5, 3\)"):
            model.log_likelihood(flat, x, normal(*shape))
