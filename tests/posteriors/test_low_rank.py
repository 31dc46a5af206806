"""Normals with factors: densities against torch's, and what every posterior promises."""

import math
import sys

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal

from bnn_symm.alignment import align, merge
from bnn_symm.architectures import CNNConfig, MLPConfig, SymmetryConfig, build_network
from bnn_symm.data import Scaling, Split, load_dataset
from bnn_symm.diagnostics import barrier, elbo
from bnn_symm.diagnostics.barriers.interpolation import couple
from bnn_symm.diagnostics.elbo.elbo import kl_by_tensor
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.posteriors import (
    GaussianPosterior,
    LowRankGaussianPosterior,
    SamplePosterior,
    load_posterior,
    save_posterior,
)
from bnn_symm.posteriors.io.arviz import to_groups
from bnn_symm.posteriors.low_rank import layer_sizes
from bnn_symm.symmetry import symmetry_group
from bnn_symm.testing import exact_posterior, linear_regression, log_evidence, log_jacobian
from tests.models.cases import normal

SCALING = Scaling(x_mean=np.zeros(2), x_scale=np.ones(2), y_mean=5.0, y_scale=2.0)
BLOCKS = SymmetryConfig(kind="block_fixed", block=3, fixed_per_row=(2, 3, 0))
NETWORKS = {
    "norm, learned noise": (MLPConfig(widths=(4, 3), norm="layer"), (2,), Gaussian()),
    "signs": (MLPConfig(widths=(4, 3), activation="tanh"), (2,), Categorical()),
    "convolutions": (CNNConfig(widths=(3, 4), norm="frn"), (1, 4, 4), Categorical()),
    "fixed entries": (MLPConfig(widths=(6, 6), symmetry=BLOCKS), (4,), Categorical()),
}


def model_of(name: str) -> BayesianModel:
    config, shape, likelihood = NETWORKS[name]
    outputs = 1 if isinstance(likelihood, Gaussian) else 3
    net = build_network(config, input_shape=shape, num_outputs=outputs).double()
    return BayesianModel(net, Prior(), likelihood)


def low_rank(
    model: BayesianModel, seed: int = 0, rank: int = 3, **keywords
) -> LowRankGaussianPosterior:
    number = model.num_parameters
    return LowRankGaussianPosterior(
        model,
        SCALING,
        loc=normal(number, seed=seed),
        scale=(0.5 * normal(number, seed=seed + 1) - 1).exp(),
        factors=0.5 * normal(rank, number, seed=seed + 2),
        **{"num_draws": 5, "seed": 7, **keywords},
    )


def dense(posterior: LowRankGaussianPosterior) -> Tensor:
    """The covariance of the whole vector, written out."""
    sizes = list(layer_sizes(posterior.model).values())
    blocks = [own.T @ own for own in posterior.factors.split(sizes, dim=1)]
    return torch.block_diag(*blocks) + torch.diag(posterior.scale.square())


@pytest.fixture(params=NETWORKS)
def case(request) -> tuple[BayesianModel, Tensor]:
    """A model, and points."""
    return model_of(request.param), normal(6, *NETWORKS[request.param][1])


@pytest.fixture
def model(case) -> BayesianModel:
    return case[0]


def few_samples(monkeypatch, number: int) -> None:
    """What is tested does not depend on how precise the ELBO is."""
    monkeypatch.setattr(sys.modules["bnn_symm.diagnostics.elbo.elbo"], "_MAX_SAMPLES", number)


# -- the density


def test_density_and_entropy_are_torchs_layer_by_layer(model) -> None:
    own, sizes = low_rank(model), list(layer_sizes(model).values())
    parts = zip(
        *(value.split(sizes, dim=-1) for value in (own.loc, own.factors, own.scale)), strict=True
    )
    layers = [
        LowRankMultivariateNormal(loc, factors.T, scale.square()) for loc, factors, scale in parts
    ]
    values = normal(4, model.num_parameters, seed=9)
    wanted = sum(
        layer.log_prob(value)
        for layer, value in zip(layers, values.split(sizes, dim=-1), strict=True)
    )
    torch.testing.assert_close(own.log_prob(values), wanted, rtol=1e-10, atol=1e-10)
    assert own.log_prob(values[0]).shape == ()
    assert own.entropy() == pytest.approx(
        sum(float(layer.entropy()) for layer in layers), rel=1e-12
    )


def test_weights_of_a_layer_covary_and_those_of_two_do_not(model) -> None:
    sizes = layer_sizes(model)
    assert sum(sizes.values()) == model.num_parameters
    assert sizes["head"] == sum(
        value.numel() for name, value in model.net.named_parameters() if "head" in name
    )
    assert sizes.get("likelihood") == (1 if model.likelihood.latents else None)


def test_draws_have_its_moments() -> None:
    number, own = 4000, low_rank(model_of("norm, learned noise"))
    draws = own.draws(number, seed=0)
    covariance, wanted = torch.cov(draws.T), dense(own)
    # Standard error of a covariance: sqrt((s_ii s_jj + s_ij^2) / n); of a few hundred, the largest
    # is below 5 of them.
    error = ((torch.outer(wanted.diag(), wanted.diag()) + wanted.square()) / number).sqrt()
    assert ((covariance - wanted).abs() / error).max() < 5
    assert ((draws.mean(0) - own.loc).abs() / wanted.diag().sqrt()).max() < 5 / math.sqrt(number)
    torch.testing.assert_close(own.standard_deviation(), wanted.diag().sqrt(), rtol=1e-12, atol=0)
    assert torch.equal(draws[:3], own.draws(3, seed=0))


def test_what_a_tensor_adds_is_its_entropy_given_those_before_it_in_its_layer() -> None:
    own = low_rank(model_of("signs"))
    covariance, slices = dense(own), own.model.slices()
    bias, weight = slices["head.bias"], slices["head.weight"]
    cross = covariance[bias, weight]
    given = covariance[bias, bias] - cross @ torch.linalg.solve(covariance[weight, weight], cross.T)
    size = bias.stop - bias.start
    wanted = 0.5 * float(torch.logdet(given)) + 0.5 * size * math.log(2 * math.pi * math.e)
    assert own.entropy_by_tensor()["head.bias"] == pytest.approx(wanted, rel=1e-10)


def test_without_factors_it_is_the_gaussian() -> None:
    model = model_of("norm, learned noise")
    own = low_rank(model)
    bare = LowRankGaussianPosterior(
        model, SCALING, loc=own.loc, scale=own.scale, factors=torch.zeros_like(own.factors)
    )
    plain = GaussianPosterior(model, SCALING, loc=own.loc, scale=own.scale)
    values = normal(3, model.num_parameters, seed=4)
    torch.testing.assert_close(
        bare.log_prob(values), plain.log_prob(values), rtol=1e-12, atol=1e-12
    )
    for name, entropy in plain.entropy_by_tensor().items():
        assert bare.entropy_by_tensor()[name] == pytest.approx(entropy, rel=1e-12)
    assert torch.equal(bare.standard_deviation(), plain.standard_deviation())


def test_factors_of_another_length_are_refused() -> None:
    own = low_rank(model_of("signs"))
    for factors in (own.factors[:, 1:], own.factors[:0]):
        with pytest.raises(
            IncompatiblePosteriors, match=r"factors: got shape .* expected \(rank, parameter\)"
        ):
            LowRankGaussianPosterior(
                own.model, SCALING, loc=own.loc, scale=own.scale, factors=factors
            )
    with pytest.raises(IncompatiblePosteriors, match="must be positive"):
        LowRankGaussianPosterior(
            own.model, SCALING, loc=own.loc, scale=-own.scale, factors=own.factors
        )


def test_elbo_of_the_exact_posterior_is_the_log_evidence(monkeypatch) -> None:
    few_samples(monkeypatch, 400)
    model, data = linear_regression()
    exact = exact_posterior(data)
    values, vectors = torch.linalg.eigh(torch.linalg.inv(exact.precision))
    independent = 0.5 * values.min()
    factors = (vectors * (values - independent).sqrt()).T
    scale = independent.sqrt().expand(len(values))
    own = LowRankGaussianPosterior(
        model, data.scaling, loc=exact.mean, scale=scale, factors=factors
    )
    found = elbo(own, data.train)
    assert found is not None
    assert found.standard_error < 0.2
    assert abs(found.value - log_evidence(data) - log_jacobian(data)) < 4 * found.standard_error
    assert math.fsum(share.kl for share in kl_by_tensor(own).values()) == pytest.approx(
        found.kl, rel=1e-12
    )


# -- permuted


def test_a_permuted_one_predicts_what_it_did_draw_by_draw(case) -> None:
    model, x = case
    group, before = symmetry_group(model.net), low_rank(model)
    permutation = group.random("plant")
    after = before.permute(permutation)
    assert permutation.num_moved > 2
    first, second = before.predict(x).outputs, after.predict(x).outputs
    assert float(first.std((0, 1)).min()) > 1e-3
    torch.testing.assert_close(second, first, rtol=1e-11, atol=1e-11 * float(first.abs().max()))
    twice = after.permute(group.random("again"))
    torch.testing.assert_close(
        twice.predict(x).outputs, first, rtol=1e-11, atol=1e-11 * float(first.abs().max())
    )
    values = normal(model.num_parameters, seed=3)
    moved = model.permute(values, permutation)
    torch.testing.assert_close(
        after.log_prob(moved), before.log_prob(values), rtol=1e-11, atol=1e-11
    )
    # The same covariance, entry by entry: covariances move with their weights.
    wanted = model.permute(model.permute(dense(before), permutation).T.contiguous(), permutation)
    torch.testing.assert_close(dense(after), wanted, rtol=1e-12, atol=1e-12)


def test_the_elbo_does_not_know_how_units_are_numbered(case, monkeypatch) -> None:
    few_samples(monkeypatch, 60)
    model, x = case
    y = torch.arange(6) % 3 if isinstance(model.likelihood, Categorical) else normal(6, seed=8)
    part, before = Split(x=x, y=y), low_rank(model)
    first, second = (
        elbo(before, part),
        elbo(before.permute(symmetry_group(model.net).random("plant")), part),
    )
    assert first is not None
    assert second is not None
    assert second.kl == pytest.approx(first.kl, rel=1e-11)
    assert second.value == pytest.approx(first.value, rel=1e-9)


# -- files


@pytest.mark.thorough
def test_it_comes_back_bit_for_bit_with_its_draws_and_its_order(model, tmp_path) -> None:
    group = symmetry_group(model.net)
    for saved in (low_rank(model), low_rank(model).permute(group.random(1))):
        save_posterior(saved, tmp_path / "posterior.nc", max_megabytes=1e-4)
        loaded = load_posterior(tmp_path / "posterior.nc", model, SCALING)
        assert isinstance(loaded, LowRankGaussianPosterior)
        assert torch.equal(loaded.factors, saved.factors)
        assert (loaded.num_draws, loaded.seed) == (5, 7)
        assert torch.equal(loaded.draws(4, seed=3), saved.draws(4, seed=3))
        assert torch.equal(next(loaded.iter_draws()), next(saved.iter_draws()))
        assert (loaded.noise_order is None) == (saved.noise_order is None)


def test_arviz_sees_its_draws() -> None:
    model = model_of("norm, learned noise")
    own = low_rank(model)
    groups = to_groups(own).groups
    wanted = model.unflatten(next(own.iter_draws()))["head.weight"]
    np.testing.assert_array_equal(groups["posterior"]["head.weight"][0], wanted.numpy())


# -- two of them


def test_coupled_draws_have_the_right_ends_whatever_names_the_factors() -> None:
    """Factors turned by a rotation are the same distribution, so that the path from it to itself
    stands still."""
    model = model_of("norm, learned noise")
    first = low_rank(model)
    rotation = torch.linalg.qr(normal(3, 3, seed=5))[0]
    same = LowRankGaussianPosterior(
        model,
        SCALING,
        loc=first.loc,
        scale=first.scale,
        factors=rotation @ first.factors,
        num_draws=5,
    )
    pairs = couple([first, same], num_draws=6, seed=2)
    assert pairs.path == "turned factors"
    torch.testing.assert_close(pairs.draws[0], first.draws(6, seed=2), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(pairs.draws[1], pairs.draws[0], rtol=1e-10, atol=1e-10)


def test_a_path_between_other_ranks_has_both_ends_and_is_no_longer_than_unturned() -> None:
    model = model_of("norm, learned noise")
    first, second = low_rank(model, rank=2), low_rank(model, seed=20, rank=4)
    plain = GaussianPosterior(model, SCALING, loc=first.loc, scale=first.scale)
    number = 4000
    pairs = couple([first, second, plain], num_draws=number, seed=2)
    for own, covariance in (
        (pairs.draws[1], dense(second)),
        (pairs.draws[2], torch.diag(plain.scale.square())),
    ):
        error = (
            (torch.outer(covariance.diag(), covariance.diag()) + covariance.square()) / number
        ).sqrt()
        assert ((torch.cov(own.T) - covariance).abs() / error).max() < 5
    unturned = low_rank(model, seed=20, rank=4).draws(number, seed=2)
    assert (pairs.draws[1] - pairs.draws[0]).square().sum() < (
        unturned - pairs.draws[0]
    ).square().sum()


@pytest.mark.parametrize("name", ["norm, learned noise", "signs", "fixed entries"])
def test_a_planted_permutation_is_found_by_means_and_marginal_standard_deviations(name) -> None:
    """That is all that the cost knows; the factors follow exactly."""
    model = model_of(name)
    other = low_rank(model)
    permutation = symmetry_group(model.net).random(0, "plant")
    reference = other.permute(permutation)
    found = align(reference, other, restarts=2)
    assert found.permutation.same_as(permutation)
    aligned = found.apply(other)
    assert isinstance(aligned, LowRankGaussianPosterior)
    assert torch.equal(aligned.factors, reference.factors)


def test_the_path_to_an_aligned_copy_of_itself_is_flat() -> None:
    model, iris = model_of("fixed entries"), load_dataset("iris", dtype=torch.float64)
    other = low_rank(model)
    reference = other.permute(symmetry_group(model.net).random(0, "plant"))
    before = barrier(reference, other, iris, num_draws=5, num_tau=3)
    after = barrier(
        reference, align(reference, other, restarts=2).apply(other), iris, num_draws=5, num_tau=3
    )
    assert np.ptp(before.test.marginal_nll) > 0.1
    assert np.ptp(after.test.marginal_nll) < 1e-9


def test_merging_says_what_it_cannot_merge() -> None:
    model = model_of("signs")
    own = low_rank(model)
    with pytest.raises(ConfigError, match="a normal with covariances, a normal"):
        merge([own, GaussianPosterior(model, SCALING, loc=own.loc, scale=own.scale)])


def test_a_sample_posterior_may_stand_at_the_other_end() -> None:
    model = model_of("signs")
    draws = SamplePosterior.from_draws(model, normal(1, 8, model.num_parameters), SCALING)
    assert couple([low_rank(model), draws], num_draws=5).path == "moment"
