"""Permutation-invariant VI: its information against enumerating the group, and what it finds where
plain VI fails."""

import math

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from bnn_symm.architectures import MLPConfig, SymmetryConfig, build_network
from bnn_symm.data import load_dataset
from bnn_symm.errors import ConfigError, SymmetryError
from bnn_symm.inference import MeanFieldVI, SymmetrizedVI
from bnn_symm.inference.variational.objective import VariationalObjective
from bnn_symm.inference.variational.symmetrized_vi import SymmetrizedObjective, SymmetryInformation
from bnn_symm.inference.variational.symmetry_information import InformationTerm
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.models.interchangeable_units import interchangeable_units
from bnn_symm.runs.configuration.config import parse_config
from bnn_symm.symmetry import permutation_spec, symmetry_group
from tests.diagnostics.barriers.test_barriers import dataset
from tests.diagnostics.elbo.test_symmetrized_elbo import elements, model_of, posterior_of
from tests.models.cases import normal


def enumerated(model: BayesianModel, loc: Tensor, scale: Tensor, draws: Tensor) -> Tensor:
    """Log q - log q^G at each draw, from the density of q^G as it is defined."""
    copies = [
        torch.distributions.Normal(model.permute(loc, element), model.permute(scale, element).abs())
        .log_prob(draws)
        .sum(-1)
        for element in elements(permutation_spec(model.net))
    ]
    own = torch.distributions.Normal(loc, scale).log_prob(draws).sum(-1)
    return own - torch.stack(copies).logsumexp(0) + math.log(len(copies))


@pytest.mark.parametrize(
    "keys",
    [
        {"widths": (2,)},
        {"widths": (5,)},
        {"widths": (3,), "activation": "tanh"},
        {"widths": (4,), "norm": "layer"},
    ],
)
@pytest.mark.parametrize("apart", [0.0, 0.3, 3.0])
def test_value_and_gradient_are_those_of_the_enumerated_group(keys, apart):
    model = model_of(**keys)
    posterior = posterior_of(model, apart)
    ((units,), _) = interchangeable_units(model, symmetry_group(model.net))
    size = len(units.units)
    term = InformationTerm(
        units,
        torch.ones(units.index.shape[1], dtype=torch.bool),
        "permanent",
        (torch.arange(size),),
    )
    found = []
    for information in (term.information, lambda *moments: enumerated(model, *moments)):
        loc, scale = (
            posterior.loc.clone().requires_grad_(),
            posterior.scale.clone().requires_grad_(),
        )
        value = information(loc, scale, loc + scale * normal(7, len(loc), seed=5))
        value.mean().backward()
        found.append((value.detach(), loc.grad, scale.grad))
    for ours, wanted in zip(*found, strict=True):
        # Both sum up to 240 exponentials in float64.
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("keys", "exact_up_to"),
    [
        ({"widths": (5,)}, 2),
        ({"widths": (5,)}, 3),
        ({"widths": (3, 2)}, 8),
        ({"widths": (2, 2), "activation": "tanh"}, 8),
        ({"widths": (2, 3, 2)}, 2),
    ],
)
@pytest.mark.parametrize("apart", [0.3, 1.0, 100.0])
def test_what_is_not_exact_is_a_lower_bound_and_not_near_zero(keys, exact_up_to, apart):
    model = model_of(**keys)
    posterior = posterior_of(model, apart)
    method = SymmetrizedVI(exact_up_to=exact_up_to, num_information_samples=50)
    information = SymmetryInformation(method, model, (3,), 0)
    bounds = torch.stack([information(step, posterior.loc, posterior.scale) for step in range(30)])
    exact = enumerated(model, posterior.loc, posterior.scale, posterior.draws(800, seed=1))
    # Steps alternate between orders of the layers: their spread is then more than the error of the
    # mean.
    error = math.hypot(float(bounds.std()) / math.sqrt(30), float(exact.std()) / math.sqrt(800))
    assert float(bounds.mean()) < float(exact.mean()) + 4 * error + 1e-9
    assert float(bounds.mean()) > 0.15 * float(exact.mean())


def test_blocks_of_units_far_apart_have_the_information_of_their_subgroup():
    model = model_of(widths=(7,))
    posterior = posterior_of(model, 100.0)
    information = SymmetryInformation(SymmetrizedVI(exact_up_to=3), model, (3,), 0)
    wanted = math.log(math.factorial(3) * math.factorial(2) ** 2)  # of seven units in three blocks
    for step in range(3):
        assert float(information(step, posterior.loc, posterior.scale)) == pytest.approx(
            wanted, abs=1e-6
        )


def test_the_gradient_left_is_that_of_the_objective():
    """By differences along random directions, tempered, in two layers of which one is wider than a
    block."""
    data = load_dataset("diabetes", dtype=torch.float64, limit=40)
    net = build_network(
        MLPConfig(widths=(5, 3)), input_shape=data.input_shape, num_outputs=1
    ).double()
    model = BayesianModel(net, Prior(), Gaussian())
    loc = (model.initial() + 0.1 * normal(model.num_parameters)).requires_grad_()
    log_scale = (-1.0 + 0.3 * normal(model.num_parameters, seed=1)).requires_grad_()
    method = SymmetrizedVI(temperature=0.3, exact_up_to=3)
    size = len(data.train)
    objective = SymmetrizedObjective(
        method,
        VariationalObjective(method, model, data, 0, loc, log_scale),
        SymmetryInformation(method, model, data.input_shape, 0),
        size,
        loc,
        log_scale,
    )
    value, terms = objective(3, data.train.x, data.train.y)
    log_jacobian = size * math.log(data.scaling.y_scale)
    expected = -float(terms["nll"]) * size + log_jacobian
    information = float(terms["mutual_information"])
    assert information > 0.1
    assert value == pytest.approx(-expected + 0.3 * (float(terms["kl"]) - information), rel=1e-9)
    assert float(terms["elbo"]) == pytest.approx(
        expected - log_jacobian - float(terms["kl"]), rel=1e-9
    )
    gradients = loc.grad.clone(), log_scale.grad.clone()
    step = 1e-5
    for tensor, gradient in zip((loc, log_scale), gradients, strict=True):
        direction = normal(model.num_parameters, seed=2)
        ends = []
        for sign in (1, -2):
            with torch.no_grad():
                tensor.add_(sign * step * direction)
            ends.append(objective(3, data.train.x, data.train.y)[0])
        with torch.no_grad():
            tensor.add_(step * direction)
        slope = (ends[0] - ends[1]) / (2 * step) / size
        assert float(gradient @ direction) == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.thorough
@pytest.mark.parametrize("keys", [{"temperature": 0.1}, {"estimator": "weight", "num_samples": 3}])
def test_without_symmetries_it_is_mean_field_vi_to_the_bit(keys):
    data = load_dataset("iris")
    symmetry = SymmetryConfig(kind="weight_asymmetric", fixed_per_row=(2, 2, 0), kappa=1.0)
    for config in (MLPConfig(widths=(5, 5), symmetry=symmetry), MLPConfig(widths=())):
        net = build_network(config, input_shape=data.input_shape, num_outputs=3)
        model = BayesianModel(net, Prior(), Categorical())
        plain = MeanFieldVI(num_steps=20, log_every=10, **keys).fit(model, data, seed=0)
        found = SymmetrizedVI(num_steps=20, log_every=10, **keys).fit(model, data, seed=0)
        assert torch.equal(found.loc, plain.loc)
        assert torch.equal(found.scale, plain.scale)
        last = {**found.history[-1], "seconds": 0.0}
        assert last.pop("mutual_information") == 0.0
        assert last == {**plain.history[-1], "seconds": 0.0}


class Difference(nn.Module):
    """The absolute difference of two units without data: the smallest function that does not know
    which is which."""

    def __init__(self):
        super().__init__()
        self.units = nn.Linear(1, 2, bias=False)

    def forward(self, x):
        hidden = self.units(x)
        return hidden.amax(-1, keepdim=True) - hidden.amin(-1, keepdim=True)


def two_modes(distance: float) -> BayesianModel:
    """The posterior is half Normal((d, -d), 1) and half Normal((-d, d), 1): Normal(0, 1) times
    cosh(d (w_1 - w_2))."""

    class HyperbolicCosine(Gaussian):
        def log_prob(self, outputs, y, latents):
            return (
                torch.logaddexp(distance * outputs, -distance * outputs).squeeze(-1)
                - math.log(2)
                - distance**2
            )

    return BayesianModel(Difference().double(), Prior(), HyperbolicCosine(noise=1.0))


def kl_to_two_modes(loc: Tensor, scale: Tensor, distance: float, *, symmetrized: bool) -> float:
    """KL(q || posterior), or KL(q^G || posterior), in nats, on a grid."""
    axis = torch.linspace(-9, 9, 721, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    log_q = torch.distributions.Normal(loc, scale).log_prob(grid).sum(-1)
    if symmetrized:
        swapped = torch.distributions.Normal(loc.flip(0), scale.flip(0)).log_prob(grid).sum(-1)
        log_q = torch.logaddexp(log_q, swapped) - math.log(2)
    mode = torch.tensor([distance, -distance], dtype=torch.float64)
    unit = torch.ones(2, dtype=torch.float64)
    halves = [
        torch.distributions.Normal(sign * mode, unit).log_prob(grid).sum(-1) for sign in (1, -1)
    ]
    log_p = torch.logaddexp(*halves) - math.log(2)
    return float((log_q.exp() * (log_q - log_p)).sum() * float(axis[1] - axis[0]) ** 2)


@pytest.fixture
def unchecked():
    """Thousands of steps on two numbers spend most of their time in the checks of annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("distance", [pytest.param(0.5, marks=pytest.mark.thorough), 1.0])
def test_two_modes_that_plain_vi_sits_between_are_found_exactly(distance):
    """The best q^G is the posterior itself: KL 0. The noise of 500 steps leaves 1e-4 nats; ten
    times it is allowed.

    The KL has curvature 1 or more in every mean and scale, up to the overlap of the modes, so that
    1e-3 nats are sqrt(2e-3) = 0.045 in any of them.
    """
    model = two_modes(distance)
    data = dataset(torch.ones(1, 1).double(), torch.zeros(1).double(), task="regression")
    keys = {"num_steps": 500, "num_samples": 16, "learning_rate": 0.05, "initial_scale": 0.5}
    plain = MeanFieldVI(**keys).fit(model, data, seed=0)
    assert plain.loc.abs().max() < 0.01
    assert plain.scale.min() > 1.05
    assert kl_to_two_modes(plain.loc, plain.scale, distance, symmetrized=False) > 0.02
    found = SymmetrizedVI(num_information_samples=64, **keys).fit(model, data, seed=0)
    assert kl_to_two_modes(found.loc, found.scale, distance, symmetrized=True) < 1e-3
    mode = torch.tensor([distance, -distance], dtype=torch.float64) * found.loc[0].sign()
    torch.testing.assert_close(found.loc, mode, rtol=0, atol=0.045)
    torch.testing.assert_close(found.scale, torch.ones(2).double(), rtol=0, atol=0.045)


class OneScaleAUnit(BayesianModel):
    def log_prior(self, flat):
        return super().log_prior(flat) - flat[self.slices()["layers.0.bias"]] @ torch.arange(4).to(
            flat
        )


def test_what_cannot_be_symmetrized_is_refused():
    data = load_dataset("iris")
    net = build_network(MLPConfig(widths=(4,)), input_shape=data.input_shape, num_outputs=3)
    with pytest.raises(SymmetryError, match="same prior for all units of a layer"):
        SymmetrizedVI().fit(OneScaleAUnit(net, Prior(), Categorical()), data, seed=0)
    with pytest.raises(ConfigError, match=r"inference\.exact_up_to"):
        parse_config({"inference": {"name": "symmetrized_vi", "exact_up_to": 1}})
