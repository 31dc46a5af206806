"""Methods need not know of fixed entries, and are as exact with them as without."""

import re
from pathlib import Path

import jaxtyping
import pytest
import torch

import bnn_symm.inference
from bnn_symm.architectures import CNNConfig, MLPConfig, SymmetryConfig, build_network
from bnn_symm.data import load_dataset
from bnn_symm.diagnostics import elbo
from bnn_symm.inference import HMC, MAP, MeanFieldVI
from bnn_symm.inference.variational.local_reparameterization import (
    LocalReparameterization,
    local_layers,
)
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.randomness import torch_generator
from bnn_symm.testing import ExactPosterior, design_matrix, kl_from_diagonal, log_jacobian
from bnn_symm.testing.exact_targets import NOISE

ASYMMETRIC = SymmetryConfig(kind="weight_asymmetric")


@pytest.fixture(autouse=True)
def unchecked():
    """Thousands of steps on eleven numbers spend most of their time in the checks of
    annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_inference_has_no_word_for_it():
    for path in Path(bnn_symm.inference.__file__).parent.rglob("*.py"):
        if path.name == "iterative_pruning.py":  # its masks are those of pruned weights
            continue
        text = path.read_text().lower()
        # `pthread_sigmask` and `SIG_SETMASK` are about signals.
        assert not re.search(r"(?<!sig)(?<!sig_set)mask|asymmetric|fixed.?entries", text), path


def linear_regression():
    data = load_dataset("diabetes", dtype=torch.float64)
    config = MLPConfig(widths=(), symmetry=ASYMMETRIC)
    net = build_network(config, input_shape=data.input_shape, num_outputs=1).double()
    return BayesianModel(net, Prior(), Gaussian(noise=NOISE)), data


def exact(model, data):
    """The posterior of the free weights and the bias, given that the others are what they are."""
    x, y = design_matrix(data)
    free = torch.cat([model.net.head.mask[0], torch.tensor([True])])
    assert int(free.sum()) == 6
    offset = x[:, :-1] @ model.net.head.fixed[0]
    assert offset.std() > 0.1  # fixed values that matter
    x, y = x[:, free], y - offset
    precision = x.T @ x / NOISE**2 + torch.eye(6).double()
    covariance = NOISE**2 * torch.eye(len(y)).double() + x @ x.T
    evidence = torch.distributions.MultivariateNormal(
        torch.zeros(len(y)).double(), covariance
    ).log_prob(y)
    return ExactPosterior(torch.linalg.solve(precision, x.T @ y / NOISE**2), precision), float(
        evidence
    )


@pytest.mark.thorough
@pytest.mark.parametrize("estimator", ["local", "weight"])
def test_mean_field_vi_reaches_the_exact_optimum(estimator):
    model, data = linear_regression()
    wanted, evidence = exact(model, data)
    posterior = MeanFieldVI(estimator=estimator).fit(model, data, seed=0)
    assert ((posterior.loc - wanted.mean).abs() / wanted.sd).max() < 0.05
    # The noise of sampled weights in the scales: see test_exact_targets.
    assert (posterior.scale / wanted.mean_field_sd - 1).abs().max() < (
        0.02 if estimator == "local" else 0.15
    )
    bound = elbo(posterior, data.train)
    optimum = (
        evidence + log_jacobian(data) - kl_from_diagonal(posterior.loc, posterior.scale, wanted)
    )
    assert bound.standard_error < 1e-4 * abs(optimum)
    assert abs(bound.value - optimum) <= 4 * bound.standard_error


@pytest.mark.thorough
def test_map_and_hmc_find_the_exact_posterior():
    model, data = linear_regression()
    wanted, _ = exact(model, data)
    mode = MAP(num_steps=1000, learning_rate=0.05).fit(model, data, seed=0)
    assert ((mode.mean() - wanted.mean).abs() / wanted.sd).max() < 1e-3
    chains = HMC(num_chains=12, num_warmup=60, num_draws=50).fit(model, data, seed=0)
    # 600 draws of a well-conditioned Gaussian: at least 400 effective ones; 4 standard errors.
    assert ((chains.mean() - wanted.mean).abs() / wanted.sd).max() < 4 / 400**0.5
    assert (chains.standard_deviation() / wanted.sd - 1).abs().max() < 4 / 800**0.5


def test_linear_layers_are_local_and_convolutions_are_not():
    def layers(config, input_shape):
        net = build_network(config, input_shape=input_shape, num_outputs=3)
        model = BayesianModel(net, Prior(), Categorical())
        values = {name: value.detach() for name, value in net.named_parameters()}
        return local_layers(net, model.layer_values(values), torch.ones(2, *input_shape))

    assert layers(MLPConfig(widths=(8,), norm="layer", symmetry=ASYMMETRIC), (6,)) == [
        ("layers.0.weight", "layers.0.bias"),
        ("head.weight", "head.bias"),
    ]
    assert layers(CNNConfig(widths=(2,), symmetry=ASYMMETRIC), (1, 8, 8)) == [
        ("head.weight", "head.bias")
    ]


def test_local_pre_activations_have_the_moments_of_sampled_free_weights():
    net = build_network(
        MLPConfig(widths=(), symmetry=SymmetryConfig(kind="weight_asymmetric", kappa=2.0)),
        input_shape=(6,),
        num_outputs=4,
    ).double()
    model = BayesianModel(net, Prior(), Categorical())
    x = torch.randn(5, 6, generator=torch_generator(0, "x"), dtype=torch.float64)
    loc = model.initial()
    scale = 0.3 + torch.rand(len(loc), generator=torch_generator(0, "scale"), dtype=torch.float64)
    generator = torch_generator(0, "noise")

    def noise(shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    values, scales = (
        model.layer_values(model.unflatten(loc)),
        model.layer_scales(model.unflatten(scale)),
    )
    number = 20_000
    weights = [(values["head.weight"], scales["head.weight"])]
    biases = [(values["head.bias"], scales["head.bias"])]
    with LocalReparameterization(weights, biases, noise):
        many = torch.func.functional_call(net, values, (x.repeat(number, 1),)).unflatten(
            0, (number, 5)
        )
    draws = loc + scale * noise((number, len(loc)))
    sampled = torch.vmap(lambda flat: model.outputs(flat, x))(draws)
    # Standard errors: sd / sqrt(n) of a mean, sd / sqrt(2 n) of a standard deviation, of two
    # samples; five of them.
    sd = sampled.std(0)
    assert ((many.mean(0) - sampled.mean(0)).abs() / sd).max() < 5 * (2 / number) ** 0.5
    assert (many.std(0) / sd - 1).abs().max() < 5 * number**-0.5
    # And what the fixed entries alone give, without any noise, is there.
    frozen = torch.zeros_like(loc)
    assert torch.allclose(model.outputs(frozen, x), x @ net.head.fixed.t())


@pytest.mark.thorough
def test_both_estimators_are_unbiased_for_the_same_objective():
    data = load_dataset("iris", dtype=torch.float64)
    symmetry = SymmetryConfig(kind="weight_asymmetric", fixed_per_row=(2, 3))
    net = build_network(
        MLPConfig(widths=(6,), symmetry=symmetry), input_shape=data.input_shape, num_outputs=3
    ).double()
    model = BayesianModel(net, Prior(), Categorical())
    values = {}
    for estimator in ("local", "weight"):
        # A learning rate that changes nothing: 400 estimates at one place.
        method = MeanFieldVI(
            estimator=estimator, num_steps=400, learning_rate=1e-12, initial_scale=0.5, log_every=1
        )
        rows = method.fit(model, data, seed=0).history
        values[estimator] = torch.tensor([row["objective"] for row in rows], dtype=torch.float64)
    error = sum(value.var() / len(value) for value in values.values()) ** 0.5
    assert abs(values["local"].mean() - values["weight"].mean()) < 4 * error
    assert values["local"].var() < values["weight"].var()
