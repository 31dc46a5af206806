"""Linear maps of heads and other linear units: which there are, and that they are symmetries."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_symm.architectures import asymmetrize
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import continuous_symmetries, fixed_entries, permutation_spec
from bnn_symm.symmetry.derive import random_values, relative_difference
from bnn_symm.symmetry.functional_dimension import functional_dimension
from bnn_symm.symmetry.group.fixed_values import dense_copy
from bnn_symm.symmetry.linear_maps import LinearMaps, linear_maps, pair_matrices

from .networks import Attention, TorchAttention, Transformer


class Heads(nn.Module):
    """Attention with grouped queries, rotary positions and norms of queries and keys."""

    def __init__(
        self, heads: int, key_heads: int, *, rotary: str = "", norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.embed, self.heads, self.key_heads = nn.Linear(3, 5), heads, key_heads
        self.rotary, self.norm = rotary, norm or nn.Identity()
        self.q, self.o = nn.Linear(5, heads * 4), nn.Linear(heads * 4, 2)
        self.k, self.v = nn.Linear(5, key_heads * 4), nn.Linear(5, key_heads * 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.embed(x))
        q, k, v = (
            layer(h).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        q, k = self._rotate(self.norm(q)), self._rotate(self.norm(k))
        k, v = (each.repeat_interleave(self.heads // self.key_heads, dim=1) for each in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.o(mixed.transpose(1, 2).flatten(2)).mean(1)

    def _rotate(self, x: Tensor) -> Tensor:
        if not self.rotary:
            return x
        angle = torch.arange(x.shape[2])[:, None] * torch.tensor([1.0, 0.1])
        if self.rotary == "halves":
            cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
            left, right = x.chunk(2, dim=-1)
            return x * cos + torch.cat([-right, left], dim=-1) * sin
        cos, sin = (part.repeat_interleave(2, -1) for part in (angle.cos(), angle.sin()))
        return x * cos + torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2) * sin


class Interleaved(nn.Module):
    """Queries, keys and values of a head beside each other in one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.o = nn.Linear(3, 5), nn.Linear(5, 24), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(F.gelu(self.embed(x))).unflatten(-1, (2, 12)).transpose(1, 2)
        q, k, v = parts.chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.o(mixed.transpose(1, 2).flatten(2)).mean(1)


def dropped() -> nn.Module:
    net = Transformer(lambda width: Attention(width, 2))
    net.head = nn.Sequential(nn.Dropout(0.5), net.head)
    return net.train()


GENERAL, PAIRS = "general", "similarities of pairs"
NETWORKS = {
    "hand attention": (
        lambda: Transformer(lambda width: Attention(width, 2)),
        (4, 3),
        [(GENERAL, 2 * 3**2), (GENERAL, 2 * 3**2)],
    ),
    "step by step": (
        lambda: Transformer(lambda width: Attention(width, 3, fused=False)),
        (4, 3),
        [(GENERAL, 3 * 2**2), (GENERAL, 3 * 2**2)],
    ),
    "torch": (
        lambda: Transformer(lambda width: TorchAttention(width, 2)),
        (4, 3),
        [(GENERAL, 2 * 3**2), (GENERAL, 2 * 3**2)],
    ),
    "torch, keys of another width": (
        lambda: Transformer(lambda width: TorchAttention(width, 2, kdim=3, vdim=3)),
        (4, 3),
        [(GENERAL, 2 * 3**2), (GENERAL, 2 * 3**2)],
    ),
    "dropout": (dropped, (4, 3), [(GENERAL, 2 * 3**2), (GENERAL, 2 * 3**2)]),
    "one layer of all": (Interleaved, (4, 3), [(GENERAL, 2 * 4**2), (GENERAL, 2 * 4**2)]),
    "grouped queries": (lambda: Heads(4, 2), (4, 3), [(GENERAL, 2 * 4**2), (GENERAL, 2 * 4**2)]),
    "rotary": (
        lambda: Heads(2, 2, rotary="halves"),
        (4, 3),
        [(PAIRS, 2 * 2 * 2), (GENERAL, 2 * 4**2)],
    ),
    "rotary, neighbors": (
        lambda: Heads(2, 2, rotary="neighbors"),
        (4, 3),
        [(PAIRS, 2 * 2 * 2), (GENERAL, 2 * 4**2)],
    ),
    "rotary, grouped": (
        lambda: Heads(4, 2, rotary="halves"),
        (4, 3),
        [(PAIRS, 2 * 2 * 2), (GENERAL, 2 * 4**2)],
    ),
    "rotary, one key head": (
        lambda: Heads(2, 1, rotary="halves"),
        (4, 3),
        [(PAIRS, 2 * 2), (GENERAL, 4**2)],
    ),
    "norm without weights": (
        lambda: Heads(2, 2, norm=nn.RMSNorm(4, elementwise_affine=False)),
        (4, 3),
        [("orthogonal", 2 * 6), (GENERAL, 2 * 4**2)],
    ),
    "norm with weights": (
        lambda: Heads(2, 2, norm=nn.RMSNorm(4)),
        (4, 3),
        [(GENERAL, 2 * 4**2)],
    ),
    "norm and rotary": (
        lambda: Heads(2, 2, norm=nn.RMSNorm(4, elementwise_affine=False), rotary="halves"),
        (4, 3),
        [("rotations of pairs", 2 * 2), (GENERAL, 2 * 4**2)],
    ),
    "linear layers": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)),
        (3,),
        [(GENERAL, 16)],
    ),
    "relu": (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (3,), []),
    "tanh": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (3,), []),
}


def found(net: nn.Module, shape: tuple[int, ...]) -> list[LinearMaps]:
    return linear_maps(net, permutation_spec(net, shape), fixed_entries(net), input_shape=shape)


def element(maps: LinearMaps, key: int) -> Tensor:
    """A random element of the group, one matrix per block."""
    blocks, size = maps.free[0].shape
    generator = torch_generator("element", key)
    noise = torch.randn(blocks, size, size, generator=generator, dtype=torch.float64)
    if maps.form == "general":
        return noise + 3 * torch.eye(size)
    if maps.pairs is None:
        return torch.linalg.qr(noise).Q
    factors = noise[:, : len(maps.pairs), :2]
    if maps.form == "rotations of pairs":
        factors = factors / factors.norm(dim=-1, keepdim=True)
    return pair_matrices(maps.pairs, factors)


VARIANTS = {
    "step by step",
    "torch, keys of another width",
    "rotary, neighbors",
    "rotary, grouped",
    "norm with weights",
    "norm and rotary",
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.thorough] if name in VARIANTS else [])
        for name in NETWORKS
    ],
)
def test_maps_and_their_group(name):
    build, shape, expected = NETWORKS[name]
    net = build()
    every = found(net, shape)
    assert sorted((maps.form, maps.dimensions) for maps in every) == sorted(expected)
    clone = dense_copy(net).double().eval()
    values = random_values(clone, "test of maps")
    x = torch.randn(5, *shape, dtype=torch.float64, generator=torch_generator("points"))
    for maps in every:
        first, second = element(maps, 1), element(maps, 2)
        once = maps.apply(values, first)
        assert relative_difference(clone, values, once, x) < 1e-9
        twice, product = maps.apply(once, second), maps.apply(values, second @ first)
        back = maps.apply(once, torch.linalg.inv(first))
        for tensor in {axis.tensor for axis in maps.axes}:
            assert not torch.allclose(once[tensor], values[tensor])
            torch.testing.assert_close(twice[tensor], product[tensor])
            torch.testing.assert_close(back[tensor], values[tensor])


def test_a_map_outside_the_group_changes_the_function():
    net = Heads(2, 2, rotary="halves").double()
    (maps,) = [own for own in found(net, (4, 3)) if own.form == PAIRS]
    values = random_values(net, "test of maps")
    x = torch.randn(5, 4, 3, dtype=torch.float64, generator=torch_generator("points"))
    noise = torch.randn(2, 4, 4, dtype=torch.float64, generator=torch_generator("outside"))
    mapped = maps.apply(values, torch.linalg.qr(noise).Q)
    assert relative_difference(net, values, mapped, x) > 1e-3


def test_fixed_entries_keep_their_units():
    net = Transformer(lambda width: Attention(width, 2))
    net.attention.k.weight.requires_grad_(False)
    net.attention.v.bias.requires_grad_(False)
    by_name = {maps.where: maps for maps in found(net, (4, 3))}
    assert [by_name[f"attention.{own}"].dimensions for own in "qv"] == [0, 0]
    assert [by_name[f"attention.{own}"].num_removed for own in "qv"] == [18, 18]
    linear = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))
    broken = asymmetrize(linear, kind="weight_asymmetric", fixed_per_row=(2, 2))
    assert all(maps.dimensions == 0 for maps in found(broken, (8,)))


class Normed(Transformer):
    """A transformer whose only surplus directions are those of its symmetries."""

    def __init__(self) -> None:
        super().__init__(lambda width: Attention(width, 2), width=4)
        self.embed, self.norm3, self.head = nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attention(self.norm1(x))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(self.norm3(x).mean(1))


@pytest.mark.thorough
def test_functional_dimension_of_a_transformer():
    net, shape = Normed(), (5, 5)
    spec = permutation_spec(net, shape)
    listed = continuous_symmetries(net, spec, fixed_entries(net), input_shape=shape)
    of_kind = {}
    for own in listed:
        of_kind[own.kind] = of_kind.get(own.kind, 0) + own.dimensions
    assert of_kind == {
        "linear map of units": 4 * 2**2,
        "shift of units": 4,
        "bias without an effect": 4,
        "shift before a norm": (5 + 1) + (4 + 1) + (5 + 1),
    }
    result = functional_dimension(net, sum(of_kind.values()), input_shape=shape)
    # What is not listed: weights and biases of norms, undone by the layers that read them; the
    # constant vector in each row of these; scale and rotations of the stream, which norms undo.
    norms, rows, stream = 3 * 2 * 4, 3 * 4 + 5 + 5, 1 + 3 * 2 // 2
    assert result.hidden == norms + rows + stream


def test_a_relu_whose_units_are_all_active_at_first_is_not_linear():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        net[0].bias.fill_(20.0)
    assert linear_maps(net, permutation_spec(net), {}) == []
