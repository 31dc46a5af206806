"""The HMC kernel: trajectories with a given number of steps, all chains in lockstep.

References:
    Neal 2011, arXiv:1206.1901.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.mcmc.integrator import (
    MAX_ENERGY_ERROR,
    kinetic_energy,
    leapfrog_step,
    momentum_from_noise,
)
from bnn_symm.inference.mcmc.kernel import CompletedTransitions, Kernel
from bnn_symm.inference.mcmc.step_loop import StepLoop


@dataclass(frozen=True)
class Trajectory:
    """One trajectory of all chains, from which its length is adapted.

    Attributes:
        start: (chain, parameter) positions.
        end: (chain, parameter) proposed positions.
        momentum: (chain, parameter) at the end.
        inverse_mass: (chain, parameter[, parameter]).
        acceptance: (chain,) probabilities.
        iteration: its number.
    """

    start: Tensor
    end: Tensor
    momentum: Tensor
    inverse_mass: Tensor
    acceptance: np.ndarray
    iteration: int


@dataclass
class _Proposal:
    """Momenta (chain, parameter), uniform numbers of the acceptance step, and the iteration."""

    momentum: Tensor
    uniform: np.ndarray
    iteration: np.ndarray


# iteration, (chain,) step sizes -> (chain,) leapfrog steps
NumSteps = Callable[[int, np.ndarray], np.ndarray]


class HMCKernel(Kernel):
    """Moves every chain along one trajectory, and accepts or rejects its end.

    Args:
        density: the target density.
        positions: (chain, parameter) initial positions.
        inverse_mass: (chain, parameter[, parameter]).
        seed: all randomness derives from it.
        num_steps: returns the leapfrog steps of each chain in an iteration.
        learn: receives every trajectory.
    """

    is_lockstep = True

    def __init__(
        self,
        density: TemperedDensity,
        positions: Tensor,
        inverse_mass: Tensor,
        seed: int,
        *,
        num_steps: NumSteps,
        learn: Callable[[Trajectory], None] | None = None,
    ):
        super().__init__(density, positions, inverse_mass, seed)
        self._num_steps, self._learn = num_steps, learn
        self._trajectory = StepLoop(leapfrog_step, density, "the leapfrog step")
        chains = len(positions)
        self._proposal = _Proposal(
            torch.zeros_like(positions), np.zeros(chains), np.zeros(chains, dtype=np.int64)
        )

    def _parts(self) -> dict[str, Any]:
        return {"begun": self._proposal}

    def begin(
        self, chains: np.ndarray, iterations: np.ndarray, step: np.ndarray, inverse_mass: Tensor
    ) -> None:
        """Draw the momenta of all chains."""
        self._store_transition(chains, step, inverse_mass)
        points, proposal = self.points, self._proposal
        for chain, iteration in zip(chains.tolist(), iterations.tolist(), strict=True):
            generator = self._noise(chain, iteration)
            size = points.position.shape[1]
            proposal.momentum[chain] = torch.randn(
                size, generator=generator, dtype=points.position.dtype
            )
            proposal.uniform[chain] = float(
                torch.rand((), generator=generator, dtype=torch.float64)
            )
        proposal.momentum.copy_(momentum_from_noise(proposal.momentum, points.inverse_mass))
        proposal.iteration[:] = iterations

    def advance(self) -> CompletedTransitions:
        """Integrate the whole trajectory of every chain."""
        points, proposal = self.points, self._proposal
        chains = np.arange(len(proposal.uniform))
        iteration = int(proposal.iteration[0])
        step = points.step.cpu().double().numpy()
        number = self._num_steps(iteration, step)
        with torch.no_grad():
            start_energy = points.energy + kinetic_energy(proposal.momentum, points.inverse_mass)
            position, momentum, gradient, energy = self._trajectory(
                int(number.max()),
                (points.position, proposal.momentum, points.gradient, points.energy),
                (points.step, points.inverse_mass, torch.from_numpy(number)),
            )
            error = energy + kinetic_energy(momentum, points.inverse_mass) - start_energy
            error = torch.nan_to_num(error, nan=torch.inf).cpu().numpy()
            acceptance = np.exp(-np.maximum(error, 0.0))
            if self._learn is not None:
                self._learn(
                    Trajectory(
                        points.position,
                        position,
                        momentum,
                        points.inverse_mass,
                        acceptance,
                        iteration,
                    )
                )
            accepted = torch.from_numpy(proposal.uniform < acceptance).to(position.device)
            points.position = torch.where(accepted[:, None], position, points.position)
            points.gradient = torch.where(accepted[:, None], gradient, points.gradient)
            points.energy = torch.where(accepted, energy, points.energy)
        stats = {
            "acceptance_rate": acceptance,
            "diverging": error > MAX_ENERGY_ERROR,
            "energy": start_energy.cpu().numpy(),
            "lp": -points.energy.cpu().numpy(),
            "n_steps": number,
            "step_size": step,
        }
        return CompletedTransitions(chains, stats)
