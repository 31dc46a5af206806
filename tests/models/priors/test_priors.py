import math
from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine
from scipy import integrate, stats
from torch import nn

from bnn_symm.architectures import CNNConfig, MLPConfig, build_network
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel, Gaussian, Prior, PriorOverride
from bnn_symm.models.priors.families import FAMILIES, FamilyName
from tests.models.cases import CASES, normal

FAMILY_NAMES = list(FAMILIES)
LOCATIONS = (-2.0, 0.0, 0.02, 0.3, 1.0, 5.0)
UP_TO_ONE_SCALE = (1e-3, 0.03, 0.1, 0.3, 1.0)


def test_every_name_of_a_family_has_a_class_whose_settings_the_prior_has() -> None:
    assert get_args(FamilyName) == tuple(FAMILIES)
    for name, kind in FAMILIES.items():
        assert isinstance(Prior(name=name).bind({"w": None}, {"w": 3}).blocks[0].family, kind)


def log_density(prior: Prior, scale: float) -> Callable[[float], float]:
    """The density written out once more, in plain Python."""
    if prior.name == "normal":
        return lambda w: -0.5 * (w / scale) ** 2 - math.log(scale * math.sqrt(2 * math.pi))
    if prior.name == "laplace":
        return lambda w: -abs(w) / scale - math.log(2 * scale)
    if prior.name == "student_t":
        df = prior.degrees_of_freedom
        constant = (
            math.lgamma(df / 2 + 0.5)
            - math.lgamma(df / 2)
            - 0.5 * math.log(df * math.pi * scale**2)
        )
        return lambda w: constant - (df + 1) / 2 * math.log1p((w / scale) ** 2 / df)

    def mixture(w: float) -> float:
        terms = [
            math.log(weight) - 0.5 * (w / sd) ** 2 - math.log(sd * math.sqrt(2 * math.pi))
            for weight, sd in (
                (1 - prior.narrow_weight, scale),
                (prior.narrow_weight, prior.narrow_ratio * scale),
            )
        ]
        return max(terms) + math.log(sum(math.exp(term - max(terms)) for term in terms))

    return mixture


def exact_cross_entropy(
    density: Callable[[float], float], loc: float, sd: float, features: list[float]
) -> float:
    """-E[log p(loc + sd z)], integrated piece by piece between the features of p, to about
    1e-12."""
    edges = sorted({-12.0, 12.0, *(z for z in ((w - loc) / sd for w in features) if -12 < z < 12)})

    def integrand(z: float) -> float:
        return -density(loc + sd * z) * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)

    pieces = pairwise(edges)
    return sum(
        integrate.quad(integrand, a, b, epsabs=1e-13, epsrel=1e-12, limit=200)[0] for a, b in pieces
    )


def cross_entropy(prior: Prior, loc: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
    return prior.bind({"w": None}, {"w": len(loc)}).cross_entropy(loc, sd)


def check_cross_entropy(prior: Prior, ratios: tuple[float, ...], tolerance: float) -> None:
    scale = prior.scale
    assert isinstance(scale, float)
    widths = [scale, scale * prior.narrow_ratio] if prior.name == "scale_mixture" else [scale]
    features = [0.0, *(sign * k * width for sign in (-1, 1) for k in (1, 3, 6) for width in widths)]
    grid = [(loc * scale, ratio * scale) for loc in LOCATIONS for ratio in ratios]
    loc, sd = (torch.tensor(column, dtype=torch.float64) for column in zip(*grid, strict=True))
    density = log_density(prior, scale)
    expected = [exact_cross_entropy(density, a, b, features) for a, b in grid]
    got = cross_entropy(prior, loc, sd)
    torch.testing.assert_close(
        got, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=tolerance
    )


@pytest.mark.parametrize("scale", [0.2, 1.0])
@pytest.mark.parametrize("family", ["normal", "laplace"])
def test_closed_cross_entropies_are_exact_to_1e_10(family, scale) -> None:
    check_cross_entropy(Prior(name=family, scale=scale), (*UP_TO_ONE_SCALE, 3.0, 10.0), 1e-10)


@pytest.mark.parametrize("df", [2.1, 4.0, 30.0])
def test_student_t_cross_entropy_has_the_accuracy_that_is_stated(df) -> None:
    prior = Prior(name="student_t", scale=0.7, degrees_of_freedom=df)
    check_cross_entropy(prior, UP_TO_ONE_SCALE, 1e-7)
    check_cross_entropy(prior, (3.0,), 3e-3)
    check_cross_entropy(prior, (10.0,), 0.1)


@pytest.mark.parametrize(
    ("weight", "ratio", "tolerance"),
    [(0.5, 0.1, 1e-7), (0.5, 0.9, 1e-7), (0.99, 0.5, 1e-5), (0.99, 0.01, 1e-5), (0.01, 0.01, 1e-5)],
)
def test_mixture_cross_entropy_has_the_accuracy_that_is_stated(weight, ratio, tolerance) -> None:
    prior = Prior(name="scale_mixture", scale=0.7, narrow_weight=weight, narrow_ratio=ratio)
    check_cross_entropy(prior, (*UP_TO_ONE_SCALE, 3.0, 10.0), tolerance)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_gradients_of_cross_entropy_are_those_of_the_exact_integral(family) -> None:
    prior, step = Prior(name=family, scale=1.0), 1e-4
    density = log_density(prior, 1.0)
    features = [0.0, *(sign * w for sign in (-1, 1) for w in (0.1, 0.3, 0.6, 1.0, 3.0))]
    for loc, sd in [(0.0, 0.05), (0.2, 0.3), (0.5, 1.0)]:
        at = [torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (loc, sd)]
        cross_entropy(prior, *at).sum().backward()
        for got, (da, db) in zip(at, [(step, 0.0), (0.0, step)], strict=True):
            above = exact_cross_entropy(density, loc + da, sd + db, features)
            below = exact_cross_entropy(density, loc - da, sd - db, features)
            # Central differences err by step^2 / 6 times a third derivative of at most about 1e3
            # here.
            assert got.grad is not None
            assert float(got.grad) == pytest.approx(
                (above - below) / (2 * step), abs=1e-5, rel=1e-5
            )


def test_mixture_cross_entropy_has_finite_values_and_gradients_far_from_the_narrow_component() -> (
    None
):
    loc = torch.tensor([3.0, -3.0, 0.0, 1e3], dtype=torch.float32, requires_grad=True)
    sd = torch.tensor([1e-8, 1e-3, 1e-8, 1e-6], dtype=torch.float32, requires_grad=True)
    value = cross_entropy(Prior(name="scale_mixture"), loc, sd)
    value.sum().backward()
    for tensor in (value, loc.grad, sd.grad):
        assert tensor is not None
        assert torch.isfinite(tensor).all()
    density = log_density(Prior(name="scale_mixture"), 1.0)
    expected = [-density(w) for w in loc.tolist()]
    torch.testing.assert_close(value.detach(), torch.tensor(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prior_name", FAMILY_NAMES)
def test_cross_entropy_of_a_narrow_gaussian_is_minus_the_log_prior_coordinate_by_coordinate(
    prior_name,
) -> None:
    overrides = {
        "norms.*": PriorOverride(name="laplace", scale=0.4),
        "head.bias": PriorOverride(scale=2.0),
    }
    model = CASES["gaussian-learned"].model(
        Prior(name=prior_name, scale="fan_in", overrides=overrides)
    )
    loc = normal(model.num_parameters)
    got = model.cross_entropy(loc, torch.full_like(loc, 1e-6))
    for i in range(len(loc)):
        moved = loc.clone()
        moved[i] += 0.1
        expected = model.log_prior(loc) - model.log_prior(moved)
        difference = model.cross_entropy(moved, torch.full_like(loc, 1e-6))[i] - got[i]
        assert float(difference) == pytest.approx(
            float(expected), abs=1e-8
        )  # curvature of 1e3 times sd^2
    assert float(got.sum()) == pytest.approx(float(-model.log_prior(loc)), abs=1e-8)


def test_cross_entropy_of_a_latent_variable_is_that_of_its_normal_prior() -> None:
    model = CASES["gaussian-learned"].model()
    loc, sd = normal(model.num_parameters), normal(model.num_parameters, seed=1).exp()
    prior = stats.norm(-0.7, 0.6)
    a, b = float(loc[-1]), float(sd[-1])
    expected = exact_cross_entropy(lambda w: float(prior.logpdf(w)), a, b, [])
    assert float(model.cross_entropy(loc, sd)[-1]) == pytest.approx(expected, abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(
    family=st.sampled_from(FAMILY_NAMES),
    value=st.floats(-20, 20),
    scale=st.floats(0.05, 5),
    df=st.floats(2.1, 50),
    weight=st.floats(0.05, 0.95),
    ratio=st.floats(0.05, 0.95),
)
def test_log_density_of_every_family_is_that_of_scipy(
    family, value, scale, df, weight, ratio
) -> None:
    prior = Prior(
        name=family, scale=scale, degrees_of_freedom=df, narrow_weight=weight, narrow_ratio=ratio
    )
    got = float(
        prior.bind({"w": None}, {"w": 1}).log_prob(torch.tensor([value], dtype=torch.float64))
    )
    match family:
        case "normal":
            expected = stats.norm.logpdf(value, scale=scale)
        case "laplace":
            expected = stats.laplace.logpdf(value, scale=scale)
        case "student_t":
            expected = stats.t.logpdf(value, df, scale=scale)
        case _:
            expected = math.log(1 - weight) + stats.norm.logpdf(value, scale=scale)
            narrow = math.log(weight) + stats.norm.logpdf(value, scale=ratio * scale)
            expected = max(expected, narrow) + math.log1p(math.exp(-abs(expected - narrow)))
    assert got == pytest.approx(float(expected), rel=1e-10, abs=1e-10)


def site_distributions(model: BayesianModel, x: torch.Tensor) -> dict:
    trace = poutine.trace(model).get_trace(x)
    return {name: trace.nodes[name]["fn"] for name in model.shapes}


def fan_in_of_layers(net: nn.Module) -> dict[str, int]:
    result = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear):
            result[name] = module.in_features
        elif isinstance(module, nn.Conv2d):
            result[name] = module.in_channels // module.groups * math.prod(module.kernel_size)
    return result


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (MLPConfig(widths=(3, 5), norm="layer"), (4,)),
        (CNNConfig(widths=(3, 4), norm="frn"), (2, 8, 8)),
        (CNNConfig(widths=(3, 4), norm="layer"), (2, 8, 8)),
    ],
    ids=["mlp", "cnn-frn", "cnn-layer"],
)
def test_fan_in_scale_gives_variance_two_over_fan_in_and_one_to_norms(
    family, config, shape
) -> None:
    net = build_network(config, input_shape=shape, num_outputs=1).double()
    prior = Prior(name=family, scale="fan_in", degrees_of_freedom=5.0, narrow_weight=0.3)
    model = BayesianModel(net, prior, Gaussian(noise=1.0))
    layers = fan_in_of_layers(net)
    of_layers = 0
    for name, distribution in site_distributions(model, normal(2, *shape)).items():
        layer = name.rpartition(".")[0]
        of_layers += layer in layers
        expected = 2.0 / layers[layer] if layer in layers else 1.0
        variance = distribution.variance
        assert variance.shape == model.shapes[name]
        torch.testing.assert_close(
            variance, torch.full_like(variance, expected), rtol=1e-10, atol=0.0
        )
    assert (
        of_layers == 2 * len(layers) < len(model.shapes)
    )  # weights and biases of layers; norms as well


def base(distribution):
    return getattr(distribution, "base_dist", distribution)


def test_prior_standard_deviations_are_such_whatever_the_family() -> None:
    net = build_network(MLPConfig(widths=(4,)), input_shape=(1,), num_outputs=1)
    like = torch.empty(0, dtype=torch.float64)
    laplace = BayesianModel(net, Prior(name="laplace", scale=0.5), Gaussian(noise="learned"))
    found = laplace.prior_standard_deviations(like)
    assert found.dtype == torch.float64
    assert found[:-1].tolist() == pytest.approx([0.5 * math.sqrt(2)] * (laplace.num_parameters - 1))
    assert found[-1] == laplace.likelihood.latents["log_noise"][1]
    # Variance 2 / fan_in: one input, then four units.
    student = BayesianModel(net, Prior(name="student_t", scale="fan_in"), Gaussian(noise=0.1))
    found = student.prior_standard_deviations(like)
    assert found[0] == pytest.approx(math.sqrt(2))
    assert found[-2] == pytest.approx(math.sqrt(0.5))


def test_the_last_override_that_matches_wins_value_by_value() -> None:
    overrides = {
        "layers.*": PriorOverride(scale=2.0),
        "*.weight": PriorOverride(scale=3.0),
        "layers.0.weight": PriorOverride(name="laplace"),
        "head.bias": PriorOverride(name="student_t", scale=0.5),
    }
    net = build_network(MLPConfig(widths=(3,)), input_shape=(2,), num_outputs=1).double()
    model = BayesianModel(net, Prior(scale=0.1, overrides=overrides), Gaussian(noise=1.0))
    sites = site_distributions(model, normal(2, 2))
    got = {
        name: (type(base(d)).__name__, float(base(d).scale.flatten()[0]))
        for name, d in sites.items()
    }
    assert got == {
        "layers.0.weight": ("Laplace", 3.0),
        "layers.0.bias": ("Normal", 2.0),
        "head.weight": ("Normal", 3.0),
        "head.bias": ("StudentT", 0.5),
    }
    assert all(bool((base(d).scale == base(d).scale.flatten()[0]).all()) for d in sites.values())


def test_the_order_of_overrides_decides() -> None:
    net = build_network(MLPConfig(widths=()), input_shape=(2,), num_outputs=1).double()
    first, last = PriorOverride(scale=2.0), PriorOverride(scale=3.0)
    flat = normal(3)
    for overrides, scale in [
        ({"head.*": first, "*": last}, 3.0),
        ({"*": last, "head.*": first}, 2.0),
    ]:
        model = BayesianModel(net, Prior(overrides=overrides), Gaussian(noise=1.0))
        expected = stats.norm.logpdf(flat.numpy(), scale=scale).sum()
        assert float(model.log_prior(flat)) == pytest.approx(expected, rel=1e-12)


def test_an_override_that_matches_nothing_is_an_error_that_names_the_parameters() -> None:
    net = build_network(MLPConfig(widths=()), input_shape=(2,), num_outputs=1)
    prior = Prior(
        overrides={"head.*": PriorOverride(scale=2.0), "layer.0.*": PriorOverride(scale=3.0)}
    )
    with pytest.raises(ConfigError, match=r"'layer\.0\.\*'.*head\.weight, head\.bias") as caught:
        BayesianModel(net, prior, Gaussian())
    assert "'head.*'" not in str(caught.value)


@pytest.mark.parametrize(
    "keywords",
    [
        {"name": "cauchy"},
        {"scale": 0.0},
        {"scale": -1.0},
        {"scale": "he"},
        {"degrees_of_freedom": 2.0},
        {"narrow_weight": 1.0},
        {"narrow_ratio": 0.0},
        {"width": 1.0},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(keywords) -> None:
    with pytest.raises(ConfigError, match=next(iter(keywords))):
        Prior(**keywords)
