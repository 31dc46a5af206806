"""Microcanonical Langevin dynamics on minibatches (SGMCLMC).

A particle moves with unit speed and turns towards descent, as in MCLMC, here with the gradient of
one minibatch per step, at the middle of its path:

    w' = w + eps / 2 s u
    u' = u, turned by -s grad U(w') for a time eps
    w'' = w' + eps / 2 s u'

Gradient noise turns the direction as well. Where it has the same variance in every coordinate, it
does what the refreshment of Langevin dynamics does, and the draws are not biased by it, however
strong it is. So the scales s make it equal, and noise is added where it is too weak: with v the
variance of the gradient in a coordinate and r^2 the mean of v,

    s = 1 / (sqrt(v) + r / 10),    added variance of the turn = step_size^2 (1 - s^2 v) / d.

In these units a step of length eps = step_size sqrt(d), with d the number of parameters, turns the
direction by step_size, an angle in radians, so that steps are the smaller the noisier their
gradients. Where gradients have little noise, it is the curvature that limits steps: in warm-up the
energy error E of every fourth step is measured on its minibatch, and the angle is at most that with
a mean of E^2 / d equal to `energy_variance`, as in MCLMC. Every step draws its own minibatch, with
replacement, because the batches of a shuffled epoch cancel each other's noise.

What remains is a bias of the variances of step_size^2 / 12, relative to them, because a gradient
turns the direction less than in proportion to its length (0.3 % at the default), and that of noise
that is correlated between coordinates: directions with more than the average noise have too much
variance, others too little. Refreshment over a shorter `decoherence_length` and larger batches
reduce it, for noise that is added is the same in all directions.

Chains have to be started near regions of high probability, such as from an ensemble, one member per
chain (`warm_start`), for their steps are too small to come from afar. For the first steps of
warm-up they rest and only measure their noise.

References:
    Robnik & Seljak 2024, arXiv:2303.18221 (dynamics); Sommer et al. 2025, arXiv:2502.06335
    (networks). The bias follows from the exact turn of `microcanonical.isokinetic`: an angle a
    keeps 1 / cosh(a) of the direction and answers a force by tanh(a) / a, so that the temperature
    of slow coordinates is (1 + 1 / cosh(a)) / 2 times a / tanh(a).
"""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError
from bnn_symm.formatting import count, number
from bnn_symm.inference.callbacks import FitState
from bnn_symm.inference.fit_context import FitContext
from bnn_symm.inference.mcmc.integrator import MAX_ENERGY_ERROR
from bnn_symm.inference.microcanonical.isokinetic import normalized, turn
from bnn_symm.inference.microcanonical.mclmc_kernel import ROUNDING
from bnn_symm.inference.minibatches import IndependentMinibatches
from bnn_symm.inference.sgmcmc.sampler import SGMCMCStepper
from bnn_symm.inference.sgmcmc.stationary import EvenlySpacedDraws
from bnn_symm.posteriors import Posterior
from bnn_symm.settings import Positive, settings

# Steps at the start, at most half of warm-up, in which the chain rests.
_REST = 50
# The part of r that is added to the standard deviations of gradients.
_DAMPING = 0.1
# The variances are means over this fraction of the steps so far, and over this number at least.
_MEMORY, _LEAST_MEMORY = 0.25, 100
_LEAST_WARMUP = 4
# Every fourth step of warm-up measures its energy error, which costs two more passes.
_MEASURED = 4
# U changes if the halves of this number of rows, or more, differ by more than this number of
# standard errors plus the square root of the number of parameters, the variation of U in the
# posterior.
_LEAST_ROWS, _SURE = 8, 4.0
# The first angle and the smallest one, in units of the step size, and the factor by which a step
# that fails reduces it.
_FIRST_ANGLE, _LEAST_ANGLE, _BACK_OFF = 0.05, 1e-3, 1.5


@settings
class SGMCLMC(EvenlySpacedDraws):
    """Settings of microcanonical dynamics on minibatches (config `inference: {name: sgmclmc}`).

    Attributes:
        step_size: the largest angle by which gradient noise turns the direction in a step, in
            radians.
        energy_variance: the largest variance of the energy error of a step on its minibatch, per
            parameter, to which steps are adapted in warm-up.
        initial_energy_variance: the same when warm-up starts.
        decoherence_length: length of the path over which refreshment alone makes the direction
            forgotten, in units of the scales times the square root of the number of parameters.

    Example:
        >>> SGMCLMC(num_warmup=2000, num_draws=100, thinning=20).num_steps
        4000
    """

    name: Literal["sgmclmc"] = "sgmclmc"
    step_size: Positive = 0.2
    energy_variance: Positive = 0.01
    initial_energy_variance: Positive = 1.0
    decoherence_length: Positive = 10.0

    def check(self, dataset: Dataset) -> None:
        """Check that there is a warm-up, in which the noise of gradients is measured.

        Args:
            dataset: not used.

        Raises:
            ConfigError: if it is too short.
        """
        if self.num_warmup < _LEAST_WARMUP:
            raise ConfigError(
                f"inference.num_warmup is {self.num_warmup}, but sgmclmc measures the noise of "
                f"gradients in warm-up; set at least {_LEAST_WARMUP}, better thousands"
            )

    def convergence_warnings(
        self, fit: FitContext, fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        """Return a message if U still changed while draws were collected.

        Args:
            fit: the arguments of the fit.
            fit_state: its final states and its history.
            posterior: not used.
        """
        rows = [row for row in fit_state.history if row.get("phase") == "sampling"]
        changes = []
        for chain in {row["chain"] for row in rows}:
            values = np.array([row["objective"] for row in rows if row["chain"] == chain])
            parts = np.array_split(values, 2)
            if len(values) >= _LEAST_ROWS:
                error = math.sqrt(sum(part.var(ddof=1) / len(part) for part in parts))
                change = float(parts[1].mean() - parts[0].mean())
                if abs(change) > _SURE * error + math.sqrt(fit.model.num_parameters):
                    changes.append(change)
        if not changes:
            return []
        most = max(changes, key=abs)
        change = f"{'rose' if most > 0 else 'fell'} by {number(abs(most))} nats"
        ensemble = "" if most > 0 else "start from an ensemble with warm_start=[deep_ensemble], or "
        return [
            f"the potential of {count(len(changes), 'chain')} still {change} while draws were "
            f"collected, so they had not reached the posterior; {ensemble}raise "
            f"inference.num_warmup={self.num_warmup}"
        ]

    def _stepper(self, fit: FitContext, start: Tensor, chain: int) -> "MicrocanonicalStepper":
        if fit.model.num_parameters < 2:
            raise ConfigError(
                "sgmclmc needs at least 2 parameters, got 1, because only the direction of its "
                "velocity changes; use sghmc"
            )
        return MicrocanonicalStepper(self, fit, start, chain)


def _weight(learned: int) -> float:
    """Return the weight of a new value in a mean of some earlier ones."""
    return max(1 / (learned + 1), 2 / (max(_LEAST_MEMORY, _MEMORY * learned) + 1))


class MicrocanonicalStepper(SGMCMCStepper):
    """The steps of one chain.

    Args:
        method: the settings of the sampler.
        fit: the arguments of the fit.
        start: (parameter,), initial position.
        chain: index of the chain.
    """

    def __init__(self, method: SGMCLMC, fit: FitContext, start: Tensor, chain: int):
        super().__init__(method, fit, chain)
        self._method = method
        self.minibatches = IndependentMinibatches(fit.dataset.train, self.batch_size, self._seed)
        zeros = torch.zeros_like(start)
        self.tensors = {
            "position": start.detach().clone(),
            "gradient_mean": zeros.clone(),
            "gradient_variance": zeros.clone(),
        }
        # The first angle is small, until the energy error of a step is known.
        rate = method.initial_energy_variance / (_FIRST_ANGLE * method.step_size) ** 6
        self.tensors["energy_rate"] = torch.tensor(rate, dtype=torch.float64, device=start.device)
        self.tensors["direction"] = normalized(self.noise("initial direction")[None])[0]
        self.counts["tuned"] = 0
        self._rest = min(_REST, method.num_warmup // 2)
        self._scale, self._missing = zeros, zeros

    def take(self, step: int) -> dict[str, float]:
        """Take one step if U is finite.

        Args:
            step: its number.

        Returns:
            The terms of U on the minibatch, in the middle of the step, and the `angle` by which the
            gradient turned the direction, in radians.
        """
        position, direction = self.tensors["position"], self.tensors["direction"]
        size, angle = len(position), self.step_size(step)
        learns = self._method.stage(step).phase == "warmup"
        length = angle * math.sqrt(size)
        half = (0.5 * length) * self._scale
        moved = position + half * direction
        gradient, terms = self.potential_gradient(moved, step)
        if gradient is None:
            return self._turn_back(self.potential(position, step)) if learns else terms
        scaled = self._scale * gradient
        time = torch.full((1,), length, dtype=torch.float64, device=position.device)
        turned, kinetic = turn(direction[None], scaled[None], time)
        end = moved + half * turned[0]
        if learns and self._is_moving() and step % _MEASURED == 0:
            start, ends = (self.potential(each, step) for each in (position, end))
            error = ends["objective"] - start["objective"] + float(kinetic)
            if not abs(error) < MAX_ENERGY_ERROR + ROUNDING * abs(start["objective"]):
                return self._turn_back(start)
            self._learn_energy(error, angle)
        noise = self._refreshment(angle) * self.noise("noise", step)
        direction.copy_(normalized(turned + noise)[0])
        position.copy_(end)
        if learns:
            self._learn(gradient)
        return terms | {"angle": length * float(scaled.norm()) / (size - 1)}

    def _is_moving(self) -> bool:
        return self.counts["learned"] >= self._rest

    def _learn_energy(self, error: float, angle: float) -> None:
        """Update the mean of E^2 / (d angle^6), exponentially weighted."""
        rate = self.tensors["energy_rate"]
        new = error**2 / len(self._scale) / angle**6
        rate.lerp_(torch.full_like(rate, new), _weight(self.counts["tuned"]))
        self.counts["tuned"] += 1

    def _turn_back(self, terms: dict[str, float]) -> dict[str, float]:
        """Reverse the direction of a step that fails, and make later steps smaller at once."""
        most = self._method.energy_variance / (_LEAST_ANGLE * self._method.step_size) ** 6
        self.tensors["energy_rate"].mul_(_BACK_OFF**6).clamp_(max=most)
        self.tensors["direction"].neg_()
        return terms | {"angle": 0.0}

    def _refreshment(self, angle: float) -> Tensor:
        """Return the standard deviation of the noise that is added to each coordinate."""
        refreshed = math.expm1(2 * angle / self._method.decoherence_length)
        variance = angle**2 * self._missing + refreshed
        return (variance / len(self._missing)).sqrt()

    def _learn(self, gradient: Tensor) -> None:
        """Update the mean and the variance of the gradient, exponentially weighted."""
        weight = _weight(self.counts["learned"])
        mean, variance = self.tensors["gradient_mean"], self.tensors["gradient_variance"]
        difference = gradient - mean
        mean.add_(difference, alpha=weight)
        variance.add_(difference.square(), alpha=weight).mul_(1 - weight)
        self.counts["learned"] += 1
        self.update_scales()

    def update_scales(self) -> None:
        """Derive the scales from the variances, and the part of the noise that is missing."""
        if not self._is_moving():
            return
        variance = self.tensors["gradient_variance"]
        deviation = variance.sqrt()
        self._scale = 1 / (deviation + _DAMPING * variance.mean().sqrt())
        self._missing = 1 - (self._scale * deviation).square()

    def learning_rate(self, step: int) -> float:
        """Return the step size, which takes the place of a learning rate.

        Args:
            step: its number.
        """
        return self.step_size(step)

    def step_size(self, step: int) -> float:
        """Return the angle of a step.

        Args:
            step: its number.
        """
        method = self._method
        done = min(1.0, step / method.num_warmup)
        target = method.initial_energy_variance ** (1 - done) * method.energy_variance**done
        return min(method.step_size, (target / float(self.tensors["energy_rate"])) ** (1 / 6))

    @property
    def step_settings(self) -> str:
        """Return the step size."""
        return f"inference.step_size (now {self._method.step_size:g})"
