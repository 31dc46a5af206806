"""Aligning networks with gains, scales and single channels keeps predictions, whatever signs their
groups have."""

import pytest
import torch

from bnn_symm.alignment import align
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.symmetry import continuous_symmetries, fixed_entries, rescale, symmetry_group
from bnn_symm.symmetry.certificate import random_values, relative_difference
from tests.alignment.test_objective import gaussian
from tests.models.cases import normal
from tests.symmetry.small_networks import SMALL

NAMES = [
    "rezero",
    "gain a unit",
    "layer scale",
    "one channel",
    "width one",
    "attention, one head",
    "tied autoencoder",
]


@pytest.mark.parametrize("name", NAMES)
def test_aligning_keeps_the_function(name) -> None:
    torch.manual_seed(0)
    build, shape = SMALL[name]
    net = build().double()
    net.input_shape = shape  # type: ignore[assignment]
    model = BayesianModel(net, Prior(), Categorical())
    first, other = gaussian(model, 1), gaussian(model, 2)
    result = align(first, other, restarts=1)
    assert result.function_difference <= 1e-9
    x, flat = normal(5, *shape, seed=3), other.loc
    moved = model.permute(flat, result.permutation)
    with torch.no_grad():
        before, after = (model.outputs(at, x) for at in (flat, moved))
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["rezero, relu", "two gains in a row", "one channel, relu", "prelu of one", "even gain"]
)
def test_every_listed_scaling_keeps_the_function(name) -> None:
    """One unit at a time, for every group that is listed."""
    torch.manual_seed(0)
    build, shape = SMALL[name]
    net = build().double()
    group = symmetry_group(net, input_shape=shape)
    listed = [
        one
        for one in continuous_symmetries(net, group.spec, fixed_entries(net), input_shape=shape)
        if one.kind == "positive scaling"
    ]
    values, x = random_values(net, 0, spread=1.0), normal(9, *shape, seed=1)
    for one in listed:
        size = group.spec.groups[one.where].size
        assert one.dimensions == size
        for unit in range(size):
            factors = torch.ones(size)
            factors[unit] = 1.7
            assert (
                relative_difference(
                    net, values, rescale(group.spec, values, {one.where: factors}), x
                )
                <= 1e-9
            )
