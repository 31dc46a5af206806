"""Certify a derived spec by applying every generator of its group to random weights.

Each group is permuted alone, flipped alone and rescaled alone, and the outputs are compared in
float64. A single random element would not be enough: a group of one unit that is wrongly allowed to
flip keeps its sign in half of all draws. Random elements of the whole group follow: the elements
that preserve the function are a subgroup, and a uniform element falls outside a smaller one with
probability at least 1/2.

For a network so large that this takes too long, random halves of the generators are applied
together; each such product detects a wrong generator with probability 1/2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bnn_symm.errors import SymmetryError, one_line
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry.group.permutation_spec import Group, Permutation, PermutationSpec
from bnn_symm.symmetry.group.rescaling import rescale
from bnn_symm.symmetry.tracing.precision import DoublePrecision

TOLERANCE = 1e-10
"""Largest difference of float64 outputs, relative to the largest output, that counts as zero."""

_WHOLE_ELEMENTS = 4
# Bounds of the number of passes in which generators are tried one by one: _WEIGHTS over the number
# of weights, but at least _FEWEST and at most _MOST.
_FEWEST, _MOST, _WEIGHTS = 20, 200, 10**7


@dataclass(frozen=True)
class _Generator:
    """A transformation of one group of units.

    Attributes:
        kind: `order`, `flip` or `scale`.
        group: name of the group.
        permutation: the transformation, if it is an order or a flip.
        factors: factor of each unit, if it is a scale.
    """

    kind: str
    group: str
    permutation: Permutation | None = None
    factors: Tensor | None = None

    def apply(self, spec: PermutationSpec, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.permutation is not None:
            return self.permutation.apply(values)
        assert self.factors is not None
        return rescale(spec, values, {self.group: self.factors})


def certify(
    net: nn.Module,
    spec: PermutationSpec,
    x: Tensor,
    *,
    num_elements: int = _WHOLE_ELEMENTS,
    cause: str = "a rule is wrong for this network, please report it with the network",
) -> None:
    """Check that every generator of a spec's group preserves the outputs at random weights.

    Args:
        net: network without fixed entries, in float64 and in evaluation mode.
        spec: the spec to certify.
        x: inputs, (point, *input).
        num_elements: random elements of the whole group that are tried.
        cause: of a failure, in the message.

    Raises:
        SymmetryError: if the outputs differ by more than 1e-10 of the largest; the message names
            the generator and its tensors.
    """
    generators = _generators(spec)
    if not generators:
        return
    values = random_values(net, "certificate")
    reference = evaluate(net, values, x)
    if not bool(reference.isfinite().all()):
        values = random_values(net, "certificate", spread=0.0)
        reference = evaluate(net, values, x)
    if not bool(reference.isfinite().all()):
        raise SymmetryError(
            "the outputs of the network are not finite at random weights; symmetries cannot be "
            "certified"
        )

    def difference(*moves: _Generator) -> float:
        moved = values
        for move in moves:
            moved = move.apply(spec, moved)
        return relative_change(reference, evaluate(net, moved, x))

    for moves in _batches(generators, values):
        if not difference(*moves) <= TOLERANCE:
            for move in moves:
                alone = difference(move)
                if not alone <= TOLERANCE:
                    raise SymmetryError(_failure_message(spec, move, alone, cause))
            raise SymmetryError(_failure_message(spec, moves[-1], difference(*moves), cause))
    for number in range(num_elements):
        whole = _Generator(
            "order", next(iter(spec.groups)), permutation=spec.random("certificate", number)
        )
        if not difference(whole) <= TOLERANCE:
            raise SymmetryError(_failure_message(spec, whole, difference(whole), cause))


def _generators(spec: PermutationSpec) -> list[list[_Generator]]:
    """Return the generators, as lists of transformations of one group that are applied together."""
    generators: list[list[_Generator]] = []
    for name, group in spec.groups.items():
        draw = torch_generator("certificate", "generators", len(generators))
        # An order and factors cannot cancel: applied together they fail if either one is wrong.
        both = []
        if (order := _cycle(spec, name, draw)) is not None:
            both.append(_Generator("order", name, permutation=order))
        if name in spec.scaled_groups:
            factors = 0.5 + 1.5 * torch.rand(group.size, generator=draw, dtype=torch.float64)
            both.append(_Generator("scale", name, factors=factors))
        flips = [
            _Generator("flip", name, permutation=spec.permutation({}, {name: s}))
            for s in _flips(group, draw)
        ]
        generators += [both] if both else []
        generators += [[flip] for flip in flips]
    return generators


def _flips(group: Group, draw: torch.Generator) -> list[Tensor]:
    """Return the sign vectors to try: one random unit, and a random half of the units.

    All units at once may be a symmetry where a single flip is none.
    """
    if not group.signed:
        return []
    single = torch.ones(group.size, dtype=torch.long)
    single[int(torch.randint(group.size, (), generator=draw))] = -1
    if group.size == 1:
        return [single]
    half = torch.where(torch.randperm(group.size, generator=draw) < (group.size + 1) // 2, -1, 1)
    return [single, half]


def _cycle(spec: PermutationSpec, name: str, draw: torch.Generator) -> Permutation | None:
    """Return a permutation that moves every unit, a random cycle within each block, or None.

    Blocks of other groups that these units own move with them.
    """
    group = spec.groups[name]
    block = group.size // group.blocks
    if block == 1:
        return None
    order = torch.empty(group.size, dtype=torch.long)
    for start in range(0, group.size, block):
        units = start + torch.randperm(block, generator=draw)
        order[units] = units.roll(1)
    return spec.permutation(spec.with_owned(name, order))


def _batches(moves: list[list[_Generator]], values: Mapping[str, Tensor]) -> list[list[_Generator]]:
    """Return each group's generators, or random halves of all generators if there are too many."""
    weights = sum(value.numel() for value in values.values())
    limit = min(_MOST, max(_FEWEST, _WEIGHTS // max(weights, 1)))
    if len(moves) <= limit:
        return moves
    draw = torch_generator("certificate", "halves")
    halves = (torch.rand(limit, len(moves), generator=draw) < 0.5).tolist()
    chosen = [
        [move for move, is_taken in zip(moves, half, strict=True) if is_taken] for half in halves
    ]
    return [[move for moves in half for move in moves] for half in chosen if half]


def _failure_message(spec: PermutationSpec, move: _Generator, difference: float, cause: str) -> str:
    owned = [name for name, group in spec.groups.items() if group.parent == move.group]
    tensors = list(
        dict.fromkeys(tensor for name in (move.group, *owned) for tensor in spec.tensors_of(name))
    )
    named = ", ".join(tensors[:3]) + (f" and {len(tensors) - 3} more" if len(tensors) > 3 else "")
    kind = {"order": "permutation", "flip": "flip", "scale": "rescaling"}[move.kind]
    return one_line(
        f"a {kind} changes the outputs by {difference:.1e} of their size: the units of "
        f"{move.group!r}, in {named}; {cause}",
        400,
    )


def random_values(net: nn.Module, *key: int | str, spread: float = 0.1) -> dict[str, Tensor]:
    """Return float64 parameters and buffers at which no two entries share a value.

    Args:
        net: the network.
        key: key of the random numbers.
        spread: standard deviation of the noise that is added to every value.
    """
    generator = torch_generator(*key, "values")
    named = dict(net.named_parameters()) | dict(net.named_buffers())
    values = {}
    for name, value in named.items():
        value = value.detach()
        if value.is_floating_point() or value.is_complex():
            wide = torch.complex128 if value.is_complex() else torch.float64
            noise = torch.randn(value.shape, generator=generator, dtype=wide)
            value = value.to(wide).cpu() + spread * noise
        values[name] = value
    return values


def evaluate(net: nn.Module, values: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Return the outputs of a network in float64 at given values of its parameters and buffers."""
    # The pass may change buffers in place, so it gets copies.
    copies = {name: value.clone() for name, value in values.items()}
    with torch.no_grad(), DoublePrecision():
        return functional_call(net, copies, (x,))


def relative_change(before: Tensor, after: Tensor) -> float:
    """Return the largest difference of two outputs, relative to the largest entry of the first."""
    return float((before - after).abs().max() / before.abs().max().clamp(min=1e-300))


def relative_difference(
    net: nn.Module, first: Mapping[str, Tensor], second: Mapping[str, Tensor], x: Tensor
) -> float:
    """Return the largest difference of outputs at two sets of values, in relative terms.

    Args:
        net: the network.
        first: name -> value of its parameters and buffers.
        second: name -> other values of them.
        x: inputs, (point, *input).
    """
    return relative_change(evaluate(net, first, x), evaluate(net, second, x))
