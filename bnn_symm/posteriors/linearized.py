"""Define posteriors whose predictions are those of a network linearized at a mode.

    outputs(x, w) = f(x, w*) + J(x) (w - w*),   J = df / dw at the mode w*

for every draw w, by one Jacobian-vector product in forward mode. The draws are those of another
posterior, the base; latent variables of the likelihood are used as drawn. This is the posterior of
a generalized linear model, of which the Gauss-Newton curvature at w* is the exact one.

Reference:
    Immer, Korzepa and Bauer 2021, arXiv:2008.08704.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.arguments import checked
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.lazy_draws import LazyDraws
from bnn_symm.posteriors.posterior import DrawEvaluator, Posterior, check_length
from bnn_symm.symmetry import Permutation


class LinearizedPosterior(Posterior):
    """Represent draws of weights that are evaluated by the network linearized at a mode.

    Args:
        base: the posterior that has the draws. Its `predict` evaluates the network itself.
        mode: (parameter,), where the network is linearized.

    Raises:
        IncompatiblePosteriors: if the length of the mode is not the model's, or it is not finite.

    Attributes:
        base: the posterior that has the draws.
        mode: where the network is linearized.

    Example:
        >>> import torch
        >>> from bnn_symm import BayesianModel, Prior, SamplePosterior
        >>> from bnn_symm.likelihoods import Gaussian
        >>> model = BayesianModel(torch.nn.Linear(2, 1), Prior(), Gaussian(noise=0.1))
        >>> base = SamplePosterior.from_draws(model, torch.zeros(2, 5, 3))
        >>> LinearizedPosterior(base, torch.ones(3)).predict(torch.ones(4, 2)).outputs.shape
        torch.Size([2, 5, 4, 1])
    """

    @checked
    def __init__(self, base: Posterior, mode: Float[Tensor, " parameter"]):
        super().__init__(base.model, base.scaling, info=base.info, history=base.history)
        check_length(base.model, len(mode))
        if not bool(torch.isfinite(mode).all()):
            raise IncompatiblePosteriors("the mode of a linearized posterior must be finite")
        self.kind = base.kind
        self.base = base
        self.mode = mode.to(base.model.device, base.model.dtype)

    @property
    def positions(self) -> LazyDraws:
        """Return the draws of the base."""
        return self.base.positions

    @property
    def of_weights(self) -> Posterior:
        """Return the base, whose draws are evaluated by the network itself."""
        return self.base

    def mean(self) -> Float[Tensor, " parameter"]:
        """Return the mean of the base."""
        return self.base.mean()

    def standard_deviation(self) -> Float[Tensor, " parameter"]:
        """Return the standard deviations of the base."""
        return self.base.standard_deviation()

    def draws(
        self, num_samples: int | None = None, *, seed: int = 0
    ) -> Float[Tensor, "draw parameter"]:
        """Return draws of the base."""
        return self.base.draws(num_samples, seed=seed)

    def permute(self, permutation: Permutation) -> "LinearizedPosterior":
        """Return the posterior with draws and mode permuted: the same linearized functions."""
        return LinearizedPosterior(
            self.base.permute(permutation), self.model.permute(self.mode, permutation)
        )

    def evaluation_model(self, model: BayesianModel) -> BayesianModel:
        """Return the model with its network linearized at the mode."""
        return _LinearizedModel(model, self.mode)

    def _evaluator(self, x: Float[Tensor, "point *feature"]) -> DrawEvaluator:
        """Return what computes the outputs of the linearized network."""
        return _LinearizedEvaluator(self, x)


class _LinearizedEvaluator(DrawEvaluator):
    """Run the linearized network at one draw after another."""

    def __init__(self, posterior: LinearizedPosterior, x: Float[Tensor, "point *feature"]):
        super().__init__(posterior.model, x)
        self._linearized = posterior.evaluation_model(posterior.model)

    def write(
        self,
        flat: Float[Tensor, " parameter"],
        parts: Sequence[Float[Tensor, "_ *feature"]],
        out: Float[Tensor, "point output"],
    ) -> None:
        """Write the outputs at a draw for points that come in parts, as `DrawEvaluator.write`."""
        out.copy_(torch.cat([self._linearized.outputs(flat, part) for part in parts]))


class _LinearizedModel(BayesianModel):
    """A model whose outputs are those of the network linearized at a mode."""

    def __init__(self, model: BayesianModel, mode: Tensor):
        # The same network and prior: nothing is checked or copied again.
        vars(self).update(vars(copy.copy(model)))
        self._model = model
        self._mode = mode.detach().to(model.device, model.dtype)

    def outputs(
        self, flat: Float[Tensor, " parameter"], x: Float[Tensor, "point *feature"]
    ) -> Float[Tensor, "point output"]:
        """Return the outputs of the linearized network at one flat vector.

        Args:
            flat: the flat vector.
            x: inputs.

        Returns:
            The outputs of every point.
        """
        # The type of the result has a third member, which only `has_aux` returns.
        products: Any = torch.func.jvp(
            lambda values: self._model.outputs(values, x), (self._mode,), (flat - self._mode,)
        )
        at_mode, change = products
        return at_mode + change


def check_linearizable(model: BayesianModel, x: Float[Tensor, "point *feature"]) -> None:
    """Refuse a network that has no Jacobian-vector products.

    Args:
        model: the model.
        x: points.

    Raises:
        ConfigError: if it has none; the message has torch's reason.
    """
    start = model.initial()
    try:
        _LinearizedModel(model, start).outputs(start, x)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            "inference.predictive=linearized needs forward-mode derivatives, which this network "
            f"does not support ({reason[:160]}); set inference.predictive=sampled"
        ) from error
