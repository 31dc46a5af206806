"""Define what predicts: a posterior at its points, or an array of class probabilities."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.data import Split
from bnn_symm.errors import InvalidData
from bnn_symm.formatting import number
from bnn_symm.models import Categorical
from bnn_symm.posteriors import Posterior, Predictive

# Largest difference of a sum of probabilities from 1. Probabilities with three decimals are
# accepted, and normalized.
_SUM_TOLERANCE = 0.01
# Largest amount by which rounding takes a probability out of [0, 1].
_ROUNDING = 1e-6


class Source(Protocol):
    """Predicts the targets of some points.

    Attributes:
        name: In messages.
        has_draws: Whether predictions are distributions over draws.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def has_draws(self) -> bool: ...  # noqa: D102
    def __len__(self) -> int: ...
    @property
    def numbers_per_point(self) -> int: ...  # noqa: D102
    def predict(self, where: slice) -> Predictive: ...  # noqa: D102
    def targets(self, where: slice) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True, eq=False)
class PosteriorSource:
    """A posterior at the points of a part.

    Attributes:
        posterior: Any posterior.
        part: Points, standardized as those of the posterior.
        name: In messages.
    """

    posterior: Posterior
    part: Split
    name: str = "the posterior"
    has_draws = True

    def __len__(self) -> int:
        return len(self.part)

    @property
    def numbers_per_point(self) -> int:
        """Return the number of outputs of all draws at one point."""
        chains, draws, _ = self.posterior.shape
        model = self.posterior.model
        x = model.inputs(self.part.x[:1])
        with torch.no_grad():
            one = model.outputs(self.posterior.read(0, 0, 1)[0].to(model.device), x)
        return chains * draws * one.shape[-1]

    def predict(self, where: slice) -> Predictive:
        """Return the predictive distribution at some points."""
        return self.posterior.predict(self.part.x[where])

    def targets(self, where: slice) -> Tensor:
        """Return the standardized targets of some points."""
        return self.part.y[where].cpu()


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferenceProbabilities:
    """Class probabilities of a reference, such as published predictions of HMC.

    Attributes:
        probabilities: (point, class), or (draw, point, class) with the predictions of every draw
            or chain; without draws there is no Wasserstein distance and no floor. Every row sums
            to 1.
        y: Class indices of the points.
        name: In messages.

    Raises:
        InvalidData: If the shapes do not match, a value is NaN or no probability, a row does not
            sum to 1, or a label is no class index.

    Example:
        >>> reference = ReferenceProbabilities(
        ...     probabilities=np.array([[0.9, 0.1], [0.2, 0.8]]), y=np.array([0, 1])
        ... )
        >>> len(reference), reference.has_draws
        (2, False)
    """

    probabilities: Float[np.ndarray, "... point class"]
    y: Int[np.ndarray, " point"]
    name: str = "probabilities"

    def __post_init__(self) -> None:
        _check(self.name, self.probabilities, self.y)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def has_draws(self) -> bool:
        """Return whether there are predictions of several draws."""
        return self.probabilities.ndim == 3

    @property
    def num_classes(self) -> int:
        """Return the number of classes."""
        return self.probabilities.shape[-1]

    @property
    def numbers_per_point(self) -> int:
        """Return the number of probabilities of all draws at one point."""
        return self._logits.shape[0] * self.num_classes

    @cached_property
    def _logits(self) -> Tensor:
        """Return log probabilities, (draw, point, class), whose softmax are the probabilities."""
        whole = torch.from_numpy(self.probabilities.astype(np.float64)).clamp(min=0)
        return (whole if self.has_draws else whole[None]).log()

    def predict(self, where: slice) -> Predictive:
        """Return the predictive distribution at some points."""
        return Predictive(
            outputs=self._logits[None, :, where], latents={}, likelihood=Categorical()
        )

    def targets(self, where: slice) -> Tensor:
        """Return the class indices of some points."""
        return torch.from_numpy(self.y[where].astype(np.int64))


def _check(name: str, probabilities: np.ndarray, y: np.ndarray) -> None:
    """Refuse arrays that are no class probabilities and labels of the same points."""
    if probabilities.ndim not in (2, 3) or 0 in probabilities.shape:
        raise InvalidData(
            f"{name}: got an array of shape {probabilities.shape}, expected (point, class) or "
            "(draw, point, class); reshape it"
        )
    points, classes = probabilities.shape[-2:]
    if y.shape != (points,):
        raise InvalidData(
            f"{name}: got labels of shape {y.shape} for {points} points, expected ({points},), one "
            "class index for each point"
        )
    values = probabilities.astype(np.float64).reshape(-1, points, classes)
    finite = np.asarray(np.isfinite(values).all((0, 2)))
    if not finite.all():
        raise InvalidData(
            f"{name}: point {_first(~finite)} has NaN or infinite values; every point needs a "
            "prediction"
        )
    outside = np.asarray(((values < -_ROUNDING) | (values > 1 + _ROUNDING)).any((0, 2)))
    sums = values.sum(2)
    apart = np.asarray((np.abs(sums - 1) > _SUM_TOLERANCE).any(0))
    if outside.any():
        point = _first(outside)
        own = values[:, point].ravel()
        shown = own[np.abs(own - 0.5).argmax()]
        raise InvalidData(
            f"{name}: point {point} has the value {number(float(shown), 4)}, expected "
            "probabilities from 0 to 1; if these are logits, save their softmax"
        )
    if apart.any():
        point = _first(apart)
        worst = sums[np.abs(sums[:, point] - 1).argmax(), point]
        raise InvalidData(
            f"{name}: the probabilities of point {point} sum to {number(float(worst), 4)}, "
            "expected 1; normalize each row, and check that the last axis is that of the classes"
        )
    wrong = (y < 0) | (y >= classes)
    if wrong.any():
        point = _first(wrong)
        raise InvalidData(
            f"{name}: the label of point {point} is {y[point]}, expected a class index from 0 to "
            f"{classes - 1}"
        )


def _first(is_wrong: np.ndarray) -> int:
    return int(np.flatnonzero(is_wrong)[0])
