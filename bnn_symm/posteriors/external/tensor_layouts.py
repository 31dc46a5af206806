"""Determine the order of axes in which other libraries store weights.

torch stores dense weights as (out, in) and kernels as (out, in, *positions); JAX libraries store
(in, out) and (*positions, in, out). An array with the parameter's shape is used unchanged; one
with the shape of the other order is transposed. Where both readings fit (a square weight), the
weights with only one possible reading decide for all. If there are none, or they disagree, the name
mapping has to decide.

If kernels are transposed, their library stores channels last, so a dense layer that reads flattened
maps may have its inputs in another order. Shapes do not determine it, and the mapping must set
`flatten`. Images that a dense layer reads directly are data: channels come first here, and weights
of a network trained on channels last have to be reordered beforehand.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bnn_symm.architectures import weight_shapes
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, SymmetryError
from bnn_symm.models import BayesianModel
from bnn_symm.symmetry import permutation_spec

Shape = tuple[int, ...]
Axes = tuple[int, ...] | None
"""Axis of the array for each axis of the parameter; None for an unchanged order."""


class Layout:
    """Describe the shapes of a model's parameters, and how other libraries would store them.

    Attributes:
        model: of the parameters.
        network: names of the network's parameters, in order.
        latents: names of the likelihood's latent variables.
    """

    def __init__(self, model: BayesianModel):
        self.model = model
        self._whole = {name: tuple(shape) for name, shape in weight_shapes(model.net).items()}
        self._layers = {
            f"{name}.weight" if name else "weight": layer
            for name, layer in model.net.named_modules()
        }
        self.network = list(self._whole)
        self.latents = [name for name in model.shapes if name not in self._whole]

    def shape(self, parameter: str) -> Shape:
        """Return the shape that the layer uses; with fixed entries that of the whole weight.

        Args:
            parameter: of the model.
        """
        return self._whole.get(parameter, tuple(self.model.shapes[parameter]))

    def restricts(self, parameter: str, shape: Shape) -> bool:
        """Return whether an array is a whole weight whose free entries are the parameter.

        Args:
            parameter: of the model.
            shape: of the array.
        """
        free = tuple(self.model.shapes[parameter])
        return free != self.shape(parameter) and shape != free

    def transposed_axes(self, parameter: str) -> Axes:
        """Return the order of axes of other libraries; None where it is torch's.

        Args:
            parameter: of the model.
        """
        layer, ndim = self._layers.get(parameter), len(self.shape(parameter))
        if isinstance(layer, nn.Linear):
            return (1, 0)
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return (ndim - 1, ndim - 2, *range(ndim - 2))
        return None

    def readings(self, parameter: str, shape: Shape) -> list[Axes]:
        """Return the orders of axes in which an array of this shape is the parameter.

        Args:
            parameter: of the model.
            shape: of the array.
        """
        orders: list[Axes] = (
            [None] if shape in (self.shape(parameter), tuple(self.model.shapes[parameter])) else []
        )
        axes = self.transposed_axes(parameter)
        if (
            axes is not None
            and _permuted(shape, axes) == self.shape(parameter)
            and not (orders and _no_order(shape))
        ):
            orders.append(axes)
        return orders

    def requested_axes(self, parameter: str, shape: Shape, transpose: bool) -> Axes:
        """Return the order of axes that the name mapping sets.

        Args:
            parameter: of the model.
            shape: of the array.
            transpose: value of the mapping.

        Returns:
            The order of axes; None for torch's.

        Raises:
            IncompatiblePosteriors: if the shapes do not fit.
        """
        # A matrix outside torch's layers has no convention, but can be transposed as well.
        axes = self.transposed_axes(parameter) or (1, 0) if transpose else None
        got = shape if axes is None else _permuted(shape, axes)
        if got != self.shape(parameter) and (
            transpose or got != tuple(self.model.shapes[parameter])
        ):
            raise IncompatiblePosteriors(
                f"name mapping, {parameter}: the array has shape {shape}, which is not "
                f"{self.shape(parameter)} with transpose: {str(transpose).lower()}; correct it"
            )
        return axes

    def has_no_convention(self, parameter: str, shape: Shape) -> bool:
        """Return whether both orders are possible for a parameter outside torch's layers.

        Args:
            parameter: of the model.
            shape: of the array; a square matrix is ambiguous.
        """
        square = len(shape) == 2 and shape[0] == shape[1] > 1
        return square and parameter in self._whole and parameter not in self._layers


def _permuted(shape: Shape, axes: tuple[int, ...]) -> Shape | None:
    return tuple(shape[axis] for axis in axes) if len(shape) == len(axes) else None


def _no_order(shape: Shape) -> bool:
    return math.prod(shape) == 1


def choose_axes(
    layout: Layout,
    shapes: Mapping[str, Shape],
    pairs: Mapping[str, tuple[str, str]],
    entries: Mapping[str, Mapping[str, Any]],
) -> dict[str, Axes]:
    """Return the order of axes of the array of every parameter.

    Args:
        layout: of the model.
        shapes: of the arrays, by name.
        pairs: parameter -> name of its array, and the rule that paired them; shapes fit in some
            order.
        entries: of the name mapping.

    Returns:
        Parameter -> order of axes; None for torch's.

    Raises:
        IncompatiblePosteriors: if the order is ambiguous; the message shows the entry to write.
    """
    requested = {
        name: entry["transpose"] for name, entry in entries.items() if "transpose" in entry
    }
    chosen: dict[str, Axes] = {}
    evidence: set[bool] = set()
    undecided = []
    for parameter, (name, _) in pairs.items():
        readings = layout.readings(parameter, shapes[name])
        if parameter in requested:
            chosen[parameter] = layout.requested_axes(parameter, shapes[name], requested[parameter])
        elif len(readings) == 1:
            chosen[parameter] = readings[0]
            if layout.transposed_axes(parameter) is not None and not _no_order(shapes[name]):
                evidence.add(readings[0] is not None)
        else:
            undecided.append(parameter)
    for parameter in undecided:
        name, rule = pairs[parameter]
        if not evidence and rule == "same name":
            # The names are torch's, and no shape contradicts torch's order.
            is_transposed = False
        elif len(evidence) == 1:
            (is_transposed,) = evidence
        else:
            raise _ambiguous(shapes[name], parameter, name, bool(evidence))
        chosen[parameter] = layout.transposed_axes(parameter) if is_transposed else None
    for parameter, (name, _) in pairs.items():
        if (
            True in evidence
            and parameter not in requested
            and layout.has_no_convention(parameter, shapes[name])
        ):
            raise _ambiguous(shapes[name], parameter, name, False)
    return chosen


def _ambiguous(shape: Shape, parameter: str, name: str, mixed: bool) -> IncompatiblePosteriors:
    why = "other weights disagree" if mixed else "no other weight decides"
    return IncompatiblePosteriors(
        f"{name} of shape {shape} may be {parameter} unchanged (out, in) or transposed (in, out), "
        f"and {why}; set transpose to true or false in the name mapping: {{{parameter}: {{name: "
        f"{name}, transpose: true}}}}"
    )


def choose_inputs(
    layout: Layout,
    pairs: Mapping[str, tuple[str, str]],
    chosen: Mapping[str, Axes],
    entries: Mapping[str, Mapping[str, Any]],
) -> dict[str, Tensor]:
    """Return the order of inputs of dense weights that read maps flattened channels last.

    Args:
        layout: of the model.
        pairs: parameter -> name of its array, and the rule that paired them.
        chosen: order of axes of every parameter.
        entries: of the name mapping.

    Returns:
        Parameter -> position of each torch input among the array's inputs.

    Raises:
        ConfigError: if the mapping sets `flatten` for a weight that reads no flattened maps.
        IncompatiblePosteriors: if it must set `flatten` and does not.
    """
    has_transposed_kernels = any(axes is not None and len(axes) > 2 for axes in chosen.values())
    requested = {
        parameter: entry["flatten"] for parameter, entry in entries.items() if "flatten" in entry
    }
    if not has_transposed_kernels and not requested:
        return {}
    flattened = _flattened(layout.model.net)
    for parameter in requested:
        if parameter not in flattened:
            raise ConfigError(
                f"name mapping, {parameter}: flatten is for dense weights that read flattened maps"
            )
    for parameter in flattened if has_transposed_kernels else ():
        if parameter not in requested:
            raise IncompatiblePosteriors(
                f"{parameter} reads flattened maps, and the kernels are of a library that stores "
                "channels last, so the order of its inputs is ambiguous; set flatten to "
                "channels_last or channels_first in the name mapping: "
                f"{{{parameter}: {{name: {pairs[parameter][0]}, flatten: channels_last}}}}"
            )
    return {name: flattened[name] for name, order in requested.items() if order == "channels_last"}


def _flattened(net: nn.Module) -> dict[str, Tensor]:
    """Return dense weight -> for each input (channel, position), its index in (position, channel).

    Raises:
        IncompatiblePosteriors: if the network's axes cannot be derived.
    """
    try:
        spec = permutation_spec(net)
    except SymmetryError as error:
        raise IncompatiblePosteriors(
            "the kernels are of a library that stores channels last, and whether dense layers "
            f"read flattened maps cannot be derived ({error}); transpose the kernels and the dense "
            "weights first"
        ) from None
    orders = {}
    for name, axes in spec.axes.items():
        if len(axes) == 2 and any(
            segment.group is not None and segment.inner > 1 for segment in axes[1]
        ):
            order, start = [], 0
            for segment in axes[1]:
                grid = torch.arange(segment.length).reshape(
                    segment.outer, segment.inner, segment.size
                )
                order.append(start + grid.transpose(1, 2).flatten())
                start += segment.length
            orders[name] = torch.cat(order)
    return orders
