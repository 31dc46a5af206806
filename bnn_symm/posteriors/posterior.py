"""Define `Posterior`, the result type of every inference method and the input of every later layer.

A posterior is a distribution over the flat vector of one `BayesianModel`. A `GaussianPosterior` has
a closed form, a `SamplePosterior` holds draws; later layers treat both alike. Draws are read in
chunks, chain by chain, so that memory stays bounded whatever their number. Axes are always
(chain, draw, point, output).
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from bnn_symm.arguments import check_finite, checked
from bnn_symm.data import Scaling
from bnn_symm.errors import IncompatiblePosteriors
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.lazy_draws import LazyDraws
from bnn_symm.posteriors.predictive import Predictive
from bnn_symm.summaries import Summarized
from bnn_symm.symmetry import Permutation

# Largest number of values of one chunk of `iter_draws` (64 MB in float32).
_NUMBERS_PER_CHUNK = 2**24
# Largest number of outputs of one `Predictive` of `iter_predict` (128 MB in float32).
_OUTPUTS_PER_PREDICTIVE = 2**25
# Largest number of points of one forward pass, and of values in its largest input or hidden layer
# (4 MB in float32): activations stay in the cache, and matrix products are long enough to hide the
# overhead of a call.
_POINTS_PER_FORWARD = 1280
_NUMBERS_PER_FORWARD = 2**20


class Posterior(Summarized, ABC):
    """Represent a distribution over the flat vector of a model.

    Attributes:
        model: the model whose flat vector it describes.
        scaling: how targets were standardized; predictions are in the target's own units.
        info: provenance: method, settings, seed, seconds, gradient_evaluations, status, versions.
        history: one row per logged step.

    Example:
        >>> import torch
        >>> from bnn_symm import BayesianModel, Prior, SamplePosterior
        >>> from bnn_symm.likelihoods import Gaussian
        >>> model = BayesianModel(torch.nn.Linear(2, 1), Prior(), Gaussian(noise=0.1))
        >>> posterior = SamplePosterior.from_draws(model, torch.zeros(2, 5, 3))
        >>> posterior.predict(torch.ones(4, 2)).outputs.shape
        torch.Size([2, 5, 4, 1])
    """

    kind: str

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        # These are abstract here and have the same arguments in every kind of posterior.
        for name in ("draws", "permute"):
            if name in vars(cls):
                setattr(cls, name, checked(vars(cls)[name]))

    def __init__(
        self,
        model: BayesianModel,
        scaling: Scaling,
        *,
        info: Mapping[str, Any] | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ):
        self.model = model
        self.scaling = scaling
        self.info = dict(info or {})
        self.history = list(history)

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        chains, draws, parameters = self.shape
        known = {key: self.info[key] for key in ("method", "status") if key in self.info}
        return known | {"chains": chains, "draws": draws, "parameters": parameters}

    @property
    @abstractmethod
    def positions(self) -> LazyDraws:
        """Return the draws, or those that represent a closed form."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (chain, draw, parameter), the shape of the draws that `iter_draws` yields."""
        return self.positions.shape

    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """Return draws [start, stop) of one chain, as `LazyDraws.read`."""
        return self.positions.read(chain, start, stop)

    @abstractmethod
    def mean(self) -> Float[Tensor, " parameter"]:
        """Return the posterior mean of the flat vector."""

    @abstractmethod
    def standard_deviation(self) -> Float[Tensor, " parameter"]:
        """Return the marginal posterior standard deviations of the flat vector."""

    @abstractmethod
    def draws(
        self, num_samples: int | None = None, *, seed: int = 0
    ) -> Float[Tensor, "draw parameter"]:
        """Return draws of the flat vector, the same for the same seed.

        Args:
            num_samples: number of draws; None for all of them.
            seed: of the selection or of the noise.

        Returns:
            One row per draw.

        Raises:
            ConfigError: if a `SamplePosterior` holds fewer draws, or less than one is requested.
        """

    @abstractmethod
    def permute(self, permutation: Permutation) -> "Posterior":
        """Return the posterior with the network's hidden units permuted: the same functions.

        Args:
            permutation: of the network's spec.

        Returns:
            A posterior whose draws compute the same function, draw by draw.

        Raises:
            NotRepresentable: if the permutation moves fixed entries of the network.
        """

    @property
    def of_weights(self) -> "Posterior":
        """Return the posterior of the weights, whose draws are evaluated by the network itself.

        It is this one, except for a posterior that predicts by a linearized network. Paths between
        weights, such as those of barriers, use it.
        """
        return self

    def evaluation_model(self, model: BayesianModel) -> BayesianModel:
        """Return a model whose outputs at a draw are those with which this posterior predicts.

        Args:
            model: the model of this posterior, or a copy of another type.

        Returns:
            The model itself, unless the posterior predicts by another function.
        """
        return model

    def _evaluator(self, x: Float[Tensor, "point *feature"]) -> "DrawEvaluator":
        """Return what computes the outputs of draws for `predict`."""
        return DrawEvaluator(self.model, x)

    def iter_draws(self, chunk: int | None = None) -> Iterator[Float[Tensor, "draw parameter"]]:
        """Yield all draws, chain by chain.

        Args:
            chunk: largest number of draws per tensor; by default as many as fit in 64 MB.

        Yields:
            Consecutive draws of one chain.
        """
        chains, draws, parameters = self.shape
        chunk = chunk or max(1, _NUMBERS_PER_CHUNK // parameters)
        for chain in range(chains):
            for start in range(0, draws, chunk):
                yield self.read(chain, start, min(draws, start + chunk)).to(self.model.device)

    @checked
    def predict(self, x: Float[Tensor, "point *feature"]) -> Predictive:
        """Return the predictive distribution at standardized inputs.

        It holds outputs of shape (chain, draw, point, output). For many points use `iter_predict`,
        which bounds the memory.

        Args:
            x: inputs.

        Returns:
            The predictive distribution.

        Raises:
            ConfigError: if inputs are not finite or the network refuses them.
        """
        chains, draws, _ = self.shape
        x = self._checked_inputs(x)
        network = self._evaluator(x)
        parts = x.split(network.points_at_once)
        shape = (chains * draws, len(x), network.num_outputs)
        # NumPy requests large pages, whose first access is several times as fast.
        outputs = torch.from_numpy(
            np.empty(shape, dtype=torch.empty(0, dtype=self.model.dtype).numpy().dtype)
        )
        latents = []
        with torch.no_grad():
            for s, flat in enumerate(self._each_draw(latents)):
                network.write(flat, parts, outputs[s])
        names = self.model.likelihood.latents
        latent = torch.cat(latents).unflatten(0, (chains, draws))
        return Predictive(
            outputs=outputs.unflatten(0, (chains, draws)),
            latents={name: latent[..., i] for i, name in enumerate(names)},
            likelihood=self.model.likelihood,
            location=self.scaling.y_mean,
            scale=self.scaling.y_scale,
            units=self.scaling.y_columns,
        )

    def _checked_inputs(self, x: Tensor) -> Tensor:
        """Return inputs on the device of the model, after their checks."""
        x = self.model.inputs(x)
        check_finite("x", x)
        self.model.check_function(x)
        return x

    def _each_draw(self, latents: list[Tensor]) -> Iterator[Float[Tensor, " parameter"]]:
        """Yield one draw after another.

        The likelihood's columns of each chunk are appended to `latents`.
        """
        for chunk in self.iter_draws():
            # A copy, because a view of these few columns would keep every chunk of draws in memory.
            latents.append(chunk[:, self.model.num_net_parameters :].clone().cpu())
            yield from chunk

    @checked
    def iter_predict(self, x: Float[Tensor, "point *feature"]) -> Iterator[Predictive]:
        """Yield `predict` for consecutive slices of the points, which bounds the memory.

        Args:
            x: inputs.

        Yields:
            The predictive distribution of each slice.
        """
        chains, draws, _ = self.shape
        self._checked_inputs(x[:_POINTS_PER_FORWARD])
        width = max(1, self.model.num_outputs)
        for part in x.split(max(1, _OUTPUTS_PER_PREDICTIVE // (chains * draws * width))):
            yield self.predict(part)


def check_length(model: BayesianModel, length: int) -> None:
    """Refuse a flat vector whose length is not the model's.

    Args:
        model: the model.
        length: of the vector.

    Raises:
        IncompatiblePosteriors: if the lengths differ.
    """
    if length != model.num_parameters:
        raise IncompatiblePosteriors(
            f"the posterior has {length} parameters, the model has {model.num_parameters}"
        )


class DrawEvaluator:
    """Run a copy of a model's network at one draw after another.

    A functional call exchanges all parameters and restores them; repeating that for every slice of
    the inputs would cost as much as the pass of a small network.

    Args:
        model: the model.
        x: inputs; one point is used to measure what each further point adds to the layers.

    Attributes:
        num_outputs: of the network.
        points_at_once: number of points per forward pass, derived from the largest layer of one
            point, which is what a second point adds: in a graph network, all but the last linear
            layer have the size of the graph.
    """

    def __init__(self, model: BayesianModel, x: Float[Tensor, "point *feature"]):
        self._model = model
        self._net = copy.deepcopy(model.net).requires_grad_(False)
        self._parameters = dict(self._net.named_parameters())
        sizes: list[int] = []

        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                sizes.append(output.numel())

        hooks = [module.register_forward_hook(record) for module in self._net.modules()]
        with torch.no_grad():
            self.num_outputs: int = self._net(x[:1]).shape[-1]
            of_one = list(sizes)
            self._net(x[:1].repeat_interleave(2, 0))
        for hook in hooks:
            hook.remove()
        # Modules of users may be called more often for two points; the first calls are compared.
        per_point = (two - one for one, two in zip(of_one, sizes[len(of_one) :], strict=False))
        largest = max(1, x[:1].numel(), *per_point)
        limit = max(1, min(_POINTS_PER_FORWARD, _NUMBERS_PER_FORWARD // largest))
        # Slices of nearly equal length: a short last one would waste a call.
        self.points_at_once = max(1, math.ceil(len(x) / max(1, math.ceil(len(x) / limit))))

    def write(
        self,
        flat: Float[Tensor, " parameter"],
        parts: Sequence[Float[Tensor, "_ *feature"]],
        out: Float[Tensor, "point output"],
    ) -> None:
        """Write the outputs at a draw for points that come in parts.

        Args:
            flat: the draw, which is not copied.
            parts: consecutive points.
            out: receives the outputs of all points.
        """
        for name, value in self._model.net_values(self._model.unflatten(flat)).items():
            self._parameters[name].data = value
        values = [self._net(part) for part in parts]
        if out.device == values[0].device:
            torch.cat(values, out=out)
        else:
            out.copy_(torch.cat(values))
