"""The one result type: what every inference method returns and every later layer takes.

A posterior is a distribution over the flat vector of one `BayesianModel`. A `GaussianPosterior` has
a closed form, a `SamplePosterior` holds draws; nobody above asks which one it is. Draws are walked
in chunks, chain by chain, so that memory stays bounded whatever their number. Axes are always
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
from bnn_symm.posteriors.predictive import Predictive
from bnn_symm.symmetry import Permutation

# How many draws `iter_draws` holds at once: at most this many numbers (64 MB in float32).
_NUMBERS_PER_CHUNK = 2**24
# Numbers of outputs a `Predictive` of `iter_predict` may hold (128 MB in float32).
_OUTPUTS_PER_PREDICTIVE = 2**25
# Points of one forward pass, and numbers in its largest input or hidden layer (4 MB in float32):
# what a layer writes the next one finds in the cache, and products are long enough to hide what a
# call costs.
_POINTS_PER_FORWARD = 1280
_NUMBERS_PER_FORWARD = 2**20


class Posterior(ABC):
    """A distribution over the flat vector of a model.

    Attributes:
        model: the model whose flat vector it is about.
        scaling: how targets were standardized; predictions are in the target's own units.
        info: how it was made: method, settings, seed, seconds, gradient_evaluations, status,
            versions.
        history: one row a logged step.
    """

    kind: str

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name in (
            "draws",
            "permute",
        ):  # abstract here, with the same arguments in every kind of posterior
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

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(chain, draw, parameter) of what `iter_draws` walks."""

    @abstractmethod
    def read(self, chain: int, start: int, stop: int) -> Float[Tensor, "draw parameter"]:
        """Return draws [start, stop) of one chain, on any device."""

    @abstractmethod
    def mean(self) -> Float[Tensor, " parameter"]:
        """The posterior mean of the flat vector."""

    @abstractmethod
    def standard_deviation(self) -> Float[Tensor, " parameter"]:
        """The marginal posterior standard deviations of the flat vector."""

    @abstractmethod
    def draws(
        self, num_samples: int | None = None, *, seed: int = 0
    ) -> Float[Tensor, "draw parameter"]:
        """`num_samples` draws (all of them for None), the same for the same seed.

        Raises:
            ConfigError: if a `SamplePosterior` holds fewer.
        """

    @abstractmethod
    def permute(self, permutation: Permutation) -> "Posterior":
        """The posterior of the network with its hidden units permuted: the same function, draw by
        draw.

        Raises:
            NotRepresentable: if the permutation moves what is fixed of the network.
        """

    def iter_draws(self, chunk: int | None = None) -> Iterator[Float[Tensor, "draw parameter"]]:
        """All draws, chain by chain, at most `chunk` of them at a time."""
        chains, draws, parameters = self.shape
        chunk = chunk or max(1, _NUMBERS_PER_CHUNK // parameters)
        for chain in range(chains):
            for start in range(0, draws, chunk):
                yield self.read(chain, start, min(draws, start + chunk)).to(self.model.device)

    @checked
    def predict(self, x: Float[Tensor, "point *feature"]) -> Predictive:
        """The predictive distribution at standardized inputs, holding (chain, draw, point, output).

        For many points use `iter_predict`, which bounds the memory.
        """
        chains, draws, _ = self.shape
        x = x.to(device=self.model.device, dtype=self.model.dtype)
        check_finite("x", x)
        self.model.check_function(x)
        network = _Network(self.model, x)
        parts = x.split(network.points_at_once)
        shape = (chains * draws, len(x), network.num_outputs)
        # NumPy asks the system for large pages, which are several times as fast to touch for the
        # first time.
        outputs = torch.from_numpy(
            np.empty(shape, dtype=torch.empty(0, dtype=x.dtype).numpy().dtype)
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
        )

    def _each_draw(self, latents: list[Tensor]) -> Iterator[Float[Tensor, " parameter"]]:
        """One draw after another; the likelihood's own columns of each chunk are appended to
        `latents`.
        """
        for chunk in self.iter_draws():
            # A copy: a view of these few columns would keep every chunk of draws in memory.
            latents.append(chunk[:, self.model.num_net_parameters :].clone().cpu())
            yield from chunk

    @checked
    def iter_predict(self, x: Float[Tensor, "point *feature"]) -> Iterator[Predictive]:
        """`predict` for consecutive slices of the points, small enough that memory stays
        bounded.
        """
        chains, draws, _ = self.shape
        width = _Network(self.model, x[:1].to(self.model.device, self.model.dtype)).num_outputs
        for part in x.split(max(1, _OUTPUTS_PER_PREDICTIVE // (chains * draws * width))):
            yield self.predict(part)


def check_length(model: BayesianModel, length: int) -> None:
    """Raises IncompatiblePosteriors unless a flat vector of this length is the model's."""
    if length != model.num_parameters:
        raise IncompatiblePosteriors(
            f"the posterior has {length} parameters, the model has {model.num_parameters}"
        )


class _Network:
    """A copy of a model's network whose parameters are pointed at one draw after another.

    A functional call exchanges all parameters and puts them back; for every slice of the inputs
    that would cost as much as a small network does.

    Args:
        model: whose network it is.
        x: points that it will see; one of them is tried.

    Attributes:
        num_outputs: of the network.
        points_at_once: how many points a forward pass takes, by what the layers make of one.
    """

    def __init__(self, model: BayesianModel, x: Float[Tensor, "point *feature"]):
        self._model = model
        self._net = copy.deepcopy(model.net).requires_grad_(False)
        self._parameters = dict(self._net.named_parameters())
        sizes = [1, x[:1].numel()]

        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                sizes.append(output.numel())

        hooks = [module.register_forward_hook(note) for module in self._net.modules()]
        with torch.no_grad():
            self.num_outputs: int = self._net(x[:1]).shape[-1]
        for hook in hooks:
            hook.remove()
        most = max(1, min(_POINTS_PER_FORWARD, _NUMBERS_PER_FORWARD // max(sizes)))
        # Slices of one length, or nearly: a short last one would cost a call for little.
        self.points_at_once = max(1, math.ceil(len(x) / max(1, math.ceil(len(x) / most))))

    def write(
        self,
        flat: Float[Tensor, " parameter"],
        parts: Sequence[Float[Tensor, "_ *feature"]],
        out: Float[Tensor, "point output"],
    ) -> None:
        """Writes the outputs at a draw, which is not copied, for points that come in parts."""
        for name, value in self._model.net_values(self._model.unflatten(flat)).items():
            self._parameters[name].data = value
        values = [self._net(part) for part in parts]
        if out.device == values[0].device:
            torch.cat(values, out=out)
        else:
            out.copy_(torch.cat(values))
