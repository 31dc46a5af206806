"""Every generator of a derived group keeps the function, and brute force finds no move of one unit
that is missing.

Nothing here uses the certificate: moves are made from the spec's segments by loops over units.
"""

import itertools
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from bnn_symm.symmetry import (
    Permutation,
    PermutationSpec,
    SymmetryGroup,
    permutation_spec,
    symmetry_group,
)
from bnn_symm.symmetry.group.fixed_values import fixed_entries

from .small_networks import SMALL, Plain

Values = dict[str, Tensor]
SAME = 1e-9


class Subject:
    """A network in float64 with its group, points, random weights and outputs."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        build, shape = SMALL[name]
        self.net = build()
        self.group: SymmetryGroup = symmetry_group(self.net, input_shape=shape)
        self.spec: PermutationSpec = self.group.spec
        self.net = self.net.double().eval()
        if isinstance(self.net, Plain):
            self.net.k = self.net.k.double()
        self.x = torch.randn(12, *shape, dtype=torch.float64)
        named = {**dict(self.net.named_parameters()), **dict(self.net.named_buffers())}
        if isinstance(self.net, Plain):
            named["k"] = self.net.k
        self.start: Values = {name: value.detach() for name, value in named.items()}
        self.trainable = {
            name for name, value in self.net.named_parameters() if value.requires_grad
        }
        wide = {
            name: value
            for name, value in self.start.items()
            if value.is_floating_point() or value.is_complex()
        }
        self.random: Values = {
            **self.start,
            **{
                name: value.to(
                    value.to(torch.complex128).dtype if value.is_complex() else torch.float64
                )
                + torch.randn_like(value)
                for name, value in wide.items()
            },
        }

    def outputs(self, values: Mapping[str, Tensor]) -> Tensor:
        if isinstance(self.net, Plain):
            self.net.k = values["k"]
        own = {
            name: value
            for name, value in values.items()
            if name != "k" or not isinstance(self.net, Plain)
        }
        with torch.no_grad():
            return functional_call(self.net, own, (self.x,))

    def difference(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
        before, after = self.outputs(first), self.outputs(second)
        return float((before - after).abs().max() / before.abs().max())


def moved(
    spec: PermutationSpec,
    values: Values,
    move: Permutation,
    factors: Mapping[str, list[float]] = {},
) -> Values:
    """The tensors after a move, entry by entry: position -> (old position, factor)."""
    result = dict(values)
    for name, axes in spec.axes.items():
        value = values[name]
        for dim, axis in enumerate(axes):
            sources: list[int] = []
            multiples: list[float] = []
            if any(segment.within for segment in axis):
                value = _within(spec, value, dim, axes, move)
                continue
            for s in axis:
                start = len(sources)
                for outer, unit, inner in itertools.product(
                    range(s.outer), range(s.size), range(s.inner)
                ):
                    old, multiple = unit, 1.0
                    if s.group is not None:
                        old = int(move.indices[s.group][unit])
                        if s.signed and s.group in move.signs:
                            multiple *= float(move.signs[s.group][unit])
                        if s.scale and s.group in factors:
                            multiple *= factors[s.group][unit] ** s.scale
                    sources.append(start + (outer * s.size + old) * s.inner + inner)
                    multiples.append(multiple)
            value = torch.stack(
                [value.select(dim, o) * m for o, m in zip(sources, multiples, strict=True)], dim
            )
        result[name] = value
    return result


def _within(spec: PermutationSpec, value: Tensor, dim: int, axes, move: Permutation) -> Tensor:
    """Of depthwise convolutions: each row reads one unit, that of its own block."""
    (segment,) = axes[dim]
    assert (segment.size, dim) == (1, 1)
    blocks = spec.groups[segment.group].blocks
    rows = [
        value[r]
        * (float(move.signs[segment.group][r * blocks // len(value)]) if segment.signed else 1.0)
        for r in range(len(value))
    ]
    return torch.stack(rows)


def generators(spec: PermutationSpec) -> Iterator[tuple[str, Permutation, dict[str, list[float]]]]:
    """Swaps of neighbors, flips of one unit and factors of one unit."""
    scaled = {s.group for axes in spec.axes.values() for axis in axes for s in axis if s.scale}
    for name, group in spec.groups.items():
        children = [child for child in spec.groups.values() if child.parent == name]
        for unit in range(group.size - 1):
            block = group.size // group.blocks
            if unit // block != (unit + 1) // block:
                continue
            order = list(range(group.size))
            order[unit : unit + 2] = order[unit + 1], order[unit]
            indices = {name: torch.tensor(order)}
            for child in children:
                own = child.size // group.size
                indices[child.name] = torch.tensor([o * own + i for o in order for i in range(own)])
            yield f"swap {name} {unit}", spec.permutation(indices), {}
        for unit in range(group.size):
            if group.signed:
                signs = torch.ones(group.size, dtype=torch.long)
                signs[unit] = -1
                yield f"flip {name} {unit}", spec.permutation({}, {name: signs}), {}
            if name in scaled and not any(
                s.within for axes in spec.axes.values() for axis in axes for s in axis
            ):
                factors = [1.0] * group.size
                factors[unit] = 1.7
                yield f"rescale {name} {unit}", spec.identity(), {name: factors}


def caveat(spec: PermutationSpec) -> int:
    return spec.num_frozen_units + spec.num_unsearched_flips


@pytest.fixture(scope="module", params=SMALL)
def subject(request) -> Subject:
    return Subject(request.param)


def test_every_generator_keeps_the_function(subject):
    """Of the spec on all tensors; and of the group on the parameters alone, all constants left as
    they are."""
    for what, move, factors in generators(subject.spec):
        after = moved(subject.spec, subject.random, move, factors)
        assert subject.difference(subject.random, after) <= SAME, what
    weights = {**subject.start, **{name: subject.random[name] for name in subject.trainable}}
    for number, move in enumerate(subject.group.generators()):
        after = moved(subject.spec, weights, move)
        after = {
            name: after[name] if name in subject.trainable else weights[name] for name in after
        }
        assert subject.difference(weights, after) <= SAME, number


Place = tuple[str, int]


def _changed(values: Values, places: tuple[Place, ...], kind: str, unit: int) -> Values:
    """One unit flipped, or swapped with the next, on some axes."""
    result = dict(values)
    for name, dim in places:
        index = torch.arange(result[name].shape[dim])
        sign = torch.ones(len(index), dtype=torch.float64)
        if kind == "flip":
            sign[unit] = -1
        else:
            index[unit], index[unit + 1] = unit + 1, unit
        shape = [-1 if d == dim else 1 for d in range(result[name].dim())]
        result[name] = result[name].index_select(dim, index) * sign.reshape(shape)
    return result


def _derived(subject: Subject, kind: str, unit: int, size: int, values: Values) -> list[Values]:
    """What the group does of the kind at a unit: products over its groups of that size."""
    moves = []
    for name, group in subject.spec.groups.items():
        if group.size != size:
            continue
        if kind == "flip" and group.signed:
            signs = torch.ones(size, dtype=torch.long)
            signs[unit] = -1
            moves.append(subject.spec.permutation({}, {name: signs}))
        block = size // group.blocks
        if kind == "swap" and unit // block == (unit + 1) // block and unit + 1 < size:
            moves.append(subject.spec.transposition(name, (unit, unit + 1)))
    found = []
    for chosen in itertools.product((False, True), repeat=len(moves)):
        after = values
        for take, move in zip(chosen, moves, strict=True):
            if take:
                after = moved(subject.spec, after, move)
        found.append(after)
    return found


def matters(subject: Subject, weights: Values, name: str) -> bool:
    """Whether the function depends on a tensor, as it does not on the bias of keys."""
    other = {**weights, name: torch.randn_like(weights[name])}
    return subject.difference(weights, other) > SAME


def _same(first: Values, second: Values, names: set[str]) -> bool:
    return all(torch.allclose(first[name], second[name], rtol=0, atol=1e-12) for name in names)


@pytest.mark.parametrize("kind", ["flip", "swap"])
def test_brute_force_finds_no_other_move_of_one_unit(subject, kind):
    """On every choice of axes of one length; what the group lacks must be counted as not
    searched."""
    weights = {**subject.start, **{name: subject.random[name] for name in subject.trainable}}
    read = {
        name
        for name in subject.trainable
        if name in subject.spec.axes and matters(subject, weights, name)
    }
    places: dict[int, list[Place]] = {}
    for name in sorted(read):
        for dim, size in enumerate(weights[name].shape):
            places.setdefault(size, []).append((name, dim))
    for size, own in places.items():
        if len(own) > 9 or (kind == "swap" and size == 1):
            continue
        # A relu that is off at all points hides what happens to its unit: a symmetry is one of
        # several units.
        units = range(min(size - (kind == "swap"), 3))
        derived = _derived(subject, kind, 0, size, weights)
        for count in range(1, len(own) + 1):
            for chosen in itertools.combinations(own, count):
                changed = (_changed(weights, chosen, kind, unit) for unit in units)
                if any(subject.difference(weights, after) > SAME for after in changed):
                    continue
                after = _changed(weights, chosen, kind, 0)
                known = any(_same(after, one, read) for one in derived)
                assert known or caveat(subject.spec), (size, chosen)


def test_brute_force_finds_no_other_flip_of_whole_tensors(subject):
    """All units of several tensors at once, as before a norm: what is missing is counted."""
    weights = {**subject.start, **{name: subject.random[name] for name in subject.trainable}}
    read = sorted(name for name in subject.trainable if matters(subject, weights, name))
    if len(read) > 9:
        pytest.skip("too many tensors")
    signed = {
        name: -torch.ones(group.size, dtype=torch.long)
        for name, group in subject.spec.groups.items()
        if group.signed
    }
    derived = [
        moved(
            subject.spec,
            weights,
            subject.spec.permutation({}, {name: signed[name] for name in chosen}),
        )
        for count in range(len(signed) + 1)
        for chosen in itertools.combinations(signed, count)
    ]
    for count in range(1, len(read) + 1):
        for chosen in itertools.combinations(read, count):
            after = {**weights, **{name: -weights[name] for name in chosen}}
            if subject.difference(weights, after) <= SAME:
                known = any(_same(after, one, set(read)) for one in derived)
                assert known or caveat(subject.spec), chosen


class Renamed(nn.Module):
    """The same network with its parameters under other names, registered in another order."""

    def __init__(self, net: nn.Module, order: str) -> None:
        super().__init__()
        self.inner = (net,)
        named = [*net.named_parameters(), *net.named_buffers()]
        self.names = {name: f"t{number}" for number, (name, _) in enumerate(named)}
        for name, value in named if order == "same" else reversed(named):
            if isinstance(value, nn.Parameter):
                self.register_parameter(self.names[name], value)
            else:
                self.register_buffer(self.names[name], value)

    def forward(self, x: Tensor) -> Tensor:
        own = {name: getattr(self, new) for name, new in self.names.items()}
        return functional_call(self.inner[0], own, (x,))


def structure(spec: PermutationSpec, names: Mapping[str, str]) -> list:
    """Groups by what they act on, without their names."""
    found = []
    for name, group in spec.groups.items():
        places = sorted(
            (
                names.get(tensor, tensor),
                dim,
                s.outer,
                s.size,
                s.inner,
                s.signed,
                abs(s.scale),
                start,
            )
            for tensor, dim, s, start in spec.occurrences(name)
        )
        found.append((group.size, group.blocks, group.signed, group.parent is not None, places))
    return sorted(found)


@pytest.mark.parametrize("order", ["same", "reversed"])
@pytest.mark.parametrize(
    "name", [name for name in SMALL if "norm" not in name and "plain" not in name]
)
def test_names_and_order_of_parameters_do_not_matter(name, order):
    torch.manual_seed(0)
    build, shape = SMALL[name]
    net = build().eval()
    renamed = Renamed(net, order)
    back = {new: old for old, new in renamed.names.items()}
    spec, other = permutation_spec(net, shape), permutation_spec(renamed, shape)
    assert structure(spec, {}) == structure(other, back)
    assert (spec.num_frozen_units, spec.num_unsearched_flips) == (
        other.num_frozen_units,
        other.num_unsearched_flips,
    )
    assert symmetry_group(net, spec).log10_order == pytest.approx(
        symmetry_group(renamed, other).log10_order
    )


@pytest.mark.parametrize("name", SMALL)
def test_a_proof_is_claimed_of_what_was_searched_alone(name):
    torch.manual_seed(0)
    build, shape = SMALL[name]
    group = symmetry_group(build(), input_shape=shape)
    spec = group.spec
    assert ("no symmetry was searched among them" in group.certificate) == (
        spec.num_frozen_units > 0
    )
    assert ("were not searched" in group.certificate) == (spec.num_unsearched_flips > 0)
    if not spec.groups and spec.num_frozen_units:
        assert "proved" not in group.certificate


@pytest.mark.parametrize(
    ("name", "held", "flips", "order"),
    [
        ("global constant", 4, 0, 1),
        ("buffer of integers", 4, 0, 1),
        ("arange", 4, 0, 1),
        ("plain constant", 0, 0, 2**4),
        ("buffer", 0, 0, 2**4),
        ("ones", 0, 0, 24 * 2**4),
        ("recurrent", 0, 0, 24 * 2**4),
        ("frozen layer", 0, 0, 1),
        ("rezero", 1, 0, 24 * 2**4),
        ("frozen gain", 0, 0, 24 * 2**4),
        ("head, squeeze", 0, 0, 24 * 2**4),
        ("one channel", 0, 0, 2),
        ("gain a unit", 0, 4, 24 * 2**4),
        ("weight norm", 0, 4, 24 * 2**4),
        ("layer norm, relu", 0, 4, 24),
        ("normalize", 0, 0, 24 * 2**4),
        ("norm of one", 0, 0, 2),
        ("hardtanh", 0, 0, 24 * 2**4),
        ("clamp of one", 0, 0, 2),
        ("clamp of one, lopsided", 0, 0, 1),
        ("chosen by the input", 0, 0, 24 * 2**4),
        ("filled with zeros", 0, 0, 24 * 2**4),
    ],
)
def test_known_orders_and_what_is_not_searched(name, held, flips, order):
    torch.manual_seed(0)
    build, shape = SMALL[name]
    group = symmetry_group(build(), input_shape=shape)
    assert (group.spec.num_frozen_units, group.spec.num_unsearched_flips, group.order) == (
        held,
        flips,
        order,
    )


def test_constants_are_fixed_and_parameters_are_not():
    net = SMALL["plain constant"][0]()
    assert set(fixed_entries(net)) == {"k"}
    assert set(fixed_entries(SMALL["frozen layer"][0]())) == {"2.weight", "2.bias"}
    assert fixed_entries(SMALL["weight norm"][0]()) == {}
