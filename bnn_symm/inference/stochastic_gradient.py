r"""Stochastic-gradient MCMC: what SGLD, SGHMC and cyclical SGHMC share.

They follow the gradient, on minibatches of B of the N training points, of the tempered potential

    U(w) = -(N / B) sum log p(y | x, w) / T - prior_weight log p(w),

with one update, in which q is the momentum in units that make its law Normal(0, 1):

    q' = (1 - a) q - h grad U(w) + sqrt(2 (a - b)) noise,     noise ~ Normal(0, 1)
    w' = w + h q',                                            h^2 = T learning_rate s / N

a is the momentum decay, b the noise estimate, s the preconditioner's scale of each coordinate (1 without one). With
v = h q and eta = h^2 this is equation 15 of Chen et al.; q in place of v stays right where the step size changes. With
a = 1 it is SGLD with the step eps = 2 eta: w' = w - eps / 2 grad U + sqrt(eps) noise.

So `learning_rate` is that of SGD (with momentum 1 - a) on the mean loss T U / N, at every size of the data and every
temperature: T scales the noise, and the prior against the likelihood. The law that is sampled is exp(-U), as
everywhere in this package.

Nothing is accepted or rejected. Draws are of a law that differs from exp(-U) by terms of the order of the learning
rate, from the discretisation and from the noise of the minibatches.

References:
    Welling & Teh 2011 (SGLD); Chen, Fox & Guestrin 2014, arXiv:1402.4102 (SGHMC); Li et al. 2016, arXiv:1512.07666
    (preconditioning); Wenzel et al. 2020, arXiv:2002.02405 (learning rate, kinetic temperature).
"""

import math
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from bnn_symm.data import Dataset, Scaling
from bnn_symm.errors import ConfigError, FitDiverged
from bnn_symm.inference.callbacks import Callback, Reached, State, to_numpy
from bnn_symm.inference.chains import ChainMethod, run_chains
from bnn_symm.inference.map import posterior_of_states
from bnn_symm.inference.method import Fit, Method, initial_positions
from bnn_symm.inference.minibatches import Minibatches, points_a_step
from bnn_symm.inference.preconditioning import RMSprop
from bnn_symm.inference.validation import validation_scores
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import ArrayPositions, DrawChunk, Posterior, SamplePosterior, stack_chains
from bnn_symm.randomness import key_seed, torch_generator
from bnn_symm.settings import Positive, PositiveInt, settings


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a method does at one step.

    Attributes:
        phase: `warmup`, `exploration` or `sampling`; the preconditioner learns in all but the last.
        learning_rate: of the step.
        momentum_decay: a.
        noise: factor of the noise, sqrt(2 (a - b)); 0 for none.
        is_draw: whether the position after it is a draw.
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
        num_chains: chains, each from its own initial values, with data order and noise of its own.
        chain_method: chains one after another or in parallel processes, with the same results.
        batch_size: points a step; `auto` is all of up to 512, otherwise 256.
        learning_rate: of SGD on the mean loss T U / N; see the module for how noise follows from it.
        preconditioner: null for none.
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
        """Steps of each chain."""

    @abstractmethod
    def stage(self, step: int) -> Stage:
        """What is done at a step, counted from 0."""

    def points_per_gradient(self, num_points: int) -> int:
        """The batch size."""
        return points_a_step(self.batch_size, num_points)

    def rewind(self, reached: Reached) -> Reached:
        """Each chain back to its last state: draws and rows that came after it are made again."""
        back = Reached()
        for chain, state in reached.states.items():
            wanted, chunk = int(state["drawn"]), reached.draws.get(chain)
            if wanted > (0 if chunk is None else len(chunk.positions)):
                continue  # draws were lost that the state builds on: the chain begins again
            back.states[chain] = state
            if chunk is not None and wanted:
                stats = {name: values[:wanted] for name, values in chunk.stats.items()}
                back.draws[chain] = DrawChunk(chain, 0, chunk.positions[:wanted], stats)
        ends = {chain: int(state["step"]) for chain, state in back.states.items()}
        back.history = [row for row in reached.history if row["step"] <= ends.get(row["chain"], -1)]
        return back

    def check(self, dataset: Dataset) -> None:
        """Also that the preconditioner has steps to learn in."""
        if self.preconditioner is not None and self.stage(0).phase == "sampling":
            raise ConfigError(
                "inference.preconditioner learns before draws are made only, and there are no steps before; give "
                "inference.num_warmup (of cyclical_sghmc inference.exploration), or inference.preconditioner=null"
            )

    def _run(self, fit: Fit) -> bool:
        starts = initial_positions(fit.model, fit.initial, self.num_chains, fit.seed)
        work = _Chain(self, fit.model, fit.dataset, fit.seed, starts, fit.reached.states)
        try:
            states = run_chains(work, range(self.num_chains), fit.callbacks, self.chain_method)
        except FitDiverged as error:
            for chain, state in error.state.items():
                fit.collector.keep_state(chain, state)
            raise
        for chain, state in states.items():
            fit.collector.keep_state(chain, state)
        return len(states) < self.num_chains or any(state["step"] < self.num_steps for state in states.values())

    def _posterior(
        self, model: BayesianModel, scaling: Scaling, reached: Reached, seed: int, keywords: dict[str, Any]
    ) -> Posterior:
        if reached.draws:
            return stack_chains(model, scaling, reached.draws, **keywords)
        # Stopped before the first draw: the last positions, one draw a chain, are what was reached.
        keywords["info"]["warmup_only"] = True
        return posterior_of_states(model, scaling, reached.states, keywords)


@dataclass(frozen=True)
class _Chain:
    """The work of one chain, as another process gets it."""

    method: StochasticGradientMethod
    model: BayesianModel
    dataset: Dataset
    seed: int
    starts: list[Tensor]
    states: dict[int, State]

    def __call__(self, chain: int, callbacks: Callback) -> State:
        return _Walk(self, chain).run(callbacks)


class _Walk:
    """A chain on its way."""

    def __init__(self, work: _Chain, chain: int):
        self._method, self._model, self._dataset = work.method, work.model, work.dataset
        self._chain = chain
        self._seed = key_seed(work.seed, "chain", chain)
        train = work.dataset.train
        self._batch_size = work.method.points_per_gradient(len(train))
        self._batches = Minibatches(train, self._batch_size, self._seed)
        position = work.starts[chain].detach().clone()
        generator = torch_generator(self._seed, "initial momentum")
        momentum = torch.randn(position.shape, generator=generator, dtype=position.dtype).to(position.device)
        self._tensors = {"position": position.requires_grad_(), "momentum": momentum}
        if work.method.preconditioner is not None:
            self._tensors["mean_square"] = torch.zeros_like(momentum)
        self._counts = {"step": 0, "learned": 0, "drawn": 0}
        self._window: dict[str, float] = {}
        seconds = 0.0
        state = work.states.get(chain)
        if state is not None:
            self._restore(state)
            seconds = float(state["seconds"])
        self._started = time.perf_counter() - seconds
        self._scale_root: Tensor | float = self._root_of_scales()

    def run(self, callbacks: Callback) -> State:
        """Goes on to the end, or until it is to stop.

        Raises:
            FitDiverged: with the last good state as its attribute `state`.
        """
        method, counts = self._method, self._counts
        log_every = method.log_every if method.log_every != "auto" else max(1, method.num_steps // 200)
        good = latest = self.state()
        while counts["step"] < method.num_steps:
            if counts["step"] % log_every == 0:
                callbacks.on_state(self._chain, self.state)
            if callbacks.should_stop():
                break
            stage = method.stage(counts["step"])
            terms = self._advance(stage)
            if not math.isfinite(terms["objective"]):
                raise self._diverged(terms["objective"], good)
            good = latest
            counts["step"] += 1
            for name, term in terms.items():
                self._window[name] = self._window.get(name, 0.0) + term
            row_is_due = counts["step"] % log_every == 0 or counts["step"] == method.num_steps
            if (row_is_due or stage.is_draw) and not torch.isfinite(self._tensors["position"]).all():
                raise self._diverged(math.nan, good)
            if stage.is_draw:
                self._tell_draw(stage, callbacks)
            if row_is_due:
                callbacks.on_history(self._row(stage, counts["step"] % log_every or log_every))
                latest = self.state()
        return self.state()

    def state(self) -> State:
        """Everything that the rest of the chain follows from."""
        numbers = {**self._counts, "seconds": time.perf_counter() - self._started}
        numbers |= {_WINDOW + name: total for name, total in self._window.items()}
        return {**to_numpy(self._tensors), **{name: np.asarray(number) for name, number in numbers.items()}}

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(torch.from_numpy(state[name]))
        self._counts = {name: int(state[name]) for name in self._counts}
        self._window = {
            name.removeprefix(_WINDOW): float(total) for name, total in state.items() if name.startswith(_WINDOW)
        }

    def _advance(self, stage: Stage) -> dict[str, float]:
        """One step, unless U is not finite. The terms of U, each estimated on the minibatch, before it."""
        method, model, size = self._method, self._model, len(self._dataset.train)
        position, momentum = self._tensors["position"], self._tensors["momentum"]
        x, y = self._batches.take(self._counts["step"])
        log_likelihood = model.log_likelihood(position, x, y).sum(dtype=torch.float64) * (size / len(x))
        log_prior = model.log_prior(position)
        objective = -log_likelihood / method.temperature - method.prior_weight * log_prior
        log_scale = math.log(self._dataset.scaling.y_scale)
        terms = {"objective": float(objective.detach())}
        terms |= {"nll": log_scale - float(log_likelihood.detach()) / size, "log_prior": float(log_prior.detach())}
        if not math.isfinite(terms["objective"]):
            return terms
        (gradient,) = torch.autograd.grad(objective, position)
        if stage.phase != "sampling":
            self._learn(gradient * (method.temperature / size))
        root = self._scale_root * math.sqrt(method.temperature * stage.learning_rate / size)
        with torch.no_grad():
            momentum.mul_(1 - stage.momentum_decay).sub_(gradient.mul_(root))
            if stage.noise:
                generator = torch_generator(self._seed, "noise", self._counts["step"])
                noise = torch.randn(momentum.shape, generator=generator, dtype=momentum.dtype)
                momentum.add_(noise.to(momentum.device), alpha=stage.noise)
            position.add_(momentum * root)
        return terms

    def _learn(self, gradient: Tensor) -> None:
        """Of the preconditioner, if there is one, from a gradient of the mean loss."""
        if self._method.preconditioner is not None:
            self._method.preconditioner.learn(self._tensors["mean_square"], gradient)
            self._counts["learned"] += 1
            self._scale_root = self._root_of_scales()

    def _root_of_scales(self) -> Tensor | float:
        """sqrt(s)."""
        if self._method.preconditioner is None or not self._counts["learned"]:
            return 1.0
        return self._method.preconditioner.scales(self._tensors["mean_square"], self._counts["learned"]).sqrt()

    def _tell_draw(self, stage: Stage, callbacks: Callback) -> None:
        step_size = self._method.temperature * stage.learning_rate / len(self._dataset.train)
        position = to_numpy({"position": self._tensors["position"]})["position"]
        stats = {"step_size": np.asarray([step_size])}
        callbacks.on_draws(DrawChunk(self._chain, self._counts["drawn"], position[None], stats))
        self._counts["drawn"] += 1

    def _row(self, stage: Stage, steps: int) -> dict[str, Any]:
        """A row of the history: means over the steps since the row before, and what is so now."""
        done = self._counts["step"]
        row: dict[str, Any] = {
            "chain": self._chain,
            "step": done,
            "phase": stage.phase,
            "epoch": done * self._batch_size / len(self._dataset.train),
            "seconds": time.perf_counter() - self._started,
            "gradient_evaluations": done,
            "learning_rate": stage.learning_rate,
            **{name: total / steps for name, total in self._window.items()},
        }
        self._window = {}
        if stage.momentum_decay < 1:
            square = float(self._tensors["momentum"].double().square().mean()) * (1 - stage.momentum_decay / 2)
            row["kinetic_temperature"] = self._method.temperature * square
        return row | self._validate()

    def _validate(self) -> dict[str, float | None]:
        """Of the present position alone."""
        if len(self._dataset.validation) == 0:
            return {"validation_nll": None}
        at = ArrayPositions(self._tensors["position"].detach()[None, None])
        return validation_scores(SamplePosterior(self._model, self._dataset.scaling, positions=at), self._dataset)

    def _diverged(self, value: float, good: State) -> FitDiverged:
        step = self._counts["step"]
        if step == 0:
            advice = "no step was taken yet: check the data, likelihood.noise and prior.scale, or try dtype=float64"
        else:
            advice = (
                f"the state at step {int(good['step'])} was kept; try a lower inference.learning_rate (now "
                f"{self._method.learning_rate:g})"
            )
        error = FitDiverged(f"the objective of chain {self._chain} became {value} at step {step}; {advice}")
        error.state = good
        return error


_WINDOW = "window."
