"""The kernel of microcanonical Langevin Monte Carlo: a path of many steps between two draws.

All chains take their steps together (`path_step`). A chain whose step is not finite, or gains more
energy than a divergent trajectory, stays where it was and turns back, so that it cannot get stuck
outside the support.

Unadjusted paths continue each other: the direction is refreshed in part after every step. Step
sizes are adapted after every step of warm-up. With E the energy error of a step and v the target of
E^2 / d, the variance per parameter, the error is of third order in the step size, so that

    step = (v / r)^(1/6),    r = mean of w E^2 / (d step^6) / mean of w,

with exponentially decaying means and weights w = exp(-(log E^2 / (d v))^2 / 162), which reduce the
influence of step sizes far from the target. This is the adaptation of Robnik et al. 2023, as in
BlackJAX, but the means are over a growing number of steps, at last over a quarter of warm-up: the
energy error of a network varies so much along a path that the last 100 steps gave step sizes with
ten times the target. The
target falls geometrically during warm-up (Sommer et al. 2025), because large steps at first are
what brings the chains of a network to regions of high probability.

Adjusted paths begin with a new random direction, and their end is accepted with probability
min(1, exp(-sum of E)). Refreshment between steps leaves this exact (Riou-Durand & Vogrinc 2022,
arXiv:2202.13230), as it has no energy error and its law is symmetric in time.

References:
    Robnik, De Luca, Silverstein & Seljak 2023, arXiv:2212.08549; Robnik, Cohn-Gordon & Seljak 2025,
    arXiv:2503.01707 (adjustment); Sommer et al. 2025, arXiv:2502.06335 (networks).
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.mcmc.integrator import MAX_ENERGY_ERROR, Evaluate
from bnn_symm.inference.mcmc.kernel import CompletedTransitions, Kernel
from bnn_symm.inference.mcmc.step_loop import StepLoop
from bnn_symm.inference.microcanonical.isokinetic import minimal_norm_step, normalized, refresh
from bnn_symm.randomness import numpy_generator, torch_generator

# The means of step-size adaptation are over this fraction of all steps so far, and over this number
# at least.
_MEMORY, _LEAST_MEMORY = 0.25, 100
# Width of the weights in log x, six times the trust of 1.5 in the reference.
_WIDTH = 9.0
# A step that fails reduces the step size by this factor at once.
_BACK_OFF = 1.5
# Steps are not adapted below this fraction of the decoherence length. Far from the data, where U is
# so large that its rounding alone exceeds any threshold, they would shrink without end.
_LEAST_STEP = 1e-5
# An energy error within this fraction of U is rounding, not divergence.
ROUNDING = 1e-4
# Maximum number of random numbers that are drawn at once: 16 MB.
_MOST_NOISE = 4_000_000


@dataclass
class _Walk:
    """What chains keep between paths.

    Attributes:
        direction: (chain, parameter), unit vectors.
        step: (chain,) step sizes in units of the scales, float64.
        weight: (chain,) sum of the weights w, decaying.
        weighted: (chain,) sum of w E^2 / (d step^6), decaying.
        iteration: (1,) number of the current transition.
    """

    direction: Tensor
    step: Tensor
    weight: Tensor
    weighted: Tensor
    iteration: np.ndarray


@dataclass(frozen=True, kw_only=True)
class PathSettings:
    """How the kernel moves, in units of `radius`, the square root of the number of parameters.

    Attributes:
        num_warmup: transitions that adapt step sizes.
        steps_per_draw: steps of an unadjusted path.
        adapt_step_size: whether unadjusted paths adapt their step sizes.
        shared: whether all chains have one step size.
        first_variance: target of the energy variance per parameter when warm-up starts.
        last_variance: the same when it ends.
        decoherence_length: length over which a direction is forgotten.
        adjusted: whether paths are accepted or rejected.
        path_length: length of an adjusted path.
        max_num_steps: maximum steps of an adjusted path.
    """

    num_warmup: int
    steps_per_draw: int
    adapt_step_size: bool
    shared: bool
    first_variance: float
    last_variance: float
    decoherence_length: float
    adjusted: bool
    path_length: float
    max_num_steps: int


class MCLMCKernel(Kernel):
    """Moves every chain along one path of isokinetic steps.

    Args:
        density: the target density.
        positions: (chain, parameter) initial positions, of at least two parameters.
        inverse_mass: (chain, parameter), the squared scales.
        seed: all randomness derives from it.
        settings: how it moves.
        initial_step_size: in units of the radius.
    """

    is_lockstep = True

    def __init__(
        self,
        density: TemperedDensity,
        positions: Tensor,
        inverse_mass: Tensor,
        seed: int,
        *,
        settings: PathSettings,
        initial_step_size: float,
    ):
        super().__init__(density, positions, inverse_mass, seed)
        chains, size = positions.shape
        self._settings, self._radius = settings, math.sqrt(size)
        one_step = functools.partial(path_step, pool=settings.shared)
        self._path = StepLoop(one_step, density, "the step of the chains")
        step = torch.full(
            (chains,),
            initial_step_size * self._radius,
            dtype=torch.float64,
            device=positions.device,
        )
        direction = normalized(self._normal(size, "direction"))
        self._walk = _Walk(
            direction,
            step,
            torch.ones_like(step),
            settings.first_variance / step**6,
            np.zeros(1, dtype=np.int64),
        )

    def _parts(self) -> dict[str, Any]:
        return {"walk": self._walk}

    def _normal(self, size: int, *key: int | str, steps: int | None = None) -> Tensor:
        """Return standard normal numbers, ([step,] chain, parameter)."""
        like = self.points.position
        shape = (len(like), size) if steps is None else (steps, len(like), size)
        noise = torch.randn(shape, generator=torch_generator(self._seed, *key), dtype=like.dtype)
        return noise.to(like.device)

    def begin(
        self, chains: np.ndarray, iterations: np.ndarray, step: np.ndarray, inverse_mass: Tensor
    ) -> None:
        """Note the transition, and keep the length of steps if the scales have changed."""
        walk, before = self._walk, self.points.inverse_mass
        walk.iteration[:] = iterations[0]
        if self._settings.adjusted:
            walk.step.copy_(torch.from_numpy(step * self._radius))
            walk.direction = normalized(
                self._normal(before.shape[1], "direction", int(iterations[0]))
            )
        else:
            change = (before.sum(-1) / inverse_mass.sum(-1)).sqrt().double()
            changed = (before != inverse_mass).any(-1)
            walk.step = torch.where(changed, walk.step * change, walk.step)
            walk.weight = torch.where(changed, 1.0, walk.weight)
            walk.weighted = torch.where(changed, self._target() / walk.step**6, walk.weighted)
        self._store_transition(chains, step, inverse_mass)

    def advance(self) -> CompletedTransitions:
        """Move every chain along its path, and accept or reject the end if it is adjusted."""
        points, walk, settings = self.points, self._walk, self._settings
        size = points.position.shape[1]
        number = self._num_steps()
        most = int(number.max())
        at_once = min(most if not settings.adjusted else _AT_ONCE, _at_once(points.position))
        start = points.position, points.gradient, points.energy
        start_energy = points.energy.cpu().numpy()
        state = (
            points.position,
            walk.direction,
            points.gradient,
            points.energy,
            walk.step,
            walk.weight,
            walk.weighted,
            *(torch.zeros_like(walk.step) for _ in range(4)),
        )
        scale = points.inverse_mass.sqrt()
        length = torch.full_like(walk.step, settings.decoherence_length * self._radius)
        target = torch.full_like(walk.step, self._target())
        decay = torch.full_like(walk.step, self._decay())
        left = number
        with torch.no_grad():
            for part in range(math.ceil(most / at_once)):
                noise = self._normal(
                    size, "transition", int(walk.iteration[0]), part, steps=at_once
                )
                steps = np.clip(left, 0, at_once)
                constants = noise, torch.from_numpy(steps), length, scale, target, decay
                state = self._path(int(steps.max()), state, constants)
                left = left - at_once
        (points.position, walk.direction, points.gradient, points.energy, *rest) = state
        walk.step, walk.weight, walk.weighted, error, squared, rate, failed = rest
        acceptance = rate.cpu().numpy() / number
        if settings.adjusted:
            acceptance = np.exp(-np.maximum(error.cpu().numpy(), 0.0))
            self._accept(acceptance, *start)
        stats = {
            "acceptance_rate": acceptance,
            "diverging": failed.cpu().numpy() > 0,
            "energy": start_energy,
            "lp": -points.energy.cpu().numpy(),
            # Each step has two gradients.
            "n_steps": 2 * number,
            "step_size": walk.step.cpu().numpy() / self._radius,
            "energy_variance": squared.cpu().numpy() / number / size,
        }
        return CompletedTransitions(np.arange(len(number)), stats)

    def _accept(
        self, acceptance: np.ndarray, position: Tensor, gradient: Tensor, energy: Tensor
    ) -> None:
        """Return the chains that reject to the start of their paths."""
        points = self.points
        generator = numpy_generator(self._seed, "acceptance", int(self._walk.iteration[0]))
        accepted = torch.from_numpy(generator.random(len(acceptance)) < acceptance)
        accepted = accepted.to(position.device)
        points.position = torch.where(accepted[:, None], points.position, position)
        points.gradient = torch.where(accepted[:, None], points.gradient, gradient)
        points.energy = torch.where(accepted, points.energy, energy)

    def _decay(self) -> float:
        """Return the factor by which the means decay in a step, or 0 if nothing is adapted."""
        settings, done = self._settings, int(self._walk.iteration[0])
        if not settings.adapt_step_size or settings.adjusted or done >= settings.num_warmup:
            return 0.0
        memory = max(_LEAST_MEMORY, _MEMORY * done * settings.steps_per_draw)
        return (memory - 1) / (memory + 1)

    def _target(self) -> float:
        """Return the energy variance per parameter at which the current transition aims."""
        settings = self._settings
        done = min(1.0, self._walk.iteration[0] / max(1, settings.num_warmup - 1))
        return settings.first_variance ** (1 - done) * settings.last_variance**done

    def _num_steps(self) -> np.ndarray:
        """Return the (chain,) numbers of steps of the current paths."""
        settings, walk = self._settings, self._walk
        step = walk.step.cpu().numpy()
        if not settings.adjusted:
            return np.full(len(step), settings.steps_per_draw)
        iteration = int(walk.iteration[0])
        jitter = 2 * numpy_generator(self._seed, "path length", iteration).random() - 1
        length = settings.path_length * self._radius * (1 + _JITTER * jitter)
        most = settings.max_num_steps
        if iteration < settings.num_warmup:
            most = min(most, _WARMUP_STEPS)
        return np.clip(np.rint(length / step), 1, most).astype(np.int64)


# Paths vary in length within this relative distance, so that no direction is periodic.
_JITTER = 0.2
# Maximum steps in warm-up, as for HMC, and steps whose noise is drawn together.
_WARMUP_STEPS, _AT_ONCE = 50, 16


def _at_once(position: Tensor) -> int:
    return max(1, _MOST_NOISE // position.numel())


def path_step(
    evaluate: Evaluate,
    index: Tensor,
    position: Tensor,
    direction: Tensor,
    gradient: Tensor,
    energy: Tensor,
    step: Tensor,
    weight: Tensor,
    weighted: Tensor,
    error: Tensor,
    squared: Tensor,
    rate: Tensor,
    failed: Tensor,
    noise: Tensor,
    number: Tensor,
    length: Tensor,
    scale: Tensor,
    target: Tensor,
    decay: Tensor,
    *,
    pool: bool,
) -> tuple[Tensor, ...]:
    """Take one step of the paths that are not complete.

    Args:
        evaluate: positions -> U and its gradient.
        index: (1,) number of the step.
        position: (chain, parameter).
        direction: (chain, parameter), unit vectors.
        gradient: (chain, parameter), of U at the position.
        energy: (chain,), U at the position.
        step: (chain,), step sizes.
        weight: (chain,), as in `_Walk`.
        weighted: (chain,), as in `_Walk`.
        error: (chain,), the sum of energy errors, infinite after a failed step.
        squared: (chain,), the sum of their squares, without failed steps.
        rate: (chain,), the sum of the acceptance probabilities of single steps.
        failed: (chain,), the number of failed steps.
        noise: (step, chain, parameter), standard normal.
        number: (chain,), steps of each chain; chains with fewer steps than others wait.
        length: (chain,), the decoherence length.
        scale: (chain, parameter).
        target: (chain,), the energy variance per parameter at which step sizes aim.
        decay: (chain,), the factor by which the means of adaptation decay in a step; 0 if step
            sizes are not adapted.
        pool: whether all chains adapt one step size, to the means over chains.

    Returns:
        The arguments from `position` to `failed` after the step.
    """
    size = position.shape[-1]
    moving = index < number
    signed = torch.where(moving, step, 0.0)
    *new, change = minimal_norm_step(evaluate, position, direction, gradient, energy, signed, scale)
    fine = torch.isfinite(new[2].sum(-1)) & torch.isfinite(new[3])
    fine = fine & (change.abs() < MAX_ENERGY_ERROR + ROUNDING * energy.abs())
    row = fine[:, None]
    direction = torch.where(row, new[1], -direction)
    direction = refresh(direction, noise.index_select(0, index)[0], signed, length)
    change = torch.where(fine, change, 0.0)
    variance = change.square() / size + 1e-8 * target
    trust = torch.exp(-0.5 * ((variance / target).log() / _WIDTH).square())
    learns = (decay > 0) & moving
    seen = torch.where(fine, decay * weight + trust, weight)
    learned = torch.where(
        fine, decay * weighted + trust * variance / step**6, weighted * _BACK_OFF**6
    )
    learned = torch.minimum(learned, seen * target / (_LEAST_STEP * length) ** 6)
    if pool:
        seen, learned = seen.mean().expand_as(seen), learned.mean().expand_as(learned)
    weight = torch.where(learns, seen, weight)
    weighted = torch.where(learns, learned, weighted)
    adapted = torch.minimum((target * weight / weighted) ** (1 / 6), length)
    return (
        torch.where(row, new[0], position),
        direction,
        torch.where(row, new[2], gradient),
        torch.where(fine, new[3], energy),
        torch.where(learns, adapted, step),
        weight,
        weighted,
        error + torch.where(fine, change, torch.inf),
        squared + change.square(),
        rate + torch.where(fine & moving, torch.exp(-change.clamp(min=0.0)), 0.0),
        failed + torch.where(fine, 0.0, 1.0),
    )
