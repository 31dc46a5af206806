"""Draws that are functions of their number: made when they are read, so that they take no
memory.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


class KeyedDraws:
    """One chain of independent draws, each made by its number alone (`LazyDraws` of a
    `SamplePosterior`).

    Args:
        draw: number -> flat vector, (parameter,), the same at every call.
        num_draws: how many there are.
        num_parameters: length of one.
    """

    def __init__(self, draw: Callable[[int], Tensor], num_draws: int, num_parameters: int):
        self._draw, self._num_draws, self._num_parameters = draw, num_draws, num_parameters

    @property
    def shape(self) -> tuple[int, int, int]:
        """(chain, draw, parameter)."""
        return 1, self._num_draws, self._num_parameters

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """Draws [start, stop)."""
        return torch.stack(
            [self._draw(number) for number in range(start, min(stop, self._num_draws))]
        )
