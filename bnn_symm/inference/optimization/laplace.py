r"""The Laplace approximation: a mode, and around it the normal of the curvature there.

    N(w*, P^-1),   P = G / T + prior_weight S^-1,   S: prior covariance

G is the generalized Gauss-Newton curvature of the training part (`curvature`): exact, of all its
points, with no target sampled. With all of P it would be the exact tempered posterior of a linear
Gaussian model. `diagonal` keeps the diagonal of P, for all parameters; `last_layer` keeps all of P
for the layer that the network ends with, with everything below it at the mode.

Predictions are those of draws, as of every method, of the network as it is, not of its
linearization at the mode: where P is small in directions that the data do not see, a diagonal
spreads more than the posterior does.

References:
    MacKay 1992, doi:10.1162/neco.1992.4.3.448; Daxberger et al. 2021, arXiv:2106.14806.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bnn_symm.data import Scaling
from bnn_symm.errors import ConfigError, FitDiverged
from bnn_symm.inference.callbacks import FitState
from bnn_symm.inference.method import FitContext, initial_position
from bnn_symm.inference.optimization.curvature import blocks, diagonals, last_layer, prior_precision
from bnn_symm.inference.optimization.map import mode_problem, posterior_of_states
from bnn_symm.inference.optimization.optimality import mode_warnings
from bnn_symm.inference.optimization.training_loop import OptimizationMethod, optimize_single_chain
from bnn_symm.models import BayesianModel
from bnn_symm.models.priors.families import Normal
from bnn_symm.posteriors import GaussianPosterior, Posterior, SamplePosterior
from bnn_symm.posteriors.keyed_draws import KeyedDraws
from bnn_symm.randomness import torch_generator
from bnn_symm.settings import Positive, PositiveInt, settings

# A block is held three times over in float64; beyond this number of coordinates that is more than
# 10 GB.
_LARGEST_BLOCK = 20_000


@settings
class LaplaceApproximation(OptimizationMethod):
    """Settings of the Laplace approximation (config `inference: {name: laplace}`).

    Attributes:
        structure: `diagonal`: of the curvature of all parameters. `last_layer`: all of it, for the
            parameters of the layer that a forward pass ends with and the likelihood's own
            variables; the rest stays at the mode.
        num_draws: draws that stand for the posterior in predictions and in files.
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
        found = {"coordinates": coordinates.cpu().numpy(), "precision_root": root.cpu().numpy()}
        fit.recorder.keep_state(0, {**state, **found})
        return False

    def _coordinates(self, fit: FitContext) -> Tensor:
        """Those with a curvature.

        Raises:
            ConfigError: if the prior has no curvature everywhere, or there are too many for a full
                block.
        """
        model = fit.model
        if not all(isinstance(block.family, Normal) for block in model.parameter_prior.blocks):
            raise ConfigError(
                "inference.name=laplace needs the curvature of the prior at every weight, which "
                "only prior.name=normal "
                f"has; got prior.name={model.prior.name}: type --set prior.name=normal, or "
                "inference.name=mean_field_vi"
            )
        if self.structure == "diagonal":
            return torch.arange(model.num_parameters, device=model.device)
        found = last_layer(model, fit.dataset.train.x).to(model.device)
        if len(found) > _LARGEST_BLOCK:
            raise ConfigError(
                f"inference.structure=last_layer: the last layer has {len(found)} parameters, and "
                "a covariance of at "
                f"most {_LARGEST_BLOCK} is kept; type --set inference.structure=diagonal"
            )
        return found

    def _check_curvature(self, fit: FitContext, coordinates: Tensor) -> None:
        """Raises ConfigError, before the mode is fitted, for a network whose curvature cannot be
        had.
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
                "inference.name=laplace needs derivatives that this network does not allow "
                f"({reason[:160]}); type --set inference.name=swag, or write the network without "
                "looking at values"
            ) from error

    def _precision_root(
        self, fit: FitContext, position: Tensor, coordinates: Tensor
    ) -> Tensor | None:
        """The root of P: of a diagonal elementwise, of a block its Cholesky factor; None if stopped
        on the way.
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
                "the curvature at the mode is not finite; type --set dtype=float64, or fit for "
                "longer"
            )
        return precision.sqrt() if diagonal else torch.linalg.cholesky(precision)

    def convergence_warnings(
        self, fit: FitContext, fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        """Return whether it ended far from the mode, in words."""
        if self.early_stopping is not None:
            return []
        positions = {chain: state["position"] for chain, state in fit_state.states.items()}
        return mode_warnings(self, fit, fit_state.history, positions)

    def _posterior(
        self,
        model: BayesianModel,
        scaling: Scaling,
        fit_state: FitState,
        seed: int,
        keywords: dict[str, Any],
    ) -> Posterior:
        state = fit_state.states.get(0, {})
        if "precision_root" not in state:
            # Stopped before the curvature was known: the mode, as far as it was reached.
            return posterior_of_states(model, scaling, fit_state.states, keywords)
        position = torch.from_numpy(state["position"]).to(model.device)
        root = torch.from_numpy(state["precision_root"]).to(model.device)
        if self.structure == "diagonal":
            scale = root.reciprocal().to(model.dtype)
            return GaussianPosterior(
                model,
                scaling,
                loc=position,
                scale=scale,
                num_draws=self.num_draws,
                seed=seed,
                **keywords,
            )
        draw = _BlockDraw(
            position, torch.from_numpy(state["coordinates"]).to(model.device), root, seed
        )
        positions = KeyedDraws(draw, self.num_draws, model.num_parameters)
        return SamplePosterior(model, scaling, positions=positions, **keywords)


@dataclass(frozen=True)
class _BlockDraw:
    """A draw that is normal in some coordinates, with the Cholesky factor of their precision, and
    fixed in the rest.
    """

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
