"""Define draws that are functions of their index and computed when they are read."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


class KeyedDraws:
    """Compute one chain of independent draws, each from its index alone (`LazyDraws`).

    Args:
        draw: index -> flat vector, (parameter,), the same at every call.
        num_draws: number of draws.
        num_parameters: length of one draw.
    """

    def __init__(self, draw: Callable[[int], Tensor], num_draws: int, num_parameters: int):
        self._draw, self._num_draws, self._num_parameters = draw, num_draws, num_parameters

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (chain, draw, parameter)."""
        return 1, self._num_draws, self._num_parameters

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """Return draws [start, stop)."""
        return torch.stack(
            [self._draw(number) for number in range(start, min(stop, self._num_draws))]
        )
