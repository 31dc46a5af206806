"""Stochastic-gradient MCMC: the base class of the samplers whose steps use minibatches.

The samplers follow the gradient, on minibatches of B of the N training points, of the tempered
potential

    U(w) = -(N / B) sum log p(y | x, w) / T - prior_weight log p(w).

The target density is exp(-U), as everywhere in this package. There is no accept/reject step, so the
distribution of the draws differs from it, due to the discretization and the noise of the
minibatches. The methods say how much.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.inference.callbacks import Callback, FitState, State, to_numpy
from bnn_symm.inference.density.minibatch import MinibatchDensity, SharedDensity, compiles
from bnn_symm.inference.fit_context import FitContext, FitOutcome, run_method_chains
from bnn_symm.inference.method import Method
from bnn_symm.inference.minibatches import resolve_batch_size
from bnn_symm.inference.parallel.independent_chains import ChainMethod
from bnn_symm.inference.training_loop import Stepper, train
from bnn_symm.inference.validation import validation_scores
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import DrawChunk, LazyDraws, Posterior, SamplePosterior, stack_chains
from bnn_symm.randomness import key_seed, torch_generator
from bnn_symm.settings import PositiveInt, settings


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a step is for.

    Attributes:
        phase: `warmup`, `exploration` or `sampling`; scales adapt in all but the last.
        is_draw: whether the position after the step is a draw.
    """

    phase: Literal["warmup", "exploration", "sampling"]
    is_draw: bool


@settings
class StochasticGradientMethod(Method):
    """Settings of all stochastic-gradient samplers.

    Attributes:
        num_chains: number of chains; each has its own initial values, data order and noise.
        chain_method: chains one after another or in parallel processes, with the same results.
        batch_size: points per step; `auto` is all of up to 512, otherwise 256.
        log_every: steps between rows of the history; `auto` gives about 200 rows.
        compile: whether gradients of fully connected networks are compiled, on the CPU; `auto`: if
            there are 20,000 steps of all chains or more.
    """

    is_sampler: ClassVar[bool] = True

    num_chains: PositiveInt = 4
    chain_method: ChainMethod = "auto"
    batch_size: PositiveInt | Literal["auto"] = "auto"
    log_every: PositiveInt | Literal["auto"] = "auto"
    compile: bool | Literal["auto"] = "auto"

    @property
    @abstractmethod
    def num_steps(self) -> int:
        """Return the number of steps of each chain."""

    @abstractmethod
    def stage(self, step: int) -> Stage:
        """Return what a step is for.

        Args:
            step: counted from 0.
        """

    @abstractmethod
    def _stepper(self, fit: FitContext, start: Tensor, chain: int) -> "SGMCMCStepper":
        """Return the steps of one chain."""

    def _run(self, fit: FitContext) -> bool:
        # Chains need no earlier draws, which may be large.
        fit = replace(fit, fit_state=FitState(fit.fit_state.states))
        run_chain = partial(self._run_chain, SharedDensity(self))
        states = run_method_chains(fit, run_chain, self.num_chains, self.chain_method)
        return len(states) < self.num_chains or any(
            state["step"] < self.num_steps for state in states.values()
        )

    def _run_chain(
        self,
        density: SharedDensity,
        fit: FitContext,
        start: Tensor,
        chain: int,
        callbacks: Callback,
    ) -> State:
        stepper = self._stepper(fit, start, chain)
        stepper.density = density.of(fit.model, len(fit.dataset.train))
        return train(stepper, callbacks, fit.fit_state.states.get(chain))[0]

    def is_compiled(self, model: BayesianModel) -> bool:
        """Return whether gradients of the model are compiled if a compiler is available.

        Args:
            model: the model.
        """
        return compiles(self.compile, model, self.num_chains * self.num_steps)

    def points_per_gradient(self, num_points: int) -> int:
        """Return the batch size.

        Args:
            num_points: size of the training split.
        """
        return resolve_batch_size(self.batch_size, num_points)

    def num_draws_before(self, states: Mapping[int, State]) -> dict[int, int]:
        """Return the number of draws of each chain at the time of its state."""
        return {chain: int(state["drawn"]) for chain, state in states.items()}

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        if outcome.fit_state.draws:
            return outcome.build(stack_chains, chains=outcome.fit_state.draws)
        # The fit stopped before the first draw: return the last positions, one draw per chain.
        outcome.info["warmup_only"] = True
        return outcome.last_positions()


class SGMCMCStepper(Stepper):
    """The steps of one chain, without the dynamics.

    Args:
        method: the settings of the sampler.
        fit: the arguments of the fit.
        chain: index of the chain.

    Attributes:
        tensors: `position`, (parameter,), and what the dynamics need.
        counts: `learned`, the gradients from which scales were learned, and `drawn`.
        density: U and its gradient.
    """

    density: MinibatchDensity

    def __init__(self, method: StochasticGradientMethod, fit: FitContext, chain: int):
        self._seed = key_seed(fit.seed, "chain", chain)
        super().__init__(method, fit.dataset.train, self._seed, chain)
        self._stages, self._model, self._dataset = method, fit.model, fit.dataset
        part = fit.dataset.train
        self._num_observations = part.num_observations
        self._log_jacobian = part.mean(fit.dataset.scaling.log_jacobian(part.y))
        self.counts = {"learned": 0, "drawn": 0}

    @abstractmethod
    def step_size(self, step: int) -> float:
        """Return the step size that is stored with a draw.

        Args:
            step: its number.
        """

    def noise(self, *key: int | str) -> Float[Tensor, " parameter"]:
        """Return standard normal numbers.

        Args:
            key: they are a function of the seed and this key.
        """
        like = self.tensors["position"]
        generator = torch_generator(self._seed, *key)
        return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)

    def potential_gradient(
        self, position: Float[Tensor, " parameter"], step: int
    ) -> tuple[Float[Tensor, " parameter"] | None, dict[str, float]]:
        """Return the gradient of U on the minibatch of a step, or None if U is not finite.

        Args:
            position: where.
            step: its number.

        Returns:
            The gradient, and the terms of U for the history.
        """
        gradient, values = self.density(position, *self.minibatches.take(step))
        terms = self._named(values)
        return gradient if math.isfinite(terms["objective"]) else None, terms

    def potential(self, position: Float[Tensor, " parameter"], step: int) -> dict[str, float]:
        """Return the terms of U on the minibatch of a step.

        Args:
            position: where.
            step: its number.
        """
        with torch.no_grad():
            terms = self.density.potential(position, *self.minibatches.take(step))
        return self._named(torch.stack(terms))

    def _named(self, values: Float[Tensor, " 3"]) -> dict[str, float]:
        """Return the terms of U for the history."""
        objective, log_likelihood, log_prior = values.tolist()
        return {
            "objective": objective,
            "nll": self._log_jacobian - log_likelihood / self._num_observations,
            "log_prior": log_prior,
        }

    def collects(self, step: int) -> bool:
        """Return whether the position after a number of steps is a draw."""
        return self._stages.stage(step - 1).is_draw

    def collect(self, step: int, callbacks: Callback) -> None:
        """Report the current position as a draw."""
        stats = {"step_size": np.asarray([self.step_size(step - 1)])}
        position = to_numpy({"position": self.tensors["position"]})["position"]
        callbacks.on_draws(DrawChunk(self.chain, self.counts["drawn"], position[None], stats))
        self.counts["drawn"] += 1

    def row(self, step: int, seconds: float, means: Mapping[str, float]) -> dict[str, Any]:
        """Return a row of the history, with the phase of its last step."""
        phase = self._stages.stage(step - 1).phase
        row = super().row(step, seconds, means)
        return {"chain": self.chain, "step": step, "phase": phase, **row}

    def validate(self, step: int) -> dict[str, float | None]:
        """Return the validation scores of the current position."""
        draws = LazyDraws.from_tensor(self.tensors["position"].detach()[None, None])
        posterior = SamplePosterior(self._model, self._dataset.scaling, positions=draws)
        return validation_scores(posterior, self._dataset)

    def state(self) -> State:
        """Return the tensors and the counts."""
        return super().state() | {name: np.asarray(n) for name, n in self.counts.items()}

    def restore(self, state: State) -> None:
        """Restore a previous state.

        Args:
            state: returned by `state`.
        """
        super().restore(state)
        self.counts = {name: int(state[name]) for name in self.counts}
        self.update_scales()

    @abstractmethod
    def update_scales(self) -> None:
        """Derive the scales of the coordinates from the tensors and the counts."""
