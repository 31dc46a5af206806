"""The engine `pyro` of HMC and NUTS: Pyro's own kernels, the reference of the batched engine.

Each chain drives one Pyro kernel over the flat potential, iteration by iteration. Pyro uses torch's
global generator, so it is seeded from the key (seed, chain, iteration) before every iteration: the
draws do not depend on the process or on earlier work, and a chain resumes from its last draw, its
step size and its mass matrix with bitwise identical results.

References:
    Neal 2011, arXiv:1206.1901; Hoffman & Gelman 2014, arXiv:1111.4246; Betancourt 2017,
    arXiv:1701.02434 (energies, E-BFMI).
"""

import math
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from pyro.infer import HMC as PyroHMC
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.errors import FitDiverged
from bnn_symm.inference.callbacks import Callback, FitState, State
from bnn_symm.inference.fit_context import FitContext, run_method_chains
from bnn_symm.inference.mcmc.batched_chains import run_batched
from bnn_symm.inference.mcmc.sampler import LOG_EVERY, Sampler
from bnn_symm.inference.parallel.independent_chains import ChainMethod
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import DrawChunk
from bnn_symm.randomness import global_seed
from bnn_symm.settings import settings


@settings
class PyroSampler(Sampler):
    """Settings of the methods that Pyro implements too.

    Attributes:
        engine: `batched`: all chains together in this process; `pyro`: Pyro's own kernel, the
            reference.
        chain_method: for Pyro's engine: chains one after another or in parallel processes, with the
            same draws.
    """

    engine: Literal["batched", "pyro"] = "batched"  # pyright: ignore[reportIncompatibleVariableOverride]
    chain_method: ChainMethod = "auto"

    @abstractmethod
    def _pyro_kernel(
        self, potential: Callable[[dict[str, Tensor]], Tensor], keywords: dict[str, Any]
    ) -> PyroHMC:
        """Return a new Pyro kernel with `RecordsEnergy` mixed in."""

    def _before_pyro_iteration(self, kernel: PyroHMC) -> None:
        """Prepare an iteration of Pyro's kernel; the generator is seeded."""

    def _run(self, fit: FitContext) -> bool:
        if self.engine == "batched":
            return run_batched(self, fit)
        run_method_chains(fit, self._run_chain, self.num_chains, self.chain_method)
        lengths = [len(chunk.positions) for chunk in fit.recorder.fit_state().draws.values()]
        return len(lengths) < self.num_chains or min(lengths) < self.num_draws

    def _run_chain(self, fit: FitContext, start: Tensor, chain: int, callbacks: Callback) -> State:
        """Run one chain, which starts with warm-up or resumes from a fit state."""
        potential = _Potential(self, fit.model, fit.dataset)
        adapted = fit.fit_state.states.get(chain)
        done = fit.fit_state.draws.get(chain)
        position = start
        if adapted is not None:
            kept = adapted["position"] if done is None else done.positions[-1]
            position = torch.from_numpy(kept.copy()).to(fit.model.device)
        if not math.isfinite(float(potential({_SITE: position}))):
            raise FitDiverged(
                f"the log density is not finite where chain {chain} starts; start from another "
                "posterior (initial: RUN), or check prior.scale"
            )
        kernel = self._kernel(fit, potential, position, chain, adapted)
        progress = _ChainProgress(self, chain, done, adapted, fit.fit_state.history)
        first = 0 if adapted is None else self.num_warmup + progress.drawn
        kernel._t = first
        for iteration in range(first, self.num_warmup + self.num_draws):
            if iteration == self.num_warmup and adapted is None:
                adapted = _adapted_state(kernel, position, progress)
                callbacks.on_state(chain, lambda state=adapted: state, essential=True)
            elif iteration < self.num_warmup and iteration % LOG_EVERY == 0:
                callbacks.on_state(
                    chain, lambda now=position: {"position": now.cpu().numpy().copy()}
                )
            if callbacks.should_stop():
                break
            potential.evaluations = 0
            potential_before = float(kernel._potential_energy_last)
            # Pyro updates a running mean of acceptance over n iterations. From zero, its increment
            # is a / n.
            kernel._mean_accept_prob = 0.0
            known_divergences = len(kernel._divergences)
            with global_seed(fit.seed, "chain", chain, iteration):
                self._before_pyro_iteration(kernel)
                position = kernel.sample({_SITE: position})[_SITE].detach()
            n = iteration + 1 if iteration < self.num_warmup else iteration + 1 - self.num_warmup
            progress.record(
                callbacks,
                iteration,
                position,
                {
                    "acceptance_rate": min(1.0, kernel._mean_accept_prob * n),
                    "diverging": len(kernel._divergences) > known_divergences,
                    "energy": potential_before + kernel.kinetic_energy_at_start,
                    "lp": -float(kernel._potential_energy_last),
                    "n_steps": potential.evaluations,
                    "step_size": float(kernel.step_size),
                },
            )
        return adapted or {"position": position.cpu().numpy().copy()}

    def _kernel(
        self,
        fit: FitContext,
        potential: "_Potential",
        position: Tensor,
        chain: int,
        adapted: State | None,
    ) -> Any:
        kernel = self._pyro_kernel(
            potential,
            {
                "step_size": float(adapted["step_size"]) if adapted else self.initial_step_size,
                "adapt_step_size": self.adapt_step_size and adapted is None,
                "adapt_mass_matrix": self.adapt_mass_matrix and adapted is None,
                "full_mass": self.is_dense(fit.model.num_parameters),
                "target_accept_prob": self.target_accept_prob,
            },
        )
        kernel.initial_params = {_SITE: position}
        with global_seed(fit.seed, "chain", chain, "set-up"):
            kernel.setup(self.num_warmup)
        if adapted is not None:
            inverse_mass = torch.from_numpy(adapted["inverse_mass"]).to(position)
            kernel.mass_matrix_adapter.inverse_mass_matrix = {(_SITE,): inverse_mass}
        return kernel

    def truncate_to_checkpoint(self, fit_state: FitState) -> FitState:
        """Return the fit state at the last checkpoint of the engine.

        With Pyro's engine, a chain that stopped in warm-up restarts, with bitwise identical
        results. A chain that stopped while sampling resumes after its last stored draw.
        """
        if self.engine == "batched":
            return super().truncate_to_checkpoint(fit_state)
        states = {
            chain: state for chain, state in fit_state.states.items() if "inverse_mass" in state
        }
        draws = {chain: chunk for chain, chunk in fit_state.draws.items() if chain in states}
        ends = {chain: len(draws[chain].positions) if chain in draws else 0 for chain in states}
        history = [
            row
            for row in fit_state.history
            if row["chain"] in states and row["step"] <= self.num_warmup + ends[row["chain"]]
        ]
        return FitState(states, draws, history)

    def _positions(self, fit_state: FitState) -> dict[int, np.ndarray]:
        if self.engine == "batched":
            return super()._positions(fit_state)
        return {chain: state["position"] for chain, state in fit_state.states.items()}


class RecordsEnergy:
    """Mixin for a Pyro kernel that records the initial kinetic energy of the current iteration."""

    kinetic_energy_at_start: float = math.nan

    def _sample_r(self, name: str) -> Any:
        momentum, unscaled = super()._sample_r(name)  # type: ignore[misc]
        self.kinetic_energy_at_start = float(self._kinetic_energy(unscaled))  # type: ignore[attr-defined]
        return momentum, unscaled


_SITE = "flat"


class _Potential:
    """The potential of Pyro's site, with a counter of evaluations (one gradient each)."""

    def __init__(self, method: PyroSampler, model: BayesianModel, dataset: Dataset):
        self._method, self._model, self._part = method, model, dataset.train
        self.evaluations = 0

    def __call__(self, site: dict[str, Tensor]) -> Tensor:
        self.evaluations += 1
        return self._model.potential(
            site[_SITE],
            self._part.x,
            self._part.targets,
            temperature=self._method.temperature,
            tempering=self._method.tempering,
        )


def _adapted_state(kernel: Any, position: Tensor, progress: "_ChainProgress") -> State:
    (inverse_mass,) = kernel.inverse_mass_matrix.values()
    return {
        "position": position.cpu().numpy().copy(),
        "step_size": np.asarray(kernel.step_size, dtype=np.float64),
        "inverse_mass": inverse_mass.detach().cpu().numpy().copy(),
        "gradient_evaluations": np.asarray(progress.gradients),
    }


class _ChainProgress:
    """Counts the work of a chain, and reports draws and rows of history."""

    def __init__(
        self,
        method: PyroSampler,
        chain: int,
        done: DrawChunk | None,
        adapted: State | None,
        history: list[dict[str, Any]],
    ):
        self._method, self._chain = method, chain
        self.drawn = 0 if done is None else len(done.positions)
        self.gradients = 0 if adapted is None else int(adapted["gradient_evaluations"])
        self._divergences = 0
        self._acceptance: list[float] = []
        seconds = [row["seconds"] for row in history if row["chain"] == chain]
        self._started = time.perf_counter() - (seconds[-1] if seconds else 0.0)
        if done is not None:
            stats = {name: np.asarray(value) for name, value in done.stats.items()}
            self.gradients += int(stats["n_steps"].sum())
            self._divergences = int(stats["diverging"].sum())
            since_row = self.drawn % LOG_EVERY
            self._acceptance = stats["acceptance_rate"][self.drawn - since_row :].tolist()

    def record(
        self, callbacks: Callback, iteration: int, position: Tensor, stats: dict[str, Any]
    ) -> None:
        warmup = self._method.num_warmup
        self.gradients += stats["n_steps"]
        self._divergences += stats["diverging"]
        self._acceptance.append(stats["acceptance_rate"])
        if iteration >= warmup:
            arrays = {name: np.asarray([value]) for name, value in stats.items()}
            callbacks.on_draws(
                DrawChunk(self._chain, self.drawn, position.cpu().numpy()[None].copy(), arrays)
            )
            self.drawn += 1
        done = iteration + 1
        if self._method.row_is_due(done):
            callbacks.on_history(
                {
                    "chain": self._chain,
                    "step": done,
                    "phase": "warmup" if iteration < warmup else "sampling",
                    "seconds": time.perf_counter() - self._started,
                    "gradient_evaluations": self.gradients,
                    "objective": -stats["lp"],
                    "acceptance_rate": float(np.mean(self._acceptance)),
                    "step_size": stats["step_size"],
                    "divergences": self._divergences,
                }
            )
            self._acceptance = []
