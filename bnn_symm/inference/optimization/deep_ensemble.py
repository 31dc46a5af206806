"""Deep ensembles: MAP fits from independent initial values and data orders.

The result has one chain of one draw per member.

References:
    Lakshminarayanan, Pritzel & Blundell 2017, arXiv:1612.01474.
"""

from functools import partial
from typing import Literal

import numpy as np
from torch import Tensor

from bnn_symm.inference.callbacks import Callback, State
from bnn_symm.inference.density.minibatch import SharedDensity
from bnn_symm.inference.fit_context import FitContext, FitOutcome, run_method_chains
from bnn_symm.inference.optimization.map import ModeMethod, mode_problem
from bnn_symm.inference.optimization.optimizer import AdamStepper, OptimizationProblem
from bnn_symm.inference.parallel.independent_chains import ChainMethod
from bnn_symm.inference.training_loop import Stepper, train
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import key_seed
from bnn_symm.settings import Positive, PositiveInt, settings


@settings
class DeepEnsemble(ModeMethod):
    """Settings of deep ensembles (config `inference: {name: deep_ensemble}`).

    Attributes:
        num_members: number of networks in the ensemble.
        chain_method: members one after another or in parallel processes, with the same results.
    """

    name: Literal["deep_ensemble"] = "deep_ensemble"
    learning_rate: Positive = 0.003
    num_members: PositiveInt = 5
    chain_method: ChainMethod = "auto"

    @property
    def num_networks(self) -> int:
        """Return the number of members."""
        return self.num_members

    def _run(self, fit: FitContext) -> bool:
        run_member = partial(self._run_member, SharedDensity(self))
        states = run_method_chains(fit, run_member, self.num_members, self.chain_method)
        return len(states) < self.num_members or any(
            bool(state["stopped"]) for state in states.values()
        )

    def _run_member(
        self, shared: SharedDensity, fit: FitContext, start: Tensor, chain: int, callbacks: Callback
    ) -> State:
        seed = key_seed(fit.seed, "ensemble member", chain)
        density = shared.of(fit.model, len(fit.dataset.train))
        problem = mode_problem(self, density, fit.dataset, seed, chain, start)
        stepper = self._stepper(fit.model, problem)
        state, stopped = train(stepper, callbacks, fit.fit_state.states.get(chain))
        return {**state, "stopped": np.asarray(stopped)}

    def _stepper(self, model: BayesianModel, problem: OptimizationProblem) -> Stepper:
        """Return what takes the steps of a member."""
        return AdamStepper(problem)

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        return outcome.last_positions()
