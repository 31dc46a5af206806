"""Break the permutation symmetry of a network, or build the controls that share its masks.

References:
    Lim, Putterman, Walters, Maron and Jegelka (2024), The Empirical Impact of Neural Parameter
    Symmetries, or Lack Thereof, arXiv:2405.20231.
"""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from bnn_symm.architectures.asymmetric.block_fixed import Blocks, blocks_of
from bnn_symm.architectures.asymmetric.figlu import insert_figlu
from bnn_symm.architectures.asymmetric.fixed_biases import fix_biases
from bnn_symm.architectures.asymmetric.fixed_entries import fix_entries
from bnn_symm.architectures.asymmetric.init_matched import set_initial_entries
from bnn_symm.architectures.asymmetric.masks import fixed_values, layer_mask
from bnn_symm.architectures.asymmetric.ordered_biases import order_biases
from bnn_symm.architectures.asymmetric.settings import (
    describe_layer,
    fixed_counts,
    kappas,
    plain_layers,
)
from bnn_symm.architectures.config import MaskKind, SymmetryConfig, SymmetryKind
from bnn_symm.arguments import checked
from bnn_symm.errors import ConfigError


@checked
def asymmetrize(
    module: nn.Module,
    *,
    kind: SymmetryKind = "weight_asymmetric",
    fixed_per_row: Literal["auto"] | int | tuple[int, ...] | list[int] = "auto",
    kappa: Literal["auto"] | float | tuple[float, ...] | list[float] = "auto",
    mask: MaskKind = "random",
    block: int = 1,
    gate_scale: Literal["auto"] | float = "auto",
    seed: int = 0,
    input_shape: tuple[int, ...] | None = None,
) -> nn.Module:
    """Return a copy of a network without permutation symmetry, or one of the controls for it.

    Weights become ``W' = M * W + (1 - M) * F`` with a fixed random mask M and fixed values F ~
    Normal(0, kappa^2), in every layer that is exactly an `nn.Linear`, `nn.Conv1d`, `nn.Conv2d` or
    `nn.Conv3d`. Subclasses are left unchanged, since they may use their weight in other ways; this
    includes the output projection of `nn.MultiheadAttention`. Norms, biases and all other
    parameters are left unchanged. Free entries keep their present values. With `bias_asymmetric`
    the biases of the hidden units of these layers are fixed instead, and with `bias_ordered` they
    are ordered.

    Args:
        module: Any network; it is not changed.
        kind: `weight_asymmetric`, `sigma_asymmetric` (FiGLU replaces every activation module),
            `bias_asymmetric` (hidden units have fixed biases), `bias_ordered` (their biases
            increase from unit to unit), `init_matched` (all trainable,
            starts at the weight-asymmetric network's values),
            `block_fixed` (as many fixed entries, the same for the units of a block) or `standard`
            (a plain copy).
        fixed_per_row: Fixed entries per row (`filters`: input channels): a number, one per layer in
            the order of `named_modules`, or `auto` for the rule of `asymmetric.settings`. 0 leaves
            a layer unchanged.
        kappa: Standard deviation of the fixed values: a number, one per layer, or `auto`.
        mask: `random`, `densest` (the fewest fixed entries that make all rows differ) or `filters`
            (whole input channels).
        block: For `block_fixed`: units per block.
        gate_scale: For `sigma_asymmetric`: standard deviation of the gate's matrix; auto is 1 /
            sqrt(width).
        seed: Seed of masks and fixed values.
        input_shape: Shape of one point; the kinds other than `standard`, `weight_asymmetric` and
            `init_matched` need it.

    Returns:
        The changed copy. Its parameters keep their names.

    Raises:
        ConfigError: If a setting is out of range, does not fit the layers, or leaves rows equal or
            without a free entry; if a weight is shared between modules; or if the network lacks
            what the kind needs.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> asymmetrize(net, fixed_per_row=(2, 0))[0].weight.shape
        torch.Size([6])
    """
    lists = [tuple(value) if isinstance(value, list) else value for value in (fixed_per_row, kappa)]
    settings = SymmetryConfig(
        kind=kind,
        fixed_per_row=lists[0],  # pyright: ignore[reportArgumentType]
        kappa=lists[1],  # pyright: ignore[reportArgumentType]
        mask=mask,
        block=block,
        gate_scale=gate_scale,
        seed=seed,
    )
    return apply_symmetry(copy.deepcopy(module), settings, input_shape)


def apply_symmetry(
    net: nn.Module, settings: SymmetryConfig, input_shape: tuple[int, ...] | None
) -> nn.Module:
    """Apply `asymmetrize` to a network in place.

    Args:
        net: The network, which is changed.
        settings: How its symmetry is broken.
        input_shape: Shape of one point, if it is known.

    Returns:
        The network, or the layer that replaces it.

    Raises:
        ConfigError: As `asymmetrize`.
    """
    if settings.kind == "standard":
        return net
    if settings.kind == "parameter_matched":
        raise ConfigError(
            "parameter_matched changes the widths of a network, which is not possible for an "
            "existing module; use it with architecture.name mlp, cnn or resnet, or build a "
            "narrower module"
        )
    if settings.kind == "sigma_asymmetric":
        return insert_figlu(net, input_shape, settings.gate_scale, settings.seed)
    layers = plain_layers(net)
    if not layers:
        raise ConfigError(
            f"{settings.kind} found no layer that is exactly nn.Linear, nn.Conv1d, nn.Conv2d or "
            f"nn.Conv3d in {type(net).__name__}; use kind=sigma_asymmetric, or such layers"
        )
    if settings.kind == "bias_asymmetric":
        return fix_biases(net, layers, settings, input_shape)
    if settings.kind == "bias_ordered":
        return order_biases(net, layers, settings, input_shape)
    _refuse_tied(net, layers)
    change = set_initial_entries if settings.kind == "init_matched" else fix_entries
    for name, (mask, fixed) in masks_and_values(net, layers, settings, input_shape).items():
        change(layers[name], torch.from_numpy(mask), torch.from_numpy(fixed))
    for child in net.modules():
        if isinstance(child, nn.TransformerEncoderLayer):
            # Its fast path reads the weights of its linear layers without their forward; 0 disables
            # the fast path.
            child.activation_relu_or_gelu = 0
    return net


def masks_and_values(
    net: nn.Module,
    layers: Mapping[str, nn.Module],
    settings: SymmetryConfig,
    input_shape: tuple[int, ...] | None,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return name -> (mask, fixed values) in the weight's shape, for layers with fixed entries.

    Args:
        net: The network.
        layers: Its layers that can have fixed entries, by name.
        settings: How its symmetry is broken.
        input_shape: Shape of one point, if it is known.

    Raises:
        ConfigError: As `asymmetrize`.
    """
    if settings.mask == "densest" and settings.fixed_per_row != "auto":
        raise ConfigError(
            f"got fixed_per_row={settings.fixed_per_row} with mask=densest, which chooses the "
            "fewest that make all rows differ; want fixed_per_row=auto, or mask=random"
        )
    blocks = _blocks(net, layers, settings, input_shape)
    masks: dict[str, np.ndarray] = {}
    for name, small in blocks.items():
        try:
            mask = layer_mask(settings.mask, small.layer, small.fixed, settings.seed)
        except ConfigError as error:
            if settings.kind == "block_fixed":
                raise ConfigError(
                    f"with one row and one input for each block of {settings.block}, {error}"
                ) from None
            raise
        if not mask.all():
            masks[name] = mask
    means = {
        name: float((~mask).sum() / len(mask)) * _repeats(blocks[name])
        for name, mask in masks.items()
    }
    kappa = dict(zip(layers, kappas(net, layers, means, settings.kappa), strict=True))
    result = {}
    for name, mask in masks.items():
        small = blocks[name]
        values = fixed_values(settings.seed, small.layer.name, small.shape, kappa[name])
        result[name] = small.expand(mask), small.expand(values)
    return result


def _blocks(
    net: nn.Module,
    layers: Mapping[str, nn.Module],
    settings: SymmetryConfig,
    input_shape: tuple[int, ...] | None,
) -> dict[str, Blocks]:
    """Return how the mask of each layer with fixed entries is built.

    Without blocks, each unit is a block by itself.
    """
    shapes = {name: tuple(module.get_parameter("weight").shape) for name, module in layers.items()}
    described = {name: describe_layer(name, module) for name, module in layers.items()}
    if settings.mask == "densest":
        counts = dict.fromkeys(layers, 1)  # unused: densest determines its own counts
    else:
        counts = {
            name: count for name, count in fixed_counts(layers, settings).items() if count > 0
        }
    block = settings.block if settings.kind == "block_fixed" else 1
    if block == 1:
        return {
            name: Blocks(
                described[name], shapes[name], count, tuple(np.arange(n) for n in shapes[name])
            )
            for name, count in counts.items()
        }
    if settings.mask == "densest":
        raise ConfigError(
            f"block_fixed with block={block} needs as many fixed entries as without blocks, which "
            "mask=densest cannot provide; want mask=random or mask=filters"
        )
    if input_shape is None:
        raise ConfigError(
            "block_fixed finds the units of each layer in a forward pass; pass input_shape"
        )
    from bnn_symm.symmetry import permutation_spec

    axes = permutation_spec(net, input_shape).axes
    weights = {name: f"{name}.weight" if name else "weight" for name in counts}
    for name, weight in weights.items():
        if weight not in axes:
            raise ConfigError(
                f"{name}: the outputs do not depend on this layer; remove it, or set its "
                "fixed_per_row to 0"
            )
    return {
        name: blocks_of(described[name], axes[weights[name]], block, count)
        for name, count in counts.items()
    }


def _repeats(blocks: Blocks) -> float:
    """Return the number of entries of a whole row that one entry of a small row becomes."""
    return len(blocks.indices[1]) / blocks.shape[1]


def _refuse_tied(net: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Reject weights that several modules share, which would be fixed in one of them only."""
    owners: dict[int, list[str]] = {}
    for name, module in net.named_modules():
        for parameter, value in module._parameters.items():
            if value is not None:
                owners.setdefault(id(value), []).append(
                    f"{name}.{parameter}" if name else parameter
                )
    for module in layers.values():
        shared: list[Any] = owners[id(module.get_parameter("weight"))]
        if len(shared) > 1:
            raise ConfigError(
                f"the weight {' = '.join(shared)} is shared, so it cannot have fixed entries in "
                "one layer only; give each layer a weight of its own, or use kind=sigma_asymmetric"
            )
