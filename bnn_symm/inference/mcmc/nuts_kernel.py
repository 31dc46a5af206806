"""The No-U-Turn kernel for many chains, which do not wait for each other.

Vectorized samplers usually advance all chains by a whole transition, and every transition takes as
long as the largest tree among the chains. Here, a batch advances by one leapfrog step: each chain
is at its own leaf of its own tree, and starts its next transition when its tree is complete. So no
gradient is wasted. The trees are tensors (`nuts_tree`). Where networks are small, a leaf is one
replayed kernel, and Python only records complete transitions.

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

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnn_symm.inference.density.compiled import Compiled, Replayed
from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.mcmc.integrator import kinetic_energy, momentum_from_noise
from bnn_symm.inference.mcmc.kernel import CompletedTransitions, Kernel
from bnn_symm.inference.mcmc.nuts_tree import (
    SUBTREE_COMPLETE,
    TRANSITION_COMPLETE,
    Checkpoints,
    Trees,
    compile_leaf_step,
    join_and_start,
    store_leaf,
)

# Up to this many numbers in the checkpoints, a leaf is compared with all of them. With more, it is
# compared with those that it needs, which are listed for every leaf.
_COMPARE_ALL = 2**17
# Maximum number of leaves that are added before the driver is asked whether to stop.
_MOST_LEAVES = 64


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
        self._trees = Trees.new(positions, max_depth)
        self._checkpoints = Checkpoints.of(max_depth, positions.device)
        state = [*vars(self._trees).values(), *vars(self.points).values()]
        self._tensors = [*state, *vars(self._checkpoints).values()]
        compares_all = self._trees.first_momentum.numel() <= _COMPARE_ALL
        self._lists_pairs = not (compares_all and density.can_be_inlined)
        step = compile_leaf_step(density, lists_pairs=self._lists_pairs)
        self._leaf_step = step if self._lists_pairs else Replayed(step, self._tensors)
        join = join_and_start
        if density.is_compiled:
            join = Compiled(join, "the end of a subtree")
        self._join_and_start = Replayed(join, state)

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
            for uniform in (trees.choose_direction, trees.choose_subtree):
                uniform[chain] = torch.rand(
                    self._max_depth, generator=generator, dtype=torch.float64
                )
            trees.choose_leaf[:, chain] = torch.rand(
                2**self._max_depth, generator=generator, dtype=noise.dtype
            )
        momentum = momentum_from_noise(noise, inverse_mass)
        trees.start_energy[index] = points.energy[index] + kinetic_energy(momentum, inverse_mass)
        trees.end_position[:, index] = points.position[index]
        trees.end_momentum[:, index] = momentum
        trees.end_gradient[:, index] = points.gradient[index]
        trees.tree_sum[index] = momentum
        for zeroed in (trees.tree_log_weight, trees.depth, trees.leaves, trees.acceptance):
            zeroed[index] = 0
        trees.under_way[index] = trees.starts[index] = True
        with torch.no_grad():
            self._join_and_start()

    def advance(self) -> CompletedTransitions:
        """Add leaves to the trees of all active chains, until a transition is complete.

        Where a leaf takes long, and at least every 64 leaves, return without one.
        """
        pending = 0
        with torch.no_grad():
            for _ in range(1 if self._lists_pairs else _MOST_LEAVES):
                if self._lists_pairs:
                    self._leaf_step(*self._tensors, *self._pairs())
                    store_leaf(self._trees, self._checkpoints)
                else:
                    self._leaf_step()
                pending = int(self._trees.pending)
                if pending & SUBTREE_COMPLETE:
                    self._join_and_start()
                    pending = int(self._trees.pending)
                if pending & TRANSITION_COMPLETE:
                    break
        ended = self._trees.ended.cpu().numpy()
        return self._complete(np.flatnonzero(ended) if pending else np.arange(0))

    def _pairs(self) -> Tensor:
        """Return (2, pair): chains, and checkpoints with which their next leaves are compared.

        A chain is listed for every subtree that its leaf ends, with the checkpoint of the first
        leaf of that subtree.
        """
        trees, checkpoints = self._trees, self._checkpoints
        leaf = torch.where(trees.under_way, trees.leaf, 0).cpu().numpy()
        last = checkpoints.last.cpu().numpy()[leaf]
        number = last - checkpoints.before.cpu().numpy()[leaf]
        ending = np.repeat(np.arange(len(leaf)), number)
        rank = np.arange(len(ending)) - np.repeat(np.cumsum(number) - number, number)
        # Compiled functions take any number of pairs from two on. Those of chain 0 and a checkpoint
        # that it does not need are ignored.
        pairs = np.zeros((2, max(len(ending), 2)), dtype=np.int64)
        pairs[0, : len(ending)], pairs[1, : len(ending)] = ending, last[ending] - rank
        return torch.from_numpy(pairs).to(trees.leaf.device)

    def _complete(self, chains: np.ndarray) -> CompletedTransitions:
        if not len(chains):
            return CompletedTransitions(chains, {})
        trees, points, index = self._trees, self.points, torch.from_numpy(chains)
        trees.under_way[index] = False

        def of_chains(values: Tensor) -> np.ndarray:
            return values[index].cpu().numpy()

        leaves = of_chains(trees.leaves)
        stats = {
            "acceptance_rate": of_chains(trees.acceptance) / np.maximum(leaves, 1),
            "diverging": of_chains(trees.diverging),
            "energy": of_chains(trees.start_energy),
            "lp": -of_chains(points.energy),
            "n_steps": leaves,
            "step_size": of_chains(points.step).astype(np.float64),
        }
        return CompletedTransitions(chains, stats)
