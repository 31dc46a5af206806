"""Find a function of dropout that a forward pass calls."""

import inspect
from typing import Any

import torch.nn.functional as F
from torch import nn

from bnn_symm.symmetry.tracing.source_lines import calling_position
from bnn_symm.torch_internals import OperationMode

_SIGNATURES = {
    function: inspect.signature(function)
    for function in (
        F.dropout,
        F.dropout1d,
        F.dropout2d,
        F.dropout3d,
        F.alpha_dropout,
        F.feature_alpha_dropout,
    )
}


class DropoutCalls(OperationMode):
    """While active, records the first active call of dropout.

    Attributes:
        rate: that of the call; zero if there was none.
        position: the line and the module of the call.
    """

    def __init__(self, net: nn.Module) -> None:
        """Prepare to observe a pass of a network."""
        super().__init__()
        self._net = net
        self.rate = 0.0
        self.position = ""

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the operation, and record it if it drops something."""
        if self.rate == 0 and func in _SIGNATURES:
            call = _SIGNATURES[func].bind(*args, **kwargs)
            call.apply_defaults()
            if call.arguments["training"] and call.arguments["p"] > 0:
                self.rate, self.position = float(call.arguments["p"]), calling_position(self._net)
        return func(*args, **kwargs)
