"""IVON against its authors' optimizer, exact posteriors and mean-field VI."""

from unittest import mock

import jaxtyping
import pytest
import torch

from bnn_symm.alignment import align
from bnn_symm.architectures import CNNConfig, MLPConfig, ResNetConfig, SymmetryConfig, build_network
from bnn_symm.data import load_dataset
from bnn_symm.diagnostics import barrier
from bnn_symm.errors import ConfigError
from bnn_symm.inference import IVON, MeanFieldVI
from bnn_symm.inference.minibatches import Minibatches
from bnn_symm.inference.variational.ivon import IVONObjective
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior, PriorMean
from bnn_symm.models.priors.prior import PriorOverride
from bnn_symm.posteriors import GaussianPosterior
from bnn_symm.randomness import torch_generator
from bnn_symm.runs import parse_config
from bnn_symm.testing import exact_posterior, kl_from_diagonal, linear_regression

MIXED = Prior(scale=0.5, overrides={"*.bias": PriorOverride(scale=2.0)})
ASYMMETRIC = SymmetryConfig(kind="weight_asymmetric")
NETWORKS = {
    "mlp": ("iris", MLPConfig(widths=(6, 5))),
    "asymmetric": ("iris", MLPConfig(widths=(6, 5), symmetry=ASYMMETRIC)),
    "cnn": ("digits", CNNConfig(widths=(3,))),
    "resnet": ("digits", ResNetConfig()),
}


@pytest.fixture(autouse=True)
def unchecked():
    """Hundreds of steps of a few numbers spend most of their time in the checks of annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def model_of(name, prior=MIXED, seed=0):
    dataset, config = NETWORKS[name]
    data = load_dataset(dataset, dtype=torch.float64, limit=120)
    net = build_network(
        config, input_shape=data.input_shape, num_outputs=data.num_outputs, seed=seed
    ).double()
    return BayesianModel(net, prior, Categorical()), data


def reference(method, model, data, seed):
    """Take the steps of a fit with the optimizer of the authors and the same noise."""
    ivon = pytest.importorskip("ivon", reason="pip install --group dev")
    size = len(data.train)
    precision = size / method.temperature
    net = model.net
    start = {name: value.detach().clone() for name, value in net.named_parameters()}
    groups = []
    for name, parameter in net.named_parameters():
        scale = 2.0 if name.endswith("bias") else 0.5
        decay = method.prior_weight / (precision * scale**2)
        first = 1 / (precision * method.initial_scale**2)
        groups.append({"params": [parameter], "weight_decay": decay, "hess_init": first - decay})
    optimizer = ivon.IVON(
        groups,
        lr=method.learning_rate,
        ess=precision,
        beta1=method.beta_1,
        beta2=method.beta_2,
        mc_samples=method.num_samples,
        clip_radius=method.clip_radius or float("inf"),
    )
    minibatches = Minibatches(data.train, method.points_per_gradient(size), seed)
    for step in range(method.num_steps):
        x, y = minibatches.take(step)
        generator = torch_generator(seed, "variational noise", step)
        noise = torch.randn(model.num_parameters, generator=generator, dtype=torch.float64)
        for sample in range(method.num_samples):
            parts = iter(
                (noise * (-1) ** sample).split([g["numel"] for g in optimizer.param_groups])
            )
            with (
                mock.patch("torch.randn", lambda *_, parts=parts, **__: next(parts)),
                optimizer.sampled_params(train=True),
            ):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    loc = torch.cat([p.detach().flatten() for p in net.parameters()])
    scale = torch.cat(
        [(g["ess"] * (g["hess"] + g["weight_decay"])).rsqrt() for g in optimizer.param_groups]
    )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(start[name])
    return loc, scale


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mlp", {}),
        ("mlp", {"num_samples": 2, "temperature": 0.3, "tempering": "posterior"}),
        ("mlp", {"clip_radius": 0.02, "beta_2": 0.9, "batch_size": 96}),
        ("asymmetric", {"temperature": 0.5}),
        ("cnn", {"num_samples": 2}),
        pytest.param("resnet", {"num_steps": 4, "beta_2": 0.75}, marks=pytest.mark.slow),
    ],
)
def test_steps_equal_those_of_the_authors(name, settings):
    model, data = model_of(name)
    settings = {
        "estimator": "weight",
        "num_samples": 1,
        "num_steps": 100,
        "batch_size": 32,
        **settings,
    }
    method = IVON(
        schedule="constant", learning_rate=0.05, beta_2=settings.pop("beta_2", 0.99), **settings
    )
    posterior = method.fit(model, data, seed=3)
    loc, scale = reference(method, model, data, seed=3)
    assert isinstance(posterior, GaussianPosterior)
    assert (posterior.loc - model.initial()).abs().max() > 0.05
    assert (scale / method.initial_scale - 1).abs().max() > 0.1
    torch.testing.assert_close(posterior.loc, loc, rtol=0, atol=1e-6)
    torch.testing.assert_close(posterior.scale, scale, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("temperature", "tempering", "estimator"),
    [
        (1.0, "likelihood", "weight"),
        pytest.param(0.1, "posterior", "local", marks=pytest.mark.thorough),
        pytest.param(0.1, "likelihood", "weight", marks=pytest.mark.thorough),
    ],
)
def test_the_optimum_of_mean_field_vi_is_found(temperature, tempering, estimator):
    model, data = linear_regression()
    method = IVON(
        temperature=temperature,
        tempering=tempering,
        estimator=estimator,
        learning_rate=0.1 / temperature,
        beta_2=0.998,
    )
    posterior = method.fit(model, data, seed=0)
    exact = exact_posterior(data, temperature, tempering)
    assert ((posterior.loc - exact.mean).abs() / exact.sd).max() < 0.05
    # The curvature is a running mean of noisy values. 9 % is about three times what is expected.
    assert (posterior.scale / exact.mean_field_sd - 1).abs().max() < 0.09
    best = kl_from_diagonal(exact.mean, exact.mean_field_sd, exact)
    assert kl_from_diagonal(posterior.loc, posterior.scale, exact) < best + 0.05


@pytest.mark.parametrize(
    "family",
    [
        "laplace",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("student_t", "scale_mixture")),
    ],
)
def test_other_priors_lead_to_the_optimum_of_mean_field_vi(family):
    model, data = linear_regression()
    model = BayesianModel(model.net, Prior(name=family, scale=0.1), model.likelihood)
    expected = MeanFieldVI(num_steps=1000, learning_rate=0.05).fit(model, data, seed=0)
    posterior = IVON(num_steps=1000, learning_rate=0.1, beta_2=0.99).fit(model, data, seed=0)
    assert ((posterior.loc - expected.loc).abs() / expected.scale).max() < 0.1
    assert (posterior.scale / expected.scale - 1).abs().max() < 0.1
    assert posterior.history[-1]["elbo"] == pytest.approx(expected.history[-1]["elbo"], abs=1.0)


def test_normal_priors_are_the_weight_decay():
    data = load_dataset("diabetes", dtype=torch.float64)
    net = build_network(
        MLPConfig(widths=(3,)), input_shape=data.input_shape, num_outputs=1
    ).double()
    prior = Prior(scale=0.5, overrides={"head.*": PriorOverride(name="laplace")})
    model = BayesianModel(
        net, prior, Gaussian(noise="learned", log_noise_mean=-2.0, log_noise_sd=3.0)
    )
    method = IVON(temperature=0.5, tempering="posterior", estimator="weight")
    loc = model.initial().requires_grad_()
    log_scale = torch.full_like(loc, -2.0).requires_grad_()
    objective = IVONObjective(method, model, data, 0, loc, log_scale)
    precision = len(data.train) / 0.5
    head = [where for name, where in model.slices().items() if name.startswith("head")]
    decay = torch.full_like(loc.detach(), 2 / (precision * 0.5**2))
    for where in head:
        decay[where] = 0
    decay[-1] = 2 / (precision * 3.0**2)
    torch.testing.assert_close(objective.decay, decay)
    assert objective.center[-1] == -2
    assert not objective.center[:-1].any()
    # The terms are those of mean-field VI, with the same noise.
    plain = MeanFieldVI(temperature=0.5, tempering="posterior", estimator="weight")
    x, y = data.train.x, data.train.y
    other = [own.detach().clone().requires_grad_() for own in (loc, log_scale)]
    expected = plain._objective(mock.Mock(model=model, dataset=data, seed=0), *other)
    assert objective(0, x, y) == expected(0, x, y)
    # Its gradient, without the entropy, is completed by the weight decay.
    weight = objective.decay * (loc.detach() - objective.center)
    torch.testing.assert_close(loc.grad + weight, other[0].grad)
    curvature = objective.decay * log_scale.detach().exp().square() - 1 / precision
    torch.testing.assert_close(log_scale.grad + curvature, other[1].grad)


@pytest.mark.thorough
def test_a_prior_may_have_a_mean():
    model, data = linear_regression()
    center = {name: torch.full_like(own, 0.3) for name, own in model.net.named_parameters()}
    prior = Prior(scale=0.05, mean=PriorMean(center))
    model = BayesianModel(model.net, prior, model.likelihood)
    expected = MeanFieldVI(num_steps=1000, learning_rate=0.05).fit(model, data, seed=0)
    posterior = IVON(num_steps=1000, learning_rate=0.1, beta_2=0.99).fit(model, data, seed=0)
    assert ((posterior.loc - expected.loc).abs() / expected.scale).max() < 0.1
    assert (posterior.scale / expected.scale - 1).abs().max() < 0.1


@pytest.mark.thorough
def test_a_fit_may_start_at_a_posterior():
    model, data = linear_regression()
    first = MeanFieldVI(num_steps=300, learning_rate=0.05).fit(model, data, seed=0)
    method = IVON(num_steps=1, learning_rate=1e-9, beta_2=1 - 1e-9)
    posterior = method.fit(model, data, seed=0, initial=first)
    torch.testing.assert_close(posterior.loc, first.loc)
    torch.testing.assert_close(posterior.scale, first.scale)


@pytest.mark.thorough
def test_posteriors_are_aligned_and_have_barriers():
    model, data = model_of("mlp", Prior())
    method = IVON(num_steps=150, learning_rate=0.1, beta_2=0.98)
    first = method.fit(model, data, seed=0)
    second = method.fit(model_of("mlp", Prior(), seed=1)[0], data, seed=1)
    alignment = align(first, second)
    assert alignment.distance_after < alignment.distance_before
    moved = alignment.apply(second)
    naive, aligned = barrier(first, second, data), barrier(first, moved, data)
    assert aligned.test.marginal_nll[-1] == pytest.approx(naive.test.marginal_nll[-1], abs=0.05)


def test_norms_of_gradients_are_not_clipped():
    with pytest.raises(ConfigError, match="clip_norm"):
        parse_config({"inference": {"name": "ivon", "clip_norm": 1.0}})


def test_the_memory_of_curvatures_is_a_twentieth_of_the_fit():
    assert IVON().curvature_rate == 20 / IVON().num_steps
    assert IVON(num_steps=10).curvature_rate == 0.1
    assert IVON(beta_2=0.75).curvature_rate == 0.25
