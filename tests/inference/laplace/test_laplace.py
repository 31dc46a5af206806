"""Laplace approximations against closed forms, Hessians, and the reference implementation."""

import dataclasses
import math

import jaxtyping
import pytest
import torch
from torch import nn

from bnn_symm.architectures import MLPConfig, SymmetryConfig, build_network
from bnn_symm.data import load_dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference import LaplaceApproximation
from bnn_symm.inference.laplace import curvature
from bnn_symm.inference.laplace.curvature import blocks, diagonals, last_layer, prior_precision
from bnn_symm.models import BayesianModel, Bernoulli, Categorical, Gaussian, Poisson, Prior
from bnn_symm.models.fisher import fisher_root
from bnn_symm.posteriors import GaussianPosterior, LinearizedPosterior, SamplePosterior
from bnn_symm.testing import (
    TEMPERINGS,
    Interruption,
    all_draws,
    design_matrix,
    exact_posterior,
    linear_regression,
    without_times,
)
from tests.inference import test_fixed_entries
from tests.models.cases import CASES, normal


@pytest.fixture
def unchecked():
    """A thousand steps on eleven numbers spend most of their time in the checks of annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def at(position, model) -> SamplePosterior:
    return SamplePosterior.from_draws(model, position[None, None])


def laplace(model, data, mode, **keywords):
    """At a mode that is known: one step that moves nothing."""
    method = LaplaceApproximation(num_steps=1, learning_rate=1e-14, **keywords)
    return method.fit(model, data, seed=0, initial=at(mode, model))


def total(terms):
    return sum(terms)


def everything(model):
    return torch.arange(model.num_parameters)


@pytest.mark.parametrize(("temperature", "tempering"), TEMPERINGS)
def test_of_linear_regression_it_is_the_exact_posterior(temperature, tempering):
    model, data = linear_regression()
    exact = exact_posterior(data, temperature, tempering)
    tempered = {"temperature": temperature, "tempering": tempering}
    linearized = laplace(model, data, exact.mean, **tempered)
    assert isinstance(linearized, LinearizedPosterior)
    diagonal = linearized.of_weights
    assert isinstance(diagonal, GaussianPosterior)
    torch.testing.assert_close(diagonal.loc, exact.mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(diagonal.scale, exact.mean_field_sd, rtol=1e-10, atol=0)
    # Linear in its weights, the network is its own linearization.
    for posterior in (linearized, laplace(model, data, exact.mean, structure="full", **tempered)):
        torch.testing.assert_close(
            posterior.predict(data.test.x).outputs,
            posterior.of_weights.predict(data.test.x).outputs,
        )
    number = 1500
    full = laplace(model, data, exact.mean, structure="last_layer", num_draws=number, **tempered)
    white = (full.draws() - exact.mean) @ torch.linalg.cholesky(exact.precision)
    # Standard errors of means and covariances of white draws: 1 / sqrt(n), and sqrt(2 / n) at most;
    # five of them.
    assert white.mean(0).abs().max() < 5 / math.sqrt(number)
    assert (white.T @ white / number - torch.eye(11)).abs().max() < 5 * math.sqrt(2 / number)


@pytest.mark.thorough
@pytest.mark.usefixtures("unchecked")
def test_from_anywhere_it_finds_the_mode():
    model, data = linear_regression()
    exact = exact_posterior(data)
    method = LaplaceApproximation(num_steps=600, learning_rate=0.1)
    posterior = method.fit(model, data, seed=0)
    assert ((posterior.mean() - exact.mean).abs() / exact.sd).max() < 1e-3
    torch.testing.assert_close(posterior.standard_deviation(), exact.mean_field_sd)


def test_entries_that_are_not_free_have_no_part_in_it():
    model, data = test_fixed_entries.linear_regression()
    wanted, _ = test_fixed_entries.exact(model, data)
    posterior = laplace(model, data, wanted.mean)
    torch.testing.assert_close(posterior.standard_deviation(), wanted.mean_field_sd)
    full = total(blocks(model, wanted.mean, everything(model), data.train)) + torch.eye(6)
    torch.testing.assert_close(full, wanted.precision)


@pytest.mark.parametrize("name", CASES)
def test_curvature_is_that_of_the_definition(name):
    """J^T F J with whole Jacobians, of a network with a hidden layer and a norm."""
    case = CASES[name]
    model = case.model()
    part = dataclasses.replace(load_dataset("iris").train, x=normal(9, 2), y=case.targets(9))
    position = normal(model.num_parameters, seed=1)
    outputs = model.outputs(position, part.x).shape[-1]

    def variables(flat, x):
        return torch.cat(
            [
                model.outputs(flat, x[None])[0],
                *(value[None] for value in model.latents(flat).values()),
            ]
        )

    z = torch.vmap(variables, in_dims=(None, 0))(position, part.x)
    jacobians = torch.vmap(torch.func.jacrev(variables), in_dims=(None, 0))(position, part.x)
    roots = fisher_root(model.likelihood, z[:, :outputs], model.latents(position), part.y)
    found = total(blocks(model, position, everything(model), part))
    naive = sum((r @ j).T @ (r @ j) for r, j in zip(roots, jacobians, strict=True))
    torch.testing.assert_close(found, naive, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        total(diagonals(model, position, part)), naive.diag(), rtol=1e-9, atol=1e-9
    )
    last = last_layer(model, part.x)
    torch.testing.assert_close(
        total(blocks(model, position, last, part)), naive[last][:, last], rtol=1e-9, atol=1e-9
    )


class _Clamped(nn.Linear):
    """Its outputs are not always those of its dense layer."""

    def forward(self, x):
        return super().forward(x).clamp(-2, 2)


class _RectifiedInPlace(nn.Linear):
    """Nor are these, though they are the same tensor."""

    def forward(self, x):
        return super().forward(x).relu_()


@pytest.mark.parametrize(
    ("layer", "shorter"),
    [
        (nn.Linear(4, 3), True),
        (nn.Linear(4, 3, bias=False), True),
        (_Clamped(4, 3), False),
        (_RectifiedInPlace(4, 3), False),
    ],
)
def test_of_a_dense_output_layer_it_takes_no_jacobians(layer, shorter, monkeypatch):
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), layer).double()
    with torch.no_grad():  # large, for outputs within [0, 1] would be taken for probabilities
        for number, weight in enumerate(net.parameters()):
            weight.copy_(3 * normal(*weight.shape, seed=number))
    model = BayesianModel(net, Prior(), Categorical())
    part = dataclasses.replace(
        load_dataset("iris").train, x=normal(9, 2), y=CASES["categorical"].targets(9)
    )
    position = normal(model.num_parameters, seed=1)
    last = last_layer(model, part.x)
    whole = total(blocks(model, position, everything(model), part))[last][:, last]
    # Of more points than are handled at once.
    monkeypatch.setattr(curvature, "_NUMBERS_AT_ONCE", 100)
    called = []
    jacobians = curvature._rooted_jacobians
    monkeypatch.setattr(
        curvature, "_rooted_jacobians", lambda *args: called.append(args) or jacobians(*args)
    )
    found = list(blocks(model, position, last, part))
    assert len(found) > 1
    assert bool(called) != shorter
    torch.testing.assert_close(total(found), whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("likelihood", "outputs"), [(Categorical(), 3), (Bernoulli(), 1), (Poisson(), 1)]
)
def test_of_the_last_layer_it_is_the_hessian(likelihood, outputs):
    net = build_network(MLPConfig(widths=(4,)), input_shape=(2,), num_outputs=outputs).double()
    model = BayesianModel(net, Prior(scale=2.0), likelihood)
    name = likelihood.name
    part = dataclasses.replace(load_dataset("iris").train, x=normal(9, 2), y=CASES[name].targets(9))
    position = normal(model.num_parameters, seed=1)
    hessian = torch.func.hessian(lambda flat: model.potential(flat, part.x, part.y))(position)
    last = last_layer(model, part.x)
    assert last.tolist() == list(range(4 * 2 + 4, model.num_parameters))
    found = (
        total(blocks(model, position, last, part)) + prior_precision(model, position, last).diag()
    )
    torch.testing.assert_close(found, hessian[last][:, last], rtol=1e-9, atol=1e-9)
    whole = (
        total(blocks(model, position, everything(model), part))
        + torch.eye(model.num_parameters) / 4
    )
    assert not torch.allclose(whole, hessian, rtol=1e-3)  # below it the network is not linear


def test_learned_noise_has_a_curvature_of_two_a_point():
    model, data = linear_regression(noise="learned")
    position = normal(model.num_parameters)
    last = last_layer(model, data.train.x)
    assert last.tolist() == list(range(12))
    found = total(blocks(model, position, last, data.train))
    x, _ = design_matrix(data)
    torch.testing.assert_close(found[:11, :11], x.T @ x / (2 * position[-1]).exp())
    assert found[11].tolist() == [0.0] * 11 + [pytest.approx(2.0 * len(x))]


class Unordered(nn.Module):
    """Its last layer is defined first."""

    def __init__(self):
        super().__init__()
        self.top, self.bottom = nn.Linear(3, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.top(self.bottom(x).tanh())


def test_the_last_layer_is_the_one_that_is_called_last():
    model = BayesianModel(Unordered(), Prior(), Categorical())
    assert last_layer(model, torch.zeros(1, 4)).tolist() == list(range(3 * 3 + 3))
    symmetry = SymmetryConfig(kind="weight_asymmetric")
    net = build_network(MLPConfig(widths=(8,), symmetry=symmetry), input_shape=(6,), num_outputs=3)
    free = sum(value.numel() for value in net.head.parameters())
    assert free < 3 * 8 + 3
    model = BayesianModel(net, Prior(), Categorical())
    assert len(last_layer(model, torch.zeros(1, 6))) == free


def test_everything_below_the_last_layer_stays_at_the_mode():
    data = load_dataset("iris", dtype=torch.float64)
    net = build_network(
        MLPConfig(widths=(4,)), input_shape=data.input_shape, num_outputs=3
    ).double()
    model = BayesianModel(net, Prior(), Categorical())
    mode = model.initial(1)
    posterior = laplace(model, data, mode, structure="last_layer", num_draws=7)
    last = last_layer(model, data.train.x)
    below = torch.ones(model.num_parameters, dtype=torch.bool).index_fill(0, last, False)
    torch.testing.assert_close(
        posterior.draws()[:, below], mode[below].expand(7, -1), rtol=0, atol=1e-12
    )
    assert (posterior.standard_deviation()[last] > 0).all()


def test_prior_precision_follows_the_scales():
    data = load_dataset("iris")
    net = build_network(MLPConfig(widths=(4,)), input_shape=data.input_shape, num_outputs=3)
    model = BayesianModel(net, Prior(scale="fan_in"), Categorical())
    found = prior_precision(model, model.initial(), everything(model))
    wanted = [4 / 2] * (4 * 4 + 4) + [4 / 2] * (3 * 4 + 3)
    assert found.tolist() == pytest.approx(wanted)
    noise = BayesianModel(nn.Linear(1, 1), Prior(), Gaussian(log_noise_sd=0.5))
    assert prior_precision(noise, noise.initial(), torch.tensor([2])).tolist() == pytest.approx(
        [4.0]
    )


@pytest.mark.thorough
def test_stopped_within_the_curvature_it_resumes_bitwise_identically():
    data = load_dataset("iris")
    net = build_network(MLPConfig(widths=(4,)), input_shape=data.input_shape, num_outputs=3)
    model = BayesianModel(net, Prior(), Categorical())
    for structure in ("diagonal", "last_layer", "kronecker", "subnetwork", "full"):
        method = LaplaceApproximation(num_steps=20, log_every=6, structure=structure)
        whole = method.fit(model, data, seed=0)
        recorder = Interruption(stop_after=20)  # it is asked once a step, and then in the curvature
        part = method.fit(model, data, seed=0, callbacks=[recorder])
        assert part.info["status"] == "interrupted"
        assert part.shape == (1, 1, model.num_parameters)  # the mode alone
        rest = method.fit(
            model, data, seed=0, fit_state=method.truncate_to_checkpoint(recorder.fit_state())
        )
        assert torch.equal(all_draws(rest), all_draws(whole))
        assert without_times(rest.history) == without_times(whole.history)


def test_priors_without_curvature_and_layers_that_are_too_large_are_refused():
    data = load_dataset("iris")
    net = build_network(MLPConfig(widths=()), input_shape=data.input_shape, num_outputs=3)
    model = BayesianModel(net, Prior(name="laplace"), Categorical())
    with pytest.raises(
        ConfigError, match=r"only prior\.name=normal has; got prior\.name=laplace: set "
    ):
        LaplaceApproximation(num_steps=1).fit(model, data, seed=0)
    wide = BayesianModel(
        nn.Sequential(nn.Linear(4, 7000), nn.ReLU(), nn.Linear(7000, 3)), Prior(), Categorical()
    )
    with pytest.raises(ConfigError, match=r"has 21003 parameters, expected at most 20000; set "):
        LaplaceApproximation(num_steps=1, structure="last_layer").fit(wide, data, seed=0)


def test_the_diagonal_structure_with_sampled_weights_is_advised_against():
    model, data = linear_regression()
    start = at(model.initial(), model)
    method = LaplaceApproximation(num_steps=1, learning_rate=1e-14, predictive="sampled")
    with pytest.warns(UserWarning, match=r"predicts badly; use predictive='linearized', or struct"):
        posterior = method.fit(model, data, seed=0, initial=start)
    assert isinstance(posterior, GaussianPosterior)


class _WithoutForwardMode(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad


class _Copied(nn.Linear):
    def forward(self, x):
        return _WithoutForwardMode.apply(super().forward(x))


def test_a_network_without_forward_derivatives_is_refused_for_the_linearized_prediction():
    data = load_dataset("iris")
    model = BayesianModel(_Copied(4, 3), Prior(), Categorical())
    method = LaplaceApproximation(num_steps=1, structure="full")
    with pytest.raises(ConfigError, match=r"set inference\.predictive=sampled"):
        method.fit(model, data, seed=0)
    sampled = dataclasses.replace(method, predictive="sampled").fit(model, data, seed=0)
    assert isinstance(sampled, SamplePosterior)


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["diagonal", "last_layer"])
@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_the_reference_implementation_has_the_same_curvature(name, structure):
    """laplace-torch (Daxberger et al. 2021), where it is installed, on a network that fits its
    assumptions."""
    reference = pytest.importorskip(
        "laplace", reason="laplace-torch is not installed: pip install laplace-torch"
    )
    data = load_dataset(name, dtype=torch.float64)
    outputs = 3 if name == "iris" else 1
    net = nn.Sequential(
        nn.Linear(data.train.x.shape[1], 5), nn.Tanh(), nn.Linear(5, outputs)
    ).double()
    model = BayesianModel(net, Prior(), Categorical() if name == "iris" else Gaussian(noise=1.0))
    part = data.train
    y = part.y if name == "iris" else part.y[:, None]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(part.x, y), batch_size=50)
    likelihood = "classification" if name == "iris" else "regression"
    flavor = reference.DiagLaplace if structure == "diagonal" else reference.FullLLLaplace
    theirs = flavor(net, likelihood)
    theirs.fit(loader)
    position = model.initial()
    if structure == "diagonal":
        found = total(diagonals(model, position, part))
    else:
        found = total(blocks(model, position, last_layer(model, part.x), part))
    torch.testing.assert_close(
        found, theirs.H.detach() * float(theirs._H_factor), rtol=1e-6, atol=1e-8
    )
