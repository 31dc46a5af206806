"""Frozen statistics belong to units: they move with them in alignments, and only there."""

import pytest
import torch
from torch import Tensor, nn

from bnn_symm import BayesianModel, Prior, SamplePosterior, align, freeze_batch_norm, symmetry_group
from bnn_symm.alignment import merge, synchronize
from bnn_symm.errors import IncompatiblePosteriors, NotRepresentable
from bnn_symm.likelihoods import Categorical
from bnn_symm.posteriors import GaussianPosterior, Posterior

X = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
IMAGES = torch.rand(20, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def table_net() -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU()),
        *(nn.Linear(5, 4), nn.BatchNorm1d(4, affine=False), nn.Tanh(), nn.Linear(4, 2)),
    )


def image_net() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)),
    )


CASES = [(table_net, X), (image_net, IMAGES)]


def model_of(make, x: Tensor, seed: int = 0) -> BayesianModel:
    torch.manual_seed(seed)
    return BayesianModel(freeze_batch_norm(make().double(), x), Prior(), Categorical())


def point(model: BayesianModel) -> SamplePosterior:
    return SamplePosterior.from_draws(model, model.initial()[None, None])


def outputs(posterior: Posterior, x: Tensor) -> Tensor:
    return posterior.predict(x).outputs


@pytest.mark.parametrize(("make", "x"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_a_permuted_posterior_computes_the_same_with_permuted_statistics(make, x, seed) -> None:
    model = model_of(make, x)
    group = symmetry_group(model.net, input_shape=tuple(x.shape[1:]), move_statistics=True)
    permutation = group.random(seed)
    posterior = point(model)
    normal = GaussianPosterior(
        model, posterior.scaling, loc=model.initial(), scale=torch.full_like(model.initial(), 0.1)
    )
    for own in (posterior, normal):
        moved = own.permute(permutation)
        assert torch.allclose(outputs(own, x), outputs(moved, x), atol=1e-10)
    statistics, moved = model.statistics, posterior.permute(permutation).model.statistics
    assert any(not torch.equal(value, moved[name]) for name, value in statistics.items())
    for name, value in statistics.items():
        assert torch.equal(value.sort().values, moved[name].sort().values)
    # The weights alone, without their statistics, compute something else.
    unmoved = SamplePosterior.from_draws(model, posterior.permute(permutation).draws()[None])
    assert not torch.allclose(outputs(unmoved, x), outputs(posterior, x), atol=1e-3)


@pytest.mark.parametrize(("make", "x"), CASES)
def test_the_posterior_itself_has_only_the_symmetries_that_keep_its_statistics(make, x) -> None:
    model = model_of(make, x)
    shape = tuple(x.shape[1:])
    assert symmetry_group(model.net, input_shape=shape).is_trivial
    assert symmetry_group(model.net, input_shape=shape, move_statistics=True).order > 1
    for value in model.statistics.values():
        value.fill_(1.0)  # no statistic distinguishes two channels
    same, moving = (
        symmetry_group(model.net, input_shape=shape, move_statistics=own) for own in (False, True)
    )
    assert same.order == moving.order > 1
    assert point(model).permute(same.random(0)).model is model


def test_chains_cannot_have_statistics_of_their_own() -> None:
    model = model_of(table_net, X)
    group = symmetry_group(model.net, move_statistics=True)
    posterior = SamplePosterior.from_draws(model, model.initial().expand(2, 1, -1))
    with pytest.raises(NotRepresentable, match="share one network"):
        posterior.permute_chains([group.random(0), group.random(1)])


@pytest.mark.parametrize(("make", "x"), CASES)
def test_alignment_finds_a_planted_permutation_and_its_statistics(make, x) -> None:
    model = model_of(make, x)
    group = symmetry_group(model.net, input_shape=tuple(x.shape[1:]), move_statistics=True)
    first = point(model)
    other = first.permute(group.random(3))
    aligned = align(first, other, group=group, restarts=0).apply(other)
    assert torch.allclose(aligned.draws(), first.draws())
    assert aligned.model.with_statistics(model.statistics) is aligned.model
    for own in synchronize([first, other], group=group, restarts=0).apply([first, other]):
        assert torch.allclose(outputs(own, x), outputs(first, x), atol=1e-10)


def test_a_barycenter_averages_statistics_and_a_product_needs_equal_ones() -> None:
    models = [model_of(table_net, X, seed) for seed in (0, 1)]
    merged = merge([point(model) for model in models])
    for name, value in merged.model.statistics.items():
        mean = (models[0].statistics[name] + models[1].statistics[name]) / 2
        assert torch.allclose(value, mean)
    normals = [
        GaussianPosterior(m, point(m).scaling, loc=m.initial(), scale=0.1 * m.initial().exp())
        for m in models
    ]
    with pytest.raises(IncompatiblePosteriors, match="frozen batch norm"):
        merge(normals, rule="product")
