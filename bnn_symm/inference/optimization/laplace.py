"""The Laplace approximation: a normal distribution around a mode, with the curvature there.

    N(w*, P^-1),   P = G / T + prior_weight S^-1,   S: prior covariance

G is the generalized Gauss-Newton curvature of the training split (`curvature`): exact, over all
points, without sampled targets. With all of P it would be the exact tempered posterior of a linear
Gaussian model. `diagonal` uses the diagonal of P, for all parameters. `last_layer` uses all of P
for the last layer of the network, with the layers below fixed at the mode.

Predictions use draws, as for every method, of the network itself, not of its linearization at the
mode. Where P is small in directions that the data do not constrain, a diagonal is wider than the
posterior.

References:
    MacKay 1992, doi:10.1162/neco.1992.4.3.448; Daxberger et al. 2021, arXiv:2106.14806.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from bnn_symm.errors import ConfigError, FitDiverged
from bnn_symm.inference.fit_context import FitContext, FitOutcome, initial_position
from bnn_symm.inference.optimization.curvature import blocks, diagonals, last_layer, prior_precision
from bnn_symm.inference.optimization.map import mode_problem
from bnn_symm.inference.optimization.optimizer import OptimizationMethod, optimize_single_chain
from bnn_symm.models.priors.families import Normal
from bnn_symm.posteriors import GaussianPosterior, Posterior
from bnn_symm.randomness import torch_generator
from bnn_symm.settings import Positive, PositiveInt, settings

# Three copies of a block are held in float64; beyond this number of coordinates they need more than
# 10 GB.
_LARGEST_BLOCK = 20_000


@settings
class LaplaceApproximation(OptimizationMethod):
    """Settings of the Laplace approximation (config `inference: {name: laplace}`).

    Attributes:
        structure: `diagonal`: the diagonal of the curvature of all parameters. `last_layer`: the
            full curvature of the last layer and of the likelihood's own variables; all other
            parameters are fixed at the mode.
        num_draws: draws that represent the posterior in predictions and in files.
    """

    has_independent_draws: ClassVar[bool] = True

    name: Literal["laplace"] = "laplace"
    learning_rate: Positive = 0.003
    structure: Literal["diagonal", "last_layer"] = "diagonal"
    num_draws: PositiveInt = 200

    def _run(self, fit: FitContext) -> bool:
        coordinates = self._coordinates(fit)
        self._check_curvature(fit, coordinates)
        problem = mode_problem(self, fit.model, fit.dataset, fit.seed, 0, initial_position(fit))
        state, stopped = optimize_single_chain(fit, problem)
        if stopped:
            return True
        root = self._precision_root(
            fit, torch.from_numpy(state["position"]).to(coordinates.device), coordinates
        )
        if root is None:
            return True
        curvature = {"coordinates": coordinates.cpu().numpy(), "precision_root": root.cpu().numpy()}
        fit.recorder.keep_state(0, {**state, **curvature})
        return False

    def _coordinates(self, fit: FitContext) -> Tensor:
        """Return the coordinates with a curvature.

        Raises:
            ConfigError: if the prior does not have a curvature everywhere, or there are too many
                for a full block.
        """
        model = fit.model
        if not all(isinstance(block.family, Normal) for block in model.parameter_prior.blocks):
            raise ConfigError(
                "inference.name=laplace needs the curvature of the prior at every weight, which "
                f"only prior.name=normal has; got prior.name={model.prior.name}: set "
                "prior.name=normal, or inference.name=mean_field_vi"
            )
        if self.structure == "diagonal":
            return torch.arange(model.num_parameters, device=model.device)
        coordinates = last_layer(model, fit.dataset.train.x).to(model.device)
        if len(coordinates) > _LARGEST_BLOCK:
            raise ConfigError(
                "inference.structure=last_layer: the last layer has "
                f"{len(coordinates)} parameters, expected at most {_LARGEST_BLOCK}; set "
                "inference.structure=diagonal"
            )
        return coordinates

    def _check_curvature(self, fit: FitContext, coordinates: Tensor) -> None:
        """Check, before the mode is fitted, that the network allows the needed derivatives.

        Raises:
            ConfigError: if it does not.
        """
        try:
            for _ in blocks(
                fit.model,
                fit.model.initial(),
                coordinates[-1:],
                fit.dataset.train.take(slice(0, 2)),
            ):
                pass
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(
                "inference.name=laplace needs derivatives that this network does not support "
                f"({reason[:160]}); set inference.name=swag, or avoid control flow that "
                "depends on values"
            ) from error

    def _precision_root(
        self, fit: FitContext, position: Tensor, coordinates: Tensor
    ) -> Tensor | None:
        """Return the root of P: elementwise for a diagonal, the Cholesky factor for a block.

        It is None if the fit was stopped.
        """
        train = fit.dataset.train
        diagonal = self.structure == "diagonal"
        terms = (
            diagonals(fit.model, position, train)
            if diagonal
            else blocks(fit.model, position, coordinates, train)
        )
        curvature: Tensor | float = 0.0
        for term in terms:
            if fit.callbacks.should_stop():
                return None
            curvature = curvature + term
        prior = self.prior_weight * prior_precision(fit.model, position, coordinates)
        precision = curvature / self.temperature + (prior if diagonal else torch.diag(prior))
        if not bool(torch.isfinite(precision).all()):
            raise FitDiverged(
                "the curvature at the mode is not finite; set dtype=float64, or fit for longer"
            )
        return precision.sqrt() if diagonal else torch.linalg.cholesky(precision)

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        if "precision_root" not in outcome.fit_state.states.get(0, {}):
            # The fit stopped before the curvature was computed: return the current position.
            return outcome.last_positions()
        position, root = outcome.tensor("position"), outcome.tensor("precision_root")
        if self.structure == "diagonal":
            return outcome.build(
                GaussianPosterior,
                loc=position,
                scale=root.reciprocal().to(outcome.model.dtype),
                num_draws=self.num_draws,
                seed=outcome.seed,
            )
        draw = _BlockDraw(position, outcome.tensor("coordinates"), root, outcome.seed)
        return outcome.from_function(draw, self.num_draws)


@dataclass(frozen=True)
class _BlockDraw:
    """Draws that are normal in some coordinates, with given precision, and fixed in the others."""

    position: Tensor
    coordinates: Tensor
    root: Tensor
    seed: int

    def __call__(self, number: int) -> Tensor:
        generator = torch_generator(self.seed, "draw", number)
        noise = torch.randn(len(self.coordinates), 1, generator=generator, dtype=torch.float64).to(
            self.root.device
        )
        step = torch.linalg.solve_triangular(self.root.T, noise, upper=True)[:, 0]
        return self.position.index_add(0, self.coordinates, step.to(self.position.dtype))
