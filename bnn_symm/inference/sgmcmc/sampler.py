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

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference.callbacks import Callback, FitState, State, to_numpy
from bnn_symm.inference.fit_context import FitContext, FitOutcome, run_method_chains
from bnn_symm.inference.method import Method
from bnn_symm.inference.minibatches import minibatch_potential, resolve_batch_size
from bnn_symm.inference.parallel.independent_chains import ChainMethod
from bnn_symm.inference.sgmcmc.preconditioning import RMSprop
from bnn_symm.inference.training_loop import Stepper, train
from bnn_symm.inference.validation import validation_scores
from bnn_symm.posteriors import DrawChunk, LazyDraws, Posterior, SamplePosterior, stack_chains
from bnn_symm.randomness import key_seed, torch_generator
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

    def _run(self, fit: FitContext) -> bool:
        # Chains need no earlier draws, which may be large.
        fit = replace(fit, fit_state=FitState(fit.fit_state.states))
        states = run_method_chains(fit, self._run_chain, self.num_chains, self.chain_method)
        return len(states) < self.num_chains or any(
            state["step"] < self.num_steps for state in states.values()
        )

    def _run_chain(self, fit: FitContext, start: Tensor, chain: int, callbacks: Callback) -> State:
        stepper = SGMCMCStepper(self, fit, start, chain)
        return train(stepper, callbacks, fit.fit_state.states.get(chain))[0]

    def points_per_gradient(self, num_points: int) -> int:
        """Return the batch size.

        Args:
            num_points: size of the training split.
        """
        return resolve_batch_size(self.batch_size, num_points)

    def num_draws_before(self, states: Mapping[int, State]) -> dict[int, int]:
        """Return the number of draws of each chain at the time of its state."""
        return {chain: int(state["drawn"]) for chain, state in states.items()}

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

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        if outcome.fit_state.draws:
            return outcome.build(stack_chains, chains=outcome.fit_state.draws)
        # The fit stopped before the first draw: return the last positions, one draw per chain.
        outcome.info["warmup_only"] = True
        return outcome.last_positions()


class SGMCMCStepper(Stepper):
    """The steps of one chain.

    Args:
        method: the settings of the sampler.
        fit: the arguments of the fit.
        start: (parameter,), initial position.
        chain: index of the chain.
    """

    def __init__(
        self, method: StochasticGradientMethod, fit: FitContext, start: Tensor, chain: int
    ):
        self._seed = key_seed(fit.seed, "chain", chain)
        super().__init__(method, fit.dataset.train, self._seed, chain)
        self._method, self._model, self._dataset = method, fit.model, fit.dataset
        part = fit.dataset.train
        self._num_observations = part.num_observations
        self._log_jacobian = part.mean(fit.dataset.scaling.log_jacobian(part.y))
        generator = torch_generator(self._seed, "initial momentum")
        momentum = torch.randn(start.shape, generator=generator, dtype=start.dtype)
        self.tensors = {
            "position": start.detach().clone().requires_grad_(),
            "momentum": momentum.to(start.device),
        }
        if method.preconditioner is not None:
            self.tensors["mean_square"] = torch.zeros_like(self.tensors["momentum"])
        self._counts = {"learned": 0, "drawn": 0}
        self._scale_root: Tensor | float = 1.0

    def take(self, step: int) -> dict[str, float]:
        """Take one step if U is finite.

        Args:
            step: its number.

        Returns:
            The terms of U before it, on the minibatch.
        """
        method, size = self._method, self._num_observations
        stage = method.stage(step)
        position, momentum = self.tensors["position"], self.tensors["momentum"]
        x, y = self.minibatches.take(step)
        objective, log_likelihood, log_prior = minibatch_potential(
            method, self._model, position, x, y, self.num_points
        )
        terms = {
            "objective": float(objective.detach()),
            "nll": self._log_jacobian - float(log_likelihood.detach()) / size,
            "log_prior": float(log_prior.detach()),
        }
        if not math.isfinite(terms["objective"]):
            return terms
        (gradient,) = torch.autograd.grad(objective, position)
        if stage.phase != "sampling" and method.preconditioner is not None:
            mean_loss_gradient = gradient * (method.temperature / size)
            method.preconditioner.learn(self.tensors["mean_square"], mean_loss_gradient)
            self._counts["learned"] += 1
            self._update_scales()
        root = self._scale_root * math.sqrt(method.temperature * stage.learning_rate / size)
        with torch.no_grad():
            momentum.mul_(1 - stage.momentum_decay).sub_(gradient.mul_(root))
            if stage.noise:
                generator = torch_generator(self._seed, "noise", step)
                noise = torch.randn(momentum.shape, generator=generator, dtype=momentum.dtype)
                momentum.add_(noise.to(momentum.device), alpha=stage.noise)
            position.add_(momentum * root)
        return terms

    def _update_scales(self) -> None:
        """Update the square root of the scales s."""
        if self._method.preconditioner is not None and self._counts["learned"]:
            self._scale_root = self._method.preconditioner.scales(
                self.tensors["mean_square"], self._counts["learned"]
            ).sqrt()

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step.

        Args:
            step: its number.
        """
        return self._method.stage(step).learning_rate

    @property
    def step_settings(self) -> str:
        """Return the learning rate."""
        return f"inference.learning_rate (now {self._method.learning_rate:g})"

    def collects(self, step: int) -> bool:
        """Return whether the position after a number of steps is a draw."""
        return self._method.stage(step - 1).is_draw

    def collect(self, step: int, callbacks: Callback) -> None:
        """Report the current position as a draw."""
        rate = self.learning_rate(step - 1)
        stats = {
            "step_size": np.asarray([self._method.temperature * rate / self._num_observations])
        }
        position = to_numpy({"position": self.tensors["position"]})["position"]
        callbacks.on_draws(DrawChunk(self.chain, self._counts["drawn"], position[None], stats))
        self._counts["drawn"] += 1

    def row(self, step: int, seconds: float, means: Mapping[str, float]) -> dict[str, Any]:
        """Return a row of the history, with the phase of its last step."""
        phase = self._method.stage(step - 1).phase
        row = super().row(step, seconds, means)
        return {"chain": self.chain, "step": step, "phase": phase, **row}

    def validate(self, step: int) -> dict[str, float | None]:
        """Return the kinetic temperature, and the validation scores of the current position."""
        decay = self._method.stage(step - 1).momentum_decay
        scores: dict[str, float | None] = {}
        if decay < 1:
            square = float(self.tensors["momentum"].double().square().mean()) * (1 - decay / 2)
            scores["kinetic_temperature"] = self._method.temperature * square
        draws = LazyDraws.from_tensor(self.tensors["position"].detach()[None, None])
        posterior = SamplePosterior(self._model, self._dataset.scaling, positions=draws)
        return scores | validation_scores(posterior, self._dataset)

    def state(self) -> State:
        """Return the tensors and the counts."""
        return super().state() | {name: np.asarray(n) for name, n in self._counts.items()}

    def restore(self, state: State) -> None:
        """Restore a previous state.

        Args:
            state: returned by `state`.
        """
        super().restore(state)
        self._counts = {name: int(state[name]) for name in self._counts}
        self._update_scales()
