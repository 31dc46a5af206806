"""The base class of HMC, NUTS and ChEES-HMC: settings, resumption and the choice of the engine.

The engine `batched`, the default, advances all chains together in one process, with batched matrix
products (`batched_chains`). The engine `pyro` runs Pyro's own kernels, one chain per process
(`pyro_engine`). It is the reference.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from bnn_symm.data import Dataset, Split
from bnn_symm.errors import ConfigError
from bnn_symm.inference.callbacks import FitState, State
from bnn_symm.inference.density.density import (
    TemperedDensity,
    is_compilable,
    vectors_per_group,
)
from bnn_symm.inference.fit_context import FitOutcome
from bnn_symm.inference.mcmc.kernel import Kernel
from bnn_symm.inference.method import Method
from bnn_symm.inference.parallel.process_group import ProcessGroup
from bnn_symm.inference.stopping.gain_test import GainTest
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import DrawChunk, Posterior, stack_chains
from bnn_symm.settings import Fraction, NonNegativeInt, Positive, PositiveInt, settings

# Iterations of a chain between rows of its history.
LOG_EVERY = 20
# Up to this many parameters, `mass_matrix: auto` estimates all covariances. With more, the warm-up
# is too short to estimate them.
_DENSE_UP_TO = 30
# From this number of iterations on, `compile: auto` compiles. Compilation takes seconds, which
# shorter runs do not recover.
_COMPILE_FROM = 200


@settings
class Sampler(Method):
    """Settings of all samplers with Hamiltonian dynamics.

    Attributes:
        num_chains: number of chains; each has its own initial values.
        num_warmup: iterations that adapt step sizes and mass matrices; they are discarded.
        num_draws: draws per chain.
        target_accept_prob: acceptance probability to which step sizes are adapted.
        initial_step_size: where the search for a step size starts.
        mass_matrix: `diagonal`, `dense`, or `auto`: dense for up to 30 parameters.
        adapt_step_size: whether warm-up adapts step sizes.
        adapt_mass_matrix: whether warm-up estimates mass matrices. They start at the variances of
            the prior (except with Pyro's engine). Otherwise they are the identity.
        adaptation: `shared`: all chains adapt one step size and mass matrix together; `per_chain`:
            each chain adapts its own. Pyro's engine supports only the latter.
        compile: whether the density is compiled; `auto`: if there are 200 iterations or more.
        gain_test: stop when the validation split shows that the draws no longer gain over the
            ensemble that the chains start from; null for never.
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
    gain_test: GainTest | None = None

    engine: ClassVar[str] = "batched"
    is_sampler: ClassVar[bool] = True
    warmup_setting: ClassVar[str] = "num_warmup"
    # Whether mass matrices include the variance between chains, not only that within them.
    scales_across_chains: ClassVar[bool] = False
    # Whether the first step size is searched for with leapfrog steps.
    finds_first_step_size: ClassVar[bool] = True

    @abstractmethod
    def _batched_kernel(
        self, density: TemperedDensity, positions: Tensor, inverse_mass: Tensor, seed: int
    ) -> Kernel:
        """Return the kernel that advances all chains."""

    @property
    def steps_per_chain(self) -> int:
        """Return the number of iterations of each chain."""
        return self.num_warmup + self.num_draws

    def check(self, dataset: Dataset) -> None:
        """Check that a test of the gain is possible.

        Args:
            dataset: the data to fit.

        Raises:
            ConfigError: if the engine has no such test, or the validation split is too small.
        """
        if self.gain_test is None:
            return
        if self.engine != "batched":
            raise ConfigError(
                f"inference.gain_test needs inference.engine=batched, got {self.engine}"
            )
        self.gain_test.check(dataset)

    def check_group(self, group: ProcessGroup) -> None:
        """Check that the method supports the number of processes.

        Args:
            group: the processes of the fit.

        Raises:
            ConfigError: if there are several, and the engine or a test of the gain does not.
        """
        super().check_group(group)
        if group.size > 1 and self.gain_test is not None:
            raise ConfigError(
                f"inference.gain_test runs in one process, got {group.size}; start it without "
                "torchrun, or set inference.gain_test=null"
            )

    def is_dense(self, num_parameters: int) -> bool:
        """Return whether mass matrices are dense.

        Args:
            num_parameters: number of parameters of the model.
        """
        return self.mass_matrix == "dense" or (
            self.mass_matrix == "auto" and num_parameters <= _DENSE_UP_TO
        )

    def adapts_to_acceptance(self) -> bool:
        """Return whether step sizes are adapted to acceptance probabilities."""
        return self.adapt_step_size

    def is_compiled(self, model: BayesianModel) -> bool:
        """Return whether the density of a model is compiled if a compiler is available.

        Args:
            model: the model.
        """
        compiles = (
            self.num_warmup + self.num_draws >= _COMPILE_FROM
            if self.compile == "auto"
            else self.compile
        )
        return compiles and self.engine == "batched" and is_compilable(model)

    def shares_data(self) -> bool:
        """Return whether the engine is `batched`, which supports several processes."""
        return self.engine == "batched"

    def points_per_gradient(self, num_points: int) -> int:
        """Return the number of training points: every gradient uses all of them."""
        return num_points

    def chains_per_gradient(self, model: BayesianModel, part: Split) -> int:
        """Return the chains that the batched engine evaluates together; for Pyro's engine, 1."""
        return vectors_per_group(model, part, self.num_chains) if self.engine == "batched" else 1

    def num_draws_before(self, states: Mapping[int, State]) -> dict[int, int]:
        """Return the number of draws of each chain at the time of the state of all chains."""
        done = states.get(0, {}).get("counts.done", np.zeros(0, dtype=np.int64))
        return {
            chain: max(0, number - self.num_warmup) for chain, number in enumerate(done.tolist())
        }

    def truncate_to_checkpoint(self, fit_state: FitState) -> FitState:
        """Return the fit state at the last checkpoint, without later draws and rows."""
        state = fit_state.states.get(0, {})
        if "counts.done" not in state:
            return FitState()  # there is no checkpoint, or it is that of another engine
        done = dict(enumerate(state["counts.done"].tolist()))
        num_draws = self.num_draws_before(fit_state.states)
        available = {chain: len(chunk.positions) for chain, chunk in fit_state.draws.items()}
        if any(available.get(chain, 0) < number for chain, number in num_draws.items()):
            return FitState()  # draws before the checkpoint are missing
        draws = {
            chain: chunk.part(0, num_draws[chain])
            for chain, chunk in fit_state.draws.items()
            if num_draws[chain]
        }
        history = [row for row in fit_state.history if row["step"] <= done.get(row["chain"], -1)]
        return FitState({0: state}, draws, history)

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        draws = outcome.fit_state.draws
        if not draws:
            # The fit stopped in warm-up: return the last positions, one draw per chain.
            outcome.info["warmup_only"] = True
            draws = {
                chain: DrawChunk(chain, 0, position[None], {})
                for chain, position in self._positions(outcome.fit_state).items()
            }
        return outcome.build(stack_chains, chains=draws)

    def row_is_due(self, done: int) -> bool:
        """Return whether the history has a row after a number of iterations of a chain.

        Args:
            done: iterations of the chain, warm-up included.
        """
        in_phase = done if done <= self.num_warmup else done - self.num_warmup
        return in_phase % LOG_EVERY == 0 or done in (
            self.num_warmup,
            self.num_warmup + self.num_draws,
        )

    def _positions(self, fit_state: FitState) -> dict[int, np.ndarray]:
        """Return the current position of each chain."""
        return dict(enumerate(fit_state.states.get(0, {}).get("points.position", [])))
