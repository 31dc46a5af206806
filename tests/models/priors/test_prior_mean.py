"""Priors that are centered on weights learned before: both views, the terms of an objective, and
what is refused."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats
from torch import nn

from bnn_symm.architectures import effective_parameters, weight_shapes
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel, Gaussian, Prior, PriorMean, PriorOverride
from bnn_symm.models.priors.family import NormalEntries
from tests.models.cases import CASES, normal

FAMILIES = ["normal", "laplace", "student_t", "scale_mixture"]
SCALES = [
    {"scale": 0.7},
    {"scale": "fan_in"},
    {"scale": "moped", "delta": 0.3, "smallest_scale": 0.05},
]


def pretrained(net: nn.Module, seed: int = 5) -> dict[str, torch.Tensor]:
    """Whole weights, some of them exactly zero."""
    weights = {}
    for number, (name, shape) in enumerate(weight_shapes(net).items()):
        weights[name] = normal(*shape, seed=seed + number)
        weights[name].view(-1)[0] = 0.0
    return weights


def centered(case_name: str, **keywords) -> BayesianModel:
    net = CASES[case_name].model().net
    return CASES[case_name].model(Prior(mean=PriorMean(pretrained(net)), **keywords))


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: str(scale["scale"]))
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", ["gaussian-learned", "fixed-entries"])
def test_pyro_and_flat_density_agree_in_value_and_gradient(case, family, scale) -> None:
    overrides = {"norms.*": PriorOverride(name="laplace", scale=0.4)}
    model = centered(case, name=family, overrides=overrides, **scale)
    x, y = normal(4, 2, seed=1), CASES[case].targets(4)
    flat = normal(model.num_parameters, seed=2).requires_grad_()
    ours = model.log_prior(flat) + model.log_likelihood(flat, x, y).sum()
    conditioned = pyro.condition(model, data=model.unflatten(flat))
    theirs = poutine.trace(conditioned).get_trace(x, y).log_prob_sum()
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0.0)
    (our_gradient,) = torch.autograd.grad(ours, flat, retain_graph=True)
    (their_gradient,) = torch.autograd.grad(theirs, flat)
    size = float(their_gradient.abs().max())
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-10, atol=1e-10 * size)


def test_moped_is_a_normal_around_every_weight_with_a_fraction_of_its_size() -> None:
    model = centered("gaussian-fixed", scale="moped", delta=0.2, smallest_scale=0.01)
    flat = normal(model.num_parameters, seed=3)
    mean = torch.cat([value.flatten() for value in pretrained(model.net).values()])
    sd = (0.2 * mean.abs()).clamp(min=0.01)
    assert int((sd == 0.01).sum()) >= len(weight_shapes(model.net))  # the zeros
    expected = stats.norm.logpdf(flat.numpy(), mean.numpy(), sd.numpy()).sum()
    assert float(model.log_prior(flat)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: str(scale["scale"]))
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_written_out_are_those_of_the_cross_entropy(family, scale) -> None:
    model = centered("fixed-entries", name=family, **scale)
    number = model.num_net_parameters
    leaves = [
        normal(number, seed=7).requires_grad_(),
        (0.3 * normal(number, seed=8) - 2).requires_grad_(),
    ]
    wanted = model.parameter_prior.cross_entropy(leaves[0], leaves[1].exp()).sum()
    wanted.backward()
    loc, sd = leaves[0].detach(), leaves[1].detach().exp()
    got = [torch.zeros(number, dtype=torch.float64) for _ in leaves]
    total = 0.0
    for where, own, factor in model.parameter_prior.pieces(
        4
    ):  # pieces that begin in the middle of a tensor
        entries = loc[where].contiguous(), sd[where].contiguous(), got[0][where], got[1][where]
        total += own.add_cross_entropy_gradient(NormalEntries(*entries), factor, 2.0)
    assert total == pytest.approx(float(wanted.detach()), rel=1e-10)
    # Of a mixture autograd also moves the ends of its rule, where next to nothing of the integral
    # is.
    tolerance = 1e-5 if family == "scale_mixture" else 1e-8
    for own, leaf in zip(got, leaves, strict=True):
        torch.testing.assert_close(own, 2.0 * leaf.grad, rtol=tolerance, atol=tolerance)


def test_fits_start_at_the_mean_whatever_the_seed_and_fixed_entries_have_none() -> None:
    model = centered("fixed-entries")
    mean = pretrained(model.net)
    for seed in (None, 0, 1):
        values = model.layer_values(model.unflatten(model.initial(seed)))
        own = effective_parameters(model.net, dict(model.net.named_parameters()))
        for name, value in values.items():
            fixed = (
                model.layer_scales(model.unflatten(torch.ones(model.num_parameters).double()))[name]
                == 0
            )
            torch.testing.assert_close(value[~fixed], mean[name][~fixed], rtol=0, atol=0)
            torch.testing.assert_close(value[fixed], own[name].detach()[fixed], rtol=0, atol=0)
    assert any(shape != model.shapes[name] for name, shape in weight_shapes(model.net).items())


def test_a_state_dict_of_the_network_itself_will_do_and_one_with_other_masks_will_not() -> None:
    model = CASES["fixed-entries"].model()
    own = PriorMean(model.net.state_dict())
    free = own.free(model.net)
    assert all(torch.equal(free[name], value) for name, value in model.net.named_parameters())
    whole = own.whole(model.net)
    assert whole.sha256 == whole.whole(model.net).sha256  # kept and read again it is the same
    other = dict(model.net.state_dict())
    masked = next(name for name in other if name.endswith("mask"))
    other[masked] = ~other[masked]
    with pytest.raises(ConfigError, match="holds free entries only, with the mask fingerprint"):
        PriorMean(other).free(model.net)


def test_equal_means_are_equal_priors() -> None:
    weights = pretrained(CASES["gaussian-fixed"].model().net)
    one, same = (
        Prior(mean=PriorMean(weights)),
        Prior(mean=PriorMean(dict(reversed(weights.items())))),
    )
    assert one == same
    weights["head.bias"] = weights["head.bias"] + 1e-12
    assert one != Prior(mean=PriorMean(weights))


def broken(change) -> dict[str, torch.Tensor]:
    weights = pretrained(CASES["gaussian-fixed"].model().net)
    change(weights)
    return weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("head.bias"), "head.bias is missing"),
        (lambda w: w.update(extra=torch.zeros(1)), "extra is unknown"),
        (lambda w: w.update({"head.bias": torch.zeros(2)}), "head.bias has shape 2, expected 1"),
        (lambda w: w["head.bias"].fill_(math.nan), "head.bias has values that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, message) -> None:
    with pytest.raises(ConfigError, match=f"prior.mean does not fit the network: {message}"):
        CASES["gaussian-fixed"].model(Prior(mean=PriorMean(broken(change))))


def test_what_needs_a_mean_or_cannot_be_read_here_says_so() -> None:
    with pytest.raises(
        ConfigError, match=r"prior\.scale=moped is a fraction of prior\.mean, which is not set"
    ):
        CASES["gaussian-fixed"].model(Prior(scale="moped"))
    with pytest.raises(ConfigError, match="pass the weights: Prior"):
        CASES["gaussian-fixed"].model(Prior(mean="runs/digits"))


def test_a_linear_model_has_the_exact_posterior_of_its_informed_prior() -> None:
    """By the gradient of its potential, which is zero at the exact posterior mean alone."""
    net = nn.Linear(3, 1).double()
    mean = {"weight": normal(1, 3, seed=1), "bias": normal(1, seed=2)}
    model = BayesianModel(
        net, Prior(mean=PriorMean(mean), scale="moped", delta=0.5), Gaussian(noise=0.3)
    )
    x, y = normal(20, 3, seed=3), normal(20, seed=4)
    design = torch.cat([x, torch.ones(20, 1).double()], 1)
    center = torch.cat([mean["weight"][0], mean["bias"]])
    precision = (0.5 * center).square().reciprocal()
    exact = torch.linalg.solve(
        design.T @ design / 0.09 + precision.diag(), design.T @ y / 0.09 + precision * center
    ).requires_grad_()
    (gradient,) = torch.autograd.grad(model.potential(exact, x, y), exact)
    assert float(gradient.abs().max()) < 1e-9 * float(model.potential(exact, x, y).detach().abs())
