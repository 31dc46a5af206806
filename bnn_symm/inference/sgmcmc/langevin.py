"""Langevin dynamics on minibatches: the base class of SGLD, SGHMC and cyclical SGHMC.

The update is the same for all, with U the potential of `sampler` and q the momentum in units in
which it is Normal(0, 1):

    q' = (1 - a) q - h grad U(w) + sqrt(2 (a - b)) noise,     noise ~ Normal(0, 1)
    w' = w + h q',                                            h^2 = T learning_rate s / N

a is the momentum decay, b the noise estimate, s the preconditioner's scale of each coordinate (1
without one). With v = h q and eta = h^2 this is equation 15 of Chen et al. In contrast to v, q
remains correct when the step size changes. a = 1 is SGLD with the step eps = 2 eta:
w' = w - eps / 2 grad U + sqrt(eps) noise.

So `learning_rate` is that of SGD (with momentum 1 - a) on the mean loss T U / N, for every size of
the data and every temperature: T scales the noise, and the prior relative to the likelihood. The
distribution of the draws differs from exp(-U) by terms of the order of the learning rate.

References:
    Welling & Teh 2011 (SGLD); Chen, Fox & Guestrin 2014, arXiv:1402.4102 (SGHMC); Li et al. 2016,
    arXiv:1512.07666 (preconditioning); Wenzel et al. 2020, arXiv:2002.02405 (learning rate, kinetic
    temperature).
"""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference.fit_context import FitContext
from bnn_symm.inference.sgmcmc.preconditioning import RMSprop
from bnn_symm.inference.sgmcmc.sampler import SGMCMCStepper, Stage, StochasticGradientMethod
from bnn_symm.settings import Positive, settings


@dataclass(frozen=True, kw_only=True)
class LangevinStage(Stage):
    """The settings of one step.

    Attributes:
        learning_rate: learning rate of the step.
        momentum_decay: a.
        noise: scale of the noise, sqrt(2 (a - b)); 0 for none.
    """

    learning_rate: float
    momentum_decay: float
    noise: float


@settings
class LangevinMethod(StochasticGradientMethod):
    """Settings of all samplers with a learning rate.

    Attributes:
        learning_rate: learning rate of SGD on the mean loss T U / N, which also determines the
            noise.
        preconditioner: scale steps by the running mean of squared gradients; null for no scaling.
    """

    learning_rate: Positive = 0.01
    preconditioner: RMSprop | None = None

    @abstractmethod
    def stage(self, step: int) -> LangevinStage:
        """Return the settings of a step.

        Args:
            step: counted from 0.
        """

    def _stepper(self, fit: FitContext, start: Tensor, chain: int) -> "LangevinStepper":
        return LangevinStepper(self, fit, start, chain)

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


class LangevinStepper(SGMCMCStepper):
    """The steps of one chain.

    Args:
        method: the settings of the sampler.
        fit: the arguments of the fit.
        start: (parameter,), initial position.
        chain: index of the chain.
    """

    def __init__(self, method: LangevinMethod, fit: FitContext, start: Tensor, chain: int):
        super().__init__(method, fit, chain)
        self._method = method
        self.tensors = {"position": start.detach().clone()}
        self.tensors["momentum"] = self.noise("initial momentum")
        if method.preconditioner is not None:
            self.tensors["mean_square"] = torch.zeros_like(self.tensors["momentum"])
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
        gradient, terms = self.potential_gradient(position, step)
        if gradient is None:
            return terms
        if stage.phase != "sampling" and method.preconditioner is not None:
            mean_loss_gradient = gradient * (method.temperature / size)
            method.preconditioner.learn(self.tensors["mean_square"], mean_loss_gradient)
            self.counts["learned"] += 1
            self.update_scales()
        root = self._scale_root * math.sqrt(method.temperature * stage.learning_rate / size)
        momentum.mul_(1 - stage.momentum_decay).sub_(gradient.mul_(root))
        if stage.noise:
            momentum.add_(self.noise("noise", step), alpha=stage.noise)
        position.add_(momentum * root)
        return terms

    def update_scales(self) -> None:
        """Update the square root of the scales s."""
        if self._method.preconditioner is not None and self.counts["learned"]:
            self._scale_root = self._method.preconditioner.scales(
                self.tensors["mean_square"], self.counts["learned"]
            ).sqrt()

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step.

        Args:
            step: its number.
        """
        return self._method.stage(step).learning_rate

    def step_size(self, step: int) -> float:
        """Return h^2 of a step, without the scales.

        Args:
            step: its number.
        """
        return self._method.temperature * self.learning_rate(step) / self._num_observations

    @property
    def step_settings(self) -> str:
        """Return the learning rate."""
        return f"inference.learning_rate (now {self._method.learning_rate:g})"

    def validate(self, step: int) -> dict[str, float | None]:
        """Return the kinetic temperature, and the validation scores of the current position."""
        decay = self._method.stage(step - 1).momentum_decay
        scores: dict[str, float | None] = {}
        if decay < 1:
            square = float(self.tensors["momentum"].double().square().mean()) * (1 - decay / 2)
            scores["kinetic_temperature"] = self._method.temperature * square
        return scores | super().validate(step)
