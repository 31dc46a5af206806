"""The interface of batched kernels, which advance many chains from one draw to the next.

A kernel holds the positions of all chains. `begin` starts transitions of some chains. `advance`
works on all active transitions, and returns those that are complete. Between two calls, also within
a trajectory, the whole state is plain arrays, so that it can be saved and resumed with bitwise
identical results.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.mcmc.adaptation import restore_arrays, to_arrays
from bnn_symm.randomness import torch_generator


@dataclass(frozen=True)
class CompletedTransitions:
    """Transitions that were completed together.

    Attributes:
        chains: indices of their chains.
        stats: name -> (chain,) statistics: acceptance_rate, diverging, energy, lp, n_steps,
            step_size.
    """

    chains: np.ndarray
    stats: dict[str, np.ndarray]


@dataclass
class ChainState:
    """The state of all chains.

    Attributes:
        position: (chain, parameter).
        energy: (chain,) potential energy U, float64.
        gradient: (chain, parameter) gradient of U.
        step: (chain,) step size of the current transition.
        inverse_mass: (chain, parameter[, parameter]) of the current transition.
    """

    position: Tensor
    energy: Tensor
    gradient: Tensor
    step: Tensor
    inverse_mass: Tensor


class Kernel(ABC):
    """Base class of transition kernels for a batch of chains.

    Args:
        density: the target density.
        positions: (chain, parameter) initial positions.
        inverse_mass: (chain, parameter[, parameter]), with the shape of all later ones.
        seed: all randomness derives from it, the chain and the iteration.
    """

    is_lockstep: ClassVar[bool]
    """Whether all chains must start their transitions together."""

    def __init__(
        self, density: TemperedDensity, positions: Tensor, inverse_mass: Tensor, seed: int
    ):
        self._density, self._seed = density, seed
        energy, gradient = density(positions)
        step = positions.new_ones(len(positions))
        self.points = ChainState(
            positions.clone(), energy.clone(), gradient.clone(), step, inverse_mass.clone()
        )

    @abstractmethod
    def begin(
        self, chains: np.ndarray, iterations: np.ndarray, step: np.ndarray, inverse_mass: Tensor
    ) -> None:
        """Start a transition of each of these chains.

        Args:
            chains: their indices.
            iterations: (chain,) numbers of the transitions, which key their randomness.
            step: (chain,) step sizes.
            inverse_mass: (chain, parameter[, parameter]).
        """

    @abstractmethod
    def advance(self) -> CompletedTransitions:
        """Advance the active transitions, and return those that are complete."""

    @abstractmethod
    def _parts(self) -> dict[str, Any]:
        """Return the dataclasses of arrays that make up the kernel's own state, by name."""

    def state(self) -> dict[str, np.ndarray]:
        """Return a copy of everything on which the next `advance` depends."""
        parts = {"points": self.points, **self._parts()}
        return {
            key: value
            for name, part in parts.items()
            for key, value in to_arrays(part, name).items()
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore a previous state.

        Args:
            state: returned by `state`.
        """
        for name, part in {"points": self.points, **self._parts()}.items():
            restore_arrays(part, name, state)

    def _noise(self, chain: int, iteration: int) -> torch.Generator:
        return torch_generator(self._seed, "transition", chain, iteration)

    def _store_transition(self, chains: np.ndarray, step: np.ndarray, inverse_mass: Tensor) -> None:
        index = torch.from_numpy(chains)
        self.points.step[index] = torch.from_numpy(step).to(self.points.step)
        self.points.inverse_mass[index] = inverse_mass
