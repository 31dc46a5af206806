"""Statistics of channels are reset along a path, and the reset removes a variance collapse."""

import pytest
import torch
from torch import Tensor, nn

from bnn_symm import BayesianModel, Prior, SamplePosterior, align, freeze_batch_norm, load_dataset
from bnn_symm.alignment import merge
from bnn_symm.architectures import asymmetrize
from bnn_symm.diagnostics import barrier
from bnn_symm.diagnostics.barriers.interpolation import couple_means
from bnn_symm.diagnostics.barriers.repair import (
    RepairedPath,
    channel_statistics,
    interpolated,
    repair_merged,
    repaired,
)
from bnn_symm.errors import ConfigError
from bnn_symm.likelihoods import Categorical
from bnn_symm.posteriors import GaussianPosterior
from bnn_symm.symmetry import symmetry_group

DATA = load_dataset("iris", dtype=torch.float64)
X = DATA.train.x
IMAGES = torch.rand(25, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def plain(width: int = 40) -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)),
    )


def images() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Flatten()),
        nn.Linear(16, 3),
    )


def with_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def points(make, x: Tensor, same_model: bool = True) -> list[SamplePosterior]:
    """Return two independent networks, as points."""
    posteriors = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = make().double()
        if any(isinstance(module, nn.BatchNorm1d) for module in net.modules()):
            net = freeze_batch_norm(net, x)
        model = BayesianModel(net, Prior(), Categorical())
        if posteriors and same_model:
            model = posteriors[0].model
            flat = model.flatten(dict(net.named_parameters())).detach()
        else:
            flat = model.initial()
        posteriors.append(SamplePosterior.from_draws(model, flat[None, None]))
    return posteriors


@pytest.mark.parametrize(("make", "x"), [(plain, X), (images, IMAGES)])
def test_statistics_are_those_interpolated_between_the_ends(make, x) -> None:
    first, second = points(make, x)
    ends = [channel_statistics(p.model, p.mean(), x) for p in (first, second)]
    assert list(ends[0]) == ["0", "2"]  # not the output layer
    path = RepairedPath(couple_means([first, second]), first.model, x)
    for tau in (0.0, 0.3, 1.0):
        weights = [1 - tau, tau]
        got = channel_statistics(first.model, path.interpolate(weights)[0], x)
        for name, (mean, sd) in interpolated(ends, weights).items():
            assert torch.allclose(got[name][0], mean, atol=1e-5)
            assert torch.allclose(got[name][1], sd, atol=1e-5)
    assert torch.allclose(path.interpolate([1.0, 0.0])[0], first.mean(), atol=1e-8)


def test_the_variance_of_naive_averages_collapses_and_is_restored() -> None:
    first, second = points(plain, X)
    ends = [channel_statistics(p.model, p.mean(), X)["2"][1].mean() for p in (first, second)]
    middle = (first.mean() + second.mean()) / 2
    collapsed = channel_statistics(first.model, middle, X)["2"][1].mean()
    assert collapsed < 0.7 * min(ends)
    path = RepairedPath(couple_means([first, second]), first.model, X)
    restored = channel_statistics(first.model, path.interpolate([0.5, 0.5])[0], X)["2"][1].mean()
    assert restored == pytest.approx(float(sum(ends)) / 2, rel=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("make", [lambda: plain(6), with_norm])
def test_a_permuted_network_has_no_barrier_with_and_without_repair(make) -> None:
    first = points(make, X)[0]
    group = symmetry_group(first.model.net, move_statistics=True)
    other = first.permute(group.random(1))
    aligned = align(first, other, group=group, restarts=0).apply(other)
    result = barrier(first, aligned, DATA, num_tau=3, path="line", repair=True)
    assert result.height == pytest.approx(0, abs=1e-8)
    assert result.repaired is not None
    assert result.repaired.test.height == pytest.approx(0, abs=1e-8)
    assert result.repaired.to_dict()["height"] == result.repaired.test.height
    assert barrier(first, aligned, DATA, num_tau=2, path="line").repaired is None


def test_frozen_batch_norm_is_estimated_again_in_the_same_parameter_space() -> None:
    first, second = points(with_norm, X, same_model=False)
    path = RepairedPath(couple_means([first, second]), first.model, X)
    model = path.model([0.5, 0.5])
    assert model is not None
    flat = path.interpolate([0.5, 0.5])[0]
    # The reference: the network with the averaged weights, and statistics estimated for them.
    net = with_norm().double()
    values = model.unflatten((first.mean() + second.mean()) / 2)
    net.load_state_dict(dict(values), strict=False)
    reference = freeze_batch_norm(net, X)(X)
    assert torch.allclose(model.outputs(flat, X), reference, atol=1e-8)


def test_a_merge_has_the_average_statistics() -> None:
    first, second = points(lambda: plain(6), X)
    parts = [
        GaussianPosterior(p.model, p.scaling, loc=p.mean(), scale=torch.full_like(p.mean(), 0.1))
        for p in (first, second)
    ]
    targets = interpolated([channel_statistics(p.model, p.mean(), X) for p in parts], [0.5, 0.5])
    for own in (parts, [first, second]):
        merged = merge(own)
        reset = repair_merged(merged, own, DATA.train)
        got = channel_statistics(merged.model, reset.mean(), X)
        for name, (mean, sd) in targets.items():
            assert torch.allclose(got[name][0], mean, atol=1e-5)
            assert torch.allclose(got[name][1], sd, atol=1e-5)
    assert bool((repair_merged(merge(parts), parts, DATA.train).scale > 0).all())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Linear(4, 3), "no hidden layer"),
        (lambda: nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)), "no bias"),
        (
            lambda: asymmetrize(plain(6), fixed_per_row=(0, 2, 0)),
            "may have fixed entries",
        ),
        (
            lambda: nn.Sequential(
                nn.Linear(4, 5), nn.BatchNorm1d(5, affine=False), nn.ReLU(), nn.Linear(5, 3)
            ),
            "no weight",
        ),
    ],
)
def test_networks_that_cannot_be_repaired(make, words) -> None:
    first = points(make, X)[0]
    with pytest.raises(ConfigError, match=words):
        repaired(first.model, first.mean(), X, {})
