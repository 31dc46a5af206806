"""The group that is left: against brute force over every element, planted symmetries,
certificates."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bnn_symm.errors import NotRepresentable
from bnn_symm.symmetry import (
    FixedTensor,
    Permutation,
    PermutationSpec,
    permutation_spec,
    symmetry_group,
)
from bnn_symm.symmetry.group.symmetry_group import SymmetryGroup, representable_group

from .networks import NETWORKS, Attention, Transformer, convolutions, log10_factorial


def every_element(spec: PermutationSpec) -> Iterator[Permutation]:
    """All elements of a small spec, by definition."""
    choices = []
    for group in spec.groups.values():
        within = list(itertools.permutations(range(group.size // group.blocks)))
        signs = (
            itertools.product([1, -1], repeat=group.size) if group.signed else [(1,) * group.size]
        )
        choices.append(
            list(itertools.product(itertools.product(within, repeat=group.blocks), signs))
        )
    for choice in itertools.product(*choices):
        indices, flips = {}, {}
        for (name, group), (within, signs) in zip(spec.groups.items(), choice, strict=True):
            block = group.size // group.blocks
            owner = range(group.blocks) if group.parent is None else indices[group.parent].tolist()
            indices[name] = torch.tensor(
                [b * block + i for b, own in zip(owner, within, strict=True) for i in own]
            )
            if group.signed:
                flips[name] = torch.tensor(signs)
        yield Permutation(spec, indices, flips)


def brute_force(group: SymmetryGroup) -> int:
    return sum(group.represents(element) for element in every_element(group.spec))


SMALL = {
    "relu": (
        lambda: nn.Sequential(
            nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)
        ),
        (3,),
    ),
    "tanh": (
        lambda: nn.Sequential(
            nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)
        ),
        (2,),
    ),
    "grouped": (lambda: convolutions(2, 4, 4), (2, 6, 6)),
    "attention": (
        lambda: nn.Sequential(nn.Linear(1, 2), Attention(2, 2), nn.Flatten(), nn.Linear(4, 2)),
        (2, 1),
    ),
}
SPECS = {name: permutation_spec(build(), shape) for name, (build, shape) in SMALL.items()}
SHAPES = {
    name: {n: tuple(p.shape) for n, p in build().named_parameters() if p.dim() >= 2}
    for name, (build, _) in SMALL.items()
}


def planted(name: str, seed: int, num_values: int, num_fixed: int) -> dict[str, FixedTensor]:
    """Fixed entries of few values, many of them in equal rows and columns, so that some symmetry is
    likely left."""
    generator = np.random.default_rng(seed)
    fixed = {}
    for tensor in generator.permutation(sorted(SHAPES[name]))[:num_fixed]:
        shape = SHAPES[name][str(tensor)]
        # Whole blocks of equal entries: a small array, each of its entries over several rows and
        # columns.
        rows, columns = generator.integers(2, size=shape[0]), generator.integers(2, size=shape[1])
        small = generator.integers(num_values + 1, size=(2, 2))
        codes = np.broadcast_to(
            small[rows][:, columns].reshape(*shape[:2], *[1] * (len(shape) - 2)), shape
        )
        free = torch.from_numpy(codes == 0)
        values = torch.from_numpy(np.where(codes == 0, 0.0, codes - 1.5))
        fixed[str(tensor)] = FixedTensor(free, values)
    return fixed


@pytest.mark.thorough
@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["relu", "tanh", "grouped"]),
    seed=st.integers(0, 10**6),
    num_values=st.integers(1, 3),
    num_fixed=st.integers(1, 3),
)
def test_order_agrees_with_brute_force(name, seed, num_values, num_fixed):
    group = representable_group(SPECS[name], planted(name, seed, num_values, num_fixed))
    assert group.order == brute_force(group)
    assert group.log10_order == pytest.approx(math.log10(group.order), abs=1e-12)


def test_order_of_attention_agrees_with_brute_force():
    group = representable_group(SPECS["attention"], planted("attention", 1, 2, 3))
    assert 1 < group.order < representable_group(SPECS["attention"], {}).order
    assert group.order == brute_force(group)


def test_entangled_cells_go_to_the_graph_program_and_agree():
    """A circulant between two layers: rotations are left, and a reflection where it is
    symmetric."""
    net = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    spec = permutation_spec(net)
    for pattern, expected in (([1.0, 2.0, 0.0, 2.0], 8), ([1.0, 2.0, 0.0, 0.0], 4)):
        values = torch.stack([torch.tensor(pattern, dtype=torch.float64).roll(i) for i in range(4)])
        group = representable_group(spec, {"2.weight": FixedTensor(values == 0, values)})
        assert [component.kind for component in group.components] == ["entangled"]
        assert group.order == brute_force(group) == expected
        assert "by BLISS for 1 entangled component" in group.certificate


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(sorted(SMALL)), seed=st.integers(0, 10**6))
def test_elements_and_generators_are_in_the_group(name, seed):
    group = representable_group(SPECS[name], planted(name, seed, 2, 2))
    for element in [group.random(seed, 1), group.random(seed, 2), *group.generators()]:
        element.check()
        assert group.represents(element)
    assert all(not generator.is_identity for generator in group.generators())


@pytest.mark.parametrize("name", ["relu", "tanh", "grouped"])
def test_generators_generate_the_group(name):
    for seed in range(4):
        group = representable_group(SPECS[name], planted(name, seed, 2, 3))
        if group.order > 5000:
            continue

        def key(p: Permutation) -> tuple[int, ...]:
            return tuple(
                int(i) for side in (p.indices, p.signs) for value in side.values() for i in value
            )

        identity = group.spec.identity()
        found, frontier = {key(identity)}, [identity]
        generators = list(group.generators())
        while frontier:
            element = frontier.pop()
            for generator in generators:
                made = generator.compose(element)
                if key(made) not in found:
                    found.add(key(made))
                    frontier.append(made)
        assert len(found) == group.order


@pytest.mark.parametrize("name", NETWORKS)
def test_with_nothing_fixed_the_group_is_the_whole_spec(name):
    torch.manual_seed(0)
    build, input_shape, expected = NETWORKS[name]
    group = symmetry_group(build(), input_shape=input_shape)
    assert group.log10_order == pytest.approx(expected, abs=1e-9)
    assert group.log10_order == pytest.approx(group.spec.log10_order, abs=1e-9)


def test_of_a_large_network_by_its_logarithm():
    net = nn.Sequential(
        nn.Linear(3, 400), nn.ReLU(), nn.Linear(400, 300), nn.ReLU(), nn.Linear(300, 2)
    )
    group = symmetry_group(net)
    assert group.log10_order == pytest.approx(log10_factorial(400, 300), rel=1e-12)
    assert group.certificate.startswith("full: nothing is fixed")
    assert group.order == math.factorial(400) * math.factorial(300)


def random_mask(rows: int, columns: int, number: int, kappa: float, seed: int = 0) -> FixedTensor:
    generator = np.random.default_rng(seed)
    free = np.ones((rows, columns), dtype=bool)
    for row in free:
        row[generator.choice(columns, number, replace=False)] = False
    values = np.where(free, 0.0, kappa * generator.standard_normal((rows, columns)))
    return FixedTensor(torch.from_numpy(free), torch.from_numpy(values))


def test_random_fixed_values_leave_nothing():
    net = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 2))
    spec = permutation_spec(net)
    for kappa in (0.0, 1.0):
        fixed = {
            "0.weight": random_mask(12, 8, 3, kappa),
            "2.weight": random_mask(10, 12, 3, kappa, 2),
        }
        for entry in fixed.values():  # else a symmetry may be left
            assert len(np.unique(entry.free.numpy(), axis=0)) == len(entry.free)
        group = representable_group(spec, fixed)
        assert group.is_trivial
        assert group.order == 1
        assert group.certificate.startswith(
            "trivial: proved by color refinement, which distinguishes all 22 hidden units"
        )
        swap = spec.permutation({"0": torch.tensor([1, 0, *range(2, 12)])})
        assert not group.represents(swap)
        with pytest.raises(NotRepresentable, match=r"moves fixed entries of (0|2)\.weight"):
            group.check(swap)
        group.check(spec.identity())


def test_a_planted_duplicate_row_is_found():
    """Rows 3 and 7 of the first layer fixed alike, and what reads them too: these two units swap,
    no others."""
    net = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 2))
    spec = permutation_spec(net)
    first, second = random_mask(12, 8, 3, 1.0), random_mask(10, 12, 3, 1.0, 1)
    for entry in (first, second.free.T, second.values.T):
        for array in (entry.free, entry.values) if isinstance(entry, FixedTensor) else (entry,):
            array[7] = array[3]
    group = representable_group(spec, {"0.weight": first, "2.weight": second})
    assert group.order == 2
    (component,) = group.components
    assert dict(component.units) == {"0": (3, 7)}
    (swap,) = group.generators()
    assert swap.indices["0"][[3, 7]].tolist() == [7, 3]


def test_signs_stay_where_zeros_are_fixed():
    """Of a tanh network with kappa = 0 every order is gone and every flip is left: zero is its own
    negative."""
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))
    spec = permutation_spec(net)
    zero = representable_group(spec, {"0.weight": random_mask(6, 8, 3, 0.0)})
    assert zero.order == 2**6
    assert {component.kind for component in zero.components} == {"interchangeable, with signs"}
    assert representable_group(spec, {"0.weight": random_mask(6, 8, 3, 1.0)}).is_trivial


def test_buffers_that_the_function_reads_are_fixed():
    class Gated(nn.Module):
        def __init__(self, matrix: torch.Tensor):
            super().__init__()
            self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
            self.register_buffer("matrix", matrix)
            self.register_buffer("unread", torch.randn(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            return self.head(torch.sigmoid(nn.functional.linear(h, self.matrix)) * h)

    torch.manual_seed(0)
    assert symmetry_group(Gated(torch.randn(4, 4))).is_trivial
    assert symmetry_group(Gated(torch.eye(4))).order == math.factorial(4)
    circulant = torch.stack([torch.tensor([1.0, 2.0, 3.0, 4.0]).roll(i) for i in range(4)])
    rotations = symmetry_group(Gated(circulant))
    assert rotations.order == 4 == brute_force(rotations)
    assert set(rotations.fixed) == {"matrix"}


def test_an_attention_layer_of_usual_size():
    torch.manual_seed(0)
    group = symmetry_group(
        Transformer(lambda width: Attention(width, 4), width=32), input_shape=(4, 3)
    )
    # Heads, the units within them (queries with keys, values) with signs, the stream, the hidden
    # layer.
    heads = log10_factorial(4) + 2 * 4 * (log10_factorial(8) + 8 * math.log10(2))
    assert group.log10_order == pytest.approx(heads + log10_factorial(32, 5), rel=1e-12)
