"""ChEES-HMC: HMC whose trajectory length is adapted by many chains together.

All chains take the same number of leapfrog steps, h_n T / step, h_n in (0, 1) a Halton sequence.
In warm-up, log T ascends the gradient of the expected change of the squared distance from the mean,
estimated across chains:

    ChEES = E[(|z' - E z'|^2 - |z - E z|^2)^2] / 4,
    dChEES/dT = h_n E[(|z' - E z'|^2 - |z - E z|^2) (z' - E z')^T v'],

with z the position in units of the scales of the mass matrix, v' the velocity of z at the end, and
acceptance probabilities as weights. Mass matrices are estimated across chains. In the first half of
warm-up, before the first estimate, trajectories are bounded and T stays at 1, in units of the
prior's scales.

Step sizes are adapted to the mean of the acceptance probabilities, not to their harmonic mean as in
the paper. A single chain that would reject lowers the harmonic mean so much that, with the paper's
target of 0.651, the mean was 0.85 to 0.94, with 8 to 35 % fewer effective samples per gradient
(`benchmarks/README.md`).

In contrast to NUTS, no tree is built and no point is discarded, but all scales share one length.

References:
    Hoffman, Radul & Sountsov 2021, PMLR 130.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.fit_context import FitContext
from bnn_symm.inference.mcmc.batched_chains import run_batched
from bnn_symm.inference.mcmc.hmc_kernel import HMCKernel, Trajectory
from bnn_symm.inference.mcmc.sampler import Sampler
from bnn_symm.settings import Fraction, PositiveInt, settings

# Adam on log T, as in the paper: rate, decay of the squares, no momentum.
_RATE, _DECAY, _EPSILON = 0.025, 0.95, 1e-8
# The newest value has weight n^-0.5 in the average of log T.
_AVERAGING = 0.5
# Maximum leapfrog steps in the first half of warm-up.
_EARLY_STEPS = 50


@settings
class ChEESHMC(Sampler):
    """Settings of ChEES-HMC (config `inference: {name: chees_hmc}`).

    Attributes:
        num_chains: at least four, because the length is adapted to the spread of the chains; dozens
            are better.
        max_num_steps: maximum leapfrog steps of a trajectory.
    """

    name: Literal["chees_hmc"] = "chees_hmc"
    num_chains: PositiveInt = 32
    num_warmup: PositiveInt = 400
    num_draws: PositiveInt = 100
    target_accept_prob: Fraction = 0.75
    max_num_steps: PositiveInt = 1000

    scales_across_chains: ClassVar[bool] = True

    def check(self, dataset: Dataset) -> None:
        """Check that there are enough chains and that they share their adaptation.

        Args:
            dataset: the data to fit.

        Raises:
            ConfigError: if they do not, or a test of the gain is not possible.
        """
        super().check(dataset)
        if self.num_chains < 4:
            raise ConfigError(
                f"inference.num_chains of chees_hmc is {self.num_chains}, expected at least 4 to "
                "adapt the trajectory length; use hmc or nuts for fewer chains"
            )
        if self.adaptation != "shared":
            raise ConfigError(
                "inference.adaptation of chees_hmc must be shared, because all chains take the "
                "same number of steps"
            )

    def _run(self, fit: FitContext) -> bool:
        return run_batched(self, fit)

    def _batched_kernel(
        self, density: TemperedDensity, positions: Tensor, inverse_mass: Tensor, seed: int
    ) -> "_ChEESKernel":
        return _ChEESKernel(self, density, positions, inverse_mass, seed)


@dataclass
class _Length:
    """The adapted log T, its average and its gradients' mean square, arrays of one number."""

    log_length: np.ndarray
    log_length_mean: np.ndarray
    mean_square: np.ndarray
    updates: np.ndarray


class _ChEESKernel(HMCKernel):
    """An HMC kernel with an adapted trajectory length."""

    def __init__(
        self,
        method: ChEESHMC,
        density: TemperedDensity,
        positions: Tensor,
        inverse_mass: Tensor,
        seed: int,
    ):
        super().__init__(
            density, positions, inverse_mass, seed, num_steps=self._steps, learn=self._climb
        )
        self._method = method
        self._length = _Length(np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1, dtype=np.int64))

    def _parts(self) -> dict[str, Any]:
        return {**super()._parts(), "length": self._length}

    def _steps(self, iteration: int, step: np.ndarray) -> np.ndarray:
        warming = iteration < self._method.num_warmup
        log_length = (self._length.log_length if warming else self._length.log_length_mean)[0]
        number = math.ceil(halton(iteration) * math.exp(log_length) / float(step[0]))
        most = self._method.max_num_steps
        return np.full(
            len(step),
            np.clip(number, 1, min(most, _EARLY_STEPS) if self._is_early(iteration) else most),
        )

    def _is_early(self, iteration: int) -> bool:
        return iteration < self._method.num_warmup // 2

    def _climb(self, trajectory: Trajectory) -> None:
        if trajectory.iteration >= self._method.num_warmup or self._is_early(trajectory.iteration):
            return
        length, step = self._length, float(self.points.step[0])
        gradient = (
            chees_gradient(trajectory)
            * halton(trajectory.iteration)
            * math.exp(length.log_length[0])
        )
        length.updates += 1
        if math.isfinite(gradient):
            length.mean_square[:] = _DECAY * length.mean_square + (1 - _DECAY) * gradient**2
            corrected = length.mean_square[0] / (1 - _DECAY ** int(length.updates[0]))
            length.log_length += _RATE * gradient / (math.sqrt(corrected) + _EPSILON)
        # At least one step, at most the maximum number of steps.
        bounds = math.log(step), math.log(step * self._method.max_num_steps)
        length.log_length[:] = np.clip(length.log_length, *bounds)
        weight = float(length.updates[0]) ** -_AVERAGING
        length.log_length_mean[:] = (
            weight * length.log_length + (1 - weight) * length.log_length_mean
        )


def chees_gradient(trajectory: Trajectory) -> float:
    """Return the gradient of ChEES with respect to T, without the factor h_n.

    Args:
        trajectory: one trajectory of all chains.

    Returns:
        The gradient, or NaN if no chain would accept.
    """
    weights = trajectory.acceptance
    finite = np.isfinite(trajectory.end.double().sum(-1).cpu().numpy())
    weights = np.where(finite, weights, 0.0)
    if weights.sum() <= 0:
        return math.nan
    scale = trajectory.inverse_mass
    if scale.dim() == 3:
        scale = scale.diagonal(dim1=-2, dim2=-1)
        along = (trajectory.inverse_mass @ trajectory.momentum[..., None])[..., 0] / scale.sqrt()
    else:
        along = trajectory.momentum * scale.sqrt()
    share = trajectory.end.new_tensor(weights / weights.sum())[:, None]
    start = trajectory.start / scale.sqrt()
    end = (trajectory.end / scale.sqrt()).where(share > 0, 0.0)
    from_start = start - start.mean(0)
    from_end = end - (share * end).sum(0)
    gain = from_end.square().sum(-1) - from_start.square().sum(-1)
    slope = gain * (from_end * along.where(share > 0, 0.0)).sum(-1)
    return float((share[:, 0] * slope).double().sum())


def halton(number: int) -> float:
    """Return an element of the Halton sequence in base 2, in (0, 1).

    Args:
        number: its index, counted from 0.
    """
    result, fraction, number = 0.0, 0.5, number + 1
    while number:
        number, digit = divmod(number, 2)
        result += digit * fraction
        fraction /= 2
    return result
