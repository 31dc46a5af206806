import json

import arviz
import numpy as np
import pytest
import torch
from scipy import stats

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import Scaling, Split
from bnn_symm.diagnostics.scores.loo import loo
from bnn_symm.io.atomic import json_text
from bnn_symm.models import BayesianModel, Gaussian, Prior
from bnn_symm.posteriors import GaussianPosterior, SamplePosterior
from bnn_symm.randomness import numpy_generator, torch_generator
from bnn_symm.symmetry import symmetry_group

NOISE = 0.5


def randn(*shape, key):
    return torch.randn(*shape, generator=torch_generator(0, "loo", key), dtype=torch.float64)


def linear_regression(points=40, features=3):
    """A linear model, its data, and the mean and covariance of its posterior in closed form."""
    net = build_network(MLPConfig(widths=()), input_shape=(features,), num_outputs=1).double()
    model = BayesianModel(net, Prior(), Gaussian(noise=NOISE))
    x = randn(points, features, key="x")
    part = Split(x=x, y=x.sum(1) + NOISE * randn(points, key="noise"))
    return model, part, torch.cat([x, torch.ones(points, 1)], 1).numpy()


def exact_posterior(design, y):
    precision = np.eye(design.shape[1]) + design.T @ design / NOISE**2
    covariance = np.linalg.inv(precision)
    return covariance @ design.T @ y / NOISE**2, covariance


def draws_of(design, y, *shape):
    mean, covariance = exact_posterior(design, y)
    z = numpy_generator(0, "loo draws").normal(size=(*shape, len(mean)))
    return torch.from_numpy(mean + z @ np.linalg.cholesky(covariance).T)


@pytest.mark.thorough
def test_linear_regression_equals_refitting_without_each_point():
    model, part, design = linear_regression()
    y = part.y.numpy()
    posterior = SamplePosterior.from_draws(model, draws_of(design, y, 4, 1000))
    found = loo(posterior, part)
    exact = []
    for i in range(len(y)):
        kept = np.arange(len(y)) != i
        mean, covariance = exact_posterior(design[kept], y[kept])
        sd = np.sqrt(NOISE**2 + design[i] @ covariance @ design[i])
        exact.append(stats.norm(design[i] @ mean, sd).logpdf(y[i]))
    # The Monte Carlo error of 4000 independent draws is about sqrt(p_loo / 4000) x a small number:
    # 0.1 is far above it.
    assert found.elpd == pytest.approx(sum(exact), abs=0.1)
    assert found.standard_error == pytest.approx(np.sqrt(len(y)) * np.std(exact), rel=0.05)
    assert 2 < found.p_loo < 6
    assert found.num_bad == 0
    assert found.notes == ()
    json.loads(json_text(found.to_dict()))


def test_equals_arviz_with_a_posterior_group():
    model, part, design = linear_regression()
    draws = draws_of(design, part.y.numpy(), 1, 300)
    posterior = SamplePosterior.from_draws(model, draws)
    log_likelihood = posterior.predict(part.x).draw_log_prob(part.y).double().numpy()
    data = arviz.from_dict(posterior={"w": draws.numpy()}, log_likelihood={"y": log_likelihood})
    wanted = arviz.loo(data, pointwise=True, reff=1.0)
    found = loo(posterior, part)
    # Efficiency enters the number of weights that are smoothed only.
    assert found.elpd == pytest.approx(float(wanted.elpd_loo), abs=0.02)
    assert found.p_loo == pytest.approx(float(wanted.p_loo), abs=0.02)


def test_own_units():
    model, part, design = linear_regression()
    draws = draws_of(design, part.y.numpy(), 2, 200)
    scaling = Scaling(x_mean=np.zeros(3), x_scale=np.ones(3), y_mean=5.0, y_scale=4.0)
    standard = loo(SamplePosterior.from_draws(model, draws), part)
    own = loo(SamplePosterior.from_draws(model, draws, scaling), part)
    assert own.elpd == pytest.approx(standard.elpd - 40 * np.log(4), abs=1e-9)


def test_permuted_chains_are_as_good_as_the_others():
    net = build_network(MLPConfig(widths=(4,)), input_shape=(2,), num_outputs=1).double()
    model = BayesianModel(net, Prior(), Gaussian(noise=NOISE))
    part = Split(x=randn(30, 2, key="x"), y=randn(30, key="y"))
    draws = 0.5 + 0.1 * randn(2, 100, model.num_parameters, key="draws")
    posterior = SamplePosterior.from_draws(model, draws)
    permutation = symmetry_group(net).random(0)
    assert permutation.num_moved > 1
    moved = posterior.permute(permutation).draws().reshape(draws.shape)
    mixed = SamplePosterior.from_draws(model, torch.stack([draws[0], moved[1]]))
    first, second = loo(posterior, part), loo(mixed, part)
    assert (second.elpd, second.k_max) == pytest.approx((first.elpd, first.k_max), abs=1e-9)


def test_an_outlier_is_counted():
    model, part, design = linear_regression()
    posterior = SamplePosterior.from_draws(model, draws_of(design, part.y.numpy(), 2, 500))
    spoiled = Split(
        x=torch.cat([part.x, 8 * part.x[:1]]), y=torch.cat([part.y, torch.tensor([30.0]).double()])
    )
    found = loo(posterior, spoiled)
    assert found.num_bad == 1
    assert found.k_max > 0.7
    assert "at 1 of 41 points" in found.notes[0]


def test_what_is_not_defined_or_limited_is_named():
    model, part, design = linear_regression()
    draws = draws_of(design, part.y.numpy(), 1, 50)
    few = loo(SamplePosterior.from_draws(model, draws[:, :5]), part)
    assert (few.elpd, few.num_bad) == (None, None)
    assert "undefined: 5 draws" in few.notes[0]
    none = loo(SamplePosterior.from_draws(model, draws), part.take(slice(0, 0)))
    assert "undefined: no training points" in none.notes[0]
    some = loo(SamplePosterior.from_draws(model, draws), part, max_points=10)
    assert some.num_points == 10
    assert "for the first 10 of 40 training points" in some.notes


def test_draws_that_never_change_need_no_smoothing():
    model, part, _ = linear_regression()
    frozen = SamplePosterior.from_draws(model, torch.ones(1, 50, model.num_parameters).double())
    found = loo(frozen, part)
    assert found.num_bad == 0
    assert found.p_loo == pytest.approx(0, abs=1e-9)


def test_an_approximation_and_a_temperature_are_told():
    model, part, design = linear_regression()
    mean, covariance = exact_posterior(design, part.y.numpy())
    loc, scale = torch.from_numpy(mean), torch.from_numpy(np.sqrt(np.diag(covariance)))
    scaling = Scaling.identity((3,))
    posterior = GaussianPosterior(model, scaling, loc=loc, scale=scale, info={"temperature": 0.5})
    notes = loo(posterior, part).notes
    assert any("closed-form approximation" in note for note in notes)
    assert any("temperature 0.5" in note for note in notes)
