"""Symmetries of a network with constant parameters keep its function and these parameters."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from bnn_symm.architectures import MLPConfig, SymmetryConfig, build_network
from bnn_symm.errors import NotRepresentable
from bnn_symm.models import BayesianModel, Gaussian, Prior
from bnn_symm.symmetry import fixed_entries, moved_tensors, permutation_spec, symmetry_group

from .test_group import brute_force, every_element

NAMES = ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]


def network(values=None):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    if values is not None:  # few values, so that some units have equal constants
        generator = torch.Generator().manual_seed(values)
        with torch.no_grad():
            for value in net.parameters():
                value.copy_(torch.randint(2, value.shape, generator=generator))
    return net.double()


@pytest.mark.thorough
@settings(max_examples=8, deadline=None)
@given(st.sets(st.sampled_from(NAMES), min_size=1), st.integers(0, 3))
def test_the_group_is_that_of_the_permutations_that_keep_function_and_constants(names, seed):
    part = BayesianModel(network(seed), Prior(), Gaussian(noise=0.1), parameters=sorted(names))
    group = symmetry_group(part.net, input_shape=(2,))
    assert group.order == brute_force(group)
    flat = torch.randn(part.num_parameters, dtype=torch.float64)
    x = torch.randn(4, 2, dtype=torch.float64)
    expected, constants = part.outputs(flat, x), part.fixed_values()
    for number in range(2):
        permutation = group.random(seed, "test", number)
        moved = permutation.apply(constants)
        assert all(torch.equal(moved[name], value) for name, value in constants.items())
        permuted = part.permute(flat, permutation)
        torch.testing.assert_close(part.outputs(permuted, x), expected)


@settings(max_examples=8, deadline=None)
@given(st.sets(st.sampled_from(NAMES), min_size=1), st.integers(0, 3))
def test_a_permutation_outside_the_group_is_refused(names, seed):
    part = BayesianModel(network(seed), Prior(), Gaussian(noise=0.1), parameters=sorted(names))
    group = symmetry_group(part.net, input_shape=(2,))
    flat = part.initial()
    for element in list(every_element(group.spec))[::9]:
        moves = next(moved_tensors(element, fixed_entries(part.net)), None) is not None
        assert group.represents(element) == (not moves)
        if moves:
            with pytest.raises(NotRepresentable):
                part.permute(flat, element)


def test_hidden_units_below_a_stochastic_last_layer_cannot_move():
    last = BayesianModel(network(), Prior(), Gaussian(noise=0.1), parameters=["4.*"])
    assert symmetry_group(last.net, input_shape=(2,)).is_trivial
    first = BayesianModel(network(), Prior(), Gaussian(noise=0.1), parameters=["0.*", "2.*"])
    group = symmetry_group(first.net, input_shape=(2,))
    assert group.order == 6 * 2**3  # units of the first layer move and flip, those of "2" do not


@pytest.mark.parametrize("is_buffer", [True, False])
def test_a_constant_weight_with_fixed_entries_is_constant_as_a_whole(is_buffer):
    config = MLPConfig(widths=(8,), symmetry=SymmetryConfig(kind="weight_asymmetric"))
    net = build_network(config, input_shape=(8,), num_outputs=1)
    net.layers[0].requires_grad_(False)
    if is_buffer:
        net = BayesianModel(net, Prior(), Gaussian(noise=0.1)).net
    entries = fixed_entries(net)
    assert not entries["layers.0.weight"].free.any()
    assert not entries["layers.0.bias"].free.any()
    assert entries["head.weight"].free.any()
    weight, bias = entries["layers.0.weight"].values, entries["layers.0.bias"].values
    x = torch.randn(3, 8)
    dense = {"layers.0.weight": weight.float(), "layers.0.bias": bias.float()}
    assert torch.equal(functional_call(net, dense, (x,)), net(x))
    assert permutation_spec(net).groups  # nothing of the structure is hidden
