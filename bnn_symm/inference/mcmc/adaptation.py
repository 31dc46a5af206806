"""Adaptation in warm-up: step sizes and inverse mass matrices.

Chains form groups: one group of all chains (`shared`), or one group per chain. The adaptation of a
group depends on the transitions of its chains in the order in which they complete, so chains need
not be in lockstep.

Step sizes are adapted to acceptance rates by dual averaging (Hoffman & Gelman 2014,
arXiv:1111.4246, section 3.2). Inverse mass matrices are the covariances, or variances, of the
positions in windows of doubling length, as in Stan (Stan Reference Manual, section "HMC algorithm
parameters"). Deviations are from each chain's own mean, pooled over the chains of a group, because
the width of the current mode determines the scale of a trajectory. With `across`, they are from the
common mean, for methods with many chains that each move too little within a window. Until the first
window closes, the variances of the prior are used: most directions of a network's posterior are
about as wide as the prior, and the prior has the scale of each weight (`benchmarks/README.md`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.errors import IncompatiblePosteriors

# Dual averaging: Hoffman & Gelman's gamma, t0 and kappa, and shrinkage towards 10 times the first
# step size.
_GAMMA, _T0, _KAPPA = 0.05, 10.0, 0.75
_AMBITION = 10.0
# Iterations before the first window, in the first window, and after the last one.
_BEFORE, _FIRST, _AFTER = 75, 25, 50
# Updates that a step size needs to converge; in a short warm-up, a third of it. After only two
# updates, every draw diverged on breast_cancer.
_STEP_SIZE_UPDATES = 25


def windows(num_warmup: int) -> list[tuple[int, int]]:
    """Return the windows of iterations [start, stop) in which covariances are estimated.

    Args:
        num_warmup: iterations of warm-up.

    Returns:
        The windows, the last one the longest; none for a warm-up below 20 iterations.
    """
    if num_warmup < 20:
        return []
    before, first, after = _BEFORE, _FIRST, _AFTER
    if before + first + after > num_warmup:
        before, after = round(0.15 * num_warmup), min(_STEP_SIZE_UPDATES, num_warmup // 3)
        first = num_warmup - before - after
    result = []
    start, length, last = before, first, num_warmup - after
    while start < last:
        # The window extends to the end if the next one, twice as long, does not fit.
        stop = last if start + 3 * length > last else start + length
        result.append((start, stop))
        start, length = stop, 2 * length
    return result


@dataclass
class Adaptation:
    """The state of adaptation as plain arrays, one row per group or chain.

    Attributes:
        log_step: (group,) logarithm of the step size.
        log_step_mean: (group,) its weighted mean, used after warm-up.
        anchor: (group,) the value to which dual averaging shrinks.
        error: (group,) mean of target minus acceptance.
        updates: (group,) updates of dual averaging since its last restart.
        acceptance: (group,) sum of the rates since the last update.
        rates: (group,) number of these rates.
        seen: (group,) number of transitions.
        window: (group,) index of the current or next window.
        inverse_mass: (group, parameter) or (group, parameter, parameter).
        count: (chain,) number of positions in the current window.
        mean: (chain, parameter) their mean.
        scatter: (group, parameter[, parameter]) sum of their squared deviations.
    """

    log_step: np.ndarray
    log_step_mean: np.ndarray
    anchor: np.ndarray
    error: np.ndarray
    updates: np.ndarray
    acceptance: np.ndarray
    rates: np.ndarray
    seen: np.ndarray
    window: np.ndarray
    inverse_mass: Tensor
    count: np.ndarray
    mean: Tensor
    scatter: Tensor


class Adapter:
    """Adapts step sizes and mass matrices to transitions.

    Args:
        num_warmup: iterations of a chain in warm-up.
        target: target acceptance rate.
        adapt_step_size: whether step sizes are adapted.
        adapt_mass_matrix: whether covariances are estimated.
        groups: (chain,) the group of each chain.
        across: whether deviations are from the common mean of a group.
        state: the initial state.
    """

    def __init__(
        self,
        *,
        num_warmup: int,
        target: float,
        adapt_step_size: bool,
        adapt_mass_matrix: bool,
        groups: np.ndarray,
        across: bool,
        state: Adaptation,
    ):
        self._num_warmup, self._target = num_warmup, target
        self._adapt_step_size = adapt_step_size
        self._windows = windows(num_warmup) if adapt_mass_matrix else []
        self._groups = groups
        self._across = across
        self._sizes = np.bincount(groups)
        self.state = state

    def step_size(self, chains: np.ndarray) -> np.ndarray:
        """Return the (chain,) step sizes of transitions that start now.

        Args:
            chains: indices of the chains.
        """
        state, groups = self.state, self._groups[chains]
        warm = state.seen[groups] >= self._num_warmup * self._sizes[groups]
        averaged = warm & (state.updates[groups] > 0)
        return np.exp(np.where(averaged, state.log_step_mean[groups], state.log_step[groups]))

    def inverse_mass(self, chains: np.ndarray) -> Tensor:
        """Return the (chain, parameter[, parameter]) inverse mass matrices of chains.

        Args:
            chains: their indices.
        """
        return self.state.inverse_mass[torch.from_numpy(self._groups[chains])]

    def begin(self, step_size: np.ndarray) -> None:
        """Set the initial step sizes.

        Args:
            step_size: (group,).
        """
        self.state.log_step[:] = np.log(step_size)
        self._restart(np.arange(len(step_size)))

    def learn(self, chains: np.ndarray, positions: Tensor, acceptance: np.ndarray) -> None:
        """Adapt to transitions that were completed together.

        Args:
            chains: indices of the chains.
            positions: (chain, parameter) their new positions.
            acceptance: (chain,) acceptance rates.
        """
        state = self.state
        counts = np.bincount(self._groups[chains], minlength=len(self._sizes))
        state.rates += counts
        state.acceptance += np.bincount(
            self._groups[chains], weights=acceptance, minlength=len(self._sizes)
        )
        # An update averages as many rates as there are chains. Single rates are so noisy that step
        # sizes become too small.
        full = np.flatnonzero(state.rates >= self._sizes)
        if self._adapt_step_size:
            self._average(full, state.acceptance[full] / state.rates[full])
        state.acceptance[full], state.rates[full] = 0.0, 0
        for group in np.flatnonzero(counts).tolist():
            in_group = self._groups[chains] == group
            self._observe(group, chains[in_group], positions, np.flatnonzero(in_group))
            state.seen[group] += counts[group]
            self._close_window(group)

    def _average(self, groups: np.ndarray, acceptance: np.ndarray) -> None:
        state = self.state
        state.updates[groups] += 1
        t = state.updates[groups]
        weight = 1.0 / (t + _T0)
        state.error[groups] = (1 - weight) * state.error[groups] + weight * (
            self._target - acceptance
        )
        state.log_step[groups] = state.anchor[groups] - np.sqrt(t) / _GAMMA * state.error[groups]
        weight = t**-_KAPPA
        state.log_step_mean[groups] = (
            weight * state.log_step[groups] + (1 - weight) * state.log_step_mean[groups]
        )

    def _restart(self, groups: np.ndarray) -> None:
        state = self.state
        state.anchor[groups] = np.log(_AMBITION) + state.log_step[groups]
        state.error[groups] = 0.0
        state.updates[groups] = 0
        state.acceptance[groups], state.rates[groups] = 0.0, 0
        state.log_step_mean[groups] = state.log_step[groups]

    def _present(self, group: int) -> tuple[int, int] | None:
        """Return the current or next window of a group, in transitions of all its chains."""
        index = int(self.state.window[group])
        if index >= len(self._windows):
            return None
        start, stop = self._windows[index]
        size = int(self._sizes[group])
        return start * size, stop * size

    def _observe(self, group: int, chains: np.ndarray, positions: Tensor, rows: np.ndarray) -> None:
        """Update the means and the scatter of a group (Welford, Technometrics 1962)."""
        state, present = self.state, self._present(group)
        if present is None or state.seen[group] < present[0]:
            return
        chosen = positions[torch.from_numpy(rows)]
        index = torch.from_numpy(chains)
        state.count[chains] += 1
        before = chosen - state.mean[index]
        state.mean[index] += before / torch.from_numpy(state.count[chains]).to(chosen)[:, None]
        after = chosen - state.mean[index]
        if state.scatter.dim() == 2:
            state.scatter[group] += (before * after).sum(0)
        else:
            state.scatter[group] += before.mT @ after

    def _close_window(self, group: int) -> None:
        state, present = self.state, self._present(group)
        if present is None or state.seen[group] < present[1]:
            return
        in_group = self._groups == group
        number = int(state.count[in_group].sum())
        freedom = int(np.maximum(state.count[in_group] - 1, 0).sum())
        if self._across and number > 1:
            index = torch.from_numpy(in_group)
            weight = torch.from_numpy(state.count[in_group]).to(state.mean)
            between = state.mean[index] - (weight @ state.mean[index]) / number
            if state.scatter.dim() == 2:
                state.scatter[group] += weight @ between.square()
            else:
                state.scatter[group] += (weight[:, None] * between).mT @ between
            freedom = number - 1
        if freedom > 0:
            # Stan's shrinkage towards 1e-3, which matters in short windows.
            kept = number / (number + 5.0)
            unit = torch.ones_like(state.scatter[group])
            if unit.dim() == 2:
                unit = torch.eye(len(unit), dtype=unit.dtype, device=unit.device)
            state.inverse_mass[group] = (
                kept * state.scatter[group] / freedom + 1e-3 * (1 - kept) * unit
            )
        state.count[in_group] = 0
        state.mean[torch.from_numpy(in_group)] = 0.0
        state.scatter[group] = 0.0
        state.window[group] += 1
        if self._adapt_step_size:
            if state.updates[group] > 0:
                state.log_step[group] = state.log_step_mean[group]
            self._restart(np.asarray([group]))


def initial_adaptation(
    positions: Tensor,
    num_groups: int,
    step_size: float,
    variances: Float[Tensor, " parameter"],
    *,
    dense: bool,
) -> Adaptation:
    """Return the initial state of adaptation, with given variances and step size.

    Args:
        positions: (chain, parameter) initial positions; only their shape and type are used.
        num_groups: number of groups.
        step_size: initial step size.
        variances: initial diagonal of the inverse mass matrices.
        dense: whether inverse mass matrices are dense.
    """
    chains = len(positions)
    first = variances.diag() if dense else variances
    inverse_mass = first.repeat(num_groups, *(1 for _ in first.shape))
    log_step = np.full(num_groups, np.log(step_size))
    zeros, counts = np.zeros(num_groups), np.zeros(num_groups, dtype=np.int64)
    return Adaptation(
        log_step=log_step,
        log_step_mean=log_step.copy(),
        anchor=np.log(_AMBITION) + log_step,
        error=zeros,
        updates=counts.copy(),
        acceptance=zeros.copy(),
        rates=counts.copy(),
        seen=counts.copy(),
        window=counts.copy(),
        inverse_mass=inverse_mass,
        count=np.zeros(chains, dtype=np.int64),
        mean=torch.zeros_like(positions),
        scatter=torch.zeros_like(inverse_mass),
    )


def to_arrays(state: Any, prefix: str) -> dict[str, np.ndarray]:
    """Return copies of the arrays and tensors of a dataclass, by prefixed name.

    Args:
        state: the dataclass.
        prefix: precedes the name of each field.
    """
    return {
        f"{prefix}.{name}": (
            value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        ).copy()
        for name, value in vars(state).items()
    }


def restore_arrays(state: Any, prefix: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy arrays into the arrays and tensors of a dataclass, in place.

    Args:
        state: the dataclass.
        prefix: precedes the name of each field.
        arrays: returned by `to_arrays`.

    Raises:
        IncompatiblePosteriors: if an array is missing, as in states of earlier versions.
    """
    for name, value in vars(state).items():
        saved = arrays.get(f"{prefix}.{name}")
        if saved is None:
            raise IncompatiblePosteriors(
                f"the state of the sampler has no {prefix}.{name}: another version of this package "
                "wrote it; resume with that version, or fit again (the draws so far can be used)"
            )
        if isinstance(value, Tensor):
            value.copy_(torch.from_numpy(saved))
        else:
            value[...] = saved
