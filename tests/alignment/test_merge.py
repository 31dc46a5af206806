"""Merging: against exact posteriors of all data, closed forms, and each refusal."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from torch import Tensor

from bnn_symm.alignment import merge
from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import Scaling
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior, PriorOverride, Tempering
from bnn_symm.posteriors import GaussianPosterior, SamplePosterior, load_posterior, save_posterior
from tests.models.cases import normal

NOISE = 0.7
TEMPERINGS: list[tuple[float, Tempering]] = [
    (1.0, "likelihood"),
    (0.1, "likelihood"),
    (0.1, "posterior"),
    (3.0, "posterior"),
]


def linear(prior: Prior | None = None, noise: float | str = NOISE) -> BayesianModel:
    net = build_network(MLPConfig(widths=()), input_shape=(4,), num_outputs=1).double()
    return BayesianModel(net, prior or Prior(), Gaussian(noise=noise))


def splits(number: int) -> list[tuple[Tensor, Tensor]]:
    """Parts of a regression whose columns, the ones of the bias included, are orthogonal within
    each part.

    Then the exact posterior of every part, and of all, is independent normals.
    """
    columns = torch.from_numpy(hadamard(8)[:, 1:5]).double()
    parts = []
    for k in range(number):
        x = columns * (0.3 + normal(4, seed=k).abs())
        parts.append((x, x @ normal(4, seed=20) - 0.4 + NOISE * normal(8, seed=30 + k)))
    return parts


def exact(
    model: BayesianModel, x: Tensor, y: Tensor, temperature: float, tempering: Tempering
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the tempered posterior, by automatic differentiation of the potential,
    a parabola."""
    zero = torch.zeros(model.num_parameters, dtype=torch.float64)

    def potential(flat: Tensor) -> Tensor:
        return model.potential(flat, x, y, temperature=temperature, tempering=tempering)

    slope = torch.func.grad(potential)(zero)
    covariance = torch.linalg.inv(torch.func.hessian(potential)(zero))
    return -covariance @ slope, covariance


def part_posteriors(
    model: BayesianModel, data: list[tuple[Tensor, Tensor]], *tempered
) -> list[GaussianPosterior]:
    found = []
    for x, y in data:
        mean, covariance = exact(model, x, y, *tempered)
        found.append(gaussian(model, mean, covariance.diagonal().sqrt()))
        # Independent, or else normals of the diagonal would not be exact.
        torch.testing.assert_close(
            covariance, torch.diag(covariance.diagonal()), rtol=0, atol=1e-14
        )
    return found


def gaussian(model: BayesianModel, loc: Tensor, scale: Tensor, **keywords) -> GaussianPosterior:
    scaling = keywords.pop("scaling", None) or Scaling.identity((4,))
    return GaussianPosterior(model, scaling, loc=loc, scale=scale, **keywords)


def two(model: BayesianModel | None = None, scale: float = 0.2) -> list[GaussianPosterior]:
    model = model or linear()
    size = model.num_parameters
    return [
        gaussian(model, normal(size, seed=k), scale * (0.3 * normal(size, seed=k + 5)).exp())
        for k in range(2)
    ]


# -- products


@pytest.mark.parametrize(("temperature", "tempering"), TEMPERINGS)
@pytest.mark.parametrize("scale", [1.0, 0.4, "fan_in"])
@pytest.mark.parametrize("number", [2, 3])
def test_the_product_of_parts_is_the_exact_posterior_of_all_data(
    number, scale, temperature, tempering
):
    model = linear(Prior(scale=scale, overrides={"*.bias": PriorOverride(scale=2.0)}))
    data = splits(number)
    parts = part_posteriors(model, data, temperature, tempering)
    merged = merge(parts, "product", temperature=temperature, tempering=tempering)
    x, y = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
    mean, covariance = exact(model, x, y, temperature, tempering)
    torch.testing.assert_close(merged.mean(), mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        merged.standard_deviation(), covariance.diagonal().sqrt(), rtol=1e-10, atol=0
    )


def test_without_dividing_the_prior_out_it_would_not_be():
    """The tempered prior is what is divided out: at the wrong tempering the product is another
    one."""
    model = linear()
    parts = part_posteriors(model, splits(3), 0.1, "posterior")
    right = merge(parts, "product", temperature=0.1, tempering="posterior")
    wrong = merge(parts, "product", temperature=0.1, tempering="likelihood")
    assert float((right.standard_deviation() / wrong.standard_deviation() - 1).abs().min()) > 1e-3


@pytest.mark.parametrize(("temperature", "tempering"), TEMPERINGS)
def test_parts_that_say_nothing_multiply_to_the_prior(temperature, tempering):
    """Latent variables of the likelihood included, whose prior is not centered."""
    model = BayesianModel(
        linear().net, Prior(scale=0.5), Gaussian(log_noise_mean=-0.7, log_noise_sd=0.6)
    )
    mean, sd = torch.zeros(6).double(), torch.full((6,), 0.5).double()
    mean[-1], sd[-1] = -0.7, 0.6
    if tempering == "posterior":
        sd = sd * math.sqrt(temperature)
    parts = [gaussian(model, mean, sd)] * 4
    merged = merge(parts, "product", temperature=temperature, tempering=tempering)
    torch.testing.assert_close(merged.mean(), mean, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(merged.standard_deviation(), sd, rtol=1e-12, atol=0)


def test_the_parts_may_say_at_what_temperature_they_are():
    model = linear()
    size = model.num_parameters
    recorded = [
        gaussian(model, normal(size, seed=k), 0.1 + 0.1 * normal(size, seed=k).abs(), info=info)
        for k, info in enumerate([{"temperature": 0.5, "tempering": "posterior"}] * 2)
    ]
    silent = [gaussian(model, own.loc, own.scale) for own in recorded]
    merged = merge(recorded, "product")
    assert torch.equal(
        merged.loc, merge(silent, "product", temperature=0.5, tempering="posterior").loc
    )
    assert not torch.equal(merged.loc, merge(silent, "product").loc)
    with pytest.raises(ConfigError, match=r"T = 0\.5 \(posterior\) and T = 2 \(posterior\)"):
        merge(recorded, "product", temperature=2.0)
    with pytest.raises(ConfigError, match="temperatures differ"):
        merge(recorded, "product", tempering="likelihood")
    with pytest.raises(ConfigError, match=r"T = 0\.5 \(posterior\) and T = 1 \(likelihood\)"):
        merge([recorded[0], silent[1]], "product")


def test_a_product_that_is_no_density_names_how_many_coordinates_fail():
    model = linear()
    scale = torch.full((5,), 0.5, dtype=torch.float64)
    scale[[1, 3]] = 1.5  # wider than the prior: 2 / 1.5^2 < 1
    parts = [gaussian(model, torch.zeros(5).double(), scale)] * 2
    with pytest.raises(IncompatiblePosteriors, match=r"in 2 of 5 coordinates .* rule 'barycentre'"):
        merge(parts, "product")
    assert torch.equal(merge(parts, "barycentre").standard_deviation(), scale)


def test_other_priors_are_refused_or_matched_by_their_moments():
    parts = two(linear(Prior(name="laplace", scale=0.5)))
    with pytest.raises(ConfigError, match=r"this one is Laplace; set match_prior_moments=True"):
        merge(parts, "product")
    matched = merge(parts, "product", match_prior_moments=True)
    normals = linear(Prior(scale=0.5 * math.sqrt(2)))  # the variance of a Laplace is 2 b^2
    same = merge([gaussian(normals, own.loc, own.scale) for own in parts], "product")
    torch.testing.assert_close(matched.mean(), same.mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        matched.standard_deviation(), same.standard_deviation(), rtol=1e-12, atol=0
    )


# -- barycentres


def test_the_barycentre_averages_means_and_standard_deviations():
    first, second = two()
    merged = merge([first, second])
    assert isinstance(merged, GaussianPosterior)
    torch.testing.assert_close(merged.loc, (first.loc + second.loc) / 2, rtol=1e-14, atol=0)
    torch.testing.assert_close(merged.scale, (first.scale + second.scale) / 2, rtol=1e-14, atol=0)
    weighted = merge([first, second], weights=[3.0, 1.0])
    torch.testing.assert_close(
        weighted.loc, 0.75 * first.loc + 0.25 * second.loc, rtol=1e-14, atol=1e-15
    )
    torch.testing.assert_close(
        weighted.scale, 0.75 * first.scale + 0.25 * second.scale, rtol=1e-14, atol=0
    )


def test_the_barycentre_is_nearest_to_its_parts():
    """No step away from it, in means or in standard deviations, lowers the sum of squared
    distances."""
    parts = two()
    weights = [0.3, 0.7]
    merged = merge(parts, weights=weights)

    def total(loc: Tensor, scale: Tensor) -> float:
        return sum(
            w * float((loc - own.loc).square().sum() + (scale - own.scale).square().sum())
            for w, own in zip(weights, parts, strict=True)
        )

    best = total(merged.mean(), merged.standard_deviation())
    for seed in range(10):
        away = 0.01 * normal(2, 5, seed=seed)
        assert total(merged.mean() + away[0], merged.standard_deviation() + away[1]) > best
    assert merge([parts[0]] * 3).loc == pytest.approx(parts[0].loc)


def test_points_are_averaged_to_a_point():
    model = linear()
    values = normal(3, 5)
    points = [
        SamplePosterior.from_draws(model, own[None, None], Scaling.identity((4,))) for own in values
    ]
    merged = merge(points)
    assert merged.shape == (1, 1, 5)
    torch.testing.assert_close(merged.mean(), values.mean(0), rtol=1e-14, atol=1e-15)
    with pytest.raises(ConfigError, match="points have no density"):
        merge(points, "product")


def test_a_merged_posterior_is_saved_and_predicts(tmp_path):
    merged = merge(two(), "product")
    save_posterior(merged, tmp_path / "merged.nc")
    loaded = load_posterior(tmp_path / "merged.nc", merged.model, merged.scaling)
    torch.testing.assert_close(loaded.mean(), merged.mean())
    torch.testing.assert_close(loaded.standard_deviation(), merged.standard_deviation())
    assert merged.info["rule"] == "product"
    assert len(merged.info["parts"]) == 2
    assert merged.predict(normal(6, 4)).outputs.shape == (1, merged.num_draws, 6, 1)


# -- refusals


def test_what_cannot_be_merged_is_refused_with_the_reason():
    model = linear()
    first, second = two(model)
    draws = SamplePosterior.from_draws(model, normal(1, 7, 5), Scaling.identity((4,)))
    with pytest.raises(ConfigError, match="got 1 posteriors"):
        merge([first])
    with pytest.raises(ConfigError, match=r"got a normal, 7 draw\(s\); merging needs normals only"):
        merge([first, draws])
    with pytest.raises(ConfigError, match=r"got 7 draw\(s\), 7 draw\(s\)"):
        merge([draws, draws])
    with pytest.raises(ConfigError, match="a product has no weights"):
        merge([first, second], "product", weights=[1.0, 1.0])
    for weights in ([1.0], [1.0, 0.0], [1.0, float("inf")]):
        with pytest.raises(ConfigError, match="expected 2 positive numbers"):
            merge([first, second], weights=weights)
    with pytest.raises(ConfigError, match="a barycenter does not use the prior"):
        merge([first, second], temperature=0.1)


def test_parts_in_other_units_or_with_other_priors_have_no_product():
    model = linear()
    first, second = two(model)
    other = Scaling(x_mean=np.zeros(4), x_scale=np.ones(4), y_mean=0.0, y_scale=3.0)
    moved = gaussian(model, second.loc, second.scale, scaling=other)
    with pytest.raises(IncompatiblePosteriors, match="standardized differently"):
        merge([first, moved], "product")
    wider = gaussian(linear(Prior(scale=2.0)), second.loc, second.scale)
    with pytest.raises(IncompatiblePosteriors, match="has the prior"):
        merge([first, wider], "product")
    assert torch.equal(merge([first, wider]).loc, merge([first, second]).loc)


def test_other_likelihoods_and_parameters_are_refused():
    first, second = two()
    noisier = gaussian(linear(noise=0.3), second.loc, second.scale)
    with pytest.raises(IncompatiblePosteriors, match="has the likelihood"):
        merge([first, noisier])
    net = build_network(MLPConfig(widths=()), input_shape=(4,), num_outputs=3).double()
    classes = BayesianModel(net, Prior(), Categorical())
    with pytest.raises(IncompatiblePosteriors, match="different parameters"):
        merge([first, gaussian(classes, normal(15), normal(15).exp())])
