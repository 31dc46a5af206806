"""Posteriors that predict by a linearized network, against whole Jacobians."""

import dataclasses

import h5netcdf
import pytest
import torch

from bnn_symm.data import Scaling, load_dataset
from bnn_symm.diagnostics import elbo
from bnn_symm.errors import IncompatiblePosteriors
from bnn_symm.posteriors import (
    GaussianPosterior,
    LinearizedPosterior,
    SamplePosterior,
    load_posterior,
    save_posterior,
)
from bnn_symm.symmetry import symmetry_group
from tests.models.cases import CASES, normal

SCALING = Scaling.identity((2,))
X = normal(7, 2, seed=3)


def gaussian(model):
    loc = normal(model.num_parameters, seed=1)
    scale = normal(model.num_parameters, seed=2).exp()
    return GaussianPosterior(model, SCALING, loc=loc, scale=scale, num_draws=6, seed=4)


def samples(model):
    return SamplePosterior.from_draws(model, normal(2, 3, model.num_parameters), SCALING)


def linearized(model, make=gaussian):
    return LinearizedPosterior(make(model), normal(model.num_parameters, seed=5))


@pytest.mark.parametrize("make", [gaussian, samples])
@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_the_linearization(name, make):
    model = CASES[name].model()
    posterior = linearized(model, make)
    jacobian = torch.func.jacrev(lambda flat: model.outputs(flat, X))(posterior.mode)
    change = torch.cat(list(posterior.iter_draws())) - posterior.mode
    wanted = model.outputs(posterior.mode, X) + torch.einsum("nop,sp->sno", jacobian, change)
    predictive = posterior.predict(X)
    torch.testing.assert_close(predictive.outputs.flatten(0, 1), wanted.detach())
    of_network = posterior.of_weights.predict(X)
    assert not torch.allclose(predictive.outputs, of_network.outputs, rtol=1e-2)
    for latent, values in of_network.latents.items():
        assert torch.equal(predictive.latents[latent], values)
    parts = torch.cat([part.outputs for part in posterior.iter_predict(X)], 2)
    assert torch.equal(parts, predictive.outputs)
    # What evaluates draws by a model, in inference mode as well, has the same outputs.
    evaluated = posterior.evaluation_model(model)
    with torch.inference_mode():
        torch.testing.assert_close(
            evaluated.outputs(posterior.read(0, 1, 2)[0], X), predictive.outputs[0, 1]
        )


def test_of_the_mode_alone_it_is_the_network():
    model = CASES["categorical"].model()
    mode = normal(model.num_parameters, seed=5)
    base = SamplePosterior.from_draws(model, mode[None, None], SCALING)
    outputs = LinearizedPosterior(base, mode).predict(X).outputs
    torch.testing.assert_close(outputs, base.predict(X).outputs)


def test_permuted_units_compute_the_same_linearized_functions():
    model = CASES["gaussian-learned"].model()
    group = symmetry_group(model.net, input_shape=(2,))
    posterior = linearized(model)
    permutation = group.spec.random(3)
    assert not permutation.is_identity
    permuted = posterior.permute(permutation)
    assert not torch.equal(permuted.mode, posterior.mode)
    torch.testing.assert_close(permuted.predict(X).outputs, posterior.predict(X).outputs)


@pytest.mark.parametrize("make", [gaussian, samples])
def test_a_file_has_the_mode_and_the_base(make, tmp_path):
    model = CASES["gaussian-learned"].model()
    posterior, path = linearized(model, make), tmp_path / "posterior.nc"
    save_posterior(posterior, path)
    loaded = load_posterior(path, model, SCALING, info={"method": "laplace"})
    assert isinstance(loaded, LinearizedPosterior)
    assert type(loaded.of_weights) is type(posterior.of_weights)
    assert loaded.info == {"method": "laplace"}
    assert torch.equal(loaded.mode, posterior.mode)
    assert torch.equal(loaded.predict(X).outputs, posterior.predict(X).outputs)
    with h5netcdf.File(path) as file:
        # Versions that do not linearize refuse the file.
        assert file.attrs["bnn_symm_posterior_schema"] == 2
    save_posterior(posterior.of_weights, path)
    with h5netcdf.File(path) as file:
        assert file.attrs["bnn_symm_posterior_schema"] == 1


def test_moments_and_draws_are_those_of_the_base():
    model = CASES["poisson"].model()
    posterior = linearized(model)
    base = posterior.of_weights
    assert torch.equal(posterior.mean(), base.mean())
    assert torch.equal(posterior.standard_deviation(), base.standard_deviation())
    assert torch.equal(posterior.draws(3, seed=1), base.draws(3, seed=1))
    assert posterior.shape == base.shape
    assert base.of_weights is base


def test_the_elbo_of_the_network_is_not_that_of_the_linearization():
    case = CASES["gaussian-fixed"]
    part = dataclasses.replace(load_dataset("iris").train, x=X, y=case.targets(7))
    assert elbo(linearized(case.model()), part) is None


def test_a_mode_that_does_not_fit_is_refused():
    model = CASES["poisson"].model()
    with pytest.raises(IncompatiblePosteriors, match="the posterior has 3 parameters"):
        LinearizedPosterior(gaussian(model), torch.zeros(3))
    mode = torch.full((model.num_parameters,), torch.nan)
    with pytest.raises(IncompatiblePosteriors, match="must be finite"):
        LinearizedPosterior(gaussian(model), mode)
