"""The No-U-Turn kernel for many chains, which do not wait for each other.

Vectorized samplers usually advance all chains by a whole transition, and every transition takes as
long as the largest tree among the chains. Here, a batch advances by one leapfrog step: each chain
is at its own leaf of its own tree, and starts its next transition when its tree is complete. So no
gradient is wasted.

A tree is built iteratively. The leaves of a subtree of depth d are numbered from 0 to 2^d - 1. At
an even leaf n, its momentum and the sum of momenta so far are stored as checkpoint number
popcount(n >> 1). An odd leaf n ends as many balanced subtrees as n has trailing ones in binary, and
each of them is checked against the checkpoint of its first leaf. So log2 of the leaves are stored,
not all of them (Phan & Pradhan 2019, arXiv:1912.11554, section 3; Lao & Dillon 2019).

Sampling is multinomial within subtrees and biased towards the newer subtree when two are joined
(Betancourt 2017, arXiv:1701.02434, appendix A.3). A trajectory turns if the sum of momenta rho,
without half of its ends, has no positive product with the velocity at one of the ends.

References:
    Hoffman & Gelman 2014, arXiv:1111.4246.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.mcmc.integrator import MAX_ENERGY_ERROR, kinetic_energy, momentum_from_noise
from bnn_symm.inference.mcmc.kernel import CompletedTransitions, Kernel
from bnn_symm.inference.mcmc.nuts_tree import compile_leaf_step, is_turning


@dataclass
class _Trees:
    """The trees of all chains, (chain, ...), each within its newest subtree.

    Of the newest subtree: `position`, `momentum`, `gradient` of its last leaf; `drawn_*`, its
    sample so far; `sum` of its momenta; `log_weight`; `direction` in time; `leaf`, the index of the
    next leaf; `first_momentum`, `first_sum`, the checkpoints, the last of which is never read. Of
    the tree without it: `end_*`, both ends (backward, forward); `tree_sum`; `tree_log_weight`;
    `depth`. Its sample is the kernel's point. Of the transition: `start_energy`, `acceptance`
    summed over `leaves`, and uniform numbers `choose_leaf`, `choose_subtree`, `choose_direction`.
    """

    position: Tensor
    momentum: Tensor
    gradient: Tensor
    drawn_position: Tensor
    drawn_gradient: Tensor
    drawn_energy: Tensor
    sum: Tensor
    log_weight: Tensor
    first_momentum: Tensor
    first_sum: Tensor
    end_position: Tensor
    end_momentum: Tensor
    end_gradient: Tensor
    tree_sum: Tensor
    start_energy: Tensor
    direction: Tensor
    tree_log_weight: np.ndarray
    choose_leaf: np.ndarray
    choose_subtree: np.ndarray
    choose_direction: np.ndarray
    leaf: np.ndarray
    depth: np.ndarray
    leaves: np.ndarray
    acceptance: np.ndarray
    under_way: np.ndarray


def _new_trees(positions: Tensor, max_depth: int) -> _Trees:
    chains, size = positions.shape

    def rows(*leading: int) -> Tensor:
        return positions.new_zeros(*leading, size)

    def double() -> Tensor:
        return positions.new_zeros(chains, dtype=torch.float64)

    def counts() -> np.ndarray:
        return np.zeros(chains, dtype=np.int64)

    return _Trees(
        position=rows(chains),
        momentum=rows(chains),
        gradient=rows(chains),
        drawn_position=rows(chains),
        drawn_gradient=rows(chains),
        drawn_energy=double(),
        sum=rows(chains),
        log_weight=double(),
        first_momentum=rows(chains, max_depth),
        first_sum=rows(chains, max_depth),
        end_position=rows(2, chains),
        end_momentum=rows(2, chains),
        end_gradient=rows(2, chains),
        tree_sum=rows(chains),
        start_energy=double(),
        direction=positions.new_ones(chains),
        tree_log_weight=np.zeros(chains),
        choose_leaf=positions.new_zeros(2**max_depth, chains).cpu().numpy(),
        choose_subtree=np.zeros((chains, max_depth)),
        choose_direction=np.zeros((chains, max_depth)),
        leaf=counts(),
        depth=counts(),
        leaves=counts(),
        acceptance=np.zeros(chains),
        under_way=np.zeros(chains, dtype=bool),
    )


class NUTSKernel(Kernel):
    """Grows the trees of all chains leaf by leaf.

    Args:
        density: the target density.
        positions: (chain, parameter) initial positions.
        inverse_mass: (chain, parameter[, parameter]).
        seed: all randomness derives from it.
        max_depth: a tree has at most 2^max_depth - 1 leaves besides its start.
    """

    is_lockstep = False

    def __init__(
        self,
        density: TemperedDensity,
        positions: Tensor,
        inverse_mass: Tensor,
        seed: int,
        *,
        max_depth: int,
    ):
        super().__init__(density, positions, inverse_mass, seed)
        self._max_depth = max_depth
        self._trees = _new_trees(positions, max_depth)
        self._leaf_step = compile_leaf_step(density)
        leaves = range(2 ** max(max_depth - 1, 0))
        # Odd leaves are stored too, at a checkpoint that is never read, so that all chains are
        # treated alike.
        unread = max_depth - 1
        self._checkpoint = np.array(
            [unread if leaf % 2 else (leaf >> 1).bit_count() for leaf in leaves]
        )
        # Checkpoints of the subtrees that end at a leaf, one for each of its trailing ones.
        self._ended = [
            np.arange((leaf >> 1).bit_count(), (leaf >> 1).bit_count() - _trailing_ones(leaf), -1)
            for leaf in leaves
        ]
        self._num_ended = np.array([len(ended) for ended in self._ended])
        self._chains = np.arange(len(positions))

    def _parts(self) -> dict[str, Any]:
        return {"trees": self._trees}

    def begin(
        self, chains: np.ndarray, iterations: np.ndarray, step: np.ndarray, inverse_mass: Tensor
    ) -> None:
        """Draw momenta and the direction of the first subtree."""
        self._store_transition(chains, step, inverse_mass)
        trees, points = self._trees, self.points
        index = torch.from_numpy(chains)
        noise = points.position.new_empty(len(chains), points.position.shape[1])
        for row, (chain, iteration) in enumerate(
            zip(chains.tolist(), iterations.tolist(), strict=True)
        ):
            generator = self._noise(chain, iteration)
            noise[row] = torch.randn(noise.shape[1], generator=generator, dtype=noise.dtype)
            for name in ("choose_direction", "choose_subtree"):
                uniform = torch.rand(self._max_depth, generator=generator, dtype=torch.float64)
                getattr(trees, name)[chain] = uniform.numpy()
            uniform = torch.rand(2**self._max_depth, generator=generator, dtype=noise.dtype)
            trees.choose_leaf[:, chain] = uniform.numpy()
        momentum = momentum_from_noise(noise, inverse_mass)
        trees.start_energy[index] = points.energy[index] + kinetic_energy(momentum, inverse_mass)
        trees.end_position[:, index] = points.position[index]
        trees.end_momentum[:, index] = momentum
        trees.end_gradient[:, index] = points.gradient[index]
        trees.tree_sum[index] = momentum
        trees.tree_log_weight[chains] = 0.0
        trees.depth[chains] = trees.leaves[chains] = 0
        trees.acceptance[chains] = 0.0
        trees.under_way[chains] = True
        self._begin_subtrees(chains)

    def _begin_subtrees(self, chains: np.ndarray) -> None:
        """Start a subtree at one end of each tree, in a random direction."""
        trees, index = self._trees, torch.from_numpy(chains)
        forward = trees.choose_direction[chains, trees.depth[chains]] < 0.5
        end = torch.from_numpy(forward.astype(np.int64))
        trees.direction[index] = 2.0 * end.to(trees.direction) - 1.0
        trees.position[index] = trees.end_position[end, index]
        trees.momentum[index] = trees.end_momentum[end, index]
        trees.gradient[index] = trees.end_gradient[end, index]
        trees.sum[index] = 0.0
        trees.log_weight[index] = -math.inf
        trees.leaf[chains] = 0

    def advance(self) -> CompletedTransitions:
        """Add one leaf to the tree of every active chain."""
        trees, points = self._trees, self.points
        device = trees.position.device
        leaf = np.where(trees.under_way, trees.leaf, 0)
        ending = np.repeat(self._chains, self._num_ended[leaf])
        # The compiled function takes any number of pairs from two on. Results of padding are
        # ignored.
        pairs = np.zeros((2, max(len(ending), 2)), dtype=np.int64)
        pairs[0, : len(ending)] = ending
        pairs[1, : len(ending)] = np.concatenate([self._ended[number] for number in leaf.tolist()])
        uniform = trees.choose_leaf[trees.leaves, self._chains]
        with torch.no_grad():
            (
                trees.position,
                trees.momentum,
                trees.gradient,
                trees.drawn_position,
                trees.drawn_gradient,
                trees.drawn_energy,
                trees.sum,
                trees.log_weight,
                weight,
                ended_turn,
            ) = self._leaf_step(
                trees.position,
                trees.momentum,
                trees.gradient,
                trees.direction * points.step,
                points.inverse_mass,
                trees.start_energy,
                trees.log_weight,
                torch.from_numpy(uniform).to(device),
                trees.drawn_position,
                trees.drawn_gradient,
                trees.drawn_energy,
                trees.sum,
                trees.first_momentum,
                trees.first_sum,
                torch.from_numpy(self._checkpoint[leaf]).to(device),
                *torch.from_numpy(pairs).to(device),
            )
            weights = weight.cpu().numpy()
            trees.leaves += trees.under_way
            trees.acceptance += np.where(trees.under_way, np.exp(np.minimum(weights, 0.0)), 0.0)
            diverging = weights < -MAX_ENERGY_ERROR
            ends = diverging.copy()
            ends[ending[ended_turn.cpu().numpy()[: len(ending)]]] = True
            complete = trees.under_way & ~ends & (trees.leaf + 1 == 2**trees.depth)
            trees.leaf += 1
            if complete.any():
                chains = np.flatnonzero(complete)
                ends[chains] = self._join(chains)
                grown = chains[~ends[chains]]
                if len(grown):
                    self._begin_subtrees(grown)
        return self._complete(np.flatnonzero(trees.under_way & ends), diverging)

    def _join(self, chains: np.ndarray) -> np.ndarray:
        """Join complete subtrees to their trees; return which trees are complete."""
        trees, points = self._trees, self.points
        index = torch.from_numpy(chains)
        log_weight = trees.log_weight[index].cpu().numpy()
        odds = np.exp(np.minimum(log_weight - trees.tree_log_weight[chains], 0.0))
        taken = torch.from_numpy(chains[trees.choose_subtree[chains, trees.depth[chains]] < odds])
        points.position[taken] = trees.drawn_position[taken]
        points.gradient[taken] = trees.drawn_gradient[taken]
        points.energy[taken] = trees.drawn_energy[taken]
        trees.tree_log_weight[chains] = np.logaddexp(trees.tree_log_weight[chains], log_weight)
        end = (trees.direction[index] > 0).long().cpu()
        trees.end_position[end, index] = trees.position[index]
        trees.end_momentum[end, index] = trees.momentum[index]
        trees.end_gradient[end, index] = trees.gradient[index]
        trees.tree_sum[index] += trees.sum[index]
        trees.depth[chains] += 1
        turning = is_turning(
            trees.tree_sum[index],
            trees.end_momentum[0, index],
            trees.end_momentum[1, index],
            points.inverse_mass[index],
        )
        return turning.cpu().numpy() | (trees.depth[chains] == self._max_depth)

    def _complete(self, chains: np.ndarray, diverging: np.ndarray) -> CompletedTransitions:
        if not len(chains):
            return CompletedTransitions(chains, {})
        trees, points = self._trees, self.points
        trees.under_way[chains] = False
        index = torch.from_numpy(chains)
        stats = {
            "acceptance_rate": trees.acceptance[chains] / np.maximum(trees.leaves[chains], 1),
            "diverging": diverging[chains],
            "energy": trees.start_energy[index].cpu().numpy(),
            "lp": -points.energy[index].cpu().numpy(),
            "n_steps": trees.leaves[chains],
            "step_size": points.step[index].cpu().double().numpy(),
        }
        return CompletedTransitions(chains, stats)


def _trailing_ones(number: int) -> int:
    return (number ^ (number + 1)).bit_length() - 1
