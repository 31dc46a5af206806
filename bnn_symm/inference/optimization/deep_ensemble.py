"""Deep ensembles: MAP fits from independent initial values and data orders.

The result has one chain of one draw per member.

References:
    Lakshminarayanan, Pritzel & Blundell 2017, arXiv:1612.01474.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from bnn_symm.data import Dataset, Scaling
from bnn_symm.inference.callbacks import Callback, Callbacks, FitState, State
from bnn_symm.inference.method import FitContext, initial_positions
from bnn_symm.inference.optimization.map import mode_problem, posterior_of_states
from bnn_symm.inference.optimization.training_loop import OptimizationMethod, optimize
from bnn_symm.inference.parallel.independent_chains import ChainMethod, run_chains
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import key_seed
from bnn_symm.settings import Positive, PositiveInt, settings


@settings
class DeepEnsemble(OptimizationMethod):
    """Settings of deep ensembles (config `inference: {name: deep_ensemble}`).

    Attributes:
        num_members: number of networks in the ensemble.
        chain_method: members one after another or in parallel processes, with the same results.
    """

    name: Literal["deep_ensemble"] = "deep_ensemble"
    learning_rate: Positive = 0.003
    num_members: PositiveInt = 5
    chain_method: ChainMethod = "auto"

    def _run(self, fit: FitContext) -> bool:
        starts = initial_positions(fit.model, fit.initial, self.num_members, fit.seed)
        work = _Member(self, fit.model, fit.dataset, fit.seed, starts, fit.fit_state.states)
        states = run_chains(work, range(self.num_members), fit.callbacks, self.chain_method)
        for chain, state in states.items():
            fit.recorder.keep_state(chain, state)
        return len(states) < self.num_members or any(
            bool(state["stopped"]) for state in states.values()
        )

    def _posterior(
        self,
        model: BayesianModel,
        scaling: Scaling,
        fit_state: FitState,
        seed: int,
        keywords: dict[str, Any],
    ) -> Posterior:
        return posterior_of_states(model, scaling, fit_state.states, keywords)


@dataclass(frozen=True)
class _Member:
    """The task of fitting one ensemble member."""

    method: DeepEnsemble
    model: BayesianModel
    dataset: Dataset
    seed: int
    starts: list[Tensor]
    states: dict[int, State]

    def __call__(self, chain: int, callbacks: Callback) -> State:
        seed = key_seed(self.seed, "ensemble member", chain)
        problem = mode_problem(
            self.method, self.model, self.dataset, seed, chain, self.starts[chain]
        )
        state, stopped = optimize(problem, Callbacks([callbacks]), self.states.get(chain))
        return {**state, "stopped": np.asarray(stopped)}
