"""Stochastic-gradient MCMC: the base class of SGLD, SGHMC and cyclical SGHMC.

The samplers follow the gradient, on minibatches of B of the N training points, of the tempered
potential

    U(w) = -(N / B) sum log p(y | x, w) / T - prior_weight log p(w).

The update is the same for all, with q the momentum in units in which it is Normal(0, 1):

    q' = (1 - a) q - h grad U(w) + sqrt(2 (a - b)) noise,     noise ~ Normal(0, 1)
    w' = w + h q',                                            h^2 = T learning_rate s / N

a is the momentum decay, b the noise estimate, s the preconditioner's scale of each coordinate (1
without one). With v = h q and eta = h^2 this is equation 15 of Chen et al. In contrast to v, q
remains correct when the step size changes. a = 1 is SGLD with the step eps = 2 eta:
w' = w - eps / 2 grad U + sqrt(eps) noise.

So `learning_rate` is that of SGD (with momentum 1 - a) on the mean loss T U / N, for every size of
the data and every temperature: T scales the noise, and the prior relative to the likelihood. The
target density is exp(-U), as everywhere in this package.

There is no accept/reject step. The distribution of the draws differs from exp(-U) by terms of the
order of the learning rate, due to the discretization and the noise of the minibatches.

References:
    Welling & Teh 2011 (SGLD); Chen, Fox & Guestrin 2014, arXiv:1402.4102 (SGHMC); Li et al. 2016,
    arXiv:1512.07666 (preconditioning); Wenzel et al. 2020, arXiv:2002.02405 (learning rate, kinetic
    temperature).
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from bnn_symm.data import Dataset, Scaling
from bnn_symm.errors import ConfigError
from bnn_symm.inference.callbacks import FitState, State
from bnn_symm.inference.method import Method
from bnn_symm.inference.optimization.map import posterior_of_states
from bnn_symm.inference.optimization.minibatches import resolve_batch_size
from bnn_symm.inference.parallel.independent_chains import ChainMethod
from bnn_symm.inference.sgmcmc.preconditioning import RMSprop
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior, stack_chains
from bnn_symm.settings import Positive, PositiveInt, settings


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The settings of one step.

    Attributes:
        phase: `warmup`, `exploration` or `sampling`; the preconditioner adapts in all but the last.
        learning_rate: learning rate of the step.
        momentum_decay: a.
        noise: scale of the noise, sqrt(2 (a - b)); 0 for none.
        is_draw: whether the position after the step is a draw.
    """

    phase: Literal["warmup", "exploration", "sampling"]
    learning_rate: float
    momentum_decay: float
    noise: float
    is_draw: bool


@settings
class StochasticGradientMethod(Method):
    """Settings of all stochastic-gradient samplers.

    Attributes:
        num_chains: number of chains; each has its own initial values, data order and noise.
        chain_method: chains one after another or in parallel processes, with the same results.
        batch_size: points per step; `auto` is all of up to 512, otherwise 256.
        learning_rate: learning rate of SGD on the mean loss T U / N, which also determines the
            noise.
        preconditioner: scale steps by the running mean of squared gradients; null for no scaling.
        log_every: steps between rows of the history; `auto` gives about 200 rows.
    """

    is_sampler: ClassVar[bool] = True

    num_chains: PositiveInt = 4
    chain_method: ChainMethod = "auto"
    batch_size: PositiveInt | Literal["auto"] = "auto"
    learning_rate: Positive = 0.01
    preconditioner: RMSprop | None = None
    log_every: PositiveInt | Literal["auto"] = "auto"

    @property
    @abstractmethod
    def num_steps(self) -> int:
        """Return the number of steps of each chain."""

    @abstractmethod
    def stage(self, step: int) -> Stage:
        """Return the settings of a step.

        Args:
            step: counted from 0.
        """

    def points_per_gradient(self, num_points: int) -> int:
        """Return the batch size.

        Args:
            num_points: size of the training split.
        """
        return resolve_batch_size(self.batch_size, num_points)

    def num_draws_before(self, states: Mapping[int, State]) -> dict[int, int]:
        """Return the number of draws of each chain at the time of its state."""
        return {chain: int(state["drawn"]) for chain, state in states.items()}

    def truncate_to_checkpoint(self, fit_state: FitState) -> FitState:
        """Return the fit state at the last state of each chain, without later draws and rows.

        Args:
            fit_state: the state of an interrupted fit.
        """
        result = FitState()
        for chain, num_draws in self.num_draws_before(fit_state.states).items():
            state, chunk = fit_state.states[chain], fit_state.draws.get(chain)
            if num_draws > (0 if chunk is None else len(chunk.positions)):
                continue  # draws before the state are missing, so the chain restarts
            result.states[chain] = state
            if chunk is not None and num_draws:
                result.draws[chain] = chunk.part(0, num_draws)
        ends = {chain: int(state["step"]) for chain, state in result.states.items()}
        result.history = [
            row for row in fit_state.history if row["step"] <= ends.get(row["chain"], -1)
        ]
        return result

    def check(self, dataset: Dataset) -> None:
        """Check that the preconditioner has steps in which it adapts.

        Args:
            dataset: not used.

        Raises:
            ConfigError: if it has none.
        """
        if self.preconditioner is not None and self.stage(0).phase == "sampling":
            raise ConfigError(
                "inference.preconditioner adapts only before sampling, but there is no warm-up; "
                "raise inference.num_warmup (inference.exploration of cyclical_sghmc), or set "
                "inference.preconditioner=null"
            )

    def _posterior(
        self,
        model: BayesianModel,
        scaling: Scaling,
        fit_state: FitState,
        seed: int,
        keywords: dict[str, Any],
    ) -> Posterior:
        if fit_state.draws:
            return stack_chains(model, scaling, fit_state.draws, **keywords)
        # The fit stopped before the first draw: return the last positions, one draw per chain.
        keywords["info"]["warmup_only"] = True
        return posterior_of_states(model, scaling, fit_state.states, keywords)
