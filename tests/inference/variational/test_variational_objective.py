"""The gradient that mean-field VI writes out is that of its objective, for every prior, likelihood
and network."""

import math

import pytest
import torch

from bnn_symm.architectures import CNNConfig, MLPConfig, asymmetrize, build_network
from bnn_symm.data import load_dataset
from bnn_symm.inference import MeanFieldVI
from bnn_symm.inference.variational.estimators import SequentialEstimator
from bnn_symm.inference.variational.objective import VariationalObjective
from bnn_symm.models import (
    BayesianModel,
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    Poisson,
    Prior,
)
from bnn_symm.models.priors.family import NormalEntries
from bnn_symm.models.priors.prior import PriorOverride

PRIORS = {
    "normal": Prior(),
    "fan-in, mixed families": Prior(
        scale="fan_in", overrides={"*.bias": PriorOverride(name="laplace", scale=0.5)}
    ),
    "laplace": Prior(name="laplace"),
    "student_t": Prior(name="student_t", degrees_of_freedom=3.0),
    "scale_mixture": Prior(name="scale_mixture"),
}
LIKELIHOODS = {
    "categorical": ("iris", Categorical()),
    "bernoulli": ("breast_cancer", Bernoulli()),
    "gaussian, learned": ("diabetes", Gaussian(noise="learned")),
    "heteroscedastic": ("diabetes", HeteroscedasticGaussian()),
    "poisson": ("iris", Poisson()),
}


def objective_of(model, data, method, seed=0):
    generator = torch.Generator().manual_seed(1)
    loc = (
        model.initial() + 0.1 * torch.randn(model.num_parameters, generator=generator).double()
    ).requires_grad_()
    log_scale = (
        -2.0 + 0.3 * torch.randn(model.num_parameters, generator=generator).double()
    ).requires_grad_()
    return VariationalObjective(method, model, data, seed, loc, log_scale), loc, log_scale


def made(name, likelihood, prior, kind="mlp"):
    data = load_dataset(name, dtype=torch.float64, limit=200 if name == "digits" else 40)
    config = (
        CNNConfig(widths=(3,)) if kind == "cnn" else MLPConfig(widths=(5, 4), activation="tanh")
    )
    outputs = likelihood.num_net_outputs(data.num_outputs)
    net = build_network(config, input_shape=data.input_shape, num_outputs=outputs)
    if kind == "asymmetric":
        net = asymmetrize(net, kind="weight_asymmetric")
    return BayesianModel(net.double(), prior, likelihood), data


def check(model, data, method) -> None:
    """By differences of the objective along random directions: its noise is a function of the
    step."""
    objective, loc, log_scale = objective_of(model, data, method)
    x, y = data.train.x[:20], data.train.y[:20]
    if model.likelihood.name == "poisson":
        y = y.double()  # the classes of a flower will do as counts
    value, _ = objective(3, x, y)
    assert math.isfinite(value)
    gradients = {"loc": loc.grad.clone(), "log_scale": log_scale.grad.clone()}
    size, step = len(data.train), 1e-5
    generator = torch.Generator().manual_seed(2)
    for name, tensor in (("loc", loc), ("log_scale", log_scale)):
        for _ in range(3):
            direction = torch.randn(model.num_parameters, generator=generator).double()
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    tensor.add_(sign * step * direction)
                loc.grad.zero_()
                log_scale.grad.zero_()
                ends.append(objective(3, x, y)[0])
                with torch.no_grad():
                    tensor.sub_(sign * step * direction)
            slope = (ends[0] - ends[1]) / (2 * step) / size
            wanted = float(gradients[name] @ direction)
            # The differences are good to step^2 times third derivatives, and to rounding of the
            # value over the step.
            assert abs(slope - wanted) <= 1e-5 * max(1.0, abs(wanted)), name


@pytest.mark.parametrize("estimator", ["weight", "local", "flipout"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradient_for_every_likelihood(estimator, likelihood):
    name, family = LIKELIHOODS[likelihood]
    check(*made(name, family, Prior()), MeanFieldVI(estimator=estimator, num_samples=2))


@pytest.mark.parametrize("prior", [name for name in PRIORS if name != "scale_mixture"])
def test_gradient_for_every_prior(prior):
    method = MeanFieldVI(temperature=0.3, tempering="posterior")
    check(*made("iris", Categorical(), PRIORS[prior]), method)


@pytest.mark.parametrize("estimator", ["weight", "local", "flipout"])
@pytest.mark.parametrize("kind", ["cnn", "asymmetric"])
def test_gradient_for_other_networks(estimator, kind):
    name = "digits" if kind == "cnn" else "iris"
    check(
        *made(name, Categorical(), Prior(), kind), MeanFieldVI(estimator=estimator, num_samples=3)
    )


@pytest.mark.parametrize("prior", PRIORS)
def test_the_priors_part_is_the_gradient_of_its_cross_entropy(prior):
    """Against autograd of the closed form, or of the quadrature rule.

    Of mixtures the gradient is a rule for the derivative, and autograd's that of the rule: they
    differ by its error.
    """
    model, _ = made("iris", Categorical(), PRIORS[prior])
    generator = torch.Generator().manual_seed(3)
    loc = torch.randn(model.num_parameters, generator=generator).double()
    sd = 0.05 + 0.5 * torch.rand(model.num_parameters, generator=generator).double()
    leaves = loc.clone().requires_grad_(), sd.log().requires_grad_()
    wanted = model.cross_entropy(leaves[0], leaves[1].exp()).sum()
    wanted.backward()
    loc_grad, log_scale_grad, total = torch.zeros_like(loc), torch.zeros_like(loc), 0.0
    for where, family, scale in model.parameter_prior.pieces(7):
        entries = NormalEntries(loc[where], sd[where], loc_grad[where], log_scale_grad[where])
        total += family.add_cross_entropy_gradient(entries, scale, 2.0)
    tolerance = 1e-4 if prior == "scale_mixture" else 1e-10
    assert total == pytest.approx(float(wanted.detach()), rel=1e-10)
    assert (loc_grad - 2 * leaves[0].grad).abs().max() < tolerance
    assert (log_scale_grad - 2 * leaves[1].grad).abs().max() < tolerance


@pytest.mark.thorough
@pytest.mark.parametrize("estimator", ["weight", "local"])
def test_all_samples_at_once_have_the_law_of_one_by_one(estimator, monkeypatch):
    """Their noise is drawn in another order, so means over many steps are compared."""
    model, data = made("iris", Categorical(), Prior())
    method = MeanFieldVI(estimator=estimator, num_samples=4)

    def means():
        objective, loc, log_scale = objective_of(model, data, method)
        values, gradients = [], []
        for step in range(400):
            loc.grad.zero_()
            log_scale.grad.zero_()
            values.append(objective(step, data.train.x, data.train.y)[0])
            gradients.append(torch.cat([loc.grad, log_scale.grad]))
        gradients = torch.stack(gradients)
        return torch.tensor(values), gradients

    at_once = means()
    monkeypatch.setattr(
        "bnn_symm.inference.variational.objective.build_estimator", SequentialEstimator
    )
    one_by_one = means()
    for first, second in zip(at_once, one_by_one, strict=True):
        error = ((first.var(0) + second.var(0)) / 400).sqrt()
        # 108 numbers: the largest of as many standard normals is below 4.5 with probability 0.999.
        assert ((first.mean(0) - second.mean(0)).abs() <= 4.5 * error + 1e-12).all()


@pytest.mark.parametrize("prior", ["normal", "fan-in, mixed families"])
def test_how_the_flat_vector_is_cut_changes_nothing(prior, monkeypatch):
    model, data = made("iris", Categorical(), PRIORS[prior])

    def found():
        objective, loc, log_scale = objective_of(
            model, data, MeanFieldVI(num_samples=1, temperature=0.3)
        )
        value, others = objective(3, data.train.x, data.train.y)
        return torch.tensor([value, *others.values()]), loc.grad, log_scale.grad

    whole = found()
    monkeypatch.setattr("bnn_symm.inference.variational.objective._PIECE", 7)
    # Sums of 64 terms in another order, in float64.
    for one, other in zip(whole, found(), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


def test_noise_is_a_function_of_the_step_alone():
    model, data = made("iris", Categorical(), Prior())
    objective = objective_of(model, data, MeanFieldVI(num_samples=2), seed=5)[0]
    first = [objective(step, data.train.x, data.train.y)[0] for step in (0, 1, 2)]
    again = [objective(step, data.train.x, data.train.y)[0] for step in (2, 0, 1)]
    assert first == [again[1], again[2], again[0]]
    assert len(set(first)) == 3
