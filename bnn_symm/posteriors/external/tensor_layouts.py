"""In which order of axes other libraries keep weights, and how it is told.

torch keeps dense weights as (out, in) and kernels as (out, in, *positions); JAX libraries keep (in,
out) and (*positions, in, out). An array whose shape is the parameter's is taken as it is, one whose
shape is the other order is turned. Where both readings fit (a square weight), the weights of which
only one fits decide for all; if there are none, or they disagree, the map of names has to say it.

Where kernels are turned, their library keeps channels last, so that a dense layer which reads
flattened maps may have its inputs in another order. No shape tells, and the map must say `flatten`.
Images that a dense layer reads at once are
data: they are channels first here, and weights of a network that saw them otherwise have to be
    reordered before.
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
"""Which axis of theirs is each of ours; None for all as they are."""


class Layout:
    """Shapes of a model's parameters, and how other libraries would keep them.

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
        """As its layer uses it: of a weight with fixed entries the whole one's."""
        return self._whole.get(parameter, tuple(self.model.shapes[parameter]))

    def restricts(self, parameter: str, shape: Shape) -> bool:
        """Whether an array of this shape is a whole weight, of which the free entries are the
        parameter.
        """
        own = tuple(self.model.shapes[parameter])
        return own != self.shape(parameter) and shape != own

    def turned(self, parameter: str) -> Axes:
        """The order of axes that other libraries keep this parameter in; None where that is
        torch's.
        """
        layer, ndim = self._layers.get(parameter), len(self.shape(parameter))
        if isinstance(layer, nn.Linear):
            return (1, 0)
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return (ndim - 1, ndim - 2, *range(ndim - 2))
        return None

    def readings(self, parameter: str, shape: Shape) -> list[Axes]:
        """Orders of axes in which an array of this shape is the parameter."""
        found: list[Axes] = (
            [None] if shape in (self.shape(parameter), tuple(self.model.shapes[parameter])) else []
        )
        axes = self.turned(parameter)
        if (
            axes is not None
            and _permuted(shape, axes) == self.shape(parameter)
            and not (found and _no_order(shape))
        ):
            found.append(axes)
        return found

    def told(self, parameter: str, shape: Shape, transpose: bool) -> Axes:
        """The order of axes that the map says.

        Raises:
            IncompatiblePosteriors: if the shapes do not fit.
        """
        # A matrix that no layer of torch owns has no convention, but can be transposed all the
        # same.
        axes = self.turned(parameter) or (1, 0) if transpose else None
        got = shape if axes is None else _permuted(shape, axes)
        if got != self.shape(parameter) and (
            transpose or got != tuple(self.model.shapes[parameter])
        ):
            raise IncompatiblePosteriors(
                f"map of names, {parameter}: theirs has shape {shape}, which is not "
                f"{self.shape(parameter)} with transpose: {str(transpose).lower()}; correct it"
            )
        return axes

    def has_no_convention(self, parameter: str, shape: Shape) -> bool:
        """Whether it is a square matrix that no layer of torch owns, so that either order may be
        meant.
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
    """For every parameter, the order in which its array is read.

    Args:
        layout: of the model.
        shapes: of theirs, by their names.
        pairs: parameter -> name of theirs, and the rule that paired them; shapes fit in some order.
        entries: of the user's map.

    Raises:
        IncompatiblePosteriors: if it cannot be told, with what to say in the map.
    """
    told = {name: entry["transpose"] for name, entry in entries.items() if "transpose" in entry}
    chosen: dict[str, Axes] = {}
    evidence: set[bool] = set()
    undecided = []
    for parameter, (name, _) in pairs.items():
        readings = layout.readings(parameter, shapes[name])
        if parameter in told:
            chosen[parameter] = layout.told(parameter, shapes[name], told[parameter])
        elif len(readings) == 1:
            chosen[parameter] = readings[0]
            if layout.turned(parameter) is not None and not _no_order(shapes[name]):
                evidence.add(readings[0] is not None)
        else:
            undecided.append(parameter)
    for parameter in undecided:
        name, rule = pairs[parameter]
        if not evidence and rule == "same name":
            turned = (
                False  # torch's names of a torch network, and nothing speaks against torch's shapes
            )
        elif len(evidence) == 1:
            (turned,) = evidence
        else:
            raise _cannot_tell(shapes[name], parameter, name, bool(evidence))
        chosen[parameter] = layout.turned(parameter) if turned else None
    for parameter, (name, _) in pairs.items():
        if (
            True in evidence
            and parameter not in told
            and layout.has_no_convention(parameter, shapes[name])
        ):
            raise _cannot_tell(shapes[name], parameter, name, False)
    return chosen


def _cannot_tell(shape: Shape, parameter: str, name: str, mixed: bool) -> IncompatiblePosteriors:
    why = "others are partly turned and partly not" if mixed else "no other weight tells"
    return IncompatiblePosteriors(
        f"{name} of shape {shape} may be {parameter} as it is (out, in) or transposed (in, out), "
        f"and {why}; say it in the map of names, with true or false: {{{parameter}: {{name: "
        f"{name}, transpose: true}}}}"
    )


def choose_inputs(
    layout: Layout,
    pairs: Mapping[str, tuple[str, str]],
    chosen: Mapping[str, Axes],
    entries: Mapping[str, Mapping[str, Any]],
) -> dict[str, Tensor]:
    """Of dense weights that read maps flattened channels last, where each of our inputs lies among
    theirs.

    Raises:
        ConfigError: if the map says `flatten` of a weight that reads no flattened maps.
        IncompatiblePosteriors: if it has to say it and does not.
    """
    turned = any(axes is not None and len(axes) > 2 for axes in chosen.values())
    told = {
        parameter: entry["flatten"] for parameter, entry in entries.items() if "flatten" in entry
    }
    if not turned and not told:
        return {}
    flattened = _flattened(layout.model.net)
    for parameter in told:
        if parameter not in flattened:
            raise ConfigError(
                f"map of names, {parameter}: flatten is for dense weights that read flattened maps"
            )
    for parameter in flattened if turned else ():
        if parameter not in told:
            raise IncompatiblePosteriors(
                f"{parameter} reads flattened maps, and their kernels are of a library that keeps "
                "channels last: its "
                "inputs may come in another order, which no shape tells; say channels_last or "
                "channels_first in the "
                f"map of names: {{{parameter}: {{name: {pairs[parameter][0]}, flatten: "
                f"channels_last}}}}"
            )
    return {name: flattened[name] for name, order in told.items() if order == "channels_last"}


def _flattened(net: nn.Module) -> dict[str, Tensor]:
    """Dense weight -> for each input (channel, position), its place among (position, channel).

    Raises:
        IncompatiblePosteriors: if the network's axes cannot be derived.
    """
    try:
        spec = permutation_spec(net)
    except SymmetryError as error:
        raise IncompatiblePosteriors(
            "their kernels are of a library that keeps channels last, and whether dense layers "
            "read flattened maps "
            f"cannot be derived ({error}); turn the kernels and the dense weights yourself"
        ) from None
    found = {}
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
            found[name] = torch.cat(order)
    return found
