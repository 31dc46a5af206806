r"""MC dropout: a posterior over the weights of a network whose hidden units come and go.

Its law is that of w = theta * k, where k is 0 for all weights that read a dropped unit and 1 / (1 -
rate) for those that read a kept one, unit by unit independently. theta minimizes what variational
inference does,

    -E_k[log p(y | x, theta * k)] / T - E_k[log p(theta * k)]

(the entropy of k does not depend on theta), with one k a step for all points of its minibatch. So a
draw is a vector of weights, as of every other method, and the network itself is deterministic.
Dropping a unit's outgoing weights is dropping the unit, but for entries that are fixed, which stay.
Weights that read inputs of the network, and biases, are never dropped.

`validation_nll` of the history is that of theta itself, all units kept, as is usual of dropout.

References:
    Srivastava et al. 2014 (JMLR 15); Gal & Ghahramani 2016, arXiv:1506.02142, sections 3 and 4.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bnn_symm.architectures.layers.dropout import DroppedInputs
from bnn_symm.data import Scaling
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.inference.callbacks import FitState
from bnn_symm.inference.method import FitContext, initial_position
from bnn_symm.inference.optimization.map import mode_problem
from bnn_symm.inference.optimization.optimality import curve_warnings
from bnn_symm.inference.optimization.training_loop import OptimizationMethod, optimize_single_chain
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior, SamplePosterior
from bnn_symm.posteriors.keyed_draws import KeyedDraws
from bnn_symm.randomness import torch_generator
from bnn_symm.settings import Positive, PositiveInt, settings


@settings
class MCDropout(OptimizationMethod):
    """Settings of MC dropout (config `inference: {name: mc_dropout}`); the rate is
    `architecture.dropout`.

    Attributes:
        num_draws: draws that stand for the posterior in predictions and in files.
    """

    has_independent_draws: ClassVar[bool] = True
    drops_units: ClassVar[bool] = True

    name: Literal["mc_dropout"] = "mc_dropout"
    learning_rate: Positive = 0.003
    num_draws: PositiveInt = 200

    def _run(self, fit: FitContext) -> bool:
        drop = _Drop(fit.model, fit.seed, "dropped units of step")
        problem = mode_problem(
            self, fit.model, fit.dataset, fit.seed, 0, initial_position(fit), transform=drop
        )
        return optimize_single_chain(fit, problem)[1]

    def convergence_warnings(
        self, fit: FitContext, fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        """Return whether the objective was still falling, in words; its units come and go, so that
        it has no mode.
        """
        if self.early_stopping is not None:
            return []
        return [
            note
            for note in curve_warnings(self, fit_state.history, fit.model.num_parameters)
            if note
        ]

    def _posterior(
        self,
        model: BayesianModel,
        scaling: Scaling,
        fit_state: FitState,
        seed: int,
        keywords: dict[str, Any],
    ) -> Posterior:
        if 0 not in fit_state.states:
            raise IncompatiblePosteriors(
                "the fit was stopped before its first state was kept; fit it again"
            )
        position = torch.from_numpy(fit_state.states[0]["position"]).to(model.device)
        draw = _Draw(_Drop(model, seed, "draw"), position)
        return SamplePosterior(
            model,
            scaling,
            positions=KeyedDraws(draw, self.num_draws, model.num_parameters),
            **keywords,
        )


class _Drop:
    """The flat vector with units dropped, by a number.

    Raises:
        ConfigError: if no layer of the network drops any.
    """

    def __init__(self, model: BayesianModel, seed: int, purpose: str):
        self._inputs = DroppedInputs(model.net)
        if len(self._inputs.rates) == 0:
            raise ConfigError(
                "inference.name=mc_dropout drops units of hidden layers, and no layer of this "
                "network does; type --set architecture.dropout=0.1 (mlp, cnn and resnet with "
                "hidden layers), or call drop_inputs on layers of your own"
            )
        self._num_latents = len(model.likelihood.latents)
        self._seed, self._purpose = seed, purpose

    def __call__(self, number: int, position: Tensor) -> Tensor:
        """Of a step or a draw."""
        rates = self._inputs.rates
        generator = torch_generator(self._seed, self._purpose, number)
        kept = torch.rand(rates.shape, generator=generator) >= rates
        factors = self._inputs.factors(kept).to(position.dtype)
        return position * torch.cat([factors, factors.new_ones(self._num_latents)])


@dataclass(frozen=True)
class _Draw:
    """Draws by their number."""

    drop: _Drop
    position: Tensor

    def __call__(self, number: int) -> Tensor:
        return self.drop(number, self.position)
