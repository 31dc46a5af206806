"""Test the comparison of singular vectors on planted permutations and exact cases."""

import math

import pytest
import torch
from torch import nn

from bnn_symm import BayesianModel, Prior, SamplePosterior
from bnn_symm.alignment import align, singular_vectors
from bnn_symm.errors import IncompatiblePosteriors
from bnn_symm.likelihoods import Gaussian
from bnn_symm.symmetry import symmetry_group


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 5), nn.Tanh(), nn.Linear(5, 1)
    )


def point(net: nn.Module, seed: int) -> SamplePosterior:
    model = BayesianModel(net, Prior(), Gaussian(noise=0.1))
    return SamplePosterior.from_draws(model, model.initial(seed=seed)[None, None])


def test_an_alignment_of_a_permuted_copy_turns_all_vectors_back():
    net = network()
    first = point(net, 0)
    group = symmetry_group(net, input_shape=(2, 4, 4))
    other = first.permute(group.random(1))
    before, after = (
        singular_vectors(first, own)
        for own in (other, align(first, other, group=group).apply(other))
    )
    for own, aligned in zip(before, after, strict=True):
        assert own.alignment < 0.9
        assert own.distance > 0.1
        # A permutation does not change singular values.
        assert own.from_values == pytest.approx(0, abs=1e-6)
        assert (aligned.alignment, aligned.leading_alignment) == pytest.approx((1, 1), abs=1e-5)
        assert aligned.distance == pytest.approx(0, abs=1e-5)
    # Kernels are matrices of output channels; biases are left out.
    assert [own.weight for own in before] == ["0.weight", "3.weight", "5.weight"]


def test_parts_sum_to_the_squared_distance():
    net = network()
    first, other = point(net, 0), point(net, 1)
    weights = [own.model.unflatten(own.mean()) for own in (first, other)]
    for own in singular_vectors(first, other):
        distance = (weights[0][own.weight] - weights[1][own.weight]).square().sum()
        assert own.distance == pytest.approx(float(distance), rel=1e-5)
        assert min(own.from_values, own.from_vectors) >= 0
        assert -1 <= own.alignment <= 1


def test_equal_vectors_with_other_values_differ_in_values_only():
    net = nn.Sequential(nn.Linear(3, 3, bias=False))
    model = BayesianModel(net, Prior(), Gaussian(noise=0.1))
    left, right = (
        torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)))[0]
        for seed in (0, 1)
    )
    first, other = (
        SamplePosterior.from_draws(
            model, (left @ torch.diag(torch.tensor(own)) @ right).view(1, 1, 9)
        )
        for own in ([4.0, 2.0, 1.0], [3.0, 2.0, 0.5])
    )
    (own,) = singular_vectors(first, other)
    assert own.alignment == pytest.approx(1, abs=1e-5)
    assert own.from_values == pytest.approx(1.25, abs=1e-5)
    assert own.from_vectors == pytest.approx(0, abs=1e-5)
    assert own.leading == 2


def test_a_zero_weight_has_no_vectors():
    net = nn.Sequential(nn.Linear(2, 2, bias=False))
    model = BayesianModel(net, Prior(), Gaussian(noise=0.1))
    zero, whole, part = (
        SamplePosterior.from_draws(model, torch.tensor(own).view(1, 1, 4))
        for own in ([0.0, 0, 0, 0], [2.0, 0, 0, 1], [1.0, 1, 1, 1])
    )
    for first, other in ((zero, zero), (zero, whole), (whole, zero)):
        (own,) = singular_vectors(first, other)
        assert math.isnan(own.alignment)
        assert math.isnan(own.leading_alignment)
    # A weight of rank one has no second vector to compare.
    (own,) = singular_vectors(whole, part)
    assert math.isnan(own.leading_alignment)
    assert own.alignment == pytest.approx(0.75)


def test_other_networks_are_refused():
    with pytest.raises(IncompatiblePosteriors):
        singular_vectors(point(network(), 0), point(nn.Sequential(nn.Linear(2, 2)), 0))
