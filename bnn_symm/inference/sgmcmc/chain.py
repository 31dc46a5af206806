"""One chain of a stochastic-gradient sampler: its steps, its state and its reports.

The update is that of `sampler`. The `stage` of the method determines the settings of each step.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.errors import FitDiverged
from bnn_symm.inference.callbacks import Callback, State, to_numpy
from bnn_symm.inference.method import FitContext, initial_positions
from bnn_symm.inference.optimization.minibatches import Minibatches
from bnn_symm.inference.parallel.independent_chains import run_chains
from bnn_symm.inference.sgmcmc.sampler import Stage, StochasticGradientMethod
from bnn_symm.inference.validation import validation_scores
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import DrawChunk, LazyDraws, SamplePosterior
from bnn_symm.randomness import key_seed, torch_generator

# Prefix of the state's keys of sums since the last row.
_WINDOW = "window."


def run_stochastic_gradient_chains(method: StochasticGradientMethod, fit: FitContext) -> bool:
    """Run all chains of a fit; return whether they were stopped before their end.

    Args:
        method: the settings of the sampler.
        fit: the arguments of the fit.
    """
    starts = initial_positions(fit.model, fit.initial, method.num_chains, fit.seed)
    task = SGMCMCTask(method, fit.model, fit.dataset, fit.seed, starts, fit.fit_state.states)
    states = run_chains(task, range(method.num_chains), fit.callbacks, method.chain_method)
    for chain, state in states.items():
        fit.recorder.keep_state(chain, state)
    return len(states) < method.num_chains or any(
        state["step"] < method.num_steps for state in states.values()
    )


@dataclass(frozen=True)
class SGMCMCTask:
    """The task of running the chains, which is sent to worker processes."""

    method: StochasticGradientMethod
    model: BayesianModel
    dataset: Dataset
    seed: int
    starts: list[Tensor]
    states: dict[int, State]

    def __call__(self, chain: int, callbacks: Callback) -> State:
        """Run one chain; return its final state.

        Args:
            chain: index of the chain.
            callbacks: receive its reports.
        """
        return SGMCMCChain(self, chain).run(callbacks)


class SGMCMCChain:
    """The state of one chain, and its steps.

    Args:
        work: the task.
        chain: index of the chain.
    """

    def __init__(self, work: SGMCMCTask, chain: int):
        self._method, self._model, self._dataset = work.method, work.model, work.dataset
        self._chain = chain
        self._seed = key_seed(work.seed, "chain", chain)
        train = work.dataset.train
        self._batch_size = work.method.points_per_gradient(len(train))
        self._batches = Minibatches(train, self._batch_size, self._seed)
        position = work.starts[chain].detach().clone()
        generator = torch_generator(self._seed, "initial momentum")
        momentum = torch.randn(position.shape, generator=generator, dtype=position.dtype).to(
            position.device
        )
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
        """Run the chain to its end, or until a stop is requested; return its state.

        Args:
            callbacks: receive its reports.

        Raises:
            FitDiverged: if the objective is not finite; it has the last finite state.
        """
        method, counts = self._method, self._counts
        log_every = (
            method.log_every if method.log_every != "auto" else max(1, method.num_steps // 200)
        )
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
            if (row_is_due or stage.is_draw) and not torch.isfinite(
                self._tensors["position"]
            ).all():
                raise self._diverged(math.nan, good)
            if stage.is_draw:
                self._report_draw(stage, callbacks)
            if row_is_due:
                callbacks.on_history(self._row(stage, counts["step"] % log_every or log_every))
                latest = self.state()
        return self.state()

    def state(self) -> State:
        """Return everything on which the rest of the chain depends."""
        numbers = {**self._counts, "seconds": time.perf_counter() - self._started}
        numbers |= {_WINDOW + name: total for name, total in self._window.items()}
        return {
            **to_numpy(self._tensors),
            **{name: np.asarray(number) for name, number in numbers.items()},
        }

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(torch.from_numpy(state[name]))
        self._counts = {name: int(state[name]) for name in self._counts}
        self._window = {
            name.removeprefix(_WINDOW): float(total)
            for name, total in state.items()
            if name.startswith(_WINDOW)
        }

    def _advance(self, stage: Stage) -> dict[str, float]:
        """Take one step if U is finite; return the terms of U before it, on the minibatch."""
        method, model, size = self._method, self._model, len(self._dataset.train)
        position, momentum = self._tensors["position"], self._tensors["momentum"]
        x, y = self._batches.take(self._counts["step"])
        log_likelihood = model.log_likelihood(position, x, y).sum(dtype=torch.float64) * (
            size / len(x)
        )
        log_prior = model.log_prior(position)
        objective = -log_likelihood / method.temperature - method.prior_weight * log_prior
        log_scale = math.log(self._dataset.scaling.y_scale)
        terms = {"objective": float(objective.detach())}
        terms |= {
            "nll": log_scale - float(log_likelihood.detach()) / size,
            "log_prior": float(log_prior.detach()),
        }
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
        """Adapt the preconditioner, if there is one, to a gradient of the mean loss."""
        if self._method.preconditioner is not None:
            self._method.preconditioner.learn(self._tensors["mean_square"], gradient)
            self._counts["learned"] += 1
            self._scale_root = self._root_of_scales()

    def _root_of_scales(self) -> Tensor | float:
        """Return the square root of the scales s."""
        if self._method.preconditioner is None or not self._counts["learned"]:
            return 1.0
        return self._method.preconditioner.scales(
            self._tensors["mean_square"], self._counts["learned"]
        ).sqrt()

    def _report_draw(self, stage: Stage, callbacks: Callback) -> None:
        step_size = self._method.temperature * stage.learning_rate / len(self._dataset.train)
        position = to_numpy({"position": self._tensors["position"]})["position"]
        stats = {"step_size": np.asarray([step_size])}
        callbacks.on_draws(DrawChunk(self._chain, self._counts["drawn"], position[None], stats))
        self._counts["drawn"] += 1

    def _row(self, stage: Stage, steps: int) -> dict[str, Any]:
        """Return a row of the history: means over the steps since the previous row."""
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
            square = float(self._tensors["momentum"].double().square().mean()) * (
                1 - stage.momentum_decay / 2
            )
            row["kinetic_temperature"] = self._method.temperature * square
        return row | self._validate()

    def _validate(self) -> dict[str, float | None]:
        """Return the validation scores of the current position."""
        draws = LazyDraws.from_tensor(self._tensors["position"].detach()[None, None])
        return validation_scores(
            SamplePosterior(self._model, self._dataset.scaling, positions=draws), self._dataset
        )

    def _diverged(self, value: float, good: State) -> FitDiverged:
        step = self._counts["step"]
        if step == 0:
            advice = (
                "no step was taken yet; check the data, likelihood.noise and prior.scale, or try "
                "dtype=float64"
            )
        else:
            advice = (
                f"the state at step {int(good['step'])} was kept; try a lower "
                f"inference.learning_rate (now {self._method.learning_rate:g})"
            )
        message = f"the objective of chain {self._chain} became {value} at step {step}; {advice}"
        return FitDiverged(message, {self._chain: good})
