"""Minibatches as functions of (seed, step): each epoch is a keyed shuffle, cut into equal batches.

The remainder of an epoch, less than a batch, is skipped. It has different points in every epoch.
Where steps need batches that do not depend on each other, each is drawn with replacement.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from bnn_symm.data import Split
from bnn_symm.models import BayesianModel
from bnn_symm.randomness import torch_generator

# With batch size auto, data sets up to this size are used in full batches, and larger ones in
# minibatches.
_FULL_BATCH = 512
_MINIBATCH = 256


def resolve_batch_size(batch_size: int | Literal["auto"], num_points: int) -> int:
    """Return the number of points of a minibatch: `batch_size`, but at most all points.

    Args:
        batch_size: the setting; `auto` is all points of up to 512, and 256 of more.
        num_points: size of the training split.
    """
    if batch_size != "auto":
        return min(batch_size, num_points)
    return num_points if num_points <= _FULL_BATCH else _MINIBATCH


def minibatch_potential(
    method: Any, model: BayesianModel, flat: Tensor, x: Tensor, y: Tensor, num_points: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return minus the tempered log density, estimated from a minibatch, in nats.

    Args:
        method: has temperature and prior weight.
        model: the model.
        flat: the flat vector.
        x: features of the minibatch.
        y: targets of the minibatch.
        num_points: size of the training split.

    Returns:
        The potential, the log likelihood of the whole training split and the log prior.
    """
    log_likelihood = model.log_likelihood(flat, x, y).sum(dtype=torch.float64) * (
        num_points / len(x)
    )
    log_prior = model.log_prior(flat)
    value = -log_likelihood / method.temperature - method.prior_weight * log_prior
    return value, log_likelihood, log_prior


class Minibatches:
    """The minibatch of every step.

    Args:
        train: the points.
        batch_size: points per step, at most all.
        seed: determines the order of the points.
    """

    def __init__(self, train: Split, batch_size: int, seed: int):
        self._train, self._batch_size, self._seed = train, batch_size, seed
        self._epoch, self._order = -1, torch.empty(0)

    def take(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the features and targets of a step, with the weights of the points, if any.

        Args:
            step: counted from 0.
        """
        train, size = self._train, self._batch_size
        if size == len(train):
            return train.x, train.targets
        epoch, place = divmod(step, len(train) // size)
        if epoch != self._epoch:
            generator = torch_generator(self._seed, "data order", epoch)
            self._epoch, self._order = (
                epoch,
                torch.randperm(len(train), generator=generator).to(train.x.device),
            )
        index = self._order[place * size : (place + 1) * size]
        # For whole rows this is several times faster than indexing entry by entry.
        return train.x.index_select(0, index), train.targets.index_select(0, index)


class IndependentMinibatches(Minibatches):
    """A minibatch of every step that does not depend on those of other steps.

    Points are drawn with replacement. So sums over a batch of B points, times N / B, have N^2 / B
    times the covariance of a point, and no correlation over time, also with B = N.
    """

    _step, _batch = -1, (torch.empty(0), torch.empty(0))

    def take(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the features and targets of a step, with the weights of the points, if any.

        Args:
            step: counted from 0.
        """
        if step != self._step:
            train = self._train
            generator = torch_generator(self._seed, "points", step)
            index = torch.randint(len(train), (self._batch_size,), generator=generator)
            index = index.to(train.x.device)
            self._batch = train.x.index_select(0, index), train.targets.index_select(0, index)
            self._step = step
        return self._batch
