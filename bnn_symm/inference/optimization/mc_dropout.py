"""MC dropout: a posterior over the weights of a network with randomly dropped hidden units.

Its draws are w = theta * k, where k is 0 for all weights that read a dropped unit and 1 / (1 -
rate) for those that read a retained one, independently by unit. theta minimizes the variational
objective

    -E_k[log p(y | x, theta * k)] / T - E_k[log p(theta * k)]

(the entropy of k does not depend on theta), with one k per step for all points of its minibatch. So
a draw is a vector of weights, as for every other method, and the network itself is deterministic.
Dropping a unit's outgoing weights drops the unit, except for constant entries, which stay. Weights
that read inputs of the network, and biases, are never dropped.

`validation_nll` of the history is that of theta itself, with all units, as is usual for dropout.

References:
    Srivastava et al. 2014 (JMLR 15); Gal & Ghahramani 2016, arXiv:1506.02142, sections 3 and 4.
"""

from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from bnn_symm.architectures.layers.dropout import DroppedInputs
from bnn_symm.errors import ConfigError
from bnn_symm.inference.callbacks import FitState
from bnn_symm.inference.fit_context import FitContext, FitOutcome, initial_position
from bnn_symm.inference.optimization.map import ModeMethod, mode_problem
from bnn_symm.inference.optimization.optimality import curve_warnings
from bnn_symm.inference.optimization.optimizer import optimize_single_chain
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import torch_generator
from bnn_symm.settings import Positive, PositiveInt, settings


@settings
class MCDropout(ModeMethod):
    """Settings of MC dropout (config `inference: {name: mc_dropout}`).

    The dropout rate is `architecture.dropout`.

    Attributes:
        num_draws: draws that represent the posterior in predictions and in files.
    """

    has_independent_draws: ClassVar[bool] = True
    drops_units: ClassVar[bool] = True

    name: Literal["mc_dropout"] = "mc_dropout"
    learning_rate: Positive = 0.003
    num_draws: PositiveInt = 200

    def _run(self, fit: FitContext) -> bool:
        drop = _Drop(fit.model, fit.seed, "dropped units of step")
        problem = mode_problem(
            self, self.density(fit), fit.dataset, fit.seed, 0, initial_position(fit), transform=drop
        )
        return optimize_single_chain(fit, problem)[1]

    def _end_warnings(
        self, fit: FitContext, fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        return [
            note
            for note in curve_warnings(self, fit_state.history, fit.model.num_parameters)
            if note
        ]

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        drop = _Drop(outcome.model, outcome.seed, "draw")
        draw = partial(drop, position=outcome.tensor("position"))
        return outcome.from_function(draw, self.num_draws)


class _Drop:
    """The flat vector with randomly dropped units, keyed by a number.

    Raises:
        ConfigError: if no layer of the network has dropout.
    """

    def __init__(self, model: BayesianModel, seed: int, purpose: str):
        self._inputs = DroppedInputs(model.net)
        if len(self._inputs.rates) == 0:
            which = " and stochastic weights" if model.num_fixed_parameters else ""
            raise ConfigError(
                f"inference.name=mc_dropout needs a hidden layer with dropout{which}, got none; "
                "set architecture.dropout=0.1 (mlp, cnn and resnet with hidden layers), or call "
                "drop_inputs on your own layers"
            )
        self._num_latents = len(model.likelihood.latents)
        self._seed, self._purpose = seed, purpose

    def __call__(self, number: int, position: Tensor) -> Tensor:
        """Return the flat vector with the dropped units of a step or a draw."""
        rates = self._inputs.rates
        generator = torch_generator(self._seed, self._purpose, number)
        kept = torch.rand(rates.shape, generator=generator) >= rates
        factors = self._inputs.factors(kept).to(position.dtype)
        return position * torch.cat([factors, factors.new_ones(self._num_latents)])
