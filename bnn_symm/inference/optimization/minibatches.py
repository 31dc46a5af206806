"""Minibatches as functions of (seed, step): an epoch is a keyed shuffle, cut into batches of one
size.

What is left over at the end of an epoch, less than a batch, is passed over; it is other points in
every epoch.
"""

from typing import Literal

import torch
from torch import Tensor

from bnn_symm.data import Split
from bnn_symm.randomness import torch_generator

# Data sets up to this size are used whole at every step when the batch size is auto; larger ones in
# minibatches.
_FULL_BATCH = 512
_MINIBATCH = 256


def resolve_batch_size(batch_size: int | Literal["auto"], num_points: int) -> int:
    """Points of a minibatch: as asked for, at most all; `auto` is all of up to 512, otherwise
    256.
    """
    if batch_size != "auto":
        return min(batch_size, num_points)
    return num_points if num_points <= _FULL_BATCH else _MINIBATCH


class Minibatches:
    """The minibatch of every step.

    Args:
        train: the points.
        batch_size: points a step, at most all.
        seed: of the order.
    """

    def __init__(self, train: Split, batch_size: int, seed: int):
        self._train, self._batch_size, self._seed = train, batch_size, seed
        self._epoch, self._order = -1, torch.empty(0)

    def take(self, step: int) -> tuple[Tensor, Tensor]:
        """Features and targets of a step."""
        train, size = self._train, self._batch_size
        if size == len(train):
            return train.x, train.y
        epoch, place = divmod(step, len(train) // size)
        if epoch != self._epoch:
            generator = torch_generator(self._seed, "data order", epoch)
            self._epoch, self._order = (
                epoch,
                torch.randperm(len(train), generator=generator).to(train.x.device),
            )
        index = self._order[place * size : (place + 1) * size]
        # Of whole rows this is several times faster than indexing, entry by entry.
        return train.x.index_select(0, index), train.y.index_select(0, index)
