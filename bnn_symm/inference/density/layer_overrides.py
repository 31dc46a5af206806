"""Override layers of any network by their operations, and find the operations that use a weight.

A layer is identified by its weight, and computed by torch's own functions, whatever module calls
them. So no assumptions about the modules of a network are made.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from bnn_symm.torch_internals import OperationMode, tree_leaves

OPERATIONS = (F.linear, F.conv1d, F.conv2d, F.conv3d)
"""Operations of layers: input, weight, bias and further arguments."""

Operation = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""A layer with fixed stride, groups and so on: input, weight and bias -> output."""


class LayerOverrides(OperationMode):
    """While active, dense layers and convolutions with a known weight are computed by `apply`.

    Args:
        weights: the known weights.
    """

    def __init__(self, weights: Iterable[Tensor]):
        super().__init__()
        self._known = {id(weight) for weight in weights}

    @abstractmethod
    def apply(self, operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output of a layer, in place of `operation(x, weight, bias)`.

        Args:
            operation: the layer's operation.
            x: input.
            weight: weight.
            bias: bias, if any.
        """

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Override the operation for known weights, and pass on everything else."""
        if func in OPERATIONS:
            x, weight, bias, rest, keywords = _arguments(*args, **kwargs)
            if id(weight) in self._known:
                return self.apply(
                    lambda x, weight, bias: func(x, weight, bias, *rest, **keywords),
                    x,
                    weight,
                    bias,
                )
        return func(*args, **kwargs)


def _arguments(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **keywords: Any
) -> Any:
    return input, weight, bias, rest, keywords


@dataclass(frozen=True)
class LayerUse:
    """One call of a layer's operation.

    Attributes:
        operation: one of `OPERATIONS`.
        weight: name of the weight.
        bias: name of the bias, None without one.
        shape: shape of the input.
    """

    operation: Any
    weight: str
    bias: str | None
    shape: tuple[int, ...]


def layer_uses(net: nn.Module, parameters: Mapping[str, Tensor], x: Tensor) -> list[LayerUse]:
    """Return the layers whose weight and bias are used by exactly one operation.

    None are if the pass computes gradients, which use all weights again.

    Args:
        net: any network; one forward pass is observed.
        parameters: its parameters by name.
        x: points.
    """
    recorder = _UseRecorder({id(value): name for name, value in parameters.items()})
    with torch.no_grad(), recorder:
        functional_call(net, dict(parameters), (x,))
    if recorder.has_gradients:
        return []
    result = []
    for name, calls in recorder.calls.items():
        use = calls[0]
        if len(calls) > 1 or use is None or name != use.weight:
            continue
        if use.bias is None or recorder.calls[use.bias] == [use]:
            result.append(use)
    return result


def uses_by_point(net: nn.Module, parameters: Mapping[str, Tensor], x: Tensor) -> list[LayerUse]:
    """Return those of `layer_uses` whose input has points as its first axis.

    For two points that axis has length two, and for three points length three, unlike the network's
    own sizes.

    Args:
        net: any network.
        parameters: its parameters by name.
        x: at least one point, which is repeated.
    """

    def uses(number: int) -> dict[str, LayerUse]:
        points = x[:1].repeat_interleave(number, 0)
        return {
            use.weight: use for use in layer_uses(net, parameters, points) if use.shape[0] == number
        }

    of_three = uses(3)
    return [use for weight, use in uses(2).items() if weight in of_three]


class _UseRecorder(OperationMode):
    """Records the uses of each parameter: a layer's operation, or None for any other operation."""

    def __init__(self, names: dict[int, str]):
        super().__init__()
        self._names = names
        self.calls: dict[str, list[LayerUse | None]] = {}
        self.has_gradients = False

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        self.has_gradients = self.has_gradients or func in (torch.autograd.grad, Tensor.backward)
        # Reading an attribute such as the shape does not use the values. Reading `weight.T`, a
        # tensor, does.
        if getattr(func, "__name__", "") != "__get__" or isinstance(result, Tensor):
            use = None
            if func in OPERATIONS:
                x, weight, bias, *_ = _arguments(*args, **kwargs)
                name, bias_name = self._names.get(id(weight)), self._names.get(id(bias))
                if name is not None and (bias is None) == (bias_name is None):
                    use = LayerUse(func, name, bias_name, tuple(x.shape))
            for value in tree_leaves((args, kwargs)):
                if isinstance(value, Tensor) and id(value) in self._names:
                    self.calls.setdefault(self._names[id(value)], []).append(use)
        return result
