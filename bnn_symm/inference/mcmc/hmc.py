"""Hamiltonian Monte Carlo with a fixed trajectory length (Neal 2011, arXiv:1206.1901)."""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from pyro.infer import HMC as PyroHMC
from torch import Tensor

from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.mcmc.hmc_kernel import HMCKernel
from bnn_symm.inference.mcmc.pyro_engine import PyroSampler, RecordsEnergy
from bnn_symm.randomness import numpy_generator
from bnn_symm.settings import Fraction, Positive, PositiveInt, settings


@settings
class HMC(PyroSampler):
    """Settings of HMC (config `inference: {name: hmc}`).

    Attributes:
        trajectory_length: integration time, in units of the adapted mass matrix. A quarter period,
            pi / 2, makes consecutive draws of a whitened Gaussian independent. Pyro's default, a
            full period, returns them to their start.
        jitter: the length of each trajectory is uniform within this relative distance of
            `trajectory_length`, so that no direction is periodic.
        max_num_steps: maximum leapfrog steps of a trajectory. In warm-up at most 50, because long
            trajectories are expensive and inefficient before the mass matrix is adapted.
    """

    name: Literal["hmc"] = "hmc"
    trajectory_length: Positive = math.pi / 2
    jitter: Fraction = 0.2
    max_num_steps: PositiveInt = 1000

    def _batched_kernel(
        self, density: TemperedDensity, positions: Tensor, inverse_mass: Tensor, seed: int
    ) -> HMCKernel:
        def num_steps(iteration: int, step: np.ndarray) -> np.ndarray:
            jitter = 2 * numpy_generator(seed, "trajectory length", iteration).random() - 1
            most = (
                self.max_num_steps
                if iteration >= self.num_warmup
                else min(self.max_num_steps, _WARMUP_STEPS)
            )
            steps = np.rint(self.trajectory_length * (1 + self.jitter * jitter) / step)
            return np.clip(steps, 1, most).astype(np.int64)

        return HMCKernel(density, positions, inverse_mass, seed, num_steps=num_steps)

    def _pyro_kernel(
        self, potential: Callable[[dict[str, Tensor]], Tensor], keywords: dict[str, Any]
    ) -> PyroHMC:
        return _PyroKernel(
            self.max_num_steps, potential_fn=potential, trajectory_length=1.0, **keywords
        )

    def _before_pyro_iteration(self, kernel: PyroHMC) -> None:
        factor = 1 + self.jitter * (2 * float(torch.rand(())) - 1)
        kernel.trajectory_length = self.trajectory_length * factor


_WARMUP_STEPS = 50


class _PyroKernel(RecordsEnergy, PyroHMC):
    """Pyro's HMC with a bound on the number of leapfrog steps."""

    def __init__(self, max_num_steps: int, **keywords: Any):
        super().__init__(**keywords)
        self._max_num_steps = max_num_steps

    @property
    def num_steps(self) -> int:
        in_warmup = self._t < (self._warmup_steps or 0)
        most = min(self._max_num_steps, _WARMUP_STEPS) if in_warmup else self._max_num_steps
        return min(most, max(1, round(self.trajectory_length / self.step_size)))
