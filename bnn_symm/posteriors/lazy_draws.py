"""Define draws that stay in memory, in files or in a formula until they are read."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

# Largest number of values that `thin` reads at once (8 MB in float32).
_NUMBERS_PER_READ = 2**21


class LazyDraws:
    """Describe draws of the flat vector by a function that reads some of them.

    Derived draws (`map`, `thin`, `stack`) hold no values either: they read from their base.

    Args:
        shape: (chain, draw, parameter).
        read: (chain, start, stop) -> draws [start, stop) of the chain, (draw, parameter). It can be
            pickled if the draws have to be.

    Example:
        >>> import torch
        >>> from bnn_symm.posteriors import LazyDraws
        >>> draws = LazyDraws.from_tensor(torch.arange(10.0).reshape(2, 5, 1))
        >>> draws.thin([0, 4]).read(1, 0, 2)
        tensor([[5.],
                [9.]])
    """

    def __init__(
        self, shape: tuple[int, int, int], read: Callable[[int, int, int], Tensor]
    ) -> None:
        self.shape, self._read = shape, read

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """Return draws [start, stop) of one chain, on any device.

        Args:
            chain: index of the chain.
            start: index of the first draw.
            stop: index after the last draw.

        Returns:
            One row per draw.
        """
        return self._read(chain, start, min(stop, self.shape[1]))

    @classmethod
    def from_tensor(cls, draws: Float[Tensor, "chain draw parameter"]) -> "LazyDraws":
        """Return draws in memory, which are read as views.

        Args:
            draws: the draws.
        """
        chains, number, parameters = draws.shape
        return cls((chains, number, parameters), partial(_slice, draws))

    @classmethod
    def from_function(
        cls, draw: Callable[[int], Tensor], num_draws: int, num_parameters: int
    ) -> "LazyDraws":
        """Return one chain of independent draws, each computed from its index alone.

        Args:
            draw: index -> flat vector, (parameter,), the same at every call.
            num_draws: number of draws.
            num_parameters: length of one draw.
        """
        return cls((1, num_draws, num_parameters), partial(_compute, draw))

    @classmethod
    def stack(cls, parts: Sequence["LazyDraws"]) -> "LazyDraws":
        """Return the chains of all parts, cut to the length of the shortest.

        Args:
            parts: draws with the same parameters.
        """
        chains = [(part, chain) for part in parts for chain in range(part.shape[0])]
        length = min(part.shape[1] for part in parts)
        return cls((len(chains), length, parts[0].shape[2]), partial(_read_stacked, chains))

    def chain(self, index: int) -> "LazyDraws":
        """Return one chain.

        Args:
            index: of the chain.
        """
        return LazyDraws((1, *self.shape[1:]), partial(_read_stacked, [(self, index)]))

    def thin(self, kept: Sequence[int]) -> "LazyDraws":
        """Return some draws of every chain.

        Args:
            kept: their indices, in ascending order.
        """
        chains, _, parameters = self.shape
        return LazyDraws((chains, len(kept), parameters), partial(self._read_thinned, kept))

    def map(self, function: Callable[[int, int, Tensor], Tensor]) -> "LazyDraws":
        """Return draws that are transformed when they are read.

        Args:
            function: (chain, index of the first draw, draws) -> transformed draws, of one shape.
        """
        return LazyDraws(self.shape, partial(self._read_mapped, function))

    def _read_thinned(self, kept: Sequence[int], chain: int, start: int, stop: int) -> Tensor:
        """Read neighbors together, but not more at once than fit in a few megabytes."""
        span = max(1, _NUMBERS_PER_READ // self.shape[2])
        blocks = [list(block) for _, block in groupby(kept[start:stop], lambda draw: draw // span)]
        parts = [
            self.read(chain, block[0], block[-1] + 1)[[draw - block[0] for draw in block]]
            for block in blocks
        ]
        return torch.cat(parts)

    def _read_mapped(
        self, function: Callable[[int, int, Tensor], Tensor], chain: int, start: int, stop: int
    ) -> Tensor:
        return function(chain, start, self.read(chain, start, stop))


def _slice(draws: Tensor, chain: int, start: int, stop: int) -> Tensor:
    return draws[chain, start:stop]


def _compute(draw: Callable[[int], Tensor], chain: int, start: int, stop: int) -> Tensor:
    return torch.stack([draw(index) for index in range(start, stop)])


def _read_stacked(
    chains: Sequence[tuple[LazyDraws, int]], chain: int, start: int, stop: int
) -> Tensor:
    part, index = chains[chain]
    return part.read(index, start, stop)
