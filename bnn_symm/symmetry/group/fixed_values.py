"""Find the fixed entries of a network, and build the same network without fixed entries.

A layer with fixed entries is recognized by its interface (`HasFixedEntries`), not by its class.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bnn_symm.symmetry.group.permutation_spec import Permutation


class HasFixedEntries(Protocol):
    """A layer whose parameter `weight` holds only the free entries of a weight.

    Attributes:
        mask: True where the weight is free, in the weight's full shape.
        fixed: values of the fixed entries, 0 where the weight is free.
    """

    mask: Tensor
    fixed: Tensor

    def dense(self) -> nn.Module:
        """Return the layer with an ordinary weight of the same effective values."""
        ...


@dataclass(frozen=True)
class FixedTensor:
    """The fixed entries of one tensor.

    Attributes:
        free: True where an entry may take any value.
        values: values of the fixed entries; 0 where free.
    """

    free: Bool[Tensor, "..."]
    values: Float[Tensor, "..."]


def fixed_entries(net: nn.Module) -> dict[str, FixedTensor]:
    """Return tensor name -> its fixed entries, for everything in a network that is fixed.

    These are the fixed entries of weights, and frozen parameters, buffers and constants as a whole.
    The network's spec lists the buffers that its function reads.

    Args:
        net: the network.
    """
    entries: dict[str, FixedTensor] = {}
    layer_buffers: set[str] = set()
    for path, module in net.named_modules():
        prefix = f"{path}." if path else ""
        if has_fixed_entries(module):
            assert isinstance(module, nn.Module)
            weight = module.dense().get_parameter("weight")
            entries[f"{prefix}weight"] = (
                FixedTensor(module.mask.cpu(), module.fixed.detach().double().cpu())
                if weight.requires_grad
                else _constant(weight)
            )
            layer_buffers |= {
                prefix + name for name, _ in module.named_buffers(recurse=False) if name != "bias"
            }
    constants = dict(net.named_buffers()) | {
        f"{path}{name}": value for path, _, name, value in plain_tensors(net)
    }
    parameters = dict(net.named_parameters())
    constants |= {name: parameters[name] for name in frozen_parameters(net)}
    for name, value in constants.items():
        if name not in layer_buffers | entries.keys() and value.is_floating_point():
            entries[name] = _constant(value)
    return entries


def _constant(value: Tensor) -> FixedTensor:
    """Return a tensor all of whose entries are fixed."""
    values = value.detach().double().cpu()
    return FixedTensor(torch.zeros_like(values, dtype=torch.bool), values)


def unit_statistics(net: nn.Module) -> dict[str, Tensor]:
    """Return name -> buffer, for the statistics that belong to hidden units and move with them.

    A module declares them in the attribute `unit_statistics`, as frozen batch norm does. They are
    fixed values of one network, so that a permutation that changes them is no symmetry of its
    posterior. It maps the network to one with permuted statistics, which computes the same.

    Args:
        net: the network.
    """
    return {
        f"{path}.{name}" if path else name: getattr(module, name)
        for path, module in net.named_modules()
        for name in getattr(type(module), "unit_statistics", ())
    }


def data_buffers(net: nn.Module) -> dict[str, Tensor]:
    """Return name -> buffer, for buffers that are inputs of the function, such as those of a graph.

    A module declares them in the attribute `data_buffers`. As with other inputs, the entries of
    their axes stay in place.

    Args:
        net: the network.
    """
    return {
        f"{path}.{name}" if path else name: getattr(module, name)
        for path, module in net.named_modules()
        for name in getattr(type(module), "data_buffers", ())
    }


def frozen_parameters(net: nn.Module) -> set[str]:
    """Return the names of the parameters that require no gradient, which are constants."""
    return {name for name, value in net.named_parameters() if not value.requires_grad}


def plain_tensors(net: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Find constants that are attributes of modules, but neither parameters nor buffers.

    Tensors that a hook computes from parameters are left out (`weight_norm` leaves its result as an
    attribute).

    Args:
        net: the network.

    Yields:
        The prefix of the module's names, the module, the attribute and its value, for
            floating-point
        tensors.
    """
    for path, module in net.named_modules():
        prefix = f"{path}." if path else ""
        for name, value in list(vars(module).items()):
            if (
                not isinstance(value, Tensor)
                or not value.is_floating_point()
                or value.grad_fn is not None
            ):
                continue
            if any(f"{name}_{kind}" in module._parameters for kind in ("g", "v", "orig")):
                continue
            yield prefix, module, name, value


def has_fixed_entries(module: Any) -> TypeGuard[HasFixedEntries]:
    """Return whether a layer's weight has fixed entries."""
    # `isinstance` of a protocol misses parameters and buffers from Python 3.12 on: it asks the
    # class and its dictionary, not `__getattr__`.
    return all(hasattr(module, name) for name in ("mask", "fixed", "dense"))


def dense_copy(net: nn.Module) -> nn.Module:
    """Return a copy of the network on the CPU with ordinary layers of the same effective weights.

    Constants that are attributes of modules become buffers of the copy, under the same names.
    """
    if has_fixed_entries(net):
        return net.dense().cpu()
    # Results that hooks leave as attributes have an autograd history, which cannot be copied.
    computed = (
        value
        for module in net.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor)
    )
    memo = {id(value): value.detach().clone() for value in computed if value.grad_fn is not None}
    clone = copy.deepcopy(net, memo).cpu()
    for path, module in list(clone.named_modules()):
        if path and has_fixed_entries(module):
            parent, _, name = path.rpartition(".")
            setattr(clone.get_submodule(parent), name, module.dense())
    for _, module, name, value in list(plain_tensors(clone)):
        delattr(module, name)
        module.register_buffer(name, value.detach().cpu())
    return clone


def moved_tensors(permutation: Permutation, fixed: Mapping[str, FixedTensor]) -> Iterator[str]:
    """Yield the names of the tensors whose mask or fixed values a permutation changes.

    Args:
        permutation: an element of a spec's group.
        fixed: tensor name -> its fixed entries.
    """
    for name, entry in fixed.items():
        free = permutation.apply({name: entry.free.double()})[name]
        values = permutation.apply({name: entry.values})[name]
        # The sign of a free entry does not matter, so absolute values of the mask are compared.
        if not torch.equal(free.abs() > 0, entry.free) or not torch.equal(values, entry.values):
            yield name


def duplicate_rows(fixed: Mapping[str, FixedTensor]) -> dict[str, list[list[int]]]:
    """Return tensor name -> sets of units whose rows of the mask are equal, where there are any.

    Their fixed values may still distinguish them, though hardly where these are near zero.

    Args:
        fixed: tensor name -> its fixed entries.
    """
    duplicates = {}
    for name, entry in fixed.items():
        if entry.free.dim() < 2 or bool(entry.free.all()) or not bool(entry.free.any()):
            continue
        rows: dict[bytes, list[int]] = {}
        for unit, row in enumerate(entry.free.flatten(1).numpy()):
            rows.setdefault(row.tobytes(), []).append(unit)
        equal = [units for units in rows.values() if len(units) > 1]
        if equal:
            duplicates[name] = equal
    return duplicates
