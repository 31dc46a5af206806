"""Permuted posteriors: the same function draw by draw, the same ELBO, and the algebra of
permutations."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from bnn_symm.architectures import CNNConfig, MLPConfig, SymmetryConfig, build_network
from bnn_symm.data import Scaling, Split
from bnn_symm.diagnostics import elbo
from bnn_symm.errors import IncompatiblePosteriors, NotRepresentable
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.posteriors import (
    GaussianPosterior,
    LazyDraws,
    SamplePosterior,
    load_posterior,
    save_posterior,
)
from bnn_symm.symmetry import Permutation, SymmetryGroup, symmetry_group
from tests.models.cases import normal

BLOCKS = SymmetryConfig(kind="block_fixed", block=3, fixed_per_row=(2, 3, 0))
ASYMMETRIC = SymmetryConfig(kind="weight_asymmetric", fixed_per_row=(2, 2, 0))
# Architecture, shape of a point, likelihood. A learned noise is a coordinate that no permutation
# moves.
NETWORKS = {
    "relu": (MLPConfig(widths=(4, 3), norm="layer"), (2,), Gaussian()),
    "tanh": (MLPConfig(widths=(4, 3), activation="tanh"), (2,), Categorical()),
    "flattened maps, frn": (CNNConfig(widths=(3, 4), norm="frn"), (1, 4, 4), Categorical()),
    "blocks of fixed entries": (MLPConfig(widths=(6, 6), symmetry=BLOCKS), (4,), Categorical()),
}
SCALING = Scaling(x_mean=np.zeros(2), x_scale=np.ones(2), y_mean=5.0, y_scale=2.0)
# Sums over permuted units are taken in another order: a few roundings of float64, where 1e-6 is
# what is promised.
ROUNDING = 1e-12


def model_of(config, shape: tuple[int, ...], likelihood) -> BayesianModel:
    outputs = 1 if isinstance(likelihood, Gaussian) else 3
    return BayesianModel(
        build_network(config, input_shape=shape, num_outputs=outputs).double(), Prior(), likelihood
    )


def gaussian(model: BayesianModel, seed: int = 0) -> GaussianPosterior:
    loc = normal(model.num_parameters, seed=seed)
    scale = (0.5 * normal(model.num_parameters, seed=seed + 1) - 1).exp()
    return GaussianPosterior(model, SCALING, loc=loc, scale=scale, num_draws=5, seed=7)


def samples(model: BayesianModel, chains: int = 2, draws: int = 3) -> SamplePosterior:
    stats = {"energy": normal(chains, draws).numpy()}
    return SamplePosterior.from_draws(
        model, normal(chains, draws, model.num_parameters), SCALING, sample_stats=stats
    )


@pytest.fixture(scope="module", params=NETWORKS)
def case(request) -> tuple[BayesianModel, SymmetryGroup, Tensor]:
    config, shape, likelihood = NETWORKS[request.param]
    model = model_of(config, shape, likelihood)
    return model, symmetry_group(model.net), normal(6, *shape)


@pytest.fixture(scope="module")
def tanh() -> tuple[BayesianModel, SymmetryGroup]:
    model = model_of(*NETWORKS["tanh"])
    return model, symmetry_group(model.net)


@pytest.fixture(scope="module")
def asymmetric() -> tuple[BayesianModel, Permutation]:
    """A network, and a permutation that its fixed entries leave no room for."""
    model = model_of(MLPConfig(widths=(4, 4), symmetry=ASYMMETRIC), (4,), Categorical())
    group = symmetry_group(model.net)
    assert group.is_trivial
    return model, group.spec.random(0)


def same_bits(first: GaussianPosterior, second: GaussianPosterior) -> bool:
    return (
        torch.equal(first.loc, second.loc)
        and torch.equal(first.scale, second.scale)
        and torch.equal(first.draws(4, seed=3), second.draws(4, seed=3))
        and torch.equal(torch.cat(list(first.iter_draws())), torch.cat(list(second.iter_draws())))
    )


# -- the same function


@pytest.mark.parametrize("make", [gaussian, samples])
def test_every_draw_predicts_what_it_did(case, make) -> None:
    model, group, x = case
    before, permutation = make(model), group.random("plant")
    after = before.permute(permutation)
    assert permutation.num_moved > 2
    assert not torch.equal(next(after.iter_draws()), next(before.iter_draws()))
    first, second = before.predict(x), after.predict(x)
    assert first.outputs.shape[:2] == before.shape[:2]
    # Most draws differ from one another by much more.
    assert float(first.outputs.std((0, 1)).min()) > 1e-3
    largest = float(first.outputs.abs().max())
    torch.testing.assert_close(
        second.outputs, first.outputs, rtol=ROUNDING, atol=ROUNDING * largest
    )
    for name, value in first.latents.items():
        assert torch.equal(second.latents[name], value)


def test_fresh_draws_are_permuted_with_the_noise(case) -> None:
    model, group, _ = case
    before, permutation = gaussian(model), group.random("plant")
    after = before.permute(permutation)
    for seed in (0, 1):
        assert torch.equal(
            after.draws(4, seed=seed), model.permute(before.draws(4, seed=seed), permutation)
        )
    assert torch.equal(after.draws(), next(after.iter_draws())) == torch.equal(
        before.draws(), next(before.iter_draws())
    )


def test_what_a_permuted_posterior_says_of_itself_is_kept(case) -> None:
    model, group, _ = case
    before = gaussian(model)
    before.info["method"], before.history[:] = "elsewhere", [{"step": 1}]
    after = before.permute(group.random("plant"))
    assert (after.num_draws, after.seed, after.shape) == (
        before.num_draws,
        before.seed,
        before.shape,
    )
    assert (after.info, after.history, after.scaling) == (
        before.info,
        before.history,
        before.scaling,
    )
    # The same numbers in another order, summed in that order.
    assert after.entropy() == pytest.approx(before.entropy(), rel=ROUNDING)


@pytest.fixture
def few_samples(monkeypatch) -> None:
    """What is tested does not depend on how precise the ELBO is."""
    monkeypatch.setattr(sys.modules["bnn_symm.diagnostics.elbo.elbo"], "_MAX_SAMPLES", 60)


def both_elbos(case):
    model, group, x = case
    generator = torch.Generator().manual_seed(0)
    y = (
        normal(len(x), seed=9)
        if isinstance(model.likelihood, Gaussian)
        else torch.randint(3, (6,), generator=generator)
    )
    posterior = gaussian(model)
    train = Split(x=x, y=y)
    return [elbo(p, train, seed=4) for p in (posterior, posterior.permute(group.random("plant")))]


def test_the_divergence_from_the_prior_is_unchanged(case, few_samples) -> None:
    before, after = both_elbos(case)
    assert after.kl == pytest.approx(before.kl, rel=ROUNDING)


def test_the_elbo_is_unchanged(case, few_samples) -> None:
    before, after = both_elbos(case)
    assert after.num_samples == before.num_samples
    assert after.value == pytest.approx(before.value, rel=1e-6)
    assert after.standard_error == pytest.approx(before.standard_error, rel=1e-6)


def test_the_elbo_is_unchanged_within_its_error(case, few_samples) -> None:
    before, after = both_elbos(case)
    assert abs(after.value - before.value) < 5 * (before.standard_error + after.standard_error)


# -- the algebra


def test_permuting_twice_is_composing(case) -> None:
    model, group, _ = case
    first, second = group.random(1), group.random(2)
    assert not second.compose(first).same_as(first.compose(second))
    posterior = gaussian(model)
    twice, once = posterior.permute(first).permute(second), posterior.permute(second.compose(first))
    assert same_bits(twice, once)
    assert torch.equal(twice.noise_order, once.noise_order)
    draws = samples(model)
    assert torch.equal(
        draws.permute(first).permute(second).draws(), draws.permute(second.compose(first)).draws()
    )


def test_the_inverse_restores_the_bits(case) -> None:
    model, group, _ = case
    permutation = group.random(3)
    posterior, draws = gaussian(model), samples(model)
    moved = posterior.permute(permutation)
    assert not same_bits(moved, posterior)
    restored = moved.permute(permutation.inverse())
    assert same_bits(restored, posterior)
    assert torch.equal(restored.noise_order, torch.arange(1, model.num_parameters + 1))
    assert torch.equal(
        draws.permute(permutation).permute(permutation.inverse()).draws(), draws.draws()
    )


def test_permuting_leaves_the_posterior_itself_as_it_was(case) -> None:
    model, group, _ = case
    posterior = gaussian(model)
    loc, scale = posterior.loc.clone(), posterior.scale.clone()
    posterior.permute(group.random(1))
    assert torch.equal(posterior.loc, loc)
    assert torch.equal(posterior.scale, scale)
    assert posterior.noise_order is None


def test_flips_turn_means_and_noise_but_no_scale(tanh) -> None:
    model, group = tanh
    posterior = gaussian(model)
    spec = group.spec
    flip = spec.permutation({}, {"layers.0": torch.tensor([-1, 1, 1, -1])})
    after = posterior.permute(flip)
    sign = torch.tensor([-1.0, 1.0, 1.0, -1.0], dtype=torch.float64)
    values, turned = model.unflatten(posterior.loc), model.unflatten(after.loc)
    assert torch.equal(turned["layers.0.weight"], sign[:, None] * values["layers.0.weight"])
    assert torch.equal(turned["layers.0.bias"], sign * values["layers.0.bias"])
    assert torch.equal(turned["layers.1.weight"], values["layers.1.weight"] * sign)
    assert torch.equal(turned["head.weight"], values["head.weight"])
    assert torch.equal(after.scale, posterior.scale)
    assert int((after.noise_order < 0).sum()) == 2 * 2 + 2 + 2 * 3  # incoming, biases, outgoing
    both = posterior.permute(group.random(0))
    assert bool((both.scale > 0).all())
    assert torch.equal(both.scale.sort().values, posterior.scale.sort().values)


# -- fixed entries


def test_what_is_not_representable_is_refused(asymmetric) -> None:
    model, permutation = asymmetric
    for posterior in (gaussian(model), samples(model)):
        with pytest.raises(NotRepresentable, match=r"moves fixed entries of layers\.0\.weight"):
            posterior.permute(permutation)
        same = posterior.permute(permutation.spec.identity())
        assert torch.equal(next(same.iter_draws()), next(posterior.iter_draws()))


@pytest.mark.parametrize("per_draw", [False, True], ids=["another chain", "another draw"])
def test_what_is_not_representable_is_refused_wherever_it_stands(asymmetric, per_draw) -> None:
    model, permutation = asymmetric
    identity = permutation.spec.identity()
    wrong = (
        [[identity] * 3, [identity, identity, permutation]] if per_draw else [identity, permutation]
    )
    with pytest.raises(NotRepresentable):
        samples(model).permute_chains(wrong)


# -- chains


def test_one_permutation_a_chain(tanh) -> None:
    model, group = tanh
    posterior, permutations = samples(model), [group.random(1), group.random(2)]
    own = torch.stack(list(posterior.iter_draws()))
    expected = torch.stack([model.permute(d, p) for d, p in zip(own, permutations, strict=True)])
    after = posterior.permute_chains(permutations)
    assert after.shape == posterior.shape
    assert torch.equal(torch.stack(list(after.iter_draws())), expected)
    assert after.sample_stats.keys() == {"energy"}
    torch.testing.assert_close(after.mean(), expected.mean((0, 1)))
    torch.testing.assert_close(after.standard_deviation(), expected.flatten(0, 1).std(0))


def test_one_permutation_a_draw_whatever_the_chunk(tanh) -> None:
    model, group = tanh
    posterior = samples(model)
    permutations = [[group.random(c, d) for d in range(3)] for c in range(2)]
    own = torch.stack(list(posterior.iter_draws()))
    expected = torch.stack(
        [
            torch.stack([model.permute(own[c, d], permutations[c][d]) for d in range(3)])
            for c in (0, 1)
        ]
    )
    after = posterior.permute_chains(permutations)
    for chunk in (1, 2, 3):
        assert torch.equal(torch.cat(list(after.iter_draws(chunk))), expected.flatten(0, 1))
    subset = {tuple(row) for row in after.draws(4, seed=1).tolist()}
    assert subset < {tuple(row) for row in expected.flatten(0, 1).tolist()}
    x = normal(4, 2)
    torch.testing.assert_close(
        after.predict(x).outputs, posterior.predict(x).outputs, rtol=ROUNDING, atol=ROUNDING * 10
    )


class Counted(LazyDraws):
    """Draws that count how many of them were read."""

    def __init__(self, draws: Tensor):
        base = LazyDraws.from_tensor(draws)
        super().__init__(base.shape, base.read)
        self.count = 0

    def read(self, chain: int, start: int, stop: int) -> Tensor:
        self.count += stop - start
        return super().read(chain, start, stop)


def test_draws_are_permuted_only_when_they_are_read(tanh) -> None:
    model, group = tanh
    positions = Counted(normal(3, 50, model.num_parameters))
    after = SamplePosterior(model, SCALING, positions=positions).permute(group.random(1))
    assert positions.count <= 3  # a look at one draw a chain, at most
    positions.count = 0
    next(after.iter_draws(10))
    assert positions.count == 10


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_permutations_than_chains_is_refused(tanh, count) -> None:
    model, group = tanh
    with pytest.raises(
        IncompatiblePosteriors, match=f"of {count} chains, expected one per chain \\(2\\)"
    ):
        samples(model).permute_chains([group.random(i) for i in range(count)])


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_another_number_of_permutations_than_draws_is_refused(tanh, count) -> None:
    model, group = tanh
    short = [group.random(i) for i in range(count)]
    full = [group.random(i) for i in range(3)]
    with pytest.raises(IncompatiblePosteriors, match="one per draw \\(3 in each chain\\)"):
        samples(model).permute_chains([full, short])


# -- files


def test_a_permuted_gaussian_comes_back_bit_for_bit_with_its_draws(case, tmp_path) -> None:
    model, group, _ = case
    saved = gaussian(model).permute(group.random(1)).permute(group.random(2))
    save_posterior(saved, tmp_path / "posterior.nc")
    loaded = load_posterior(tmp_path / "posterior.nc", model, SCALING)
    assert isinstance(loaded, GaussianPosterior)
    assert torch.equal(loaded.noise_order, saved.noise_order)
    assert same_bits(loaded, saved)
    assert same_bits(loaded.permute(group.random(3)), saved.permute(group.random(3)))


def test_a_gaussian_that_was_never_permuted_has_no_order_in_its_file(tanh, tmp_path) -> None:
    model, _ = tanh
    save_posterior(gaussian(model), tmp_path / "posterior.nc")
    loaded = load_posterior(tmp_path / "posterior.nc", model, SCALING)
    assert isinstance(loaded, GaussianPosterior)
    assert loaded.noise_order is None


def test_permuted_samples_come_back_bit_for_bit(tanh, tmp_path) -> None:
    model, group = tanh
    save_posterior(samples(model), tmp_path / "as they were.nc")
    stored = load_posterior(tmp_path / "as they were.nc", model, SCALING)
    assert isinstance(stored, SamplePosterior)
    saved = stored.permute_chains(
        [[group.random(c, d) for d in range(3)] for c in range(2)]
    )  # of draws in a file
    save_posterior(saved, tmp_path / "posterior.nc")
    loaded = load_posterior(tmp_path / "posterior.nc", model, SCALING)
    assert torch.equal(loaded.draws(), saved.draws())
    assert not torch.equal(loaded.draws(), stored.draws())
    np.testing.assert_array_equal(loaded.sample_stats["energy"], stored.sample_stats["energy"])


def test_single_precision_keeps_the_order_of_the_noise_exactly() -> None:
    net = build_network(MLPConfig(widths=(4,), activation="tanh"), input_shape=(2,), num_outputs=3)
    model = BayesianModel(net, Prior(), Categorical())
    group = symmetry_group(net)
    loc = normal(model.num_parameters).float()
    posterior = GaussianPosterior(model, SCALING, loc=loc, scale=loc.exp())
    permutation = group.random(1)
    after = posterior.permute(permutation)
    assert after.loc.dtype == torch.float32
    assert torch.equal(after.draws(3), model.permute(posterior.draws(3), permutation))
