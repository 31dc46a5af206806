"""Microcanonical Langevin Monte Carlo, unadjusted or with a Metropolis test.

A chain moves with constant speed along a path that bends towards high density, and forgets its
direction over a decoherence length. There is no momentum to resample and no proposal to reject, so
a chain moves further per gradient than one of HMC: for deep networks it is the method with the best
predictions per second (`benchmarks/deep_regression.py`). It is best started from an ensemble, one
member per chain (`warm_start`; Sommer et al. 2025 call this microcanonical Langevin ensembles).

The unadjusted sampler is biased, because its steps change the energy. The bias of variances grows
with `energy_variance`; `adjusted` removes it, at several times the cost per effective draw.

References:
    Robnik, De Luca, Silverstein & Seljak 2023, arXiv:2212.08549; Robnik, Cohn-Gordon & Seljak 2025,
    arXiv:2503.01707; Sommer et al. 2025, arXiv:2502.06335.
"""

import math
from typing import ClassVar, Literal

from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError
from bnn_symm.formatting import number
from bnn_symm.inference.callbacks import FitState
from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.fit_context import FitContext
from bnn_symm.inference.mcmc.batched_chains import run_batched
from bnn_symm.inference.mcmc.sampler import Sampler
from bnn_symm.inference.microcanonical.mclmc_kernel import MCLMCKernel, PathSettings
from bnn_symm.posteriors import Posterior, SamplePosterior
from bnn_symm.settings import Fraction, Positive, PositiveInt, settings

# The energy variance of the draws is reported above this value and above this multiple of the
# target: the bias depends on the variance itself, not on how far it is from a small target.
_MOST_VARIANCE, _MOST_EXCESS = 0.04, 4.0


@settings
class MCLMC(Sampler):
    """Settings of MCLMC (config `inference: {name: mclmc}`).

    Lengths and step sizes are in units of the scales (`adapt_mass_matrix`) times the square root of
    the number of parameters, so that they have the size of those of HMC.

    Attributes:
        num_chains: number of chains.
        num_warmup: draws of warm-up, which adapt step sizes and scales.
        num_draws: draws per chain.
        steps_per_draw: steps from one draw of an unadjusted chain to the next, of two gradients
            each.
        energy_variance: target of the variance of the energy error of a step, per parameter, when
            warm-up ends; smaller is less biased and slower. With 0.01 predictions of a network with
            little noise were spread 1.4 times too widely, with the default 1.07 times.
        initial_energy_variance: the same when warm-up starts.
        decoherence_length: length of the path over which the direction is forgotten.
        adjusted: whether paths are accepted or rejected by a Metropolis test.
        target_accept_prob: acceptance probability to which adjusted step sizes are adapted.
        trajectory_length: length of an adjusted path.
        max_num_steps: maximum steps of an adjusted path; in warm-up at most 50.
        adapt_mass_matrix: whether warm-up estimates the scale of each parameter. Deep networks were
            explored faster with equal scales (`benchmarks/deep_regression.py`).
        mass_matrix: `diagonal` or `auto`, which is diagonal.
        adaptation: `per_chain`, because chains that start in different modes have different scales,
            or `shared`.
    """

    name: Literal["mclmc"] = "mclmc"
    num_chains: PositiveInt = 10
    steps_per_draw: PositiveInt = 10
    energy_variance: Positive = 0.0005
    initial_energy_variance: Positive = 1.0
    decoherence_length: Positive = 1.0
    adjusted: bool = False
    target_accept_prob: Fraction = 0.9
    trajectory_length: Positive = math.pi / 2
    max_num_steps: PositiveInt = 1000
    adapt_mass_matrix: bool = False
    adaptation: Literal["shared", "per_chain"] = "per_chain"

    finds_first_step_size: ClassVar[bool] = False

    def check(self, dataset: Dataset) -> None:
        """Check that the mass matrix is diagonal, and that a test of the gain is possible.

        Args:
            dataset: the data to fit.

        Raises:
            ConfigError: if they are not.
        """
        super().check(dataset)
        if self.mass_matrix == "dense":
            raise ConfigError(
                "inference.mass_matrix of mclmc must be diagonal or auto, got dense; use nuts or "
                "hmc for a dense one"
            )

    def is_dense(self, num_parameters: int) -> bool:
        """Return False: there is one scale per parameter.

        Args:
            num_parameters: not used.
        """
        return False

    def adapts_to_acceptance(self) -> bool:
        """Return whether step sizes are adapted to acceptance probabilities."""
        return self.adapt_step_size and self.adjusted

    def convergence_warnings(
        self, fit: FitContext, fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        """Return a message if the energy variance of unadjusted draws is far above its target.

        Args:
            fit: the arguments of the fit.
            fit_state: its final states and its history.
            posterior: its result.
        """
        if self.adjusted or not self.adapt_step_size or not isinstance(posterior, SamplePosterior):
            return []
        variances = posterior.sample_stats.get("energy_variance")
        if variances is None:
            return []
        reached = float(variances.mean())
        if reached <= max(_MOST_VARIANCE, _MOST_EXCESS * self.energy_variance):
            return []
        return [
            f"the energy variance is {number(reached)} per parameter, "
            f"{number(reached / self.energy_variance)} times its target, so the draws are spread "
            f"too widely; raise inference.num_warmup={self.num_warmup}"
        ]

    def _run(self, fit: FitContext) -> bool:
        if fit.model.num_parameters < 2:
            raise ConfigError(
                "mclmc needs at least 2 parameters, got 1, because only the direction of its "
                "velocity changes; use nuts"
            )
        return run_batched(self, fit)

    def _batched_kernel(
        self, density: TemperedDensity, positions: Tensor, inverse_mass: Tensor, seed: int
    ) -> MCLMCKernel:
        return MCLMCKernel(
            density,
            positions,
            inverse_mass,
            seed,
            settings=PathSettings(
                num_warmup=self.num_warmup,
                steps_per_draw=self.steps_per_draw,
                adapt_step_size=self.adapt_step_size,
                shared=self.adaptation == "shared",
                first_variance=self.initial_energy_variance,
                last_variance=self.energy_variance,
                decoherence_length=self.decoherence_length,
                adjusted=self.adjusted,
                path_length=self.trajectory_length,
                max_num_steps=self.max_num_steps,
            ),
            initial_step_size=self.initial_step_size,
        )
