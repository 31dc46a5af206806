"""Choose the method by the size of the problem: Markov chains with all points, or minibatches.

A gradient over all training points costs time in proportion to

    size = training points x stochastic parameters.

Up to `max_size`, eight members of an ensemble each start a chain of microcanonical Langevin
dynamics (`mclmc`), every step of which uses all points; up to a quarter of it, chains are longer.
Above it, four members start chains with minibatches (`sgmclmc`). Among the methods of this package,
these had the best predictions for their cost on public tables (`benchmarks/tables.py`). The energy
variance of the chains is small, because predictions and their intervals were better than at the
default of `mclmc`, for equal numbers of steps.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from bnn_symm.data import Dataset
from bnn_symm.inference.callbacks import Callback, FitState
from bnn_symm.inference.fit_context import FitContext, FitOutcome
from bnn_symm.inference.method import Method
from bnn_symm.inference.microcanonical.mclmc import MCLMC
from bnn_symm.inference.optimization.deep_ensemble import DeepEnsemble
from bnn_symm.inference.parallel.process_group import ProcessGroup
from bnn_symm.inference.sgmcmc.sgmclmc import SGMCLMC
from bnn_symm.inference.stochastic_part import stochastic_part
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import key_seed
from bnn_symm.settings import Positive, PositiveInt, settings

_CHAINS = 8
# Steps of the members from which chains start. They need not be at a mode.
_MEMBER_STEPS = 500
_WARMUP, _DRAWS = 100, 50
_LONGER_WARMUP, _MORE_DRAWS = 300, 100
# The same with minibatches. Chains need longer warm-up, because their steps are smaller.
_LARGE_CHAINS, _LARGE_MEMBER_STEPS = 4, 1000
_BATCH_SIZE, _MINIBATCH_WARMUP, _MINIBATCH_DRAWS, _THINNING = 512, 8000, 100, 40


@settings
class Automatic(Method):
    """Settings that choose the method (config `inference: {name: auto}`).

    Attributes:
        max_size: largest product of training points and parameters for which steps use all points.
        energy_variance: that of the chains, see `MCLMC`.
    """

    name: Literal["auto"] = "auto"
    max_size: PositiveInt = 20_000_000
    energy_variance: Positive = 0.00005

    def stages(self, num_points: int, num_parameters: int) -> tuple[Method, ...]:
        """Return the methods to run one after another, each from the posterior of the previous one.

        Args:
            num_points: training points.
            num_parameters: parameters of the model.

        Example:
            >>> [method.name for method in Automatic().stages(300, 5000)]
            ['deep_ensemble', 'mclmc']
            >>> [method.name for method in Automatic().stages(50_000, 5000)]
            ['deep_ensemble', 'sgmclmc']
        """
        size = num_points * num_parameters
        if size > self.max_size:
            methods = (
                DeepEnsemble(num_members=_LARGE_CHAINS, num_steps=_LARGE_MEMBER_STEPS),
                SGMCLMC(
                    num_chains=_LARGE_CHAINS,
                    batch_size=_BATCH_SIZE,
                    num_warmup=_MINIBATCH_WARMUP,
                    num_draws=_MINIBATCH_DRAWS,
                    thinning=_THINNING,
                ),
            )
        else:
            warmup, draws = (
                (_WARMUP, _DRAWS) if 4 * size > self.max_size else (_LONGER_WARMUP, _MORE_DRAWS)
            )
            methods = (
                DeepEnsemble(
                    num_members=_CHAINS, num_steps=_MEMBER_STEPS, chain_method="sequential"
                ),
                MCLMC(
                    num_chains=_CHAINS,
                    num_warmup=warmup,
                    num_draws=draws,
                    energy_variance=self.energy_variance,
                ),
            )
        return tuple(
            replace(
                method,
                temperature=self.temperature,
                tempering=self.tempering,
                parameters=self.parameters,
            )
            for method in methods
        )

    def reason(self, num_points: int, num_parameters: int) -> str:
        """Return a sentence that says what was chosen and why.

        Args:
            num_points: training points.
            num_parameters: parameters of the model.
        """
        names = " and ".join(stage.name for stage in self.stages(num_points, num_parameters))
        is_large = num_points * num_parameters > self.max_size
        return (
            f"method: {names}, because {num_points:,} training points x {num_parameters:,} "
            f"parameters are {'more than' if is_large else 'at most'} {self.max_size:,}; choose "
            "another with inference.name"
        )

    def fit(
        self,
        model: BayesianModel,
        dataset: Dataset,
        *,
        seed: int,
        initial: Posterior | None = None,
        callbacks: Sequence[Callback] = (),
        fit_state: FitState | None = None,
        group: ProcessGroup | None = None,
    ) -> Posterior:
        """Fit by the methods that the size of the problem calls for.

        Args:
            model: as for every method.
            dataset: as for every method.
            seed: as for every method.
            initial: the posterior that the first method starts from.
            callbacks: receive the history, draws and states of the last method.
            fit_state: the state of the interrupted last method.
            group: has to be one process.

        Returns:
            The posterior of the last method, equal to that of a run with this configuration.

        Raises:
            ConfigError: if there are several processes, and as for every method.
        """
        self.check_group(group or ProcessGroup())
        model, initial = stochastic_part(model, self.parameters, initial)
        *first, last = self.stages(len(dataset.train), model.num_parameters)
        for number, method in enumerate(first if fit_state is None else (), start=1):
            initial = method.fit(
                model, dataset, seed=key_seed(seed, "warm start", number), initial=initial
            )
        return last.fit(
            model, dataset, seed=seed, initial=initial, callbacks=callbacks, fit_state=fit_state
        )

    def _run(self, fit: FitContext) -> bool:
        raise self._unresolved()

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        raise self._unresolved()

    def points_per_gradient(self, num_points: int) -> int:
        """Raise, because it depends on the method that is chosen.

        Args:
            num_points: not used.

        Raises:
            TypeError: always.
        """
        raise self._unresolved()

    @staticmethod
    def _unresolved() -> TypeError:
        return TypeError("inference.name=auto stands for the methods of `stages`; ask these")
