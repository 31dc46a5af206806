"""Channels of grouped convolutions: planted permutations are recovered, also under noise."""

import pytest
import torch
from torch import nn

from bnn_symm.alignment import align
from bnn_symm.alignment.objective import alignment_objective
from bnn_symm.alignment.solvers.blocks import assign_blocks, is_one_assignment, nested_components
from bnn_symm.alignment.solvers.grouped import double_tensors
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import symmetry_group

SHAPE = (2, 4, 4)


def after(*layers: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2))


class Residual(nn.Module):
    """A block of a ResNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.narrow = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 8, 1)
        self.grouped, self.wide = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        h = torch.relu(self.stem(x))
        h = h + self.wide(torch.relu(self.grouped(torch.relu(self.narrow(h)))))
        return self.head(torch.relu(h).mean((2, 3)))


def conv(inputs, outputs, groups=1):
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)


NETWORKS = {
    "one": lambda: after(
        conv(2, 12), nn.ReLU(), conv(12, 16, 4), nn.ReLU(), conv(16, 3), nn.ReLU(), channels=3
    ),
    "flips": lambda: after(conv(2, 8), nn.Tanh(), conv(8, 8, 2), nn.Tanh(), channels=8),
    "two in a row": lambda: after(
        conv(2, 8), nn.Tanh(), conv(8, 8, 2), nn.Tanh(), conv(8, 8, 2), nn.Tanh(), channels=8
    ),
    "residual": Residual,
}


def planted(name, seed, noise=0.0):
    net = NETWORKS[name]()
    net.input_shape = SHAPE
    model = BayesianModel(net, Prior(), Categorical())
    group = symmetry_group(net)
    generator = torch_generator(seed, "weights")
    weights, added = torch.randn(2, 1, 1, model.num_parameters, generator=generator)
    permutation = group.random(seed, "plant")
    reference = SamplePosterior.from_draws(model, weights + noise * added).permute(permutation)
    return reference, SamplePosterior.from_draws(model, weights), group, permutation


@pytest.mark.parametrize("name", NETWORKS)
def test_planted_permutations_are_recovered(name):
    for seed in range(2):
        reference, other, group, permutation = planted(name, seed)
        assert align(reference, other, group=group, restarts=1).permutation.same_as(permutation)


def test_a_planted_permutation_is_recovered_under_noise():
    reference, other, group, permutation = planted("one", 0, noise=0.5)
    assert align(reference, other, group=group, restarts=1).permutation.same_as(permutation)


@pytest.mark.parametrize("name", ["one", "two in a row"])
def test_blocks_are_assigned_at_once_where_all_else_is_in_place(name):
    reference, other, group, permutation = planted(name, 1)
    (owner, children), *others = nested_components(group)
    assert others == []
    assert double_tensors(group.spec, owner, children)
    (component,) = (own for own in group.components if own.kind == "entangled")
    assert is_one_assignment(group.spec, component)
    rest = group.spec.identity()
    indices = {**permutation.indices, **{key: rest.indices[key] for key in [owner, *children]}}
    signs = {
        key: rest.signs[key] if key in children else value
        for key, value in permutation.signs.items()
    }
    start = type(permutation)(group.spec, indices, signs)
    objective = alignment_objective(reference, other, group.spec)
    assert assign_blocks(objective, owner, children, start).same_as(permutation)
