import copy
import pickle

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from bnn_symm.architectures import (
    effective_parameters,
    effective_scales,
    free_parameters,
    weight_shapes,
)
from bnn_symm.architectures.asymmetric.fixed_entries import (
    FixedEntries,
    FixedEntriesLinear,
    fix_entries,
)

LAYERS = [
    (nn.Linear, (5, 4), {}, (3, 5)),
    (nn.Linear, (5, 4), {"bias": False}, (3, 2, 5)),
    (nn.Conv1d, (2, 4, 3), {"padding": 1}, (3, 2, 6)),
    (nn.Conv2d, (4, 6, 3), {"groups": 2, "stride": 2}, (3, 4, 7, 7)),
    (nn.Conv2d, (2, 3, 3), {"padding": 1, "padding_mode": "circular", "bias": False}, (3, 2, 5, 5)),
    (nn.Conv3d, (2, 3, 2), {"dilation": 2}, (2, 2, 5, 5, 5)),
]
every_layer = pytest.mark.parametrize(("cls", "sizes", "keywords", "shape"), LAYERS)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(cls=nn.Linear, sizes=(5, 4), keywords=None):
    """A plain layer and the same with fixed entries."""
    plain = cls(*sizes, **(keywords or {})).double()
    mask = normal(*plain.weight.shape, seed=1) > -0.3
    fixed = normal(*plain.weight.shape, seed=2)
    layer = fix_entries(copy.deepcopy(plain), mask, fixed)
    return plain, layer, mask, fixed


@every_layer
def test_a_layer_computes_with_free_and_fixed_entries(cls, sizes, keywords, shape):
    plain, layer, mask, fixed = made(cls, sizes, keywords)
    weight = torch.where(mask, plain.weight, fixed)
    x = normal(*shape, seed=3)
    wanted = functional_call(plain, {"weight": weight}, (x,))
    assert isinstance(layer, cls)
    assert isinstance(layer, FixedEntries)
    assert torch.equal(layer(x), wanted)
    assert torch.equal(layer.dense()(x), wanted)
    assert type(layer.dense()) is cls
    assert torch.equal(layer.weight, plain.weight[mask])  # row-major
    assert layer.weight_shape == plain.weight.shape
    assert torch.equal(layer.mask, mask)
    assert torch.equal(layer.fixed, fixed * ~mask)
    # A caller may substitute the whole weight.
    other = normal(*plain.weight.shape, seed=4)
    assert torch.equal(
        functional_call(layer, {"weight": other}, (x,)),
        functional_call(plain, {"weight": other}, (x,)),
    )


@every_layer
def test_embed_and_restrict_are_inverse_with_draws_in_front(cls, sizes, keywords, shape):
    _, layer, mask, fixed = made(cls, sizes, keywords)
    free = normal(2, 3, layer.weight.numel())
    full = layer.embed(free)
    assert full.shape == (2, 3, *layer.weight_shape)
    assert torch.equal(full[..., ~mask], fixed[~mask].expand(2, 3, -1))
    assert torch.equal(layer.restrict(full), free)
    assert torch.equal(layer.embed_scale(free), full - layer.fixed)
    assert torch.equal(vmap(vmap(layer.embed))(free), full)


@every_layer
def test_only_free_entries_have_gradients_also_by_vmap(cls, sizes, keywords, shape):
    plain, layer, mask, fixed = made(cls, sizes, keywords)
    parameters = {name: value.detach() for name, value in layer.named_parameters()}
    x = normal(*shape, seed=3)

    def loss(values, point):
        return functional_call(layer, values, (point[None],)).square().sum()

    single = vmap(grad(loss), in_dims=(None, 0))(parameters, x)["weight"]
    weight = torch.where(mask, plain.weight, fixed).detach().requires_grad_()
    functional_call(plain, {"weight": weight}, (x,)).square().sum().backward()
    torch.testing.assert_close(single.sum(0), weight.grad[mask], rtol=1e-10, atol=1e-10)
    layer(x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, weight.grad[mask], rtol=1e-10, atol=1e-10)


def test_many_draws_by_vmap():
    _, layer, _, _ = made()
    x = normal(3, 5)
    draws = {"weight": normal(4, layer.weight.numel()), "bias": normal(4, 4)}
    together = vmap(lambda values: functional_call(layer, values, (x,)))(draws)
    for i in range(4):
        alone = functional_call(layer, {name: value[i] for name, value in draws.items()}, (x,))
        torch.testing.assert_close(together[i], alone)


def test_copies_pickles_and_dtypes_keep_the_layer():
    _, layer, _, _ = made()
    net = nn.Sequential(layer)
    x = normal(3, 5)
    wanted = net(x)
    assert torch.equal(copy.deepcopy(net)(x), wanted)
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), wanted)
    single = copy.deepcopy(net).float()
    assert single(x.float()).dtype == torch.float32
    assert torch.equal(single[0].mask, layer.mask)
    torch.testing.assert_close(single.double()(x), wanted, rtol=1e-6, atol=1e-6)
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias"]
    assert set(net.state_dict()) == {"0.weight", "0.bias", "0.mask", "0.fixed"}


def test_a_state_dict_brings_its_mask_along():
    _, layer, mask, fixed = made()
    moved = mask.flip(0)
    assert not torch.equal(moved, mask)
    other = fix_entries(nn.Linear(5, 4).double(), moved, fixed)
    other.load_state_dict(layer.state_dict())
    x = normal(3, 5)
    assert torch.equal(other(x), layer(x))
    assert torch.equal(other.restrict(other.effective_weight()), layer.weight)


def test_dense_leaves_the_layer_and_the_generator_alone():
    _, layer, _, _ = made()
    before = layer.weight.detach().clone()
    torch.manual_seed(0)
    wanted = torch.rand(2)
    torch.manual_seed(0)
    twin = layer.dense()
    assert torch.equal(torch.rand(2), wanted)
    assert [name for name, _ in twin.named_parameters()] == ["weight", "bias"]
    assert not list(twin.buffers())
    with torch.no_grad():
        twin.weight.zero_()
        twin.bias.zero_()
    assert torch.equal(layer.weight, before)
    assert layer.bias.any()


def test_a_layer_can_be_made_directly():
    mask, fixed = torch.tensor([[True, False], [True, True]]), torch.full((2, 2), 3.0)
    layer = FixedEntriesLinear(2, 2, mask=mask, fixed=fixed)
    assert layer.weight.shape == (3,)
    assert layer.effective_weight()[0, 1] == 3.0
    assert "free=3 of 4" in repr(layer)


def test_wrong_masks_are_refused_and_leave_the_layer_as_it_was():
    layer = nn.Linear(3, 2)
    with pytest.raises(
        ValueError, match=r"a mask of shape \(3, 2\).*want both of the weight's shape, \(2, 3\)"
    ):
        fix_entries(layer, torch.ones(3, 2, dtype=torch.bool), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="without any free entry"):
        fix_entries(layer, torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2, 3))
    assert type(layer) is nn.Linear
    assert layer(torch.ones(1, 3)).shape == (1, 2)


def test_whole_networks():
    _, layer, mask, _ = made()
    net = nn.Sequential(layer, nn.LayerNorm(4), nn.Linear(4, 2)).double()
    values = {name: value.detach() for name, value in net.named_parameters()}
    effective = effective_parameters(net, values)
    assert torch.equal(effective["0.weight"], layer.effective_weight())
    assert all(
        effective[name] is values[name] for name in values if name != "0.weight"
    )  # no copies
    assert {name: value.shape for name, value in effective.items()} == weight_shapes(net)
    x = normal(3, 5)
    assert torch.equal(functional_call(net, effective, (x,)), net(x))
    back = free_parameters(net, effective)
    assert all(torch.equal(back[name], values[name]) for name in values)
    scales = effective_scales(net, values)
    assert not scales["0.weight"][~mask].any()
    assert torch.equal(scales["0.weight"][mask], values["0.weight"])
    some = effective_parameters(net, {"0.weight": torch.stack([values["0.weight"]] * 2)})
    assert some["0.weight"].shape == (2, 4, 5)
