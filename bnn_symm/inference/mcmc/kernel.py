"""What a batched kernel is: it takes chains from one draw to the next, many of them together.

A kernel holds the positions of all chains. `begin` starts transitions of some chains, `advance`
works on all that are under way, and hands out those that ended. Between two calls its whole state
is plain arrays, also in the middle of a trajectory, so that it can be saved, and gone on with to
the same bits.
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
    """Transitions that ended together.

    Attributes:
        chains: their numbers.
        stats: name -> (chain,), what is said of each: acceptance_rate, diverging, energy, lp,
            n_steps, step_size.
    """

    chains: np.ndarray
    stats: dict[str, np.ndarray]


@dataclass
class ChainState:
    """Where the chains are.

    Attributes:
        position: (chain, parameter).
        energy: (chain,) U there, float64.
        gradient: (chain, parameter) of U.
        step: (chain,) step size of the transition under way.
        inverse_mass: (chain, parameter[, parameter]) of the transition under way.
    """

    position: Tensor
    energy: Tensor
    gradient: Tensor
    step: Tensor
    inverse_mass: Tensor


class Kernel(ABC):
    """Transitions of a batch of chains.

    Args:
        density: of the target.
        positions: (chain, parameter) to begin with.
        inverse_mass: (chain, parameter[, parameter]), of the shape that all later ones have.
        seed: everything random follows from it, the chain and its iteration.
    """

    is_lockstep: ClassVar[bool]
    """Whether all chains must begin together."""

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
        """Starts a transition of each of these chains.

        Args:
            chains: their numbers.
            iterations: (chain,) numbers of the transitions, keys of their randomness.
            step: (chain,) step sizes.
            inverse_mass: (chain, parameter[, parameter]).
        """

    @abstractmethod
    def advance(self) -> CompletedTransitions:
        """Works on what is under way, and hands out what ended."""

    @abstractmethod
    def _parts(self) -> dict[str, Any]:
        """The dataclasses of arrays that are the kernel's own state, by name."""

    def state(self) -> dict[str, np.ndarray]:
        """A copy of everything that the next `advance` depends on."""
        parts = {"points": self.points, **self._parts()}
        return {
            key: value
            for name, part in parts.items()
            for key, value in to_arrays(part, name).items()
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes back to a former state."""
        for name, part in {"points": self.points, **self._parts()}.items():
            restore_arrays(part, name, state)

    def _noise(self, chain: int, iteration: int) -> torch.Generator:
        return torch_generator(self._seed, "transition", chain, iteration)

    def _store_transition(self, chains: np.ndarray, step: np.ndarray, inverse_mass: Tensor) -> None:
        index = torch.from_numpy(chains)
        self.points.step[index] = torch.from_numpy(step).to(self.points.step)
        self.points.inverse_mass[index] = inverse_mass
