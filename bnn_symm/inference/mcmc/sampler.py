"""What HMC, NUTS and their like share: settings, how a fit goes on, and which engine runs the
chains.

`batched`, the default, advances all chains together in one process, on matrix products of all of
them at once (`batched_chains`). `pyro` runs Pyro's own kernels, a chain a process
(`pyro_sampling`): the reference.
"""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from bnn_symm.data import Scaling, Split
from bnn_symm.inference.callbacks import FitState
from bnn_symm.inference.density.density import TemperedDensity, vectors_per_group
from bnn_symm.inference.mcmc.adaptation import Adapter
from bnn_symm.inference.mcmc.kernel import Kernel
from bnn_symm.inference.method import Method
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import DrawChunk, Posterior, stack_chains
from bnn_symm.settings import Fraction, NonNegativeInt, Positive, PositiveInt, settings

# Up to this many parameters, `mass_matrix: auto` estimates all covariances; beyond, the warm-up is
# too short for that.
_DENSE_UP_TO = 30
# From so many iterations on, `compile: auto` compiles: it takes seconds, which fewer do not win
# back.
_COMPILE_FROM = 200


@settings
class Sampler(Method):
    """Settings of every method that draws with Hamiltonian dynamics.

    Attributes:
        num_chains: chains, each from its own initial values.
        num_warmup: iterations that adapt step sizes and mass matrices, thrown away.
        num_draws: draws kept of each chain.
        target_accept_prob: that step sizes are adapted to.
        initial_step_size: where the search for a step size begins.
        mass_matrix: `diagonal`, `dense`, or `auto`: dense for up to 30 parameters.
        adapt_step_size: whether warm-up changes step sizes.
        adapt_mass_matrix: whether warm-up estimates mass matrices, beginning (Pyro's engine apart)
            with the prior's variances; otherwise they are the identity.
        adaptation: `shared`: all chains learn one step size and mass matrix together; `per_chain`:
            each its own. Pyro's engine knows only the latter.
        compile: whether the density is compiled; `auto`: if there are 200 iterations or more.
    """

    num_chains: PositiveInt = 4
    num_warmup: NonNegativeInt = 500
    num_draws: PositiveInt = 500
    target_accept_prob: Fraction = 0.8
    initial_step_size: Positive = 0.1
    mass_matrix: Literal["auto", "diagonal", "dense"] = "auto"
    adapt_step_size: bool = True
    adapt_mass_matrix: bool = True
    adaptation: Literal["shared", "per_chain"] = "shared"
    compile: bool | Literal["auto"] = "auto"

    engine: ClassVar[str] = "batched"
    is_sampler: ClassVar[bool] = True
    warmup_setting: ClassVar[str] = "num_warmup"
    # Whether mass matrices follow from how chains differ, and not only from how each moves.
    scales_across_chains: ClassVar[bool] = False

    @abstractmethod
    def _batched_kernel(
        self,
        density: TemperedDensity,
        positions: Tensor,
        inverse_mass: Tensor,
        adapter: Adapter,
        seed: int,
    ) -> Kernel:
        """The kernel that advances all chains."""

    def is_dense(self, num_parameters: int) -> bool:
        """Whether mass matrices have all their entries."""
        return self.mass_matrix == "dense" or (
            self.mass_matrix == "auto" and num_parameters <= _DENSE_UP_TO
        )

    def is_compiled(self) -> bool:
        """Whether the density is to be compiled."""
        wanted = (
            self.num_warmup + self.num_draws >= _COMPILE_FROM
            if self.compile == "auto"
            else self.compile
        )
        return wanted and self.engine == "batched"

    def shares_data(self) -> bool:
        """Whether this package's own engine runs the chains."""
        return self.engine == "batched"

    def points_per_gradient(self, num_points: int) -> int:
        """All."""
        return num_points

    def chains_per_gradient(self, model: BayesianModel, part: Split) -> int:
        """Of this package's own engine, those that are evaluated together; of Pyro's, one."""
        return vectors_per_group(model, part, self.num_chains) if self.engine == "batched" else 1

    def truncate_to_checkpoint(self, fit_state: FitState) -> FitState:
        """Back to the last state of all chains: draws and rows that came after it are made
        again.
        """
        state = fit_state.states.get(0, {})
        if "counts.done" not in state:
            return FitState()  # nothing yet, or what another engine had reached
        done = dict(enumerate(state["counts.done"].tolist()))
        wanted = {chain: max(0, number - self.num_warmup) for chain, number in done.items()}
        there = {chain: len(chunk.positions) for chain, chunk in fit_state.draws.items()}
        if any(there.get(chain, 0) < number for chain, number in wanted.items()):
            return FitState()  # draws were lost that the state builds on
        draws = {
            chain: _head(chunk, wanted[chain])
            for chain, chunk in fit_state.draws.items()
            if wanted[chain]
        }
        history = [row for row in fit_state.history if row["step"] <= done[row["chain"]]]
        return FitState({0: state}, draws, history)

    def _posterior(
        self,
        model: BayesianModel,
        scaling: Scaling,
        fit_state: FitState,
        seed: int,
        keywords: dict[str, Any],
    ) -> Posterior:
        draws = fit_state.draws
        if not draws:
            # Stopped in warm-up: the last positions, one draw a chain, are what was reached.
            keywords["info"]["warmup_only"] = True
            draws = {
                chain: DrawChunk(chain, 0, at[None], {})
                for chain, at in self._positions(fit_state).items()
            }
        return stack_chains(model, scaling, draws, **keywords)

    def _positions(self, fit_state: FitState) -> dict[int, np.ndarray]:
        """Where each chain is."""
        return dict(enumerate(fit_state.states.get(0, {}).get("points.position", [])))


def _head(chunk: DrawChunk, number: int) -> DrawChunk:
    return DrawChunk(
        chunk.chain,
        chunk.first,
        chunk.positions[:number],
        {name: stat[:number] for name, stat in chunk.stats.items()},
    )
