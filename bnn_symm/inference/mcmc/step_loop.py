"""Repeat one step of all chains, always in the same memory.

Where networks are small, a call of a compiled function takes ten times as long as the kernels that
it calls. A step that modifies its arguments in place can be replayed (`Replayed`), which calls the
kernels alone.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bnn_symm.inference.density.compiled import Replayed
from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.mcmc.integrator import Evaluate, bind_density

# (evaluate, index, *state, *constants) -> the next state. The index of the step is an int64 tensor
# of shape (1,).
Step = Callable[..., tuple[Tensor, ...]]


class StepLoop:
    """A loop of steps of all chains.

    All calls must have tensors of the same shapes and dtypes.

    Args:
        step: one step, a function without effects.
        density: evaluates the positions.
        name: the name of the step in warnings.
    """

    def __init__(self, step: Step, density: TemperedDensity, name: str):
        self._step = bind_density(functools.partial(_step_in_place, step), density, name)
        self._tensors: list[Tensor] = []
        self._replayed: Replayed | None = None

    def __call__(
        self, number: int, state: Sequence[Tensor], constants: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Return the state after a number of steps.

        Args:
            number: of steps.
            state: before the first step.
            constants: the other arguments of every step.
        """
        values = [*state, *constants]
        if self._replayed is None:
            device = values[0].device
            index = torch.zeros(1, dtype=torch.int64, device=device)
            self._tensors = [index, *(value.to(device, copy=True) for value in values)]
            self._replayed = Replayed(self._step, self._tensors)
        else:
            self._tensors[0].zero_()
            for tensor, value in zip(self._tensors[1:], values, strict=True):
                tensor.copy_(value)
        for _ in range(number):
            self._replayed()
        return tuple(tensor.clone() for tensor in self._tensors[1 : 1 + len(state)])


def _step_in_place(step: Step, evaluate: Evaluate, index: Tensor, *tensors: Tensor) -> None:
    """Replace the state, the first of the tensors, by the next one, and count the step."""
    for tensor, value in zip(tensors, step(evaluate, index, *tensors), strict=False):
        tensor.copy_(value)
    index.add_(1)
