"""Mixtures of posteriors: density, permutations, predictions and files."""

import math

import pytest
import torch
from torch import nn

from bnn_symm.data import Scaling, Split
from bnn_symm.diagnostics.mixing.function_values import function_values
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.models import BayesianModel, Gaussian, Prior
from bnn_symm.posteriors import (
    GaussianPosterior,
    LinearizedPosterior,
    LowRankGaussianPosterior,
    MixturePosterior,
    SamplePosterior,
    load_posterior,
    save_posterior,
)
from bnn_symm.symmetry import symmetry_group

SCALING = Scaling.identity((1,))
NET = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))
MODEL = BayesianModel(NET, Prior(), Gaussian())
SIZE = MODEL.num_parameters


def components() -> list[GaussianPosterior | LowRankGaussianPosterior]:
    generator = torch.Generator().manual_seed(0)
    loc, scale, factors = (
        torch.randn(SIZE, generator=generator),
        torch.rand(SIZE, generator=generator) + 0.1,
        torch.randn(2, SIZE, generator=generator),
    )
    return [
        GaussianPosterior(MODEL, SCALING, loc=loc, scale=scale, num_draws=5, seed=1),
        LowRankGaussianPosterior(
            MODEL, SCALING, loc=-loc, scale=scale, factors=factors, num_draws=5, seed=2
        ),
    ]


@pytest.fixture
def mixture() -> MixturePosterior:
    return MixturePosterior(MODEL, SCALING, components=components(), info={"method": "mixture"})


def test_chains_are_the_draws_of_the_components(mixture):
    assert mixture.shape == (2, 5, SIZE)
    for chain, component in enumerate(components()):
        assert torch.equal(mixture.read(chain, 0, 5), component.positions.read(0, 0, 5))


def test_the_density_is_the_mean_of_the_densities(mixture):
    flat = mixture.draws()
    each = torch.stack([component.log_prob(flat) for component in components()])
    torch.testing.assert_close(mixture.log_prob(flat), each.logsumexp(0) - math.log(2))


def test_permuted_components_give_the_permuted_draws_and_stay_normal(mixture):
    group = symmetry_group(NET, input_shape=(1,))
    permutations = [group.random(seed) for seed in (1, 2)]
    permuted = mixture.permute_chains(permutations)
    assert isinstance(permuted, MixturePosterior)
    as_draws = SamplePosterior(MODEL, SCALING, positions=mixture.positions)
    torch.testing.assert_close(permuted.draws(), as_draws.permute_chains(permutations).draws())
    flat = mixture.draws()[:1]
    one = mixture.permute(permutations[0])
    assert isinstance(one, MixturePosterior)
    torch.testing.assert_close(
        one.log_prob(MODEL.permute(flat, permutations[0])), mixture.log_prob(flat)
    )
    per_draw = mixture.permute_chains([[permutations[0]] * 5, [permutations[1]] * 5])
    torch.testing.assert_close(per_draw.draws(), permuted.draws())
    with pytest.raises(IncompatiblePosteriors, match="expected one per chain"):
        mixture.permute_chains(permutations[:1])


def test_a_file_keeps_the_closed_form_of_every_component(mixture, tmp_path):
    save_posterior(mixture, tmp_path / "posterior.nc")
    loaded = load_posterior(tmp_path / "posterior.nc", MODEL, SCALING, info={"method": "mixture"})
    assert isinstance(loaded, MixturePosterior)
    assert torch.equal(loaded.draws(), mixture.draws())
    for own, former in zip(loaded.components, components(), strict=True):
        assert type(own) is type(former)
        for name, array in former.arrays().items():
            assert torch.equal(own.arrays()[name], array)


def test_a_limit_of_the_file_cuts_draws_that_their_seeds_regenerate(mixture, tmp_path):
    save_posterior(mixture, tmp_path / "posterior.nc", max_megabytes=1e-6)
    loaded = load_posterior(tmp_path / "posterior.nc", MODEL, SCALING)
    assert torch.equal(loaded.draws(), mixture.draws())


def test_a_mixture_of_draws_is_stored_as_its_draws(tmp_path):
    normal, _ = components()
    draws = SamplePosterior.from_draws(MODEL, torch.zeros(1, 5, SIZE), SCALING)
    mixture = MixturePosterior(MODEL, SCALING, components=[normal, draws])
    with pytest.raises(IncompatiblePosteriors, match="no density"):
        mixture.log_prob(torch.zeros(SIZE))
    save_posterior(mixture, tmp_path / "posterior.nc", max_megabytes=1e-6)
    loaded = load_posterior(tmp_path / "posterior.nc", MODEL, SCALING)
    assert type(loaded) is SamplePosterior
    assert torch.equal(loaded.draws(), mixture.draws())


@pytest.mark.parametrize("closed", [True, False])
def test_components_that_are_linearized_predict_so_and_are_stored_with_their_modes(
    closed, tmp_path
):
    x = torch.linspace(-1, 1, 7)[:, None]
    normals = components()
    bases = [
        own
        if closed
        else SamplePosterior.from_draws(MODEL, own.positions.read(0, 0, 5)[None], SCALING)
        for own in normals
    ]
    parts = [LinearizedPosterior(base, own.loc) for base, own in zip(bases, normals, strict=True)]
    mixture = MixturePosterior(MODEL, SCALING, components=parts)
    wanted = torch.cat([part.predict(x).outputs for part in parts])
    assert torch.equal(mixture.predict(x).outputs, wanted)
    assert not torch.equal(mixture.of_weights.predict(x).outputs, wanted)
    save_posterior(mixture, tmp_path / "posterior.nc")
    loaded = load_posterior(tmp_path / "posterior.nc", MODEL, SCALING)
    assert isinstance(loaded, MixturePosterior)
    assert torch.equal(loaded.predict(x).outputs, wanted)
    values = function_values(loaded, Split(x=x, y=x[:, 0]))
    torch.testing.assert_close(torch.from_numpy(values.outputs).float(), wanted)
    with pytest.raises(IncompatiblePosteriors, match="different linearized networks"):
        mixture.evaluation_model(MODEL)
    some = MixturePosterior(MODEL, SCALING, components=[parts[0], bases[1]])
    with pytest.raises(ConfigError, match="only some components"):
        save_posterior(some, tmp_path / "some.nc")


def test_components_of_other_shapes_are_refused():
    normal, _ = components()
    longer = GaussianPosterior(MODEL, SCALING, loc=normal.loc, scale=normal.scale, num_draws=6)
    for bad in ([], [normal, longer]):
        with pytest.raises(IncompatiblePosteriors, match="expected one shape"):
            MixturePosterior(MODEL, SCALING, components=bad)
