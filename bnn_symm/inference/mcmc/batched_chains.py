"""The batched engine: all chains of a sampler in one process, in one batch, with one state.

The driver starts transitions, advances the kernel, passes completed transitions to the adapter, and
reports draws and history. Chains need not be in lockstep. They wait for each other only at the end
of warm-up, after which nothing is adapted. The state (kernel, adapter and counters) is plain arrays
at every moment, in warm-up and within a trajectory too, so that a fit resumes from any checkpoint
with bitwise identical results.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnn_symm.errors import ConfigError, FitDiverged
from bnn_symm.inference.callbacks import Callbacks, State
from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.density.sharded import ShardedDensity
from bnn_symm.inference.fit_context import FitContext, initial_positions
from bnn_symm.inference.mcmc.adaptation import (
    Adapter,
    initial_adaptation,
    restore_arrays,
    to_arrays,
)
from bnn_symm.inference.mcmc.integrator import kinetic_energy, leapfrog, momentum_from_noise
from bnn_symm.inference.mcmc.kernel import CompletedTransitions
from bnn_symm.inference.mcmc.sampler import LOG_EVERY, Sampler
from bnn_symm.inference.stopping.gain_test import GainMonitor, GainTest
from bnn_symm.posteriors import DrawChunk
from bnn_symm.randomness import torch_generator

# Draws of slow chains are reported after this number of seconds, however few they are.
_REPORT_SECONDS = 1.0
# The search for a first step size doubles or halves it until the acceptance rate crosses this
# threshold, up to a maximum number of times.
_REASONABLE, _DOUBLINGS = 0.8, 50


@dataclass
class _Counts:
    """Counters per chain, of which acceptance is summed since its last row."""

    done: np.ndarray
    gradients: np.ndarray
    divergences: np.ndarray
    acceptance: np.ndarray
    since_row: np.ndarray


def run_batched(method: Sampler, fit: FitContext) -> bool:
    """Run the chains of a fit; return whether they were stopped before their end.

    Args:
        method: the settings of the sampler.
        fit: the arguments of the fit.
    """
    monitor = None
    if method.gain_test is not None:
        monitor = _gain_monitor(method, method.gain_test, fit)
        fit = replace(fit, callbacks=Callbacks([*fit.callbacks.members, monitor]))
    chains = _Chains(method, fit)
    stopped = chains.run(fit.callbacks)
    fit.recorder.keep_state(0, chains.state())
    # The look at all draws, if no earlier one stopped the fit, which is complete if one did.
    is_over = monitor is not None and monitor.should_stop()
    return stopped and not is_over


def _gain_monitor(method: Sampler, test: GainTest, fit: FitContext) -> GainMonitor:
    """Return the callback that compares the draws with the points where the chains start.

    Raises:
        ConfigError: if they start at random values of the network.
    """
    if fit.initial is None:
        raise ConfigError(
            "inference.gain_test compares the draws with the ensemble that the chains start from, "
            "but they start at random values; set warm_start=[{name: deep_ensemble, num_members: "
            f"{method.num_chains}}}] or initial=RUN"
        )
    starts = initial_positions(fit.model, fit.initial, method.num_chains, fit.seed)
    return GainMonitor(
        test,
        fit.model,
        fit.dataset,
        torch.stack(starts),
        num_warmup=method.num_warmup,
        num_draws=method.num_draws,
        recorder=fit.recorder,
    )


class _Chains:
    """The chains of one fit."""

    def __init__(self, method: Sampler, fit: FitContext):
        self._method = method
        number = method.num_chains
        positions = torch.stack(initial_positions(fit.model, fit.initial, number, fit.seed))
        density = self._density(method, fit, positions)
        groups = (
            np.zeros(number, dtype=np.int64) if method.adaptation == "shared" else np.arange(number)
        )
        adaptation = initial_adaptation(
            positions,
            int(groups.max()) + 1,
            method.initial_step_size,
            self._first_variances(method, fit, positions),
            dense=method.is_dense(positions.shape[1]),
        )
        self._adapter = Adapter(
            num_warmup=method.num_warmup,
            target=method.target_accept_prob,
            adapt_step_size=method.adapts_to_acceptance(),
            adapt_mass_matrix=method.adapt_mass_matrix,
            groups=groups,
            across=method.scales_across_chains,
            state=adaptation,
        )
        inverse_mass = self._adapter.inverse_mass(np.arange(number))
        self._kernel = method._batched_kernel(density, positions, inverse_mass, fit.seed)
        zeros = np.zeros(number, dtype=np.int64)
        self._counts = _Counts(
            zeros.copy(), zeros + 1, zeros.copy(), np.zeros(number), zeros.copy()
        )
        # Chains, positions and statistics of completed transitions that are not yet reported.
        self._pending: list[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]] = []
        self._reported_at = time.monotonic()
        fit_state = fit.fit_state.states.get(0)
        seconds = max((row["seconds"] for row in fit.fit_state.history), default=0.0)
        self._started = time.perf_counter() - seconds
        self._under_way = np.zeros(number, dtype=bool)
        if fit_state is not None:
            self._restore(fit_state)
            return
        bad = torch.isfinite(self._kernel.points.energy).logical_not().nonzero()
        if len(bad):
            raise FitDiverged(
                f"the log density is not finite where chain {int(bad[0])} starts; start from "
                "another posterior (initial: RUN), or check prior.scale"
            )
        if method.adapts_to_acceptance() and method.num_warmup:
            if method.finds_first_step_size:
                self._find_step_sizes(density, groups, fit.seed)
            else:
                self._adapter.begin(np.full(int(groups.max()) + 1, method.initial_step_size))

    def _density(self, method: Sampler, fit: FitContext, positions: Tensor) -> TemperedDensity:
        keywords: dict[str, Any] = {
            "temperature": method.temperature,
            "prior_weight": method.prior_weight,
            "like": positions,
            "compile": method.is_compiled(fit.model),
        }
        self._should_stop = fit.callbacks.should_stop
        if fit.group.size == 1:
            return TemperedDensity(fit.model, fit.dataset.train, **keywords)
        density = ShardedDensity(
            fit.model, fit.dataset.train, group=fit.group, should_stop=self._should_stop, **keywords
        )
        self._should_stop = density.should_stop
        return density

    def _first_variances(self, method: Sampler, fit: FitContext, positions: Tensor) -> Tensor:
        """Return the (parameter,) initial diagonal of inverse mass matrices."""
        if not method.adapt_mass_matrix:
            return positions.new_ones(positions.shape[1])
        prior = fit.model.prior_standard_deviations(positions.new_empty(0, dtype=torch.float64))
        return (prior.square() / method.prior_weight).to(positions.dtype)

    def run(self, callbacks: Callbacks) -> bool:
        """Run the chains to their end; return whether they were stopped before."""
        method, counts = self._method, self._counts
        total = method.num_warmup + method.num_draws
        callbacks.on_state(0, self.state)
        while counts.done.min() < total:
            if self._should_stop():
                self._report(callbacks)
                return True
            limit = method.num_warmup if counts.done.min() < method.num_warmup else total
            ready = np.flatnonzero(~self._under_way & (counts.done < limit))
            if len(ready):
                self._begin(ready)
            ended = self._kernel.advance()
            if len(ended.chains):
                self._record_transitions(ended, callbacks)
            waiting = sum(len(chains) for chains, *_ in self._pending)
            if (
                waiting >= LOG_EVERY * method.num_chains
                or time.monotonic() - self._reported_at >= _REPORT_SECONDS
            ):
                self._report(callbacks)
        self._report(callbacks)
        return False

    def state(self) -> State:
        """Return everything on which the rest of the fit depends."""
        return {
            **self._kernel.state(),
            **to_arrays(self._adapter.state, "adaptation"),
            **to_arrays(self._counts, "counts"),
            "under_way": self._under_way.copy(),
        }

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._kernel.restore(state)
        restore_arrays(self._adapter.state, "adaptation", state)
        restore_arrays(self._counts, "counts", state)
        self._under_way[:] = state["under_way"]

    def _begin(self, chains: np.ndarray) -> None:
        adapter = self._adapter
        self._kernel.begin(
            chains,
            self._counts.done[chains],
            adapter.step_size(chains),
            adapter.inverse_mass(chains),
        )
        self._under_way[chains] = True

    def _record_transitions(self, ended: CompletedTransitions, callbacks: Callbacks) -> None:
        """Adapt to completed transitions, count them, and buffer their draws."""
        method, counts, chains = self._method, self._counts, ended.chains
        positions = self._kernel.points.position[torch.from_numpy(chains)]
        warming = counts.done[chains] < method.num_warmup
        if warming.any():
            self._adapter.learn(chains, positions, ended.stats["acceptance_rate"])
        counts.done[chains] += 1
        counts.gradients[chains] += ended.stats["n_steps"]
        counts.divergences[chains] += ended.stats["diverging"]
        counts.acceptance[chains] += ended.stats["acceptance_rate"]
        counts.since_row[chains] += 1
        self._under_way[chains] = False
        if not warming.all():
            kept = ~warming
            stats = {name: value[kept] for name, value in ended.stats.items()}
            self._pending.append((chains[kept], positions.cpu().numpy()[kept], stats))
        for row, (chain, done) in enumerate(
            zip(chains.tolist(), counts.done[chains].tolist(), strict=True)
        ):
            if method.row_is_due(done):
                self._log(chain, done, ended.stats, row, callbacks)

    def _log(
        self,
        chain: int,
        done: int,
        stats: Mapping[str, np.ndarray],
        row: int,
        callbacks: Callbacks,
    ) -> None:
        """Report a row of the history of a chain."""
        method, counts = self._method, self._counts
        callbacks.on_history(
            {
                "chain": chain,
                "step": done,
                "phase": "warmup" if done <= method.num_warmup else "sampling",
                "seconds": time.perf_counter() - self._started,
                "gradient_evaluations": int(counts.gradients[chain]),
                "objective": -float(stats["lp"][row]),
                "acceptance_rate": float(counts.acceptance[chain] / counts.since_row[chain]),
                "step_size": float(stats["step_size"][row]),
                "divergences": int(counts.divergences[chain]),
            }
        )
        counts.acceptance[chain], counts.since_row[chain] = 0.0, 0

    def _report(self, callbacks: Callbacks) -> None:
        """Report the buffered draws, and then the state that follows them."""
        if self._pending:
            chains, positions, stats = zip(*self._pending, strict=True)
            all_chains, all_positions = np.concatenate(chains), np.concatenate(positions)
            all_stats = {
                name: np.concatenate([values[name] for values in stats]) for name in stats[0]
            }
            for chain in np.unique(all_chains).tolist():
                own = all_chains == chain
                first = int(self._counts.done[chain]) - self._method.num_warmup - int(own.sum())
                of_chain = {name: values[own] for name, values in all_stats.items()}
                callbacks.on_draws(DrawChunk(chain, first, all_positions[own], of_chain))
        self._pending = []
        self._reported_at = time.monotonic()
        callbacks.on_state(0, self.state)

    def _find_step_sizes(self, density: TemperedDensity, groups: np.ndarray, seed: int) -> None:
        """Find first step sizes, at which doubling or halving crosses the acceptance threshold.

        This is algorithm 4 of Hoffman & Gelman 2014, with the mean over the chains of a group.
        """
        points = self._kernel.points
        generator = torch_generator(seed, "first step size")
        noise = torch.randn(points.position.shape, generator=generator, dtype=points.position.dtype)
        momentum = momentum_from_noise(noise.to(points.position.device), points.inverse_mass)
        before = points.energy + kinetic_energy(momentum, points.inverse_mass)
        sizes = np.bincount(groups)
        step = np.full(len(sizes), self._method.initial_step_size)
        direction = np.zeros(len(sizes))
        for _ in range(_DOUBLINGS):
            rate = (
                np.bincount(
                    groups, weights=self._acceptance(density, momentum, before, step[groups])
                )
                / sizes
            )
            sign = np.where(rate > _REASONABLE, 1.0, -1.0)
            self._counts.gradients += 1
            direction = np.where(direction == 0, sign, direction)
            moving = sign == direction
            if not moving.any():
                break
            step = np.where(moving, step * 2.0**direction, step)
        self._adapter.begin(step)

    def _acceptance(
        self, density: TemperedDensity, momentum: Tensor, before: Tensor, step: np.ndarray
    ) -> np.ndarray:
        points = self._kernel.points
        _, after, _, energy = leapfrog(
            density,
            points.position,
            momentum,
            points.gradient,
            torch.from_numpy(step).to(points.step),
            points.inverse_mass,
        )
        error = energy + kinetic_energy(after, points.inverse_mass) - before
        return np.exp(-np.maximum(torch.nan_to_num(error, nan=math.inf).cpu().numpy(), 0.0))
